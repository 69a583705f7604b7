//! `install` and `uninstall`: the files of a package, for a program that user-data has put in place.

use std::{collections::BTreeMap, fs, path::Path};

use crate::{
    sandbox::{Finished, Sandbox, copy_binary},
    standin::Machine,
};

/// The state file of `install`.
const RECORD: &str = "/var/lib/glovo-bootstrap/installed.json";
const UNIT: &str = "/usr/local/lib/systemd/system/glovo-bootstrap.service";

/// A shell in which `/usr/local` is the sandbox's own, with the program in its place.
pub fn shell(sandbox: &Sandbox, script: &str) -> Finished {
    let local = sandbox.at("local");
    fs::create_dir_all(format!("{local}/bin")).unwrap();
    copy_binary(&format!("{local}/bin/glovo-bootstrap"));
    let script = format!("mount --bind {local} /usr/local; PATH=/usr/local/bin:$PATH; {script}");
    Finished::from(sandbox.shell(&script).env_remove("GLOVO_BOOTSTRAP_STEPS").output().unwrap())
}

/// A machine whose `/usr/local` holds the stand-ins too; `reloads` fails while the file `broken` exists.
pub fn machine() -> Machine {
    let machine = Machine::new();
    let (local, bin) = (machine.sandbox.path.join("local/sbin"), machine.sandbox.path.join("machine/bin"));
    fs::create_dir_all(&local).unwrap();
    for entry in fs::read_dir(&bin).unwrap().map(Result::unwrap) {
        std::os::unix::fs::symlink(fs::read_link(entry.path()).unwrap(), local.join(entry.file_name())).unwrap();
    }
    let (real, broken) = (fs::read_link(bin.join("systemctl")).unwrap(), machine.sandbox.at("broken"));
    fs::remove_file(local.join("systemctl")).unwrap();
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *daemon-reload*) test ! -e {broken};; esac && exec {} \"$@\"\n",
        real.display()
    );
    let systemctl = machine.sandbox.write("local/sbin/systemctl", script);
    fs::set_permissions(systemctl, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    machine
}

/// A manifest that writes the variable `name`, which it does not set, into the file `file`.
pub fn manifest_of_a_name(sandbox: &Sandbox) -> String {
    let path = sandbox.at("file");
    sandbox.manifest(&format!("[[resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = \"{{{{ name }}}}\"\n"))
}

/// Returns the files and directories below `/usr/local`, with their bytes.
fn tree(sandbox: &Sandbox) -> BTreeMap<String, Vec<u8>> {
    fn add(directory: &Path, tree: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let is_directory = path.is_dir();
            let bytes = if is_directory { vec![] } else { fs::read(&path).unwrap() };
            let _ = tree.insert(path.to_str().unwrap().split_once("/local/").unwrap().1.to_owned(), bytes);
            if is_directory {
                add(&path, tree);
            }
        }
    }
    let mut found = BTreeMap::new();
    add(Path::new(&sandbox.at("local")), &mut found);
    found
}

/// Compares two trees without printing their bytes.
#[track_caller]
fn is_same(found: &BTreeMap<String, Vec<u8>>, expected: &BTreeMap<String, Vec<u8>>) {
    let paths = found.keys().chain(expected.keys());
    let differing: Vec<_> = paths.filter(|path| found.get(*path) != expected.get(*path)).collect();
    assert!(differing.is_empty(), "{differing:?}");
}

#[test]
fn install_puts_in_place_what_a_package_brings() {
    let sandbox = Sandbox::new();
    let _ = shell(&sandbox, "glovo-bootstrap install").expect(0).says("installed: ").says("systemctl enable");
    let tree = tree(&sandbox);
    let text = |path: &str| String::from_utf8(tree[path].clone()).unwrap();
    let unit = text("lib/systemd/system/glovo-bootstrap.service");
    assert!(unit.contains("\nExecStart=/usr/local/bin/glovo-bootstrap run\n"), "{unit}");
    assert!(text("lib/systemd/system/glovo-bootstrap-converge.service").contains("=/usr/local/bin/glovo-bootstrap "));
    for path in [
        "lib/systemd/system/glovo-bootstrap-converge.timer",
        "lib/systemd/system-preset/80-glovo-bootstrap.preset",
        "share/man/man1/glovo-bootstrap.1",
        "share/man/man1/glovo-bootstrap-run.1",
        "share/man/man1/glovo-bootstrap-steps-new.1",
        "share/bash-completion/completions/glovo-bootstrap",
        "share/zsh/site-functions/_glovo-bootstrap",
        "share/fish/vendor_completions.d/glovo-bootstrap.fish",
    ] {
        assert!(tree[path].len() > 30, "{path}");
    }
    let _ = shell(&sandbox, "glovo-bootstrap install").expect(0).says("already installed: 0 changes");
}

#[test]
fn uninstall_removes_exactly_what_install_has_written() {
    let sandbox = Sandbox::new();
    let _ = shell(&sandbox, "mkdir -p /usr/local/share/man; echo mine > /usr/local/share/man/mine").expect(0);
    let before = tree(&sandbox);
    let _ = shell(&sandbox, "glovo-bootstrap install").expect(0);
    assert!(tree(&sandbox).len() > before.len() + 20);
    let _ =
        shell(&sandbox, "glovo-bootstrap uninstall").expect(0).says("left in place: /usr/local/bin/glovo-bootstrap");
    is_same(&tree(&sandbox), &before);
    let _ = shell(&sandbox, "glovo-bootstrap uninstall").expect(0).says("nothing is installed: 0 changes");

    // A changed file, and a file of the operator's own.
    let unit = "/usr/local/lib/systemd/system/glovo-bootstrap.service";
    let script = format!("glovo-bootstrap install; echo '# mine' >> {unit}; touch $(dirname {unit})/own.service");
    let _ = shell(&sandbox, &script).expect(0);
    let _ = shell(&sandbox, "glovo-bootstrap uninstall").expect(0).says(&format!("kept {unit}: it was changed"));
    let left: Vec<_> = tree(&sandbox).into_keys().filter(|path| path.starts_with("lib/systemd/system/")).collect();
    assert_eq!(left, ["lib/systemd/system/glovo-bootstrap.service", "lib/systemd/system/own.service"]);
}

#[test]
fn install_overwrites_nothing_of_others() {
    let sandbox = Sandbox::new();
    let unit = "lib/systemd/system/glovo-bootstrap.service";
    let _ = sandbox.write(&format!("local/{unit}"), "theirs");
    let refused = shell(&sandbox, "glovo-bootstrap install").expect(1);
    let _ = refused.says(&format!("/usr/local/{unit} exists, and `install` has not written it; nothing was installed"));
    let tree_now = tree(&sandbox);
    assert_eq!(tree_now[unit], b"theirs");
    assert!(!tree_now.contains_key("share"), "{:?}", tree_now.keys());
    // The command of the hint is needed only once.
    let timer = "lib/systemd/system/glovo-bootstrap-converge.timer";
    let _ = sandbox.write(&format!("local/{timer}"), "theirs");
    let refused = shell(&sandbox, "glovo-bootstrap install").expect(1);
    let hint = refused.stderr.lines().find_map(|line| line.split_once("to replace them: ")).unwrap().1.to_owned();
    assert!(hint.contains(&format!("mv /usr/local/{timer} /usr/local/{timer}.old && ")), "{hint}");
    let _ = shell(&sandbox, &hint).expect(0);
    assert_eq!(tree(&sandbox)[&format!("{timer}.old")], b"theirs");
}

#[test]
fn install_brings_a_file_of_an_older_version_up_to_date() {
    let sandbox = Sandbox::new();
    let _ = shell(&sandbox, "glovo-bootstrap install").expect(0);
    let page = "share/man/man1/glovo-bootstrap.1";
    let record = sandbox.at("var-lib/glovo-bootstrap/installed.json");
    let ours = tree(&sandbox)[page].clone();
    // This looks as if an older version had written other bytes, and a page that this version does not have.
    let (older, stale) = (b"older".as_slice(), "share/man/man1/glovo-bootstrap-gone.1");
    let mut installed: serde_json::Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    for path in [page, stale] {
        let _ = sandbox.write(&format!("local/{path}"), older);
    }
    let digest = shell(&sandbox, &format!("sha256sum /usr/local/{page}")).expect(0).stdout;
    for path in [page, stale] {
        installed["files"][format!("/usr/local/{path}")] = serde_json::json!([digest.split(' ').next()]);
    }
    fs::write(&record, installed.to_string()).unwrap();
    let _ = shell(&sandbox, "glovo-bootstrap install").expect(0).says("installed: 2 changes");
    assert_eq!(tree(&sandbox)[page], ours);
    assert!(!tree(&sandbox).contains_key(stale));
}

#[test]
fn install_records_a_manifest_with_its_variables() {
    let sandbox = Sandbox::new();
    let path = sandbox.at("file");
    let steps = sandbox.write(
        "one.toml",
        format!("[variables]\nname = \"a\"\n[[step]]\nname = \"one\"\n[[step.resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = \"{{{{ name }}}}\"\n"),
    );
    let install = format!("glovo-bootstrap install --steps {steps} --set name=recorded");
    let _ = shell(&sandbox, &install).expect(0).says("recorded the manifest and its variables");
    let _ = sandbox.run(&["run"]).expect(0).says(&format!("using {steps} as recorded by install on 20"));
    assert_eq!(fs::read_to_string(path).unwrap(), "recorded");

    let _ = sandbox.write("bad.toml", "nonsense");
    let _ = shell(&sandbox, &format!("glovo-bootstrap install --steps {}", sandbox.at("bad.toml"))).expect(2);
    let _ = shell(&sandbox, "glovo-bootstrap install --set a=b").expect(2).says("--steps is missing");
    let _ = sandbox.run(&["run"]).expect(0).says("converged: 0 changes");
}

#[test]
fn install_refuses_a_program_in_another_place() {
    let sandbox = Sandbox::new();
    for verb in ["install", "uninstall"] {
        let _ = sandbox.run(&[verb]).expect(2).says("but its systemd units start /usr/local/bin/glovo-bootstrap");
        let script = format!("exec setpriv --reuid=65534 --regid=65534 --clear-groups glovo-bootstrap {verb}");
        fs::set_permissions(&sandbox.path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let _ = shell(&sandbox, &script).expect(2).says(&format!("hint: sudo glovo-bootstrap {verb}"));
    }
}

#[test]
fn install_refuses_what_another_user_could_replace() {
    let sandbox = Sandbox::new();
    let program = "/usr/local/bin/glovo-bootstrap";
    let said = shell(&sandbox, &format!("chown 1000 {program}; glovo-bootstrap install")).expect(1);
    let _ = said.says(&format!("{program} belongs to uid 1000"));
    let unit = "/usr/local/lib/systemd/system/glovo-bootstrap.service";
    let again = format!(
        "chown 0 {program}; glovo-bootstrap install && chown 1000 {unit} && chmod 666 {unit} && glovo-bootstrap install"
    );
    let _ = shell(&sandbox, &format!("{again} && stat -c '%u %a' {unit}")).expect(0).says("\n0 644\n");
}

#[test]
fn install_refuses_a_manifest_from_standard_input() {
    let sandbox = Sandbox::new();
    let said = shell(&sandbox, "glovo-bootstrap install --steps - < /dev/null").expect(2);
    let _ = said.says("a manifest from standard input cannot be recorded");
    assert_eq!(tree(&sandbox).keys().map(String::as_str).collect::<Vec<_>>(), ["bin", "bin/glovo-bootstrap"]);
}

#[test]
fn install_and_uninstall_make_a_damaged_record_again() {
    let sandbox = Sandbox::new();
    let _ = shell(&sandbox, "mkdir -p /usr/local/share/man/man1 /usr/local/lib; touch /usr/local/lib/mine").expect(0);
    let before = tree(&sandbox);
    let damage = format!("echo garbage > {RECORD}");
    for verb in ["install", "uninstall"] {
        let script = format!("glovo-bootstrap install; {damage}; glovo-bootstrap {verb}; glovo-bootstrap uninstall");
        let said = shell(&sandbox, &script).expect(0);
        let _ = said.says("the record of the installed files was damaged").says("uninstalled");
        is_same(&tree(&sandbox), &before);
    }

    // An edited file is still the operator's.
    let script = format!("glovo-bootstrap install; echo '# mine' >> {UNIT}; {damage}; glovo-bootstrap install");
    let said = shell(&sandbox, &script).expect(1);
    let _ = said.says(&format!("{UNIT} exists, and `install` has not written it; nothing was installed"));
    let _ = shell(&sandbox, "glovo-bootstrap uninstall").expect(0);
    assert!(
        fs::read_to_string(sandbox.at("local/lib/systemd/system/glovo-bootstrap.service"))
            .unwrap()
            .ends_with("# mine\n")
    );
}

#[test]
fn install_replaces_an_older_version_without_its_record() {
    let sandbox = Sandbox::new();
    let _ = shell(&sandbox, "glovo-bootstrap install").expect(0);
    let ours = tree(&sandbox);
    // An older version has written another page, and one that this version does not have.
    let pages = ["share/man/man1/glovo-bootstrap.1", "share/man/man1/glovo-bootstrap-gone.1"];
    for page in pages {
        let text = ".TH older\n";
        let digest = shell(&sandbox, "printf '.TH older\\n' | sha256sum").expect(0).stdout;
        let mark = format!(".\\\" written by glovo-bootstrap install, sha256 {}", &digest[..64]);
        let _ = sandbox.write(&format!("local/{page}"), format!("{text}{mark}\n"));
    }
    let script = format!("echo garbage > {RECORD}; glovo-bootstrap install");
    let _ = shell(&sandbox, &script).expect(0).says("installed: 2 changes");
    is_same(&tree(&sandbox), &ours);
    let _ = shell(&sandbox, "glovo-bootstrap install").expect(0).says("already installed: 0 changes");
}

#[test]
fn install_says_that_its_file_was_changed_since() {
    let sandbox = Sandbox::new();
    let script = format!("glovo-bootstrap install; echo '# mine' >> {UNIT}; glovo-bootstrap install");
    let said = shell(&sandbox, &script).expect(1);
    let said = said.says(&format!("{UNIT} was changed after `install` had written it; nothing was installed"));
    let remedy = format!("mv {UNIT} {UNIT}.old && glovo-bootstrap install");
    let _ = said.says(&format!("hint: to replace it: {remedy}\n"));
    let _ = shell(&sandbox, &remedy).expect(0).says("installed: 1 change");
}

#[test]
fn a_reload_that_was_cut_off_is_made_good_by_the_same_command() {
    let machine = machine();
    for verb in ["install", "uninstall"] {
        let _ = machine.sandbox.write("broken", "");
        let _ = shell(&machine.sandbox, &format!("glovo-bootstrap {verb}")).expect(1);
        fs::remove_file(machine.sandbox.at("broken")).unwrap();
        let _ = machine.commands();
        let _ = shell(&machine.sandbox, &format!("glovo-bootstrap {verb}")).expect(0);
        let commands = machine.commands();
        assert!(commands.iter().any(|command| command == "systemctl daemon-reload"), "{verb}: {commands:?}");
    }
    let _ = shell(&machine.sandbox, "glovo-bootstrap uninstall").expect(0).says("nothing is installed: 0 changes");
}

#[test]
fn a_file_that_was_there_before_install_outlives_uninstall() {
    let sandbox = Sandbox::new();
    let path = "share/bash-completion/completions/glovo-bootstrap";
    let _ = shell(&sandbox, "glovo-bootstrap install").expect(0);
    let same = tree(&sandbox)[path].clone();
    let _ = shell(&sandbox, "glovo-bootstrap uninstall").expect(0);
    let _ = sandbox.write(&format!("local/{path}"), same);
    let before = tree(&sandbox);
    let said = shell(&sandbox, "glovo-bootstrap install && glovo-bootstrap uninstall").expect(0);
    let _ = said.says(&format!("/usr/local/{path} was there already: `uninstall` will keep it"));
    is_same(&tree(&sandbox), &before);
}

#[test]
fn install_checks_its_manifest_with_the_machines_variables() {
    let machine = machine();
    let steps = manifest_of_a_name(&machine.sandbox);
    let install = format!("glovo-bootstrap install --steps {steps}");
    let _ = shell(&machine.sandbox, &install).expect(2).says("variable `name` is not set");
    machine.write("etc/glovo-bootstrap/variables.toml", "name = \"own\"\n");
    let _ = shell(&machine.sandbox, &install).expect(0).says("recorded the manifest and its variables");
    let _ = machine.sandbox.run(&["run"]).expect(0);
    assert_eq!(fs::read_to_string(machine.sandbox.at("file")).unwrap(), "own");
}

#[test]
fn install_refuses_a_manifest_that_its_unit_would_refuse() {
    let machine = machine();
    let steps = manifest_of_a_name(&machine.sandbox);
    let refused = |arguments: &str, words: &str| {
        let said = shell(&machine.sandbox, &format!("{arguments} install --steps {steps} --set name=x")).expect(2);
        let _ = said.says(words);
        assert!(!Path::new(&machine.sandbox.at("local/lib")).exists(), "nothing is installed");
        assert!(!Path::new(&machine.sandbox.at("var-lib/glovo-bootstrap/manifest.json")).exists());
    };
    // systemd starts the unit without SUDO_UID.
    std::os::unix::fs::chown(&steps, Some(1000), Some(1000)).unwrap();
    refused("SUDO_UID=1000 glovo-bootstrap", &format!("{steps} belongs to uid 1000, not to root"));
    std::os::unix::fs::chown(&steps, Some(0), Some(0)).unwrap();
    let values = machine.sandbox.write("values.toml", "name = \"x\"\n");
    std::os::unix::fs::chown(&values, Some(1000), Some(1000)).unwrap();
    let script = format!("SUDO_UID=1000 glovo-bootstrap install --steps {steps} --variables {values}");
    let _ = shell(&machine.sandbox, &script).expect(2).says(&format!("{values} belongs to uid 1000"));
    // Its value is not recorded.
    let script = format!("glovo-bootstrap install --steps {steps} --set 'name=https://a/x?sig=1'");
    let _ = shell(&machine.sandbox, &script).expect(2).says("the value of `name` that install gave is not recorded");
    // The usual directory counts before the record.
    machine.write("etc/glovo-bootstrap/steps/10-a.toml", "name = \"a\"\n");
    refused("glovo-bootstrap", "runs without --steps use /etc/glovo-bootstrap/steps, not the recorded manifest");
}

#[test]
fn an_image_keeps_what_install_has_put_in_place() {
    let sandbox = Sandbox::new();
    let steps = manifest_of_a_name(&sandbox);
    let _ = shell(&sandbox, &format!("glovo-bootstrap install --steps {steps} --set name=canary")).expect(0);
    let before = tree(&sandbox);
    // The disk of that machine is the image.
    let state = "var-lib/glovo-bootstrap";
    for directory in ["tree/etc", "tree/usr", "tree/var/lib"] {
        fs::create_dir_all(sandbox.at(directory)).unwrap();
    }
    fs::rename(sandbox.at("local"), sandbox.at("tree/usr/local")).unwrap();
    fs::rename(sandbox.at(state), sandbox.at("tree/var/lib/glovo-bootstrap")).unwrap();
    let image = sandbox.write("image.toml", "name = \"image\"\n");
    let _ = sandbox.run(&["bake", "--seal", "--root", &sandbox.at("tree"), "--steps", &image]).expect(0).says("sealed");
    fs::rename(sandbox.at("tree/usr/local"), sandbox.at("local")).unwrap();
    fs::rename(sandbox.at("tree/var/lib/glovo-bootstrap"), sandbox.at(state)).unwrap();
    is_same(&tree(&sandbox), &before);
    // Which manifest a machine of it runs is its own affair: the values may be secrets.
    assert!(!Path::new(&sandbox.at(&format!("{state}/manifest.json"))).exists());
    let _ = shell(&sandbox, "glovo-bootstrap uninstall").expect(0).says("uninstalled");
    assert_eq!(tree(&sandbox).keys().map(String::as_str).collect::<Vec<_>>(), ["bin", "bin/glovo-bootstrap"]);
}

#[test]
fn uninstall_passes_over_a_directory_that_is_gone() {
    let sandbox = Sandbox::new();
    let script = "glovo-bootstrap install && rm -r /usr/local/lib/systemd && glovo-bootstrap uninstall";
    let _ = shell(&sandbox, script).expect(0).says("uninstalled");
}

#[test]
fn bash_completes_subcommands_options_kinds_and_steps() {
    let sandbox = Sandbox::new();
    let steps = sandbox.at("own steps");
    let _ = sandbox.run(&["steps", "new", &steps]).expect(0);
    let complete = |words: &[&str]| {
        let script = r#"exec bash -c 'source <(glovo-bootstrap completions bash)
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); last=${COMP_WORDS[COMP_CWORD]}
            _glovo_bootstrap_with_steps "$1" "$last" "${COMP_WORDS[COMP_CWORD - 1]}"
            printf "%s\n" "${COMPREPLY[@]}"' bash"#;
        let words: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        let finished = shell(&sandbox, &format!("{script} glovo-bootstrap {}", words.join(" "))).expect(0);
        finished.stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete(&["unin"]), ["uninstall"]);
    assert_eq!(complete(&["run", "--signal-w"]), ["--signal-within"]);
    assert_eq!(complete(&["steps", "kinds", "ap"]), ["apt_repository"]);
    assert_eq!(complete(&["plan", "--from", "start"]), ["start_servers"]);
    assert_eq!(complete(&["run", "--steps", &steps, ""]).last().unwrap(), "check");
    assert_eq!(complete(&["run", "--steps", "=", &steps, "--skip", "f"]), ["files"]);
    assert_eq!(complete(&["run", "--steps", &steps, "ser"]), ["service"]);
    assert_eq!(complete(&["steps", "show", "veri"]), ["verify"]);
    assert_eq!(complete(&["bake", "enable"]), ["enable_swap"]);
    let evil = sandbox.write("evil.toml", format!("name = \"$(touch${{IFS}}{})\"\n", sandbox.at("evil")));
    assert_eq!(complete(&["run", "--steps", &evil, "--from", ""]), [""]);
    assert!(!Path::new(&sandbox.at("evil")).exists());
}

#[test]
fn the_completions_of_zsh_and_fish_ask_for_the_steps() {
    let sandbox = Sandbox::new();
    let zsh = sandbox.run(&["completions", "zsh"]).expect(0).stdout;
    // run, bake and plan have a list, --from and --skip each; `steps show` has one.
    assert_eq!(zsh.matches(":_glovo_bootstrap_steps'").count(), 3 * 3 + 1, "{zsh}");
    assert!(zsh.find("_glovo_bootstrap_steps() {").unwrap() < zsh.find("if [ \"$funcstack[1]\"").unwrap());
    assert!(zsh.contains("package package_file upgrade apt_repository yum_repository directory"));
    let fish = sandbox.run(&["completions", "fish"]).expect(0).stdout;
    assert!(fish.contains("-l from -r -f -a \"(__fish_glovo_bootstrap_steps)\"") && fish.contains("apt_repository"));
}
