//! Variables that are booleans, numbers and lists.

use std::fs;

use crate::sandbox::Sandbox;

/// Returns a manifest with these variables and fields of a file.
fn file(sandbox: &Sandbox, variables: &str, fields: &str) -> String {
    let path = sandbox.at("app");
    let text = format!(
        "[variables]\n{variables}\n[[step]]\nname = \"step\"\n\
         [[step.resource]]\nkind = \"file\"\npath = \"{path}\"\n{fields}\n"
    );
    sandbox.write("m.toml", text)
}

#[test]
fn a_placeholder_alone_has_the_variables_type() {
    let sandbox = Sandbox::new();
    let fields = "content = \"{{ port }} {{ on }} {{ half }}\"\nretries = \"{{ count }}\"\nsecret = \"{{ on }}\"\n\
                  validate = [\"grep\", \"{{ options }}\", \"{}\"]\nwhere = { on = true, port = 8080 }";
    let variables = "port = 8080\non = true\ncount = 2\nhalf = 0.5\noptions = [\"-q\", \"8080\"]";
    let manifest = file(&sandbox, variables, fields);
    let _ = sandbox.run(&["validate", "--steps", &manifest]).expect(0);
    let _ = sandbox.run(&["run", "--steps", &manifest]).expect(0).says("1 change");
    assert_eq!(fs::read_to_string(sandbox.at("app")).unwrap(), "8080 true 0.5");
    // Without elements, nothing stands in the list's place.
    let manifest = file(&sandbox, "none = []", "content = \"x\"\nvalidate = [\"cat\", \"{{ none }}\", \"{}\"]");
    let _ = sandbox.run(&["run", "--steps", &manifest]).expect(0).says("1 change");
}

#[test]
fn a_text_is_read_as_what_the_field_wants() {
    let sandbox = Sandbox::new();
    let fields =
        "content = \"{{ count }}\"\nretries = \"{{ count }}\"\nsecret = \"{{ on }}\"\nvalidate = \"{{ check }}\"";
    let manifest = file(&sandbox, "on = \"false\"", fields);
    let set = |count: &str, on: &str, check: &str| {
        let set = [format!("count={count}"), format!("on={on}"), format!("check={check}")];
        let arguments = ["--set", &set[0], "--set", &set[1], "--set", &set[2]];
        sandbox.run(&[&["plan", "--steps", &manifest], &arguments[..]].concat())
    };
    let _ = set("3", "true", "[\"cat\", \"{}\"]").expect(0).says("create");
    let one = set("3", "false", "cat").expect(2);
    let _ = one.says("the command does not have the argument `{}`");
    let wrong = set("many", "yes", "[\"cat\", \"{}\"]").expect(2).says("2 faults");
    let wrong = wrong.says("`retries`: expected a number from 0 to 4294967295, found \"many\"");
    let wrong = wrong.says("`secret`: expected true or false, found \"yes\"");
    let _ = wrong.says("hint: the value is that of variable `on`, set by --set");
    // A variable whose default is a list is one from the command line, too.
    let fields = "content = \"x\"\nvalidate = [\"cat\", \"{{ more }}\"]";
    let manifest = file(&sandbox, "more = []", fields);
    let _ = sandbox.run(&["plan", "--steps", &manifest, "--set", "more=[\"-u\", \"{}\"]"]).expect(0).says("create");
    let _ = sandbox.run(&["plan", "--steps", &manifest, "--set", "more={}"]).expect(0).says("create");
}

#[test]
fn a_variable_of_another_type_is_named_with_its_place() {
    let sandbox = Sandbox::new();
    for (variable, fields, words) in [
        ("on = 3", "secret = \"{{ v }}\"", "`secret`: expected true or false, found 3"),
        ("x = [\"a\"]", "mode = \"{{ v }}\"", "`mode`: expected a mode as a string of octal digits"),
        ("x = 644", "mode = \"{{ v }}\"", "`mode`: expected a mode as a string of octal digits"),
        ("x = true", "retries = \"{{ v }}\"", "`retries`: expected a number from 0 to 4294967295, found true"),
    ] {
        let variable = format!("v {}", &variable[variable.find('=').unwrap()..]);
        let manifest = file(&sandbox, &variable, &format!("content = \"\"\n{fields}"));
        let refused = sandbox.run(&["validate", "--steps", &manifest]).expect(2).says(words).says("1 fault");
        let _ = refused.says("hint: the value is that of variable `v`, set at").says("m.toml:2:1").says("^^^");
    }
    for (fields, words) in [
        ("content = \"a {{ v }}\"", "variable `v` is a list, but a text or a condition needs a single value"),
        ("content = \"\"\nwhere = { v = \"x\" }", "hint: write \"{{ v }}\" alone: as a list"),
    ] {
        let manifest = file(&sandbox, "v = [\"x\"]", fields);
        let _ = sandbox.run(&["validate", "--steps", &manifest]).expect(2).says(words).says("1 fault");
    }
    for (value, words) in
        [("1979-05-27", "is a date"), ("{ a = 1 }", "is not a distribution or family"), ("[1]", "is a list with other")]
    {
        let manifest = file(&sandbox, &format!("v = {value}"), "content = \"\"");
        let _ = sandbox.run(&["validate", "--steps", &manifest]).expect(2).says(words).says("m.toml:2:");
    }
}

#[test]
fn a_secret_of_another_type_is_not_shown() {
    let sandbox = Sandbox::new();
    let secrets = sandbox.write("secrets.toml", "on = \"s3\"\nmany = [\"sesame-open\"]\n");
    let manifest = file(&sandbox, "", "content = \"\"\nsecret = \"{{ on }}\"\nowner = \"{{ many }}\"");
    let refused = sandbox.run(&["plan", "--steps", &manifest, "--variables", &secrets]).expect(2).says("2 faults");
    assert!(!refused.stderr.contains("s3") && !refused.stderr.contains("sesame"), "{}", refused.stderr);
    let _ = refused.says("hint: the value is that of the secret variable `on`");
    let manifest = file(&sandbox, "", "content = \"x\"\nvalidate = [\"false\", \"{{ many }}\", \"{}\"]");
    let plan = sandbox.run(&["run", "--steps", &manifest, "--variables", &secrets]).expect(1);
    assert!(!plan.stderr.contains("sesame"), "{}", plan.stderr);
}
