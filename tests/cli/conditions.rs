//! `where`: steps and resources that apply on some machines only.

use std::{fs, path::Path};

use crate::sandbox::Sandbox;

fn file(path: &str, content: &str, condition: &str) -> String {
    format!("[[resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = \"{content}\"\nwhere = {condition}\n")
}

/// Makes an image's tree of a distribution.
fn tree(sandbox: &Sandbox, release: &str) -> String {
    _ = sandbox.write("tree/etc/os-release", release);
    sandbox.at("tree")
}

#[test]
fn a_resource_applies_where_all_its_conditions_hold() {
    let sandbox = Sandbox::new();
    let debian = tree(&sandbox, "ID=ubuntu\nID_LIKE=debian\nVERSION_ID=24.04\n");
    let mut manifest = String::from("[variables]\nrole = \"web\"\non = \"true\"\n[[step]]\nname = \"step\"\n");
    for (name, condition) in [
        ("/a", "{ \"host.family\" = \"debian\" }"),
        ("/b", "{ \"host.family\" = [\"redhat\", \"debian\"], role = \"web\" }"),
        ("/c", "{ host.family = \"debian\", on = true, host.version = 24.04 }"),
        ("/d", "{ \"host.family\" = \"redhat\", role = \"web\" }"),
        ("/e", "{ role = [\"worker\"] }"),
    ] {
        manifest += &file(name, "x", condition).replace("[[resource]]", "[[step.resource]]");
    }
    let manifest = sandbox.write("m.toml", manifest);
    let run = || sandbox.run(&["run", "--steps", &manifest, "--root", &debian]).expect(0);
    let first = run().says("3 changes").says("    file /d: not here: host.family is debian\n");
    let _ = first.says("    file /e: not here: role is web\n");
    let there = |name: &str| Path::new(&debian).join(name).exists();
    assert_eq!(["a", "b", "c", "d", "e"].map(there), [true, true, true, false, false]);
    let second = run().says("converged: 0 changes").says("file /d: not here: host.family is debian");
    assert_eq!(second.stderr.matches("not here").count() + second.stdout.matches("not here").count(), 2);
    let plan = sandbox.run(&["plan", "--json", "--steps", &manifest, "--root", &debian]).expect(0);
    let report: serde_json::Value = serde_json::from_str(&plan.stdout).unwrap();
    let resource = &report["steps"][0]["resources"][3];
    assert_eq!((&resource["outcome"], &resource["not_here"]), (&"skipped".into(), &"host.family is debian".into()));
    assert_eq!(report["outcome"], "unchanged");
    let _ = sandbox.run(&["status", "--root", &debian]).expect(0).says("file /d: not here: host.family is debian");
}

#[test]
fn a_step_that_does_not_apply_is_skipped_as_a_whole() {
    let sandbox = Sandbox::new();
    let root = tree(&sandbox, "ID=debian\n");
    let manifest = format!(
        "[[step]]\nname = \"rpm\"\nwhere = {{ \"host.family\" = \"redhat\" }}\n\
         [[step.resource]]\nkind = \"file\"\npath = \"/{{{{ nowhere }}}}\"\ncontent = \"{{{{ host.codename }}}}\"\n\
         [[step]]\nname = \"all\"\n{}",
        file("/a", "x", "{ \"host.distribution\" = \"debian\" }").replace("[[resource]]", "[[step.resource]]")
    );
    let manifest = sandbox.write("m.toml", manifest);
    let run = sandbox.run(&["run", "--steps", &manifest, "--root", &root]).expect(0);
    let run = run.says("step 1/2 rpm: not here: host.family is debian\n").says("converged: 1 change");
    assert!(!run.stdout.contains("nowhere") && !run.stderr.contains("nowhere"), "{run:?}");
    let status = sandbox.run(&["status", "--json", "--root", &root]).expect(0);
    let report: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    let step = &report["steps"][0];
    assert_eq!((&step["outcome"], &step["not_here"]), (&"skipped".into(), &"host.family is debian".into()));
    let _ = sandbox.run(&["status", "--root", &root]).expect(0).says("not here: host.family is debian");
    // On a laptop the facts are unknown, and everything is checked.
    let _ = sandbox.run(&["validate", "--steps", &manifest]).expect(2).says("`nowhere` is not set");
    let supposed = ["--set", "host.family=debian"];
    let _ = sandbox.run(&[&["validate", "--steps", &manifest], &supposed[..]].concat()).expect(0);
}

#[test]
fn a_resource_for_others_needs_no_variables_but_a_right_form() {
    let sandbox = Sandbox::new();
    let root = tree(&sandbox, "ID=debian\n");
    let elsewhere = "{ \"host.family\" = \"redhat\" }";
    let manifest = sandbox.manifest(&file("/a", "{{ nowhere }} {{ instance.id }} {{ host.version }}", elsewhere));
    let _ = sandbox.run(&["run", "--steps", &manifest, "--root", &root]).expect(0).says("not here");
    let manifest = sandbox.manifest(&(file("/a", "x", elsewhere) + "onwer = \"root\"\n"));
    let _ = sandbox.run(&["run", "--steps", &manifest, "--root", &root]).expect(2).says("did you mean `owner`?");
}

#[test]
fn two_resources_of_one_path_must_exclude_each_other() {
    let sandbox = Sandbox::new();
    let two = |one: &str, other: &str| sandbox.manifest(&(file("/a", "1", one) + &file("/a", "2", other)));
    let debian = "{ \"host.family\" = [\"debian\"], \"host.version\" = [\"13\"] }";
    for (other, is_valid) in [
        ("{ \"host.family\" = \"redhat\" }", true),
        ("{ host.version = [11, \"12\"] }", true),
        ("{ \"host.family\" = [\"redhat\", \"debian\"] }", false),
        ("{ \"host.codename\" = \"trixie\" }", false),
    ] {
        let validated = sandbox.run(&["validate", "--steps", &two(debian, other)]);
        if is_valid {
            let _ = validated.expect(0);
        } else {
            let _ = validated.expect(2).says("two resources manage /a").says("the first one is at");
        }
    }
    let root = tree(&sandbox, "ID=debian\n");
    let manifest = two("{ \"host.family\" = \"redhat\" }", "{ \"host.family\" = \"debian\" }");
    let _ = sandbox.run(&["run", "--steps", &manifest, "--root", &root]).expect(0);
    assert_eq!(fs::read_to_string(sandbox.at("tree/a")).unwrap(), "2");
    // The step's condition counts, too.
    let step = |family: &str| {
        format!(
            "[[step]]\nname = \"{family}\"\nwhere.\"host.family\" = \"{family}\"\n\
             [[step.resource]]\nkind = \"directory\"\npath = \"/srv/www\"\nowner = \"{family}\"\n\
             [[step.resource]]\nkind = \"file\"\npath = \"/srv/www/x\"\nowner = \"{family}\"\ncontent = \"\"\n"
        )
    };
    let manifest = sandbox.write("m.toml", step("debian") + &step("redhat"));
    let _ = sandbox.run(&["validate", "--steps", &manifest]).expect(0);
}

#[test]
fn what_only_the_booted_machine_knows_is_left_to_it() {
    let sandbox = Sandbox::new();
    let root = tree(&sandbox, "ID=debian\n");
    let manifest = sandbox.manifest(&file("/a", "{{ role }}", "{ \"instance.tags.Role\" = \"web\" }"));
    let _ = sandbox.run(&["validate", "--steps", &manifest, "--set", "role=x"]).expect(0);
    let run = sandbox.run(&["run", "--steps", &manifest, "--root", &root]).expect(0);
    let _ = run.says("file /a: ensure at boot (deferred: each instance has its own instance.tags.Role)");
    let run = ["run", "--steps", &manifest, "--root", &root, "--set", "instance.tags.Role=api"];
    let _ = sandbox.run(&run).expect(0).says("file /a: not here: instance.tags.Role is api");
    // What fails already is not a reason to ask for the tags.
    let both = "{ \"instance.tags.Role\" = \"web\", \"host.distribution\" = \"beos\" }";
    let manifest = sandbox.manifest(&file(&sandbox.at("a"), "x", both));
    let _ = sandbox.run(&["plan", "--steps", &manifest]).expect(0).says("not here: host.distribution is ");
}

#[test]
fn a_wrong_condition_is_shown_with_its_place() {
    let sandbox = Sandbox::new();
    for (condition, words) in [
        ("{ \"host.famly\" = \"debian\" }", "`host.famly` cannot be determined: host.famly does not exist"),
        ("{ \"host.architecture\" = \"arm64\" }", "no machine has the host.architecture `arm64`"),
        ("{ \"host.debian_architecture\" = [\"amd64\", \"x86_64\"] }", "host.debian_architecture `x86_64`"),
        ("{ host.family = \"ubuntu\" }", "\"host.family\" = \"debian\", or \"host.distribution\" = \"ubuntu\""),
        ("{ rle = \"web\" }", "variable `rle` is not set"),
        ("{ \"host.family\" = [] }", "no value of `host.family` is in an empty list"),
        ("{ \"host.family\" = [[\"a\"]] }", "`host.family`: expected a string or a list of strings, found a list"),
        ("{ role = { a = 1 } }", "`role`: expected a string or a list of strings, found a table"),
        ("{ \"host.family\" = 2024-01-01 }", "found a date"),
        ("{ \"host.family\" = \"{{ nowhere }}\" }", "variable `nowhere` is not set"),
        ("\"debian\"", "`where` is not a table of facts and variables"),
    ] {
        let manifest = sandbox.manifest(&file("/a", "x", condition));
        for command in ["validate", "plan"] {
            let refused = sandbox.run(&[command, "--steps", &manifest]).expect(2).says(words).says("1 fault");
            let _ = refused.says("^^").says("manifest.toml:6:");
        }
    }
}

#[test]
fn a_condition_on_a_secret_does_not_show_its_value() {
    let sandbox = Sandbox::new();
    let root = tree(&sandbox, "ID=debian\n");
    let secrets = sandbox.write("secrets.toml", "role = \"s3\"\n");
    let manifest = sandbox.manifest(&file("/a", "x", "{ role = \"web\" }"));
    let run = ["run", "--steps", &manifest, "--root", &root, "--variables", &secrets];
    let run = sandbox.run(&run).expect(0).says("file /a: not here: variable `role` has another value");
    assert!(!run.stderr.contains("s3") && !run.stdout.contains("s3"), "{run:?}");
}

#[test]
fn a_secret_for_others_is_not_in_this_image() {
    let sandbox = Sandbox::new();
    let root = tree(&sandbox, "ID=debian\n");
    _ = sandbox.write("tree/etc/machine-id", "");
    let declared = |of_others: &str| {
        file("/key", "x", of_others) + "secret = true\n" + &file("/key", "x", "{ \"host.family\" = \"debian\" }")
    };
    let seal = |of_others: &str| {
        let manifest = sandbox.manifest(&declared(of_others));
        sandbox.run(&["bake", "--seal", "--root", &root, "--steps", &manifest])
    };
    let _ = seal("{ \"host.family\" = \"redhat\" }").expect(0).says("sealed");
    let _ = seal("{ \"host.family\" = \"redhat\", \"instance.type\" = \"t3.small\" }").expect(0).says("sealed");
}
