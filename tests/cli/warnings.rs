//! Warnings about a manifest that is valid but probably not what the user meant. The command continues.

use crate::sandbox::{Finished, Sandbox};

fn link(target: &str) -> String {
    format!("[[resource]]\nkind = \"link\"\npath = \"/l\"\ntarget = \"{target}\"\n")
}

fn validate(sandbox: &Sandbox, resources: &str, more: &[&str]) -> Finished {
    let manifest = sandbox.manifest(resources);
    sandbox.run(&[&["validate", "--steps", &manifest], more].concat()).expect(0)
}

#[test]
fn a_variable_that_nothing_uses_is_told() {
    let sandbox = Sandbox::new();
    let file = sandbox.write("given.toml", "target = \"a\"\nspare = \"s3cret-value\"\n");
    let resources = link("{{ target }}");
    let given = validate(&sandbox, &resources, &["--variables", &file, "--set", "tarqet=b"]);
    let given = given.says("warning: no step and no template uses the variable `tarqet`\nhint: did you mean `target`?");
    let given = given.says("uses the variable `spare`\n --> ").says("given.toml:2:1");
    assert!(!given.stderr.contains("s3cret") && !given.stderr.contains("`target`\n"), "{}", given.stderr);
    // The default of another place is not the value that nothing uses.
    let step = format!("[variables]\nspare = \"a\"\n[[step]]\nname = \"a\"\n{}", link("b"));
    let one = sandbox.write("one.toml", step.replace("[[resource]]", "[[step.resource]]"));
    let given = sandbox.run(&["validate", "--steps", &one, "--set", "spare=b"]).expect(0);
    assert_eq!(given.stderr.trim_end(), "warning: no step and no template uses the variable `spare`");
    // A template may use it, also one that cannot be read now.
    let template = sandbox.write("template", "{{ spare }}");
    for (source, is_told) in [(template, false), (sandbox.at("missing"), false)] {
        let file_of =
            format!("[[resource]]\nkind = \"file\"\npath = \"/f\"\nsource = \"file://{source}\"\ntemplate = true\n");
        let given = validate(&sandbox, &(link("{{ target }}") + &file_of), &["--variables", &file]);
        assert_eq!(given.stderr.contains("`spare`"), is_told, "{}", given.stderr);
    }
    // Others may use the variables that a manifest declares.
    let _ = sandbox.write("steps/10-a.toml", format!("name = \"a\"\n{}", link("b")));
    let _ = sandbox.write("steps/variables.toml", "spare = \"a\"\n");
    let quiet = sandbox.run(&["validate", "--steps", &sandbox.at("steps")]).expect(0);
    assert_eq!(quiet.stderr, "");
}

#[test]
fn braces_in_a_value_are_told() {
    let sandbox = Sandbox::new();
    let _ = sandbox.write("steps/10-a.toml", format!("name = \"a\"\n{}", link("{{ path }}")));
    let _ = sandbox.write("steps/variables.toml", "host = \"h\"\npath = \"/{{ host }}/x\"\nother = \"{{ .Names }}\"\n");
    let told = sandbox.run(&["plan", "--steps", &sandbox.at("steps")]).expect(0);
    let told = told.says("warning: `{{ host }}` in the value of `path` is not replaced").says("variables.toml:2:1");
    assert!(told.stdout.contains("create link to /{{ host }}/x") && !told.stderr.contains("other"), "{told:?}");
}

#[test]
fn a_default_can_be_the_value_of_another_variable() {
    let sandbox = Sandbox::new();
    let _ = sandbox.write("steps/10-a.toml", format!("name = \"a\"\n{}", link("{{ build }}")));
    let _ = sandbox.write("steps/variables.toml", "version = \"/1\"\nbuild = \"{{ version }}\"\n");
    let plan = |given: &[&str]| {
        let plan = sandbox.run(&[&["plan", "--steps", &sandbox.at("steps")], given].concat()).expect(0);
        assert!(!plan.stderr.contains("`{{ version }}`"), "{}", plan.stderr);
        plan
    };
    let _ = plan(&[]).says("create link to /1");
    let _ = plan(&["--set", "version=/2"]).says("create link to /2");
    let _ = plan(&["--set", "version=/2", "--set", "build=/3"]).says("create link to /3");
    // The other one may be a secret.
    let file = sandbox.write("secret", "/hunter22\n");
    let given = format!("version={file}");
    let arguments = ["validate", "--steps", &sandbox.at("steps"), "--set-secret-file", &given];
    let _ = sandbox.run(&arguments).expect(2).says("holds the secret `build`");
    // A circle is no value.
    let _ = sandbox.write("steps/variables.toml", "version = \"{{ build }}\"\nbuild = \"{{ version }}\"\n");
    let circle = sandbox.run(&["plan", "--steps", &sandbox.at("steps")]).expect(2);
    let _ = circle.says("the default of variable `build` leads back to itself");
}

#[test]
fn a_file_that_is_no_step_is_named() {
    let sandbox = Sandbox::new();
    for name in ["10-a.toml", "10-a.tml", "10-a.toml.bak", "10-a.toml~", ".10-a.toml.swp", "#10-a#", "README.md"] {
        let _ = sandbox.write(&format!("steps/{name}"), "name = \"a\"\n");
    }
    let _ = sandbox.write("steps/files/site.conf", "");
    let told =
        sandbox.run(&["validate", "--steps", &sandbox.at("steps")]).expect(0).says("valid, 1 step with 0 resources");
    let told = told.says("are no steps, since their names do not end in .toml: 10-a.tml, 10-a.toml.bak\n");
    assert_eq!(told.stderr.lines().count(), 1, "{}", told.stderr);
}

#[test]
fn a_directory_that_is_declared_too_late_is_told() {
    let sandbox = Sandbox::new();
    let file = |path: &str| format!("[[resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = \"\"\n");
    let directory = |path: &str| format!("[[resource]]\nkind = \"directory\"\npath = \"{path}\"\n");
    let told = validate(&sandbox, &(file("/a/f") + &directory("/a")), &[]);
    let told = told.says("warning: the directory /a is declared after a resource in it").says("manifest.toml:4:8");
    let _ = told.says("hint: move the directory up: it is declared at ").says("manifest.toml:8:8");
    for right in [directory("/a") + &file("/a/f"), directory("/a/b") + &file("/a/f") + &directory("/a"), file("/a/f")] {
        let quiet = validate(&sandbox, &right, &[]);
        assert_eq!(quiet.stderr, "", "{right}");
    }
}

#[test]
fn a_file_that_is_declared_after_its_reader_is_told() {
    let sandbox = Sandbox::new();
    let file = |path: &str, more: &str| format!("[[resource]]\nkind = \"file\"\npath = \"{path}\"\n{more}\n");
    let conf = file("/srv/app.conf", "content = \"\"");
    let command =
        "[[resource]]\nkind = \"command\"\nname = \"reload\"\nargv = [\"true\"]\nrun_on = [\"/srv/app.conf\"]\n";
    let service =
        |fields: &str| format!("[[resource]]\nkind = \"service\"\nname = \"app\"\nrunning = true\n{fields}\n");
    let sha256 = "0".repeat(64);
    let archive =
        format!("[[resource]]\nkind = \"archive\"\npath = \"/srv\"\nsource = \"https://a/b\"\nsha256 = \"{sha256}\"\n");
    let absent = "[[resource]]\nkind = \"absent\"\npath = \"/srv/app.conf\"\n".to_owned();
    let unit = file("/etc/systemd/system/app.service", "content = \"\"");
    let copy = file("/srv/copy", "source = \"file:///srv/app.conf\"");
    let link = "[[resource]]\nkind = \"link\"\npath = \"/srv/link\"\ntarget = \"app.conf\"\n".to_owned();
    for (reader, late, words) in [
        (command.to_owned(), &conf, "/srv/app.conf is declared after command reload, which reads it"),
        (command.to_owned(), &archive, "/srv/app.conf is declared after command reload, which reads it"),
        (command.to_owned(), &absent, "/srv/app.conf is declared after command reload, which reads it"),
        (copy, &conf, "/srv/app.conf is declared after file /srv/copy, which reads it"),
        (service("restart_on = [\"/srv/app.conf\"]"), &conf, "/srv/app.conf is declared after service app"),
        (service("reload_on = [\"/srv/app.conf\"]"), &conf, "/srv/app.conf is declared after service app"),
        (service(""), &unit, "/etc/systemd/system/app.service is declared after service app.service, which reads it"),
        (
            link.clone() + &file("/srv/copy", "source = \"file:///srv/link\""),
            &conf,
            "/srv/app.conf is declared after file /srv/copy",
        ),
        (link + &service("restart_on = [\"/srv/link\"]"), &conf, "/srv/app.conf is declared after service app"),
    ] {
        let told = validate(&sandbox, &(reader.clone() + late), &[]).says("warning: ").says(words);
        let _ = told.says("hint: move ").says(" up: it is declared at ");
        let quiet = validate(&sandbox, &(late.clone() + &reader), &[]);
        assert_eq!(quiet.stderr, "", "{late}{reader}");
    }
    let quiet = validate(&sandbox, command, &[]);
    assert_eq!(quiet.stderr, "", "a package may bring it");
}

#[test]
fn a_wrong_type_is_told_in_the_words_of_the_manual() {
    let sandbox = Sandbox::new();
    for (fields, words) in [
        ("kind = \"package\"\nnames = \"nginx\"", "`names`: expected a list, found \"nginx\""),
        (
            "kind = \"directory\"\npath = \"/d\"\nretries = -1",
            "`retries`: expected a number from 0 to 4294967295, found -1",
        ),
        ("kind = \"directory\"\npath = 3", "`path`: expected a string, found 3"),
        (
            "kind = \"file\"\npath = \"/f\"\ncontent = \"\"\nsecret = \"yes\"",
            "`secret`: expected true or false, found \"yes\"",
        ),
    ] {
        let manifest = sandbox.manifest(&format!("[[resource]]\n{fields}\n"));
        let _ = sandbox.run(&["validate", "--steps", &manifest]).expect(2).says(words);
    }
}

#[test]
fn a_file_that_waits_for_its_secret_is_declared() {
    let sandbox = Sandbox::new();
    let file = |path: &str, content: &str| {
        format!("[[step.resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = \"{content}\"\nsecret = true\n")
    };
    let steps = [
        "[variables]\ntoken = { secret = \"ssm:///app/token\" }\n[[step]]\nname = \"a\"\n",
        &file("/etc/app/a.key", "{{ token }}"),
        &file("/etc/app/b.key", ""),
        "[[step.resource]]\nkind = \"service\"\nname = \"app\"\nrunning = true\nrestart_on = [\"/etc/app/a.key\", ",
        "\"/etc/app/b.key\"]\n",
    ];
    let steps = sandbox.write("steps.toml", steps.concat());
    let told = sandbox.run(&["validate", "--steps", &steps]).expect(0);
    assert!(!told.stderr.contains("no resource declares"), "{}", told.stderr);
}

#[test]
fn a_secret_that_every_user_could_read_is_told() {
    let sandbox = Sandbox::new();
    let file = |more: &str| format!("[[resource]]\nkind = \"file\"\npath = \"/etc/app/key\"\n{more}");
    let source = "source = \"ssm:///app/key\"\n";
    for (more, is_told) in [
        (format!("{source}mode = \"0644\"\n"), true),
        ("content = \"\"\nsecret = true\nmode = \"0604\"\n".to_owned(), true),
        (format!("{source}mode = \"0640\"\ngroup = \"0\"\n"), false),
        (source.to_owned(), false),
        ("content = \"\"\nmode = \"0644\"\n".to_owned(), false),
    ] {
        let told = validate(&sandbox, &file(&more), &[]);
        let words = "lets every user of the machine read the secret";
        assert_eq!(told.stderr.contains(words), is_told, "{more}{}", told.stderr);
        assert_eq!(told.stderr.contains("hint: mode = \"0600\""), is_told, "{}", told.stderr);
    }
}
