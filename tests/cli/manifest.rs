//! Bad manifests: exit 2, every fault with its place, nothing touched.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::sandbox::Sandbox;

#[test]
fn a_huge_manifest_is_refused() {
    let sandbox = Sandbox::new();
    let huge = format!("name = \"step\"\ndescription = \"{}\"\n", "x".repeat(17 << 20));
    let manifest = sandbox.write("huge.toml", huge);
    let _ = sandbox.run(&["validate", "--steps", &manifest]).expect(2).says("has more than 16777216 bytes");
}

#[test]
fn a_deep_manifest_is_refused() {
    let sandbox = Sandbox::new();
    for deep in
        [format!("a = {}{}", "[".repeat(100_000), "]".repeat(100_000)), format!("[{}]\n", "a.".repeat(50_000) + "a")]
    {
        let manifest = sandbox.write("deep.toml", format!("name = \"step\"\n{deep}\n"));
        let _ = sandbox.run(&["validate", "--steps", &manifest]).expect(2);
    }
}

#[test]
fn bytes_that_are_no_text_are_placed() {
    let sandbox = Sandbox::new();
    let manifest = sandbox.write("latin1.toml", b"name = \"step\"\ndescription = \"caf\xe9\"\n");
    let _ = sandbox.run(&["validate", "--steps", &manifest]).expect(2).says("latin1.toml:2:19: not UTF-8");
    let manifest = sandbox.manifest("[[resource]]\nkind = \"file\"\npath = \"/x\"\ncontent = \"a\\u0000b\"\n");
    let _ = sandbox.run(&["validate", "--steps", &manifest]).expect(2).says("manifest.toml:5:11").says("NUL character");
    let manifest = sandbox.write("nul.toml", b"name = \"st\0ep\"\n");
    let _ = sandbox.run(&["validate", "--steps", &manifest]).expect(2).says("nul.toml:1:");
}

#[test]
fn duplicates_cite_both_places() {
    let sandbox = Sandbox::new();
    let file = "[[resource]]\nkind = \"file\"\npath = \"/x\"\ncontent = \"\"\n";
    let _ = sandbox.write("steps/10-a.toml", format!("name = \"same\"\n{file}"));
    let _ = sandbox.write("steps/20-b.toml", format!("name = \"same\"\n{file}"));
    let finished = sandbox.run(&["validate", "--steps", &sandbox.at("steps")]).expect(2);
    let finished = finished.says("20-b.toml:1:8").says("a second step is named `same`").says("10-a.toml:1:8");
    let _ = finished.says("two resources manage /x").says("20-b.toml:4:8").says("10-a.toml:4:8").says("2 faults");
}

#[test]
fn an_id_that_two_accounts_declare_is_refused() {
    let sandbox = Sandbox::new();
    for (kind, field) in [("user", "uid"), ("group", "gid")] {
        let account = |name: &str| format!("[[resource]]\nkind = \"{kind}\"\nname = \"{name}\"\n{field} = 1500\n");
        let manifest = sandbox.manifest(&(account("first") + &account("second")));
        let finished = sandbox.run(&["validate", "--steps", &manifest]).expect(2);
        let finished = finished.says(&format!("a second account has {field} 1500, which first has"));
        let _ = finished.says("manifest.toml:9:").says("the first one is at").says("manifest.toml:5:7");
    }
}

#[test]
fn the_slips_of_a_first_hour_have_a_hint() {
    let sandbox = Sandbox::new();
    let one = "[[resource]]\nkind = \"file\"\npath = \"/x\"\ncontent = \"\"\n";
    let (several, words) = (format!("[[step]]\nname = \"a\"\n{one}"), "kind = \"package\"\nnames = \"nginx curl\"\n");
    let port = "kind = \"http_check\"\nurl = \"http://127.0.0.1:99999/\"\n";
    for (text, hint) in [
        (several, "hint: in a manifest of several steps, begin each resource with [[step.resource]]"),
        (format!("name = \"a\"\n[[resource]]\n{words}"), "hint: write a list: names = [\"nginx\", \"curl\"]"),
        (format!("name = \"a\"\n[[resource]]\n{port}"), "not a valid URL: invalid port number"),
    ] {
        let path = sandbox.write("slip.toml", text);
        let _ = sandbox.run(&["validate", "--steps", &path]).expect(2).says(hint);
    }
    // The words of a variable may be a secret, and those in quotes are for a shell.
    let variables = sandbox.write("v.toml", "phrase = \"hunter two-and three9\"\n");
    let words = "argv = \"login {{ phrase }}\"\nunless = { exists = \"/x\" }\n[[resource]]\nkind = \"command\"\nname = \"b\"\n\
                 argv = \"sh -c 'echo hi'\"\nunless = { exists = \"/x\" }\n";
    let path =
        sandbox.write("slip.toml", format!("name = \"a\"\n[[resource]]\nkind = \"command\"\nname = \"a\"\n{words}"));
    let refused = sandbox.run(&["validate", "--steps", &path, "--variables", &variables]).expect(2);
    assert!(
        !format!("{refused:?}").contains("hunter") && !format!("{refused:?}").contains("write a list"),
        "{refused:?}"
    );
    let _ = sandbox.run(&["plan", "slip.toml"]).expect(2).says("hint: name a manifest by --steps slip.toml");
    // The command of a hint leaves the value out. Pasted, it writes no other value.
    let manifest = sandbox.manifest(one);
    let refused = sandbox.run(&["plan", "--steps", &manifest, "--set", "greeting"]).expect(2);
    let _ = refused.says("`--set greeting` has no `=`").says("hint: write --set NAME=VALUE");
}

#[test]
fn an_unknown_key_gets_a_suggestion() {
    let sandbox = Sandbox::new();
    let manifest = sandbox.manifest("[[resource]]\nkind = \"file\"\npath = \"/x\"\ncontent = \"\"\nonwer = \"root\"\n");
    let _ = sandbox
        .run(&["run", "--steps", &manifest])
        .expect(2)
        .says("unknown field `onwer` in kind `file`")
        .says("manifest.toml:6:1")
        .says("^^^^^")
        .says("did you mean `owner`?");
    let manifest = sandbox.manifest("[[resource]]\nkind = \"fiel\"\n");
    let _ = sandbox.run(&["validate", "--steps", &manifest]).expect(2).says("did you mean `file`?");
    let _ =
        sandbox.run(&["run", "verfy", "--set", "jar_url=http://x/y", "--set", "config_bucket=b", "--set"]).expect(2);
}

#[test]
fn numbers_beyond_their_range_are_refused() {
    let sandbox = Sandbox::new();
    for (fields, words) in [
        ("kind = \"swap\"\npath = \"/s\"\nsize = \"99999999999999999999GiB\"", "more than a 64-bit number of bytes"),
        ("kind = \"swap\"\npath = \"/s\"\nsize = \"memory*9999\"", "memory*FACTOR"),
        ("kind = \"directory\"\npath = \"/d\"\nmode = \"77777\"", "octal digits"),
        (
            "kind = \"directory\"\npath = \"/d\"\nmode = 0644",
            "write a number that begins with 0 in quotes: mode = \"0644\"",
        ),
        ("kind = \"directory\"\npath = \"/d\"\nmode = 644", "a mode as a string of octal digits, such as \"0644\""),
        ("kind = \"directory\"\npath = \"/d\"\ntimeout = \"99999999999999999999s\"", "is longer than a year"),
        ("kind = \"directory\"\npath = \"/d\"\nretries = -1", "`retries`"),
        ("kind = \"group\"\nname = \"g\"\ngid = 99999999999", "manifest.toml:5:7"),
        ("kind = \"group\"\nname = \"g\"\ngid = 4294967295", "4294967295 is not a gid"),
        ("kind = \"user\"\nname = \"u\"\nuid = 4294967295", "4294967295 is not a uid"),
        ("kind = \"directory\"\npath = \"/d\"\nmode = \"+755\"", "octal digits"),
        ("kind = \"swap\"\npath = \"/s\"\nsize = \"1 GiB\"", "is not a unit of size"),
        ("kind = \"directory\"\npath = \"/d\"\ntimeout = \"+5s\"", "is not a duration"),
    ] {
        let manifest = sandbox.manifest(&format!("[[resource]]\n{fields}\n"));
        let _ = sandbox.run(&["validate", "--steps", &manifest]).expect(2).says(words);
    }
}

#[test]
fn no_path_and_no_link_leads_out_of_the_root() {
    let sandbox = Sandbox::new();
    let manifest = sandbox.manifest("[[resource]]\nkind = \"file\"\npath = \"/a/../../x\"\ncontent = \"\"\n");
    let _ = sandbox.run(&["validate", "--steps", &manifest]).expect(2).says("contains `..`");

    // The links of the tree point outside, but all writes stay inside.
    fs::create_dir_all(sandbox.at("outside")).unwrap();
    for directory in ["tree/etc", "tree/inner", "tree/real"] {
        fs::create_dir_all(sandbox.at(directory)).unwrap();
    }
    std::os::unix::fs::symlink(sandbox.at("outside"), sandbox.at("tree/absolute")).unwrap();
    std::os::unix::fs::symlink("../../../outside", sandbox.at("tree/inner/relative")).unwrap();
    std::os::unix::fs::symlink("/real", sandbox.at("tree/good")).unwrap();
    for directory in ["absolute", "inner/relative"] {
        let manifest =
            sandbox.manifest(&format!("[[resource]]\nkind = \"file\"\npath = \"/{directory}/f\"\ncontent = \"x\"\n"));
        let _ =
            sandbox.run(&["run", "--steps", &manifest, "--root", &sandbox.at("tree")]).expect(1).says("does not exist");
    }
    let manifest = sandbox.manifest("[[resource]]\nkind = \"file\"\npath = \"/good/f\"\ncontent = \"x\"\n");
    let _ = sandbox.run(&["run", "--steps", &manifest, "--root", &sandbox.at("tree")]).expect(0);
    assert_eq!(fs::read_to_string(sandbox.at("tree/real/f")).unwrap(), "x");
    assert_eq!(fs::read_dir(sandbox.at("outside")).unwrap().count(), 0);
}

#[test]
fn a_manifest_that_others_could_have_written_is_refused() {
    let sandbox = Sandbox::new();
    let manifest = sandbox.manifest("");
    let _ = sandbox.run(&["validate", "--steps", &manifest]).expect(0);
    fs::set_permissions(&manifest, fs::Permissions::from_mode(0o666)).unwrap();
    let _ = sandbox.run(&["run", "--steps", &manifest]).expect(2).says("other users may write to").says("chmod");
    fs::set_permissions(&manifest, fs::Permissions::from_mode(0o644)).unwrap();
    std::os::unix::fs::chown(&manifest, Some(65534), None).unwrap();
    let _ = sandbox.run(&["run", "--steps", &manifest]).expect(2).says("belongs to uid 65534").says("chown");
}

#[test]
fn a_command_in_a_hint_can_be_typed_as_it_is_shown() {
    let sandbox = Sandbox::new();
    let manifest = sandbox.write("it's a; b.toml", "name = \"a\"\n");
    fs::set_permissions(&manifest, fs::Permissions::from_mode(0o666)).unwrap();
    let refused = sandbox.run(&["validate", "--steps", &manifest]).expect(2);
    let hint = refused.stderr.lines().find_map(|line| line.strip_prefix("hint: ")).unwrap();
    let (_, command) = hint.split_once("if it is right: ").unwrap();
    assert!(std::process::Command::new("sh").args(["-c", command]).status().unwrap().success(), "{command}");
    let _ = sandbox.run(&["validate", "--steps", &manifest]).expect(0);
    // A directory that all users share must stay open to them.
    for shared in ["/tmp", "/dev/null"] {
        let refused = sandbox.run(&["validate", "--steps", shared]);
        assert!(!refused.stderr.contains("chmod") && !refused.stderr.contains("chown"), "{}", refused.stderr);
    }
}

#[test]
fn control_characters_in_names_are_refused() {
    let sandbox = Sandbox::new();
    for fields in [
        "kind = \"service\"\nname = \"a\\nExecStart=/bin/sh\"\nenabled = true",
        "kind = \"service\"\nname = \"a\\u001b[2J\"\nenabled = true",
        "kind = \"user\"\nname = \"a\\nroot::0:0\"",
        "kind = \"user\"\nname = \"a:0\"",
        "kind = \"file\"\npath = \"/x\\ny\"\ncontent = \"\"",
        "kind = \"link\"\npath = \"/x\"\ntarget = \"a\\u001b[31m\"",
        "kind = \"swap\"\npath = \"/x y\"\nsize = \"1GiB\"",
        "kind = \"http_check\"\nurl = \"file:///etc/passwd\"",
    ] {
        let manifest = sandbox.manifest(&format!("[[resource]]\n{fields}\n"));
        let finished = sandbox.run(&["validate", "--steps", &manifest]).expect(2).says("1 fault");
        assert!(!finished.stderr.contains('\x1b'), "an escape sequence reached the terminal");
    }
}

#[test]
fn a_source_may_be_a_list_of_mirrors_that_are_pinned() {
    let sandbox = Sandbox::new();
    let validate = |fields: &str, code: i32| {
        let resource = format!("[[resource]]\nkind = \"file\"\npath = \"/x\"\n{fields}\n");
        sandbox.run(&["validate", "--steps", &sandbox.manifest(&resource)]).expect(code)
    };
    let mirrors = "source = [\n  \"https://a.example.com/x?key=secret\",\n  \"s3://b/x\",\n]";
    let digest = "0".repeat(64);
    let _ = validate(&format!("{mirrors}\nsha256 = \"{digest}\""), 0);
    let _ = validate(&format!("{mirrors}\nverify = \"none\""), 0);
    for unpinned in ["", "verify = \"etag\"", "sha256 = \"\""] {
        let finished = validate(&format!("{mirrors}\n{unpinned}"), 2).says("manifest.toml:5:").says("needs `sha256`");
        let _ = finished.says("because their ETags differ").says("sha256sum");
    }
    for (list, says) in [
        ("[]", "a list of sources has at least one"),
        ("[\"https://a/x\", \"gopher://a/x\"]", "`gopher` is not a scheme"),
        ("[\"https://a/x\", \"file:///x\"]", "a file of this machine has no mirrors"),
        ("[\"https://a/x\", 7]", "expected a string"),
    ] {
        let _ = validate(&format!("source = {list}\nsha256 = \"{digest}\""), 2).says("manifest.toml:5:").says(says);
    }
}

#[test]
fn all_faults_come_in_one_run() {
    let sandbox = Sandbox::new();
    let manifest = sandbox.manifest(
        "[[resource]]\nkind = \"file\"\npath = \"relative\"\nmode = 644\ncontent = \"\"\n\
         [[resource]]\nkind = \"user\"\n[[resource]]\nkind = \"link\"\npath = \"/l\"\ntarget = \"{{ nowhere }}\"\n",
    );
    let finished = sandbox.run(&["run", "--steps", &manifest]).expect(2).says("4 faults; nothing was changed");
    let _ =
        finished.says("not an absolute path").says("octal").says("needs the field `name`").says("`nowhere` is not set");
    assert!(!sandbox.path.join("var-lib/glovo-bootstrap").exists());
}

#[test]
fn the_checked_in_schema_is_the_one_that_is_printed() {
    let sandbox = Sandbox::new();
    let printed = sandbox.run(&["schema"]).expect(0).stdout;
    let kept = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/steps/schema.json")).unwrap_or_default();
    assert!(printed == kept, "write it anew: cargo run -- schema > steps/schema.json");
}

#[test]
fn exported_steps_are_the_built_in_ones() {
    let sandbox = Sandbox::new();
    let directory = sandbox.at("exported");
    let _ = sandbox.run(&["steps", "export", &directory]).expect(0);
    let listed = sandbox.run(&["steps", "list", "--steps", &directory]).expect(0).stdout;
    assert_eq!(listed, sandbox.run(&["steps", "list"]).expect(0).stdout);
    assert_eq!(listed.lines().count(), 10);
    let refused = sandbox.run(&["steps", "export", &directory]).expect(2).says("is not an empty directory");
    assert!(!refused.stderr.contains("can't be read"), "{}", refused.stderr);
    let values = ["--set", "jar_url=https://example.com/a.jar", "--set", "config_bucket=b"];
    let digest = format!("jar_sha256={}", "0".repeat(64));
    let arguments = [&["validate", "--steps", &directory, "--set", &digest][..], &values[..]].concat();
    let _ = sandbox.run(&arguments).expect(0).says("10 steps");
}

#[test]
fn what_the_operator_gives_counts_over_what_a_manifest_declares() {
    let sandbox = Sandbox::new();
    let target = sandbox.at("link");
    let manifest = format!(
        "[variables]\nname = \"declared\"\n[[step]]\nname = \"one\"\n[[step.resource]]\nkind = \"link\"\npath = \"{target}\"\ntarget = \"{{{{ name }}}}\"\n"
    );
    let manifest = sandbox.write("one.toml", &manifest);
    let file = sandbox.write("given.toml", "name = \"from-a-file\"\n");
    let plan = |arguments: &[&str]| sandbox.run(&[&["plan", "--steps", &manifest], arguments].concat()).expect(0);
    let _ = plan(&[]).says("declared");
    // The fault has only the name: a value from a file may be a secret.
    let _ = plan(&["--variables", &file]).says("{{ name }}");
    let _ = plan(&["--variables", &file, "--set", "name=set"]).says("set");
}

#[test]
fn a_manifest_is_read_from_standard_input_and_an_archive() {
    let sandbox = Sandbox::new();
    let one = "[variables]\nname = \"world\"\n[[step]]\nname = \"one\"\n[[step.resource]]\nkind = \"link\"\npath = \"/l\"\ntarget = \"{{ name }}\"\n";
    let path = sandbox.write("one.toml", one);
    let mut command = sandbox.command(&["validate", "--steps", "-"]);
    let output = command.stdin(fs::File::open(&path).unwrap()).output().unwrap();
    assert!(output.status.success(), "{output:?}");

    let _ = sandbox.write("steps/10-a.toml", "name = \"a\"\n");
    let archive = sandbox.at("steps.tar.gz");
    let tar =
        std::process::Command::new("tar").args(["-czf", &archive, "-C", &sandbox.at("steps"), "."]).status().unwrap();
    assert!(tar.success());
    let url = format!("file://{archive}");
    let _ = sandbox.run(&["validate", "--steps", &url]).expect(2).says("must be pinned");
    let pin = glovo_bootstrap::value::Sha256::of(&fs::read(&archive).unwrap());
    let _ = sandbox.run(&["validate", "--steps", &format!("{url}#sha256={pin}")]).expect(0).says("valid, 1 step with ");
    let _ = sandbox.run(&["validate", "--steps", &format!("{url}#sha256={}", "0".repeat(64))]).expect(2).says("sha256");
}

#[test]
fn unverified_bytes_are_taken_only_if_the_manifest_says_so() {
    let sandbox = Sandbox::new();
    for scheme in ["http", "https"] {
        let file = format!("[[resource]]\nkind = \"file\"\npath = \"/x\"\nsource = \"{scheme}://origin.test/x\"\n");
        let manifest = sandbox.manifest(&file);
        let refused = sandbox.run(&["validate", "--steps", &manifest]).expect(2);
        let _ = refused.says("manifest.toml:5:").says("needs `sha256`").says("verify = \"none\"");
        for consent in ["verify = \"etag\"", "verify = \"none\""] {
            let manifest = sandbox.manifest(&format!("{file}{consent}\n"));
            let _ = sandbox.run(&["validate", "--steps", &manifest]).expect(0);
        }
    }
}

/// Returns the lines of an error without those that mark the place.
fn messages(stderr: &str) -> Vec<&str> {
    stderr.lines().filter(|line| line.starts_with("error: ") || line.starts_with("hint: ")).collect()
}

#[test]
fn each_fault_is_printed_once() {
    let sandbox = Sandbox::new();
    let manifest = sandbox.manifest("[[resource]]\nkind = \"link\"\npath = \"relative\"\ntarget = \"a\"\n");
    let finished = sandbox.run(&["validate", "--steps", &manifest]).expect(2);
    assert_eq!(finished.stderr.matches("not an absolute path").count(), 1, "{}", finished.stderr);
    assert!(finished.stderr.ends_with("invalid manifest, 1 fault; nothing was changed\n"), "{}", finished.stderr);
}

#[test]
fn a_variable_that_is_a_table_is_one_fault() {
    let sandbox = Sandbox::new();
    let manifest = sandbox.write(
        "manifest.toml",
        "[variables]\nport = {}\n[[step]]\nname = \"a\"\n[[step.resource]]\nkind = \"link\"\npath = \"/l\"\ntarget = \"{{ port }}\"\n",
    );
    let finished =
        sandbox.run(&["validate", "--steps", &manifest]).expect(2).says("write a string in quotes").says("1 fault;");
    assert!(!finished.stderr.contains("is not set"), "{}", finished.stderr);
}

#[test]
fn a_resource_named_by_its_kind_gets_the_heading_to_write() {
    let sandbox = Sandbox::new();
    let nested = sandbox.write("nested.toml", "[[step]]\nname = \"a\"\n[[step.package]]\nnames = [\"nginx\"]\n");
    let _ = sandbox
        .run(&["validate", "--steps", &nested])
        .expect(2)
        .says("hint: begin the resource with [[step.resource]], and give it kind = \"package\"");
    let flat = sandbox.write("flat.toml", "name = \"a\"\n[[package]]\nnames = [\"nginx\"]\n");
    let _ = sandbox
        .run(&["validate", "--steps", &flat])
        .expect(2)
        .says("hint: begin the resource with [[resource]], and give it kind = \"package\"");
}

#[test]
fn each_bad_variable_is_pointed_at_and_hides_no_other_fault() {
    let sandbox = Sandbox::new();
    let manifest = sandbox.manifest(
        "[[resource]]\nkind = \"file\"\npath = \"/srv/{{ one }}/{{two}}\"\ncontent = \"{{.Names}} and {{{{ kept }}\"\nmode = \"9\"\nowner = \"{{ three }}\"\n",
    );
    let finished = sandbox.run(&["validate", "--steps", &manifest]).expect(2).says("5 faults;");
    let stderr = &finished.stderr;
    for (message, line, caret) in [
        ("variable `one` is not set", "4 | path = \"/srv/{{ one }}/{{two}}\"", "  |              ^^^^^^^^^"),
        ("variable `two` is not set", "4 | path = \"/srv/{{ one }}/{{two}}\"", "  |                        ^^^^^^^"),
        (
            "`.Names` is not a variable's name",
            "5 | content = \"{{.Names}} and {{{{ kept }}\"",
            "  |            ^^^^^^^^^^",
        ),
        ("variable `three` is not set", "7 | owner = \"{{ three }}\"", "  |          ^^^^^^^^^^^"),
    ] {
        let (_, rest) =
            stderr.split_once(&format!("error: {message}\n")).unwrap_or_else(|| panic!("{message}: {stderr}"));
        let lines: Vec<&str> = rest.lines().skip(2).take(2).collect();
        assert_eq!(lines, [line, caret], "{stderr}");
    }
    assert!(messages(stderr).contains(&"hint: a literal `{{` is written `{{{{`"), "{stderr}");
    assert!(stderr.contains("octal digits") && stderr.contains("manifest.toml:6:8"), "{stderr}");
}

#[test]
fn a_resource_that_waits_for_the_boot_keeps_its_name() {
    let sandbox = Sandbox::new();
    let manifest = sandbox
        .manifest("[[resource]]\nkind = \"package\"\nnames = [\"nginx\", \"agent={{ instance.tags.version }}\"]\n");
    let _ = sandbox
        .run(&["plan", "--phase", "bake", "--steps", &manifest])
        .expect(0)
        .says("package nginx, agent={{ instance.tags.version }}: ensure at boot");
    // Waiting for the boot hides no fault.
    let manifest = sandbox
        .manifest("[[resource]]\nkind = \"file\"\npath = \"/x\"\ncontent = \"{{ instance.id }}\"\nmode = \"9\"\n");
    let _ = sandbox.run(&["plan", "--phase", "bake", "--steps", &manifest]).expect(2).says("octal digits");
}

#[test]
fn any_number_of_faults_is_told_in_the_time_of_reading() {
    let sandbox = Sandbox::new();
    // Counting lines from the top for each fault would take minutes to days for each of these.
    let unknown: String = (0..100_000).map(|n| format!("unknown_{n} = 1\n")).collect();
    let on_one_line = format!("names = [{}]", "\"{{ nowhere }}\", ".repeat(100_000));
    let in_one_string = format!("names = [\"{}\"]", "{{ nowhere }}".repeat(100_000));
    let resource = "[[resource]]\nkind = \"package\"\n";
    let many_resources = "[[resource]]\nkind = \"fiel\"\n".repeat(50_000);
    let on_a_line = format!("resource = [{}]\n", "{ kind = \"fiel\" }, ".repeat(50_000));
    let variables: String = (0..100_000).map(|n| format!("variable_{n} = \"\"\n")).collect();
    let many_names: String = (0..100_000).map(|n| format!("{{{{ unknown_{n} }}}}")).collect();
    let many_names = format!(
        "[variables]\n{variables}\n[[step]]\nname = \"a\"\n[[step.resource]]\nkind = \"package\"\nnames = [\"{many_names}\"]\n"
    );
    for (text, count) in [
        (format!("name = \"a\"\n{unknown}"), 100_000),
        (format!("name = \"a\"\n{resource}{on_one_line}\n"), 100_000),
        (format!("name = \"a\"\n{resource}{in_one_string}\n"), 100_000),
        (format!("name = \"a\"\n{many_resources}"), 50_000),
        (format!("name = \"a\"\n{on_a_line}"), 50_000),
        (many_names, 100_000),
    ] {
        let manifest = sandbox.write("many.toml", text);
        let finished = sandbox.run(&["validate", "--steps", &manifest]).expect(2);
        assert_eq!(messages(&finished.stderr).iter().filter(|line| line.starts_with("error: ")).count(), 101);
        assert!(finished.stderr.len() < 100_000, "{} bytes", finished.stderr.len());
        let _ = finished.says(&format!("and {} more faults", count - 100)).says(&format!("{count} faults;"));
    }
}

#[test]
fn a_manifest_of_many_files_is_as_long_as_one_may_be() {
    let sandbox = Sandbox::new();
    let text = |name: &str| format!("name = \"{name}\"\ndescription = \"{}\"\n", "x".repeat(6 << 20));
    for name in ["a", "b"] {
        let _ = sandbox.write(&format!("steps/{name}.toml"), text(name));
    }
    let _ = sandbox.run(&["validate", "--steps", &sandbox.at("steps")]).expect(0).says("2 steps");
    let _ = sandbox.write("steps/c.toml", text("c"));
    let _ =
        sandbox.run(&["validate", "--steps", &sandbox.at("steps")]).expect(2).says("at most 16777216 bytes together");
}

#[test]
fn of_many_undeclared_names_the_first_are_compared() {
    let sandbox = Sandbox::new();
    let resource = |number: usize| {
        format!(
            "[[resource]]\nkind = \"file\"\npath = \"/etc/app/{number}.conf\"\ncontent = \"\"\n\
             [[resource]]\nkind = \"service\"\nname = \"app{number}.service\"\nrunning = true\nrestart_on = [\"/etc/app/{number}.confs\"]\n"
        )
    };
    let manifest = sandbox.manifest(&(0..150).map(resource).collect::<String>());
    let valid = sandbox.run(&["validate", "--steps", &manifest]).expect(0);
    assert_eq!((valid.stdout + &valid.stderr).matches("did you mean").count(), 100);
}
