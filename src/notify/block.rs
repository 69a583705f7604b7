//! The block on the console that says why a run failed. The instance writes it; the operator's side finds it again.
//!
//! EC2 keeps the last 64 KiB of a console, for a while even after the machine is terminated:
//! <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_GetConsoleOutput.html>

use std::fmt::{self, Write};

use crate::{
    redaction::{self, Redaction},
    run::supervisor::RunMessage,
};

const BEGIN: &str = "-----BEGIN GLOVO-BOOTSTRAP FAILURE-----";
const END: &str = "-----END GLOVO-BOOTSTRAP FAILURE-----";
/// The most bytes of a block.
const MAX_BLOCK_BYTES: usize = 2048;
/// The most bytes of a line with its name, so that all lines but the log's fit into a block.
const MAX_LINE_BYTES: usize = 180;
/// The most causes, the outermost first.
const MAX_CAUSES: usize = 4;

/// Why a run failed. Each text is one line of ASCII without secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Block {
    /// The instance's id.
    pub instance: Option<String>,
    /// The build that the instance should run.
    pub build: Option<String>,
    /// The step that failed.
    pub step: Option<String>,
    /// The resource that failed.
    pub resource: Option<String>,
    /// The error.
    pub error: Option<String>,
    /// Its causes, outermost first.
    pub causes: Vec<String>,
    /// The next thing to do.
    pub hint: Option<String>,
    /// The last lines that the failed program printed.
    pub log: Vec<String>,
}

impl Block {
    /// Returns the block of a run's last message, on this instance and for this build, without secrets.
    pub fn new(instance: Option<String>, build: Option<&str>, word: &RunMessage, redaction: &Redaction) -> Self {
        let shown = |text: &str| redaction.line(text);
        let error = word.error.as_ref();
        // A program's output stands below its error: see `host::command::with_tail`.
        let causes = || error.into_iter().flat_map(|error| &error.causes).map(|cause| redaction.text(cause));
        let mut firsts = causes().map(|cause| redaction::line(cause.lines().next().unwrap_or_default()));
        let printed = |cause: std::borrow::Cow<'_, str>| -> Vec<String> {
            cause.lines().skip(1).map(|line| redaction::line(line.trim_start_matches("| "))).collect()
        };
        Self {
            instance,
            build: build.map(shown),
            step: word.step.as_deref().map(shown),
            resource: word.resource.as_deref().map(shown),
            error: firsts.next(),
            causes: firsts.take(MAX_CAUSES).collect(),
            hint: error.and_then(|error| error.hint.as_deref()).map(shown),
            log: causes().flat_map(printed).collect(),
        }
    }

    /// Returns the error and its innermost cause, in one short line.
    pub fn headline(&self) -> Option<String> {
        let error = self.error.iter().chain(self.causes.last()).map(String::as_str).collect::<Vec<_>>().join(": ");
        (!error.is_empty()).then(|| error.chars().take(MAX_LINE_BYTES).collect())
    }

    /// Finds the last block in a console's output.
    ///
    /// Kernel messages between its lines, a logger's prefix and carriage returns are allowed. A block without its end
    /// reaches to the end of the text.
    pub fn find(console: &str) -> Option<Self> {
        let lines: Vec<(bool, &str)> = console.lines().map(without_time).collect();
        let mut begins = lines.iter().enumerate().filter_map(|(at, (_, line))| Some((at, line.strip_suffix(BEGIN)?)));
        let (at, tag) = begins.rfind(|(_, tag)| is_tag(tag))?;
        // A kernel line has a time but no tag. If a logger wrote the block, each of its lines has the logger's tag.
        let own = lines[at + 1..].iter().filter(|(timed, _)| !(*timed && tag.is_empty()));
        let mut block = Self::default();
        for line in own.filter_map(|(_, line)| line.strip_prefix(tag)).take_while(|line| *line != END) {
            let Some((name, text)) = line.split_once(": ") else { continue };
            // Another program may have written the block, so secrets and control characters are removed here too.
            let text = redaction::line(text);
            match name {
                "instance" => block.instance = Some(text),
                "build" => block.build = Some(text),
                "step" => block.step = Some(text),
                "resource" => block.resource = Some(text),
                "error" => block.error = Some(text),
                "caused by" => block.causes.push(text),
                "hint" => block.hint = Some(text),
                "log" => block.log.push(text),
                _ => {}
            }
        }
        Some(block)
    }
}

/// Finds the last error line of user-data that could not download this program, without the time before it.
pub fn of_user_data(console: &str) -> Option<String> {
    let lines = console.lines().map(|line| without_time(line).1);
    lines.rev().find(|line| line.starts_with("glovo-bootstrap: ")).map(redaction::line)
}

/// Returns whether a line begins with a time, as the kernel and the console's getty write it, and the rest of the line.
fn without_time(line: &str) -> (bool, &str) {
    let line = without_prompt(line.trim_end());
    let rest = line.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    match rest.filter(|(time, _)| time.trim().parse::<f64>().is_ok()) {
        Some((_, rest)) => (true, rest),
        None => (false, line),
    }
}

/// Removes a getty's prompt, which ends no line, so that the next writer's text follows it: `ip-172-31-0-10 login: `.
fn without_prompt(line: &str) -> &str {
    let is_host = |text: &str| text.chars().all(|char| char.is_ascii_alphanumeric() || "-.".contains(char));
    line.split_once(" login: ").filter(|(host, _)| is_host(host)).map_or(line, |(_, rest)| rest)
}

/// Returns whether a text is empty or a logger's prefix: `cloud-init[901]: `.
fn is_tag(text: &str) -> bool {
    text.is_empty() || text.strip_suffix("]: ").is_some_and(|tag| tag.contains('[') && !tag.contains(' '))
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut head = format!("{BEGIN}\n");
        let mut add = |name: &str, text: &Option<String>| text.iter().for_each(|text| head.push_str(&line(name, text)));
        add("instance", &self.instance);
        add("build", &self.build);
        add("step", &self.step);
        add("resource", &self.resource);
        add("error", &self.error);
        self.causes.iter().take(MAX_CAUSES).for_each(|cause| add("caused by", &Some(cause.clone())));
        add("hint", &self.hint);
        let mut room = MAX_BLOCK_BYTES.saturating_sub(END.len() + 1 + head.len());
        let log: Vec<String> = self.log.iter().map(|text| line("log", text)).collect();
        let is_room = |line: &&String| {
            let fits = line.len() <= room;
            room = room.saturating_sub(line.len());
            fits
        };
        let shown = log.iter().rev().take_while(is_room).count();
        f.write_str(&head)?;
        log[log.len() - shown..].iter().try_for_each(|line| f.write_str(line))?;
        writeln!(f, "{END}")
    }
}

fn line(name: &str, text: &str) -> String {
    let mut line = format!("{name}: {text}");
    if line.len() >= MAX_LINE_BYTES {
        line.truncate(line.floor_char_boundary(MAX_LINE_BYTES - 4));
        line.push_str("...");
    }
    _ = line.write_char('\n');
    line
}

/// Checks that a block found in any console output is short plain text, and is found again in that text.
#[cfg(any(test, fuzzing))]
#[allow(clippy::missing_panics_doc, reason = "a panic is the answer of a target")]
pub fn fuzz(input: &[u8]) {
    let console = String::from_utf8_lossy(input);
    if let Some(block) = Block::find(&console) {
        let shown = block.to_string();
        assert!(shown.is_ascii() && shown.len() <= MAX_BLOCK_BYTES);
        assert!(Block::find(&shown).is_some());
    }
    assert!(of_user_data(&console).is_none_or(|line| line.is_ascii()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::report::ErrorReport;

    fn block() -> Block {
        let tail = "`systemctl start app` failed with exit code 1\n| listening on :8080\n| out of memory";
        let error = ErrorReport {
            causes: vec!["starting".into(), tail.into(), "\u{1b}[31mcaf\u{e9} hunter22".into()],
            hint: Some("journalctl -u app".into()),
        };
        let named = |text: &str| Some(text.to_owned());
        let word = RunMessage {
            step: named("start_servers"),
            resource: named("service app"),
            error: Some(error),
            ..RunMessage::default()
        };
        let redaction = Redaction::of_variables([("password", "hunter22")]);
        Block::new(named("i-0123456789abcdef0"), Some("42"), &word, &redaction)
    }

    const TEXT: &str = "\
-----BEGIN GLOVO-BOOTSTRAP FAILURE-----
instance: i-0123456789abcdef0
build: 42
step: start_servers
resource: service app
error: starting
caused by: `systemctl start app` failed with exit code 1
caused by:  [31mcaf? {{ password }}
hint: journalctl -u app
log: listening on :8080
log: out of memory
-----END GLOVO-BOOTSTRAP FAILURE-----
";

    #[test]
    fn a_block_is_written_and_found_again() {
        assert_eq!(block().to_string(), TEXT);
        assert_eq!(Block::find(TEXT), Some(block()));
        assert_eq!(Block::find("[   12.345678] nothing\n"), None);
        assert_eq!(Block::find(""), None);
    }

    #[test]
    fn an_error_of_user_data_is_found() {
        let console = "[    9.1] x\r\nglovo-bootstrap: HTTP Error 403: Forbidden AccessDenied\r\n[   10.0] y\r\n";
        assert_eq!(of_user_data(console).unwrap(), "glovo-bootstrap: HTTP Error 403: Forbidden AccessDenied");
        assert_eq!(of_user_data("ip-10-0-0-1 login: glovo-bootstrap: late\r\n").unwrap(), "glovo-bootstrap: late");
        assert_eq!(of_user_data("[    9.1] cloud-init: glovo-bootstrap\r\n"), None);
    }

    #[test]
    fn it_is_found_in_the_noise_of_a_console() {
        let kernel = "[   12.345678] IPv6: ADDRCONF(NETDEV_CHANGE): eth0: link becomes ready\r\n";
        let noisy = |prefix: &str, noise: &str| -> String {
            TEXT.lines().map(|line| format!("{prefix}{line}\r\n{noise}")).collect()
        };
        assert_eq!(Block::find(&noisy("", kernel)), Some(block()));
        let logged = noisy("[   13.000001] cloud-init[901]: ", kernel);
        assert_eq!(Block::find(&logged), Some(block()));
        // The same block twice, line by line: as a logger passes it on while it is written to the console itself.
        let twice: String =
            TEXT.lines().map(|line| format!("{line}\n[   13.000001] cloud-init[901]: {line}\n")).collect();
        assert_eq!(Block::find(&twice), Some(block()));
        let login = "\r\nDebian GNU/Linux 12 ip-172-31-0-10 ttyS0\r\n\r\nip-172-31-0-10 login: ";
        assert_eq!(Block::find(&format!("{login}{}", noisy("", kernel))), Some(block()));
        assert_eq!(Block::find(&format!("{login}{logged}")), Some(block()));
        assert_eq!(Block::find(&format!("{kernel}{}{login}", noisy("", "[  OK  ] Started x.\n"))), Some(block()));
    }

    #[test]
    fn the_last_block_wins_and_may_lack_its_end() {
        let earlier = TEXT.replace("starting", "earlier");
        assert_eq!(Block::find(&format!("{earlier}{TEXT}")), Some(block()));
        let cut = &TEXT[..TEXT.find("hint").unwrap()];
        let found = Block::find(&format!("{earlier}{cut}")).unwrap();
        assert_eq!((found.error.as_deref(), found.hint), (Some("starting"), None));
        assert_eq!(Block::find(&format!("{TEXT}log: login: {BEGIN}\nerror: fake\n")), Some(block()));
        // A quoted begin line begins no block.
        assert_eq!(Block::find(&format!("{TEXT}log: {BEGIN}\nerror: fake\n")), Some(block()));
    }

    #[test]
    fn a_block_has_2_kib_at_most_and_keeps_the_end_of_the_log() {
        let long = "x y".repeat(200);
        let tail: String = (0..500).map(|number| format!("\n| line {number}")).collect();
        let error = ErrorReport { causes: vec![format!("{long}{tail}"); 9], hint: Some(long.clone()) };
        let some = || Some(long.clone());
        let word = RunMessage { step: some(), resource: some(), error: Some(error), ..RunMessage::default() };
        let text = Block::new(some(), Some(&long), &word, &Redaction::default()).to_string();
        assert!(text.len() <= MAX_BLOCK_BYTES && text.is_ascii(), "{}", text.len());
        assert!(text.ends_with(&format!("log: line 499\n{END}\n")));
    }

    #[test]
    fn a_block_of_any_console_is_short_and_plain() {
        // The cut falls inside a character of each width.
        for (wide, shift) in [('\u{e9}', 0), ('\u{e9}', 1), ('\u{20ac}', 0), ('\u{20ac}', 1), ('\u{20ac}', 2)] {
            let wide = wide.to_string().repeat(200);
            let text = format!("{}{wide}", "x".repeat(shift));
            let fields =
                ["instance", "build", "step", "resource", "error", "hint"].map(|name| format!("{name}: {text}\n"));
            let causes = format!("caused by: {text}\n").repeat(50);
            let log = format!("log: \u{1b}]52;c;aGk=\u{7} {text}\n").repeat(5000);
            let console = format!("{BEGIN}\n{}{causes}{log}{END}\n", fields.concat());
            let shown = Block::find(&console).unwrap().to_string();
            let is_plain = shown.chars().all(|c| c == '\n' || (c.is_ascii() && !c.is_ascii_control()));
            assert!(shown.len() <= MAX_BLOCK_BYTES && is_plain, "{} {shown:?}", shown.len());
            assert!(shown.ends_with(&format!("{END}\n")));
        }
    }

    #[test]
    fn a_secret_on_a_console_is_not_shown_by_the_reader() {
        let console = format!("{BEGIN}\nerror: password=hunter22 https://b.test/x?X-Amz-Signature=hunter22\n{END}\n");
        let shown = Block::find(&console).unwrap().to_string();
        assert!(!shown.contains("hunter22") && shown.contains("https://b.test/x"), "{shown}");
    }
}
