//! The output on a terminal: colours, the live line, bars.

use std::{
    fs,
    io::Read,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use crate::{
    sandbox::{Finished, Sandbox, eventually},
    server::{Reply, Server},
};

/// A command line as a shell reads it.
fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| format!("'{}'", word.to_str().unwrap())).collect::<Vec<_>>().join(" ")
}

/// A program on a terminal with a number of columns, and its output so far.
struct Terminal {
    child: Child,
    drawn: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn start(columns: u16, command: &Command) -> Self {
        let script = format!("stty cols {columns} && exec {}", line(command));
        let mut terminal = Command::new("script");
        let _ = terminal.args(["-qefc", &script, "/dev/null"]).env_remove("NO_COLOR").env("TERM", "xterm");
        let mut child = terminal.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("script");
        let drawn = Arc::<Mutex<Vec<u8>>>::default();
        let (mut output, shared) = (child.stdout.take().unwrap(), drawn.clone());
        drop(std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read) = output.read(&mut buffer)
                && read > 0
            {
                shared.lock().unwrap().extend(&buffer[..read]);
            }
        }));
        Self { child, drawn }
    }

    fn drawn(&self) -> String {
        String::from_utf8_lossy(&self.drawn.lock().unwrap()).into_owned()
    }

    #[track_caller]
    fn shows(&self, words: &str) {
        eventually(words, || self.drawn().contains(words));
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_live_line_says_which_step_does_what() {
    let sandbox = Sandbox::new();
    let (ready, go) = (sandbox.at("ready"), sandbox.at("go"));
    let script = format!(": {{}}; echo NRestarts=0; touch {ready}; while [ ! -e {go} ]; do sleep 0.05; done");
    let manifest = sandbox.write("steps.toml", format!(
        "[[step]]\nname = \"one\"\n[[step]]\nname = \"two\"\n[[step.resource]]\nkind = \"file\"\npath = \"{}\"\ncontent = \"\"\nvalidate = [\"sh\", \"-c\", '{script}']\n",
        sandbox.at("f")
    ));
    for columns in [60, 120] {
        let _ = fs::remove_file(&go);
        let _ = fs::remove_file(sandbox.at("f"));
        let mut terminal = Terminal::start(columns, &sandbox.command(&["run", "--steps", &manifest]));
        terminal.shows("step 2/2 two: file /");
        eventually("the validator runs", || fs::exists(&ready).unwrap());
        fs::write(&go, "").unwrap();
        assert!(terminal.child.wait().unwrap().success());
        terminal.shows("converged: 1 change");
        assert!(!terminal.drawn().contains("NRestarts"), "{}", terminal.drawn());
        fs::remove_file(&ready).unwrap();
    }
}

#[test]
fn a_narrow_terminal_shows_whole_names_of_downloads() {
    let sandbox = Sandbox::new();
    let name = "a-name-of-thirty-six-characters-1.jar";
    let (go, wait) = (sandbox.at("go"), sandbox.at("go"));
    let server = Server::start(move |_| {
        let wait = wait.clone();
        let rest = std::iter::once_with(move || {
            eventually("the test has seen the bar", || fs::exists(&wait).unwrap());
            vec![b'x'; 1000]
        });
        Reply { length: 2000, parts: Box::new(std::iter::once(vec![b'x'; 1000]).chain(rest)), ..Reply::ok("") }
    });
    let mut terminal =
        Terminal::start(60, &sandbox.command(&["fetch", &server.url(&format!("/{name}")), "-o", &sandbox.at("to")]));
    terminal.shows(name);
    assert!(!fs::exists(&go).unwrap());
    fs::write(&go, "").unwrap();
    assert!(terminal.child.wait().unwrap().success());
}

#[test]
fn colours_are_as_the_environment_and_the_option_say() {
    let sandbox = Sandbox::new();
    let manifest = sandbox
        .manifest(&format!("[[resource]]\nkind = \"link\"\npath = \"{}\"\ntarget = \"there\"\n", sandbox.at("link")));
    let plan = |terminal: bool, colour: &[&str], environment: &[(&str, &str)]| {
        let command = sandbox.command(&[&["plan", "--steps", &manifest], colour].concat());
        let mut shell = if terminal { Command::new("script") } else { Command::new("sh") };
        let flags = if terminal { "-qefc" } else { "-c" };
        let _ = shell.args([flags, &line(&command)]).env_remove("NO_COLOR").env("TERM", "xterm");
        if terminal {
            let _ = shell.arg("/dev/null");
        }
        let output = shell.envs(environment.iter().copied()).stdin(Stdio::null()).output().unwrap();
        Finished::from(output).expect(0).says("1 change pending").stdout
    };
    for (terminal, colour, environment, has_colours, is_live) in [
        (true, &[][..], &[][..], true, true),
        (true, &[], &[("NO_COLOR", "1")], false, true),
        (true, &[], &[("NO_COLOR", "")], true, true),
        (true, &[], &[("TERM", "dumb")], false, false),
        (true, &["--color", "never"], &[], false, true),
        (true, &["--color=auto"], &[], true, true),
        (false, &[], &[], false, false),
        (false, &["--color", "always"], &[("NO_COLOR", "1")], true, false),
    ] {
        let text = plan(terminal, colour, environment);
        let case = format!("terminal: {terminal}, {colour:?}, {environment:?}: {text:?}");
        assert_eq!(text.contains("\x1b[32m+"), has_colours, "{case}");
        assert_eq!(text.contains("\x1b[2K") || text.contains("\x1b[1A"), is_live, "{case}");
    }
}

#[test]
fn a_program_run_as_another_user_has_no_terminal() {
    let sandbox = Sandbox::new();
    let home = sandbox.at("home");
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(65534), Some(65534)).unwrap();
    // With root's terminal, it could type commands into it (TIOCSTI).
    let script = ": {}; if ( : < /dev/tty ) 2>/dev/null; then echo there is a terminal; exit 1; fi";
    let manifest = sandbox.manifest(&format!(
        "[[resource]]\nkind = \"file\"\npath = \"{home}/f\"\nowner = \"nobody\"\ncontent = \"\"\nvalidate = [\"sh\", \"-c\", '{script}']\n"
    ));
    let mut terminal = Terminal::start(100, &sandbox.command(&["run", "--steps", &manifest]));
    let is_converged = terminal.child.wait().unwrap().success();
    assert!(is_converged, "{}", terminal.drawn());
}

#[test]
fn a_warning_leaves_no_piece_of_the_live_line() {
    let sandbox = Sandbox::new();
    let server = Server::start(|_| Reply::new(200, "jar"));
    let manifest = sandbox.manifest(&format!(
        "[[resource]]\nkind = \"file\"\npath = \"{}\"\nsource = \"{}\"\nverify = \"none\"\n",
        sandbox.at("f"),
        server.url("/x")
    ));
    let mut terminal = Terminal::start(100, &sandbox.command(&["run", "--steps", &manifest]));
    assert!(terminal.child.wait().unwrap().success());
    terminal.shows("converged: 1 change");
    let drawn = terminal.drawn();
    let (before, _) = drawn.split_once("the downloaded content is not verified").unwrap();
    let line = before.rsplit(['\n', '\r']).next().unwrap();
    let left = line.rsplit("\x1b[2K").next().unwrap();
    assert!(!left.contains("step 1/1"), "{drawn}");
}
