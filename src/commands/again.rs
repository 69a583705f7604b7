//! The whole command of a hint: the run's own command line, without secrets.

use std::path::Path;

use crate::{cli, host::run_command::RunCommand, redaction, value::quoted};

/// Options that do not belong to the run itself, and whether a value follows.
const OTHER_OPTIONS: [(&str, bool); 9] = [
    ("--color", true),
    ("--record", false),
    ("--converge", false),
    ("--json", false),
    ("--detailed-exitcode", false),
    ("--signal", true),
    ("--signal-within", true),
    ("--lifecycle-hook", true),
    ("--failures", true),
];
/// Options that name the manifest and its variables; each has a value.
const MANIFEST_OPTIONS: [&str; 4] = ["--steps", "--variables", "--set", "--set-secret-file"];
/// Options that select steps; each has a value.
const SELECTION_OPTIONS: [&str; 2] = ["--from", "--skip"];
/// Other options of a run that have a value.
const OPTIONS_WITH_VALUE: [&str; 2] = ["--root", "--phase"];
/// Options of a bake's seal, and whether a value follows.
const SEAL_OPTIONS: [(&str, bool); 6] = [
    ("--seal", false),
    ("--host-keys", false),
    ("--authorized-keys", false),
    ("--first-boot", true),
    ("--login-user", true),
    ("--allow", true),
];

/// Returns the command of the run that this process's arguments describe, also for `plan`. If the manifest
/// `is_recorded`, its options are left out. A variable's value is left out, because it may be a secret: the program refuses a
/// `--set` without it, so a pasted command writes no wrong value.
pub fn command(manifest: &cli::ManifestArgs, is_recorded: bool) -> RunCommand {
    of(std::env::args().skip(1), manifest, is_recorded)
}

/// Keeps the places of the manifest, of its variables and of the image in all output. A part of them may be the value of a
/// variable, but they are what the user has typed, and a command without them could not be pasted.
pub fn keep_places(given: &cli::ManifestArgs, root: &Path) {
    let files = given.set_secret_file.iter().filter_map(|given| given.split_once('=').map(|(_, file)| file));
    for place in given.steps.iter().chain(&given.variables).map(String::as_str).chain(files) {
        redaction::keep(place.to_owned());
        if !place.contains("://") {
            redaction::keep(absolute(place));
        }
    }
    redaction::keep(root.display().to_string());
}

/// Returns whether the arguments of this process name the manifest.
pub fn names_steps() -> bool {
    std::env::args().any(|argument| argument == "--steps" || argument.starts_with("--steps="))
}

fn of(mut arguments: impl Iterator<Item = String>, manifest: &cli::ManifestArgs, is_recorded: bool) -> RunCommand {
    let (mut verb, mut selection, mut options, mut seal) = (None, String::new(), String::new(), String::new());
    let push = |to: &mut String, words: &[&str]| words.iter().for_each(|word| *to = format!("{to} {}", quoted(word)));
    let mut names_steps = false;
    while let Some(argument) = arguments.next() {
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
            _ => (&*argument, None),
        };
        let mut value = || value.clone().or_else(|| arguments.next()).unwrap_or_default();
        if let Some((_, has_value)) = OTHER_OPTIONS.iter().find(|(other, _)| *other == name) {
            _ = has_value.then(value);
        } else if let Some((_, has_value)) = SEAL_OPTIONS.iter().find(|(other, _)| *other == name) {
            push(&mut seal, &[name]);
            if *has_value {
                push(&mut seal, &[&value()]);
            }
        } else if MANIFEST_OPTIONS.contains(&name) {
            names_steps |= name == "--steps";
            let value = shown(name, &value());
            if !is_recorded {
                push(&mut options, &[name, &value]);
            }
        } else if SELECTION_OPTIONS.contains(&name) {
            push(&mut selection, &[name, &value()]);
        } else if OPTIONS_WITH_VALUE.contains(&name) {
            let value = shown(name, &value());
            push(&mut options, &[name, &value]);
        } else if name.starts_with('-') {
            push(&mut options, &[&argument]);
        } else if verb.is_none() {
            verb = Some(if name == "bake" { "bake" } else { "run" });
        } else {
            push(&mut selection, &[name]);
        }
    }
    // The value comes from the environment, which another shell does not have.
    if let Some(steps) = manifest.steps.as_ref().filter(|_| !names_steps && !is_recorded) {
        push(&mut options, &["--steps", &shown("--steps", steps)]);
    }
    RunCommand { verb: format!("glovo-bootstrap {}", verb.unwrap_or("run")), selection, options, seal }
}

fn shown(option: &str, value: &str) -> String {
    match (option, value.split_once('=')) {
        ("--set", Some((name, _))) => name.to_owned(),
        ("--set-secret-file", Some((_, "-"))) => value.to_owned(),
        ("--set-secret-file", Some((name, file))) => format!("{name}={}", absolute(file)),
        // A query may hold a signature.
        ("--steps" | "--variables", _) if value.starts_with("http") && value.contains('?') => {
            format!("{}?QUERY", value.split('?').next().unwrap_or_default())
        }
        ("--steps", _) if matches!(value, "-" | "built-in") => value.to_owned(),
        ("--steps" | "--variables", _) if value.contains("://") => value.to_owned(),
        ("--steps" | "--variables" | "--root", _) => absolute(value),
        _ => value.to_owned(),
    }
}

/// Returns an absolute path: the user may type the command in another directory.
pub(super) fn absolute(path: &str) -> String {
    std::path::absolute(path).map_or_else(|_| path.to_owned(), |path| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

    use super::*;

    fn again(line: &str, steps: Option<&str>, is_recorded: bool) -> String {
        let manifest = cli::ManifestArgs { steps: steps.map(Into::into), ..cli::ManifestArgs::default() };
        of(line.split(' ').map(Into::into), &manifest, is_recorded).to_string()
    }

    #[test]
    fn the_command_is_valid_with_any_option() {
        for verb in ["run", "plan", "bake"] {
            let program = cli::Cli::command_line();
            for flag in program.get_arguments().chain(program.find_subcommand(verb).unwrap().get_arguments()) {
                let Some(name) = flag.get_long().map(|name| format!("--{name}")) else { continue };
                let value = if flag.get_action().takes_values() { " x=y" } else { "" };
                let line = format!("{verb} {name}{value}");
                let made = of(line.split(' ').map(Into::into), &cli::ManifestArgs::default(), false);
                assert!(made.selection.is_empty() || SELECTION_OPTIONS.contains(&&*name), "{line}: {made}");
                let fault =
                    |line: &str| program.clone().try_get_matches_from(line.split(' ')).err().map(|error| error.kind());
                let (typed, fault) = (fault(&format!("glovo-bootstrap {line}")), fault(&made.to_string()));
                // `x=y` is not a value of each, and some flags need another one.
                let is_value = matches!(fault, Some(ErrorKind::ValueValidation | ErrorKind::InvalidValue));
                assert!(fault.is_none() || is_value || fault == typed, "{line}: {made}: {fault:?}");
            }
        }
        assert_eq!(again("-v run a --color never", None, false), "glovo-bootstrap run a -v");
    }

    #[test]
    fn the_command_of_a_bake_still_seals() {
        let line =
            "bake --root /mnt --seal --host-keys --authorized-keys --first-boot agent --login-user admin --allow /a";
        let command = of(line.split(' ').map(Into::into), &cli::ManifestArgs::default(), false);
        assert_eq!(command.to_string(), format!("glovo-bootstrap {line}"));
        assert_eq!(command.only("a"), "glovo-bootstrap bake a --root /mnt");
    }

    #[test]
    fn one_step_of_a_run_has_the_same_options() {
        let line = "run a --from b --root /mnt -v --skip c --phase=bake";
        let command = of(line.split(' ').map(Into::into), &cli::ManifestArgs::default(), false);
        assert_eq!(command.to_string(), "glovo-bootstrap run a --from b --skip c --root /mnt -v --phase bake");
        assert_eq!(command.only("d"), "glovo-bootstrap run d --root /mnt -v --phase bake");
    }

    #[test]
    fn a_command_holds_in_every_directory() {
        let here = std::env::current_dir().unwrap().display().to_string();
        let line = "run --steps steps --variables=v.toml --root image";
        let whole = format!("glovo-bootstrap run --steps {here}/steps --variables {here}/v.toml --root {here}/image");
        assert_eq!(again(line, None, false), whole);
        assert_eq!(again("run", Some("./steps"), false), format!("glovo-bootstrap run --steps {here}/steps"));
        for steps in ["-", "built-in", "file:///a#sha256=0", "/a"] {
            assert_eq!(
                again(&format!("run --steps {steps}"), None, false),
                format!("glovo-bootstrap run --steps {steps}")
            );
        }
    }

    #[test]
    fn a_hint_has_the_whole_command_and_no_secret() {
        let line = "run app --steps=s3://b/k#sha256=0 --set token=s3cret --variables /etc/v.toml --signal a/B --record";
        let whole = "glovo-bootstrap run app --steps s3://b/k#sha256=0 --set token --variables /etc/v.toml";
        assert_eq!(again(line, Some("s3://b/k#sha256=0"), false), whole);
        assert_eq!(again(line, Some("s3://b/k#sha256=0"), true), "glovo-bootstrap run app");
        assert_eq!(again("plan --json", None, false), "glovo-bootstrap run");
        assert_eq!(again("run --skip a", Some("/my steps"), false), "glovo-bootstrap run --skip a --steps '/my steps'");
        let line =
            "run --variables s3://b/v?versionId=1 --variables ssm:///app/ --set-secret-file a=/x --set-secret-file b=-";
        assert_eq!(again(line, None, false).replace('\'', ""), format!("glovo-bootstrap {line}"));
        let here = std::env::current_dir().unwrap().display().to_string();
        let relative = again("run --set-secret-file=db=x", None, false);
        assert_eq!(relative, format!("glovo-bootstrap run --set-secret-file db={here}/x"));
        let signed = "run --steps https://h/k?sig=s3cret#sha256=0";
        assert_eq!(again(signed, Some("x"), false), "glovo-bootstrap run --steps 'https://h/k?QUERY'");
    }
}
