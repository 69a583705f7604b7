//! Secrets: files declared as secret, and values of variables from a file. They are in no output, no report, no image.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
};

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{
    sandbox::{Finished, Sandbox, eventually},
    server::{Reply, Server},
    standin::Machine,
};

/// Its parts are in no number, time, digest or path by chance.
const CANARY: &str = "canary/zq7x+&pass word";

/// The secret itself and the forms in which programs print one.
fn forms() -> Vec<String> {
    vec![
        "canary".into(),
        "zq7x".into(),
        BASE64_STANDARD.encode(CANARY),
        BASE64_STANDARD.encode(format!("user:{CANARY}")).trim_end_matches('=')[8..30].to_owned(),
        "%2Fzq7x%2B%26pass".into(),
    ]
}

#[track_caller]
fn is_clean(what: &str, text: &str) {
    for form in forms() {
        assert!(!text.contains(&form), "{form} in {what}:\n{text}");
    }
}

/// A sandbox with a file of variables, which sets `password`, `pin` and `quoted`.
fn sandbox() -> (Sandbox, String) {
    let sandbox = Sandbox::new();
    let variables = sandbox.write("secrets.toml", format!("password = \"{CANARY}\"\npin = \"zq7x\"\n"));
    fs::set_permissions(&variables, fs::Permissions::from_mode(0o600)).unwrap();
    (sandbox, variables)
}

/// Runs a command with a one-step manifest of these resources and the file of variables.
fn run(sandbox: &Sandbox, command: &[&str], variables: &str, resources: &str) -> Finished {
    let manifest = sandbox.manifest(resources);
    sandbox.run(&[command, &["--steps", &manifest, "--variables", variables]].concat())
}

#[test]
fn of_a_secrets_validator_only_its_exit_code_is_told() {
    let (sandbox, variables) = sandbox();
    let path = sandbox.at("secret");
    for (script, timeout, code, words) in [
        ("cat {}; cat {} >&2; exit 3", "1h", 1, "exit code 3; its output is not shown, because the file is a secret"),
        ("cat {}; kill -9 $$", "1h", 1, "signal 9; its output is not shown"),
        ("cat {}; cat {} >&2; sleep 1000", "500ms", 75, "timed out after 500 ms"),
    ] {
        let file = format!(
            "[[resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = \"password={{{{ password }}}}\\n\"\nsecret = true\n\
             validate = [\"sh\", \"-c\", ': {{{{ password }}}}; {script}']\ntimeout = \"{timeout}\"\n"
        );
        let finished = run(&sandbox, &["--verbose", "run"], &variables, &file).expect(code).says(words);
        is_clean("the output", &(finished.stdout + &finished.stderr));
        is_clean("the report", &sandbox.report().to_string());
        is_clean("the status", &sandbox.run(&["status"]).stdout);
        assert!(!fs::exists(&path).unwrap());
    }
}

#[test]
fn a_plan_shows_the_names_of_variables_that_a_file_gives() {
    let (sandbox, variables) = sandbox();
    let path = sandbox.write("site", "user=old\npassword=former-canary\nplain=1\n");
    let _ = sandbox.write("template", "user={{ name }}\npassword={{ password }}\npin={{ pin }}\nplain=2\n");
    let (content, source) = (
        "content = \"user={{ name }}\\npassword={{ password }}\\npin={{ pin }}\\nplain=2\\n\"".to_owned(),
        format!("source = \"file://{}\"\ntemplate = true", sandbox.at("template")),
    );
    for bytes in [content, source] {
        let file = format!("[[resource]]\nkind = \"file\"\npath = \"{path}\"\n{bytes}\n");
        for flags in [&["plan"][..], &["plan", "--json"]] {
            let arguments = [flags, &["--set", "name=shown"]].concat();
            let plan = run(&sandbox, &arguments, &variables, &file).expect(0);
            is_clean("the plan", &(plan.stdout.clone() + &plan.stderr));
            let _ = plan.says("+password={{ password }}").says("+pin={{ pin }}").says("+plain=2").says("+user=shown");
        }
    }
    // If only a value differs, the diff shows neither value.
    let _ = sandbox.write("site", "pin=0000\n");
    let file = format!("[[resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = \"pin={{{{ pin }}}}\\n\"\n");
    let plan = run(&sandbox, &["plan"], &variables, &file).expect(0).says("write new content");
    assert!(!plan.stdout.contains("0000"), "{plan:?}");
    is_clean("the plan", &plan.stdout);
}

#[test]
fn no_error_shows_the_value_of_a_variable_that_a_file_gives() {
    let (sandbox, variables) = sandbox();
    let file = |fields: &str| format!("[[resource]]\nkind = \"file\"\npath = \"{}\"\n{fields}\n", sandbox.at("x"));
    let server = Server::start(|_| Reply::new(404, ""));
    let source = file(&format!("source = \"{}\"\nverify = \"none\"", server.url("/{{ password }}/x")));
    for (code, resources) in [
        (1, source),
        (1, file("content = \"\"\nvalidate = [\"sh\", \"-c\", 'echo {} \"{{ password }}\"; exit 1']")),
        (2, file("content = \"\"\nmode = \"{{ password }}\"")),
        (2, file("content = \"\"\nowner = \"{{ password }}\"")),
    ] {
        let finished = run(&sandbox, &["run"], &variables, &resources).expect(code);
        is_clean("the output", &(finished.stdout + &finished.stderr));
        if code != 2 {
            is_clean("the report", &sandbox.report().to_string());
        }
    }
}

#[test]
fn a_fault_in_a_file_of_variables_is_told_without_its_line() {
    let (sandbox, variables) = sandbox();
    for wrong in [format!("password = \"{CANARY}\npin = 1\n"), format!("Password = \"{CANARY}\"\n")] {
        let _ = sandbox.write("secrets.toml", wrong);
        let file = format!("[[resource]]\nkind = \"file\"\npath = \"{}\"\ncontent = \"\"\n", sandbox.at("x"));
        let finished = run(&sandbox, &["run"], &variables, &file).expect(2).says("secrets.toml:1:");
        is_clean("the output", &(finished.stdout + &finished.stderr));
    }
}

#[test]
fn a_secret_file_is_left_to_the_boot_while_an_image_is_made() {
    let (sandbox, variables) = sandbox();
    let tree = sandbox.at("tree");
    for directory in ["etc", "srv", "var/lib"] {
        fs::create_dir_all(sandbox.path.join("tree").join(directory)).unwrap();
    }
    let file = |path: &str, rest: &str| format!("[[resource]]\nkind = \"file\"\npath = \"{path}\"\n{rest}\n");
    let resources = file("/srv/secret", "content = \"{{ password }}\"\nsecret = true")
        + &file("/srv/from", "source = \"http://127.0.0.1:1/x\"\nverify = \"none\"\nsecret = true")
        + &file("/srv/boot", "content = \"\"\nsecret = true\nphase = \"boot\"")
        + &file("/srv/id", "content = \"{{ instance.id }}\"\nsecret = true")
        + &file("/srv/plain", "content = \"\"");
    let bake =
        |arguments: &[&str]| run(&sandbox, &[&["bake", "--root", &tree], arguments].concat(), &variables, &resources);
    let left = "  - file /srv/secret: ensure at boot (deferred: a secret does not go into an image)\n";
    let _ = bake(&["--seal"]).expect(0).says("converged: 1 change, 4 deferred").says(left).says("sealed");
    let names: Vec<_> = fs::read_dir(sandbox.path.join("tree/srv")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["plain"]);
    for path in ["/srv/secret", "/srv/boot", "/srv/id"] {
        let _ = sandbox.write(&format!("tree{path}"), "anything");
        let refused = bake(&["--seal", "--allow", path]).expect(1).says("the image would hold 1 credential");
        let _ = refused.says(&format!("  ! {path}:1: a secret, as the manifest declares it"));
        fs::remove_file(format!("{tree}{path}")).unwrap();
    }
    let _ = bake(&["--seal"]).expect(0).says("sealed");
}

#[test]
fn a_secret_file_is_private_from_its_first_byte_on() {
    let (sandbox, variables) = sandbox();
    let (path, modes) = (sandbox.at("secret"), sandbox.at("modes"));
    let file = format!(
        "[[resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = \"{{{{ password }}}}\"\nsecret = true\n\
         validate = [\"sh\", \"-c\", 'stat -c %a {{}} > {modes}']\n"
    );
    let _ = run(&sandbox, &["run"], &variables, &file).expect(0);
    assert_eq!(fs::read_to_string(modes).unwrap(), "600\n");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
}

/// Returns everything that a process and its children show to other users of the machine.
fn shown_by_processes(pid: &str) -> Vec<u8> {
    let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let mut shown = [read("cmdline"), read("environ"), read("comm")].concat();
    let children = String::from_utf8(read(&format!("task/{pid}/children"))).unwrap();
    for child in children.split_whitespace() {
        shown.extend(shown_by_processes(child));
    }
    shown
}

/// Returns the files below a directory whose bytes contain a form of the secret.
fn files_that_tell(directory: &std::path::Path) -> Vec<String> {
    let mut found = vec![];
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files_that_tell(&path));
        } else if entry.file_type().unwrap().is_file() {
            let bytes = fs::read(&path).unwrap();
            if forms().iter().any(|form| bytes.windows(form.len()).any(|window| window == form.as_bytes())) {
                found.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// Starts a run in which the validator of a secret file waits for the file `go`.
fn started(sandbox: &Sandbox, variables: &str) -> std::process::Child {
    let (template, path) = (sandbox.write("template", "a {{ password }}\n"), sandbox.at("written/secret"));
    let (at_work, go) = (sandbox.at("at-work"), sandbox.at("go"));
    let resources = format!(
        "[[resource]]\nkind = \"directory\"\npath = \"{}\"\n\
         [[resource]]\nkind = \"file\"\npath = \"{}\"\nsource = \"file://{template}\"\ntemplate = true\n\
         [[resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = \"{{{{ password }}}}\"\nsecret = true\n\
         validate = [\"sh\", \"-c\", 'cat {{}}; touch {at_work}; while [ ! -e {go} ]; do sleep 0.05; done']\n",
        sandbox.at("written"),
        sandbox.at("written/plain"),
    );
    let manifest = sandbox.manifest(&resources);
    let mut command = sandbox.command(&["--verbose", "run", "--steps", &manifest, "--variables", variables]);
    let _ = command.env("GLOVO_BOOTSTRAP_LOG", "trace");
    let run = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    eventually("the validator runs", || fs::exists(&at_work).unwrap());
    run
}

#[test]
fn a_run_tells_a_secret_to_no_log_no_process_list_and_no_file() {
    for signal in ["", "-TERM", "-KILL", "-ABRT"] {
        let (sandbox, variables) = sandbox();
        let run = started(&sandbox, &variables);
        let pid = run.id().to_string();
        is_clean("the process list", &String::from_utf8_lossy(&shown_by_processes(&pid)));
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let cores = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert!(cores.split_whitespace().rev().take(3).skip(1).all(|limit| limit == "0"), "{cores}");
        if !signal.is_empty() {
            assert!(std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success());
        }
        if signal.is_empty() || signal == "-KILL" {
            // This does not end the started process.
            let _ = sandbox.write("go", "");
        }
        let finished = Finished::from(run.wait_with_output().unwrap());
        is_clean(&format!("the output after {signal}"), &(finished.stdout + &finished.stderr));
        // The secret is in the file of variables, in the declared file, and at most in a staged file that only root can
        // read.
        for file in files_that_tell(&sandbox.path) {
            let is_declared = file == variables || file == sandbox.at("written/plain");
            let mode = fs::metadata(&file).unwrap().mode() & 0o777;
            assert!(is_declared || (file.starts_with(&sandbox.at("written/")) && mode == 0o600), "{file} {mode:o}");
        }
        let _ = sandbox.write("go", "");
        let manifest = sandbox.at("manifest.toml");
        let _ = sandbox.run(&["run", "--steps", &manifest, "--variables", &variables]).expect(0);
        let left = files_that_tell(&sandbox.path);
        let mut expected = [variables.clone(), sandbox.at("written/plain"), sandbox.at("written/secret")];
        expected.sort();
        assert_eq!(left, expected, "after {signal}");
        is_clean("the status", &sandbox.run(&["status", "--json"]).expect(0).stdout);
    }
}

#[test]
fn a_secret_file_is_not_told_by_another_program() {
    let text =
        "password=zq7x+declared\nuser=app\npassword_retries = 1\n{\"token\": \"zq7x,json\", \"region\": \"north\"}\n";
    for how in ["content", "encoding", "source"] {
        let sandbox = Sandbox::new();
        let (secret, other, neighbour) = (sandbox.at("secret"), sandbox.at("other"), sandbox.at("neighbour"));
        let declared = match how {
            "content" => format!("content = {text:?}"),
            "encoding" => format!("content = \"{}\"\nencoding = \"base64\"", BASE64_STANDARD.encode(text)),
            _ => format!("source = \"file://{}\"", sandbox.write("from", text)),
        };
        // Programs print the lines, or a value alone.
        let prints = |code: i32| {
            format!(
                "[[resource]]\nkind = \"file\"\npath = \"{other}\"\ncontent = \"x{code}\\n\"\n\
                 validate = [\"sh\", \"-c\", 'cat {secret}; sed -n s/password=//p {secret} >&2; \
                 grep -o zq.x,json {secret} | sed s/$/.is.no.token/; exit {code}', \"{{}}\"]\n"
            )
        };
        let secret = format!("[[resource]]\nkind = \"file\"\npath = \"{secret}\"\nsecret = true\n{declared}\n");
        let content = "password_retries = 1\nregion = north\nstep 1/1\n";
        let neighbour = format!("[[resource]]\nkind = \"file\"\npath = \"{neighbour}\"\ncontent = {content:?}\n");
        for round in 1..=2 {
            let manifest = sandbox.manifest(&(secret.clone() + &neighbour + &prints(round)));
            let planned = sandbox.run(&["plan", "--steps", &manifest]).expect(0);
            is_clean(how, &planned.stdout);
            // Other output has the words that are in the file, too.
            assert!(
                round == 2 || content.lines().all(|line| planned.stdout.contains(&format!("+{line}"))),
                "{planned:?}"
            );
            let refused = sandbox.run(&["run", "--steps", &manifest]).expect(1);
            let refused = refused.says("its validator failed").says("***.is.no.token");
            is_clean(&format!("{how} {round}"), &(refused.stdout + &refused.stderr + &sandbox.report().to_string()));
        }
    }
}

#[test]
fn the_answer_of_a_server_does_not_tell_a_secret_file() {
    let machine = Machine::new();
    let server = Server::start(|_| Reply::ok("no login with zq7x+declared"));
    let resources = format!(
        "[[resource]]\nkind = \"file\"\npath = \"/var/lib/secret\"\nsecret = true\ncontent = \"password=zq7x+declared\\n\"\n\
         [[resource]]\nkind = \"http_check\"\nurl = \"{}\"\nbody = \"declared\"\nstatus = 404\ndeadline = \"0s\"\n\
         [[resource]]\nkind = \"http_check\"\nurl = \"{}\"\nbody = \"password=zq7\"\ndeadline = \"0s\"\n",
        server.url("/a"),
        server.url("/b")
    );
    let planned = machine.plan(&resources).expect(0).says("the body begins with `no login with ***`");
    is_clean("the plan", &planned.stdout);
    // What the manifest expects is shown as it is declared.
    let _ = planned.says("a body with `password=zq7`");
}

#[test]
fn what_a_secret_file_held_before_is_not_told_either() {
    let sandbox = Sandbox::new();
    let (secret, from) = (sandbox.at("secret"), sandbox.at("from"));
    let manifest = sandbox.write(
        "steps.toml",
        format!(
            "[[step]]\nname = \"write\"\n[[step.resource]]\nkind = \"file\"\npath = \"{secret}\"\nsecret = true\n\
             source = \"file://{from}\"\n[[step]]\nname = \"read\"\n[[step.resource]]\nkind = \"command\"\nname = \"read\"\n\
             argv = [\"sh\", \"-c\", \"cat {secret}; echo; echo is read >&2; exit 1\"]\nunless = {{ exists = \"/nowhere\" }}\n"
        ),
    );
    let run = |step: &str, code: i32| {
        let finished = sandbox.run(&["run", step, "--steps", &manifest]).expect(code);
        is_clean(step, &(finished.stdout.clone() + &finished.stderr + &sandbox.report().to_string()));
        finished
    };
    let write = |text: &[u8]| fs::write(&from, text).unwrap();
    write(b"# caf\xe9\npassword = zq7x,declared;and &more\n");
    let _ = run("write", 0);
    // The step that declares it does not run, and its source has other content by now.
    write(b"password = another\n");
    let _ = run("read", 1).says("is read");
}

#[test]
fn a_secret_is_not_shown_where_a_line_is_cut() {
    let sandbox = Sandbox::new();
    let variables = sandbox.write("v.toml", "key = \"0123456789abcdefghijSECRETTAILzyxw\"\n");
    fs::set_permissions(&variables, fs::Permissions::from_mode(0o600)).unwrap();
    // Within the last column that is shown; and where the kept end of the output begins, in a line and at its start.
    for (name, script) in [
        ("column", "printf '%372s%s\\\\n' '' $1"),
        ("lines", "printf '%s\\\\n%8182s\\\\n' $1 end"),
        ("one-line", "printf '%s%8182s' $1 end"),
    ] {
        let resource = format!(
            "[[resource]]\nkind = \"file\"\npath = \"{}\"\ncontent = \"x\"\nvalidate = [\"sh\", \"-c\", \"{script}; exit 1\", \"{{}}\", \"{{{{ key }}}}\"]\n",
            sandbox.at("f")
        );
        let manifest = sandbox.manifest(&resource);
        let run = sandbox.run(&["run", "--steps", &manifest, "--variables", &variables]).expect(1);
        let told = format!("{}{}{}", run.stdout, run.stderr, sandbox.report());
        assert!(told.contains("refuses it") && !told.contains("abcdefgh") && !told.contains("TAIL"), "{name}: {told}");
    }
}

#[test]
fn a_secret_in_a_resources_title_is_in_no_report() {
    let sandbox = Sandbox::new();
    let variables = sandbox.write("v.toml", "token = \"hunter22secret\"\n");
    fs::set_permissions(&variables, fs::Permissions::from_mode(0o600)).unwrap();
    let link = format!("[[resource]]\nkind = \"link\"\npath = \"{}\"\ntarget = \"x\"\n", sandbox.at("l-{{ token }}"));
    let manifest =
        sandbox.manifest(&(link + "[[resource]]\nkind = \"http_check\"\nurl = \"http://127.0.0.1:9/{{ token }}\"\n"));
    for command in [&["plan", "--json"][..], &["run"], &["status"], &["status", "--json"]] {
        let manifest = ["--steps", &manifest, "--variables", &variables];
        let arguments = if command[0] == "status" { command.to_vec() } else { [command, &manifest].concat() };
        let finished = sandbox.run(&arguments).expect(0);
        let told = format!("{}{}", finished.stdout, finished.stderr);
        assert!(told.contains("l-{{ token }}") && !told.contains("hunter22"), "{command:?}: {told}");
    }
    assert!(!sandbox.report().to_string().contains("hunter22"));
}

#[test]
fn a_secret_file_with_an_ordinary_word_is_not_told() {
    let sandbox = Sandbox::new();
    let word = sandbox.write("word", "sunshine\n");
    fs::set_permissions(&word, fs::Permissions::from_mode(0o600)).unwrap();
    let command = "kind = \"command\"\nname = \"login\"\nstdin = \"{{ login }}\"\nunless = { argv = [\"false\"] }\n\
                   argv = [\"sh\", \"-c\", \"read -r word; echo refused: $word >&2; exit 1\"]\n";
    let manifest = sandbox.manifest(&format!("[[resource]]\n{command}"));
    let told = sandbox.run(&["run", "--steps", &manifest, "--set-secret-file", &format!("login={word}")]).expect(1);
    let told = told.says("refused: {{ login }}");
    let status = sandbox.run(&["status"]).expect(1).stdout;
    assert!(!(told.stdout + &told.stderr + &status).contains("sunshine"));
}

#[test]
fn a_secret_in_a_steps_name_is_in_no_report_and_no_summary() {
    let sandbox = Sandbox::new();
    let variables = sandbox.write("v.toml", "token = \"hunter22secret\"\n");
    fs::set_permissions(&variables, fs::Permissions::from_mode(0o600)).unwrap();
    let path = sandbox.at("file");
    let manifest = sandbox.write(
        "named.toml",
        format!(
            "name = \"web-{{{{ token }}}}\"\ndescription = \"with {{{{ token }}}}\"\n\
             [[resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = \"x\"\n"
        ),
    );
    let named = ["--steps", &manifest, "--variables", &variables];
    let mut told = String::new();
    for (command, code) in [
        (&["plan"][..], 0),
        (&["plan", "--json"], 0),
        (&["plan", "nonsense"], 2),
        (&["plan", "--json", "nonsense"], 2),
        (&["--verbose", "run", "web-hunter22secret"], 0),
        (&["run", "--skip", "web-hunter22secret"], 0),
        (&["status"], 0),
        (&["status", "--json"], 0),
    ] {
        let arguments = if command[0] == "status" { command.to_vec() } else { [command, &named].concat() };
        let finished = sandbox.run(&arguments).expect(code);
        let one = format!("{}{}", finished.stdout, finished.stderr);
        assert!(!one.contains("hunter22"), "{command:?}: {one}");
        told.push_str(&one);
    }
    assert!(told.contains("web-{{ token }}"), "{told}");
    let state = sandbox.at("var-lib/glovo-bootstrap");
    let files = [state.clone(), format!("{state}/runs")].map(|directory| fs::read_dir(directory).unwrap());
    for entry in files.into_iter().flatten().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
        let text = String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned();
        assert!(!text.contains("hunter22"), "{:?}: {text}", entry.path());
    }
}

#[test]
fn a_secret_in_a_path_or_a_name_is_in_no_diff_and_no_file_name() {
    let sandbox = Sandbox::new();
    let variables = sandbox.write("v.toml", "token = \"hunter22secret\"\n");
    fs::set_permissions(&variables, fs::Permissions::from_mode(0o600)).unwrap();
    let _ = sandbox.write("gone-hunter22secret", "text\n");
    let resources = format!(
        "[[resource]]\nkind = \"file\"\npath = \"{}\"\ncontent = \"x\\n\"\n\
         [[resource]]\nkind = \"absent\"\npath = \"{}\"\n\
         [[resource]]\nkind = \"sysctl\"\nname = \"90-{{{{ token }}}}\"\nvalues = {{ \"kernel.core_uses_pid\" = 77 }}\n\
         [[resource]]\nkind = \"command\"\nname = \"c-{{{{ token }}}}\"\nargv = [\"false\"]\nrun_on = [\"/etc/hostname\"]\n\
         credentials = {{ key = \"{{{{ token }}}}\" }}\n",
        sandbox.at("file-{{ token }}"),
        sandbox.at("gone-{{ token }}"),
    );
    for command in [&["plan"][..], &["plan", "--json"]] {
        let said = run(&sandbox, command, &variables, &resources).expect(0);
        let told = said.stdout + &said.stderr;
        for name in ["file-{{ token }} (now)", "gone-{{ token }} (absent)", "90-{{ token }}.conf (declared)"] {
            assert!(told.contains(name) && !told.contains("hunter22"), "{name}: {told}");
        }
    }
    let command = resources.split_inclusive("[[resource]]\n").last().unwrap();
    let said = run(&sandbox, &["run"], &variables, &format!("[[resource]]\n{command}")).expect(1);
    assert!(!(said.stdout + &said.stderr).contains("hunter22"));
    let names: Vec<_> =
        fs::read_dir(sandbox.at("var-lib/glovo-bootstrap")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let is_of_command = |name: &std::ffi::OsString| name.to_string_lossy().starts_with("command-");
    assert!(names.iter().any(is_of_command), "{names:?}");
    assert!(names.iter().all(|name| !name.to_string_lossy().contains("hunter22")), "{names:?}");
}
