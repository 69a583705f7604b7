//! Variables from a path of Parameter Store, from a bucket, and from files of one secret.

use std::fs;

use serde_json::{Value, json};

use super::{CANARY, Stores};

/// A manifest of one file that holds these variables, which may be secrets.
fn file_of(stores: &Stores, content: &str, more: &str) -> String {
    let path = stores.machine.sandbox.at("file");
    format!(
        "name = \"step\"\n[[resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = \"{content}\"\nsecret = true\n{more}"
    )
}

fn content(stores: &Stores) -> String {
    fs::read_to_string(stores.machine.sandbox.at("file")).unwrap_or_default()
}

#[test]
fn a_path_of_parameters_gives_variables_by_their_names() {
    let stores = Stores::new();
    let host = ("/app/db/host", "String", "db.example.com");
    stores.page("/app/", "", &[host], Some("more"));
    stores.page("/app/", "more", &[], Some("last"));
    let secret = ("/app/db/password", "SecureString", CANARY);
    stores.page("/app/", "last", &[secret, ("/app/sizes", "StringList", "1,2")], None);
    let manifest = file_of(&stores, "{{ db_host }} {{ db_password }}", "");
    let ssm = ["--variables", "ssm:///app/"];
    let planned = stores.with(&["plan", ssm[0], ssm[1]], &manifest).expect(0);
    assert!(!planned.stderr.contains("no step and no template uses"), "{}", planned.stderr);
    let _ = stores.with(&["run", ssm[0], ssm[1]], &manifest).expect(0).says("1 change");
    assert_eq!(content(&stores), format!("db.example.com {CANARY}"));
    // A changed parameter is a changed variable.
    stores.page("/app/", "", &[("/app/db/host", "String", "new.example.com")], Some("more"));
    let _ = stores.with(&["run", ssm[0], ssm[1]], &manifest).expect(0).says("1 change");
    assert_eq!(content(&stores), format!("new.example.com {CANARY}"));
    // Later values override it, and a list stays one.
    let text = file_of(&stores, "{{ sizes }}", "");
    let _ = stores.with(&["validate", ssm[0], ssm[1]], &text).expect(2).says("set by ssm:///app/sizes");
    let _ = stores.with(&["run", ssm[0], ssm[1], "--set", "db_password=typed"], &manifest).expect(0);
    assert_eq!(content(&stores), "new.example.com typed");
}

#[test]
fn a_secret_of_a_path_is_read_only_where_it_may_be() {
    let stores = Stores::new();
    stores.page("/app/", "", &[("/app/a", "SecureString", CANARY), ("/app/b", "String", "text")], None);
    let decrypts = || {
        let requests = stores.server.requests();
        let last: Value = serde_json::from_slice(&requests.last().unwrap().body).unwrap();
        last["WithDecryption"] == json!(true)
    };
    let manifest = file_of(&stores, "{{ a }} {{ b }}", "");
    let _ = stores.with(&["validate", "--variables", "ssm:///app/"], &manifest).expect(0);
    assert!(!decrypts());
    let _ = stores.with(&["bake", "--variables", "ssm:///app/"], &manifest).expect(0);
    assert_eq!((content(&stores).as_str(), decrypts()), ("", false));
    let _ = stores.with(&["plan", "--variables", "ssm:///app/"], &manifest).expect(0);
    assert!(decrypts());
    let public = manifest.replace("secret = true\n", "");
    let refused = stores.with(&["validate", "--variables", "ssm:///app/"], &public).expect(2);
    let _ = refused.says("`content` holds the secret `a`");
}

#[test]
fn a_path_that_gives_no_variables_says_why() {
    let stores = Stores::new();
    let manifest = file_of(&stores, "", "");
    let refused = |url: &str, code: i32, words: &[&str]| {
        for verb in ["run", "plan", "validate"].iter().filter(|verb| code == 2 || **verb != "run") {
            let mut refused = stores.with(&[verb, "--variables", url], &manifest).expect(code);
            for words in words {
                refused = refused.says(words);
            }
        }
    };
    stores.page("/app/", "", &[], None);
    refused("ssm:///app/", 2, &["there is no parameter below /app/", "aws ssm put-parameter"]);
    stores.page("/app/", "", &[("/app/db-host", "SecureString", CANARY)], None);
    refused(
        "ssm:///app/",
        2,
        &["the parameter /app/db-host cannot be a variable", "`db-host` is not a variable's name"],
    );
    stores.page("/app/", "", &[("/app/a/b", "String", "1"), ("/app/a_b", "String", "2")], None);
    refused("ssm:///app/", 2, &["/app/a/b and /app/a_b would both be the variable `a_b`"]);
    for url in ["ssm:///app", "ssm://app/", "ssm:///", "ssm:///app/?label=x", "ssm:///a//b/"] {
        refused(url, 2, &["is not a path of parameters", "ssm:///app/"]);
    }
    let denied = "User: arn:aws:sts::1:assumed-role/web/i-1 is not authorized to perform: ssm:GetParametersByPath";
    let key = "The ciphertext refers to a customer master key that does not exist, or you are not allowed to access.";
    for (kind, message, words) in [
        ("AccessDeniedException", denied, "allow ssm:GetParametersByPath on arn:aws:ssm:*:*:parameter/app/*"),
        ("AccessDeniedException", key, "allow kms:Decrypt on their key"),
        ("InvalidKeyId", "", "the key of a parameter below /app/ does not decrypt it"),
    ] {
        stores.answer("/app/", 400, json!({ "__type": kind, "message": message }));
        refused("ssm:///app/", 2, &[words]);
    }
    // A run waits minutes for a store that is away, then ends in the same way.
    stores.answer("/app/", 400, json!({ "__type": "ThrottlingException", "message": "Rate exceeded" }));
    refused("ssm:///app/", 75, &["reading ssm:///app/", "Rate exceeded"]);
}

#[test]
fn a_bucket_has_variables() {
    let stores = Stores::new();
    stores.answer("/bucket/app.toml", 200, json!(format!("password = \"{CANARY}\"\n")));
    stores.answer("/bucket/app.tomlv1", 200, json!("password = \"canary-1\"\n"));
    let manifest = file_of(&stores, "{{ password }}", "");
    let public = manifest.replace("secret = true\n", "");
    let s3 = "s3://bucket/app.toml";
    let _ = stores.with(&["plan", "--variables", s3], &public).expect(0).says("{{ password }}");
    let _ = stores.with(&["run", "--variables", s3], &manifest).expect(0);
    assert_eq!(content(&stores), CANARY);
    let _ = stores.with(&["run", "--variables", &format!("{s3}?versionId=v1")], &manifest).expect(0);
    assert_eq!(content(&stores), "canary-1");
    stores.answer("/bucket/app.toml", 200, json!("password = \"canary\n"));
    for verb in ["run", "plan", "validate"] {
        let _ = stores.with(&[verb, "--variables", s3], &manifest).expect(2).says("s3://bucket/app.toml:1:");
        let _ = stores.with(&[verb, "--variables", "s3://bucket/none"], &manifest).expect(2).says("s3://bucket/none");
        let pinned = format!("{s3}#sha256={:064}", 0);
        let _ = stores.with(&[verb, "--variables", &pinned], &manifest).expect(2).says("sha256");
        let url = "https://user.example.com/a.toml?canary";
        let unpinned = stores.with(&[verb, "--variables", url], &manifest).expect(2);
        let _ = unpinned.says("must be pinned").says("hint: --variables https://user.example.com/a.toml#sha256=HEX");
        for url in ["http://a.example.com/a.toml", "file:///a.toml", "vault://kv/a#b"] {
            let _ = stores.with(&[verb, "--variables", url], &manifest).expect(2).says("is no place of variables");
        }
    }
}

#[test]
fn urls_of_variables_are_recorded_and_secret_files_are_not() {
    let stores = Stores::new();
    let (s3, ssm) = ("s3://bucket/app.toml?versionId=v1", "ssm:///app/");
    stores.answer("/bucket/app.tomlv1", 200, json!("one = \"canary-1\"\n"));
    stores.page("/app/", "", &[("/app/two", "SecureString", CANARY)], None);
    let manifest = file_of(&stores, "{{ one }} {{ two }}", "");
    let of_urls = ["run", "--record", "--variables", s3, "--variables", ssm];
    let _ = stores.with(&of_urls, &manifest).expect(0);
    let record = stores.machine.sandbox.path.join("var-lib/glovo-bootstrap/manifest.json");
    let recorded = fs::read_to_string(&record).unwrap();
    assert!(recorded.contains(s3) && recorded.contains(ssm) && !recorded.contains("canary"), "{recorded}");
    fs::remove_file(stores.machine.sandbox.at("file")).unwrap();
    let _ = stores.finish(stores.machine.sandbox.command(&["run"])).expect(0).says("1 change");
    assert_eq!(content(&stores), format!("canary-1 {CANARY}"));
    let signed = format!("https://a.example.com/v.toml?sig=canary#sha256={:064}", 0);
    let refused = stores.with(&["run", "--record", "--variables", &signed], &manifest).expect(2);
    let _ = refused.says("https://a.example.com/v.toml cannot be recorded");
    let file = stores.machine.sandbox.write("two", "canary-2");
    let secret = format!("two={file}");
    let _ = stores.with(&["run", "--record", "--variables", s3, "--set-secret-file", &secret], &manifest).expect(0);
    let recorded = fs::read_to_string(&record).unwrap();
    assert!(recorded.contains("two") && !recorded.contains(&file), "{recorded}");
    let later = stores.finish(stores.machine.sandbox.command(&["run"])).expect(2);
    let _ = later.says("the value of `two` that user-data gave is not recorded").says("--set-secret-file two=FILE");
    let _ = stores.finish(stores.machine.sandbox.command(&["run", "--set-secret-file", &secret])).expect(0);
}

#[test]
fn a_secret_file_gives_a_value_that_is_never_shown() {
    let stores = Stores::new();
    let private = file_of(&stores, "{{ token }}", "");
    let file = stores.machine.sandbox.write("token", format!("{CANARY}\n\n"));
    let secret = format!("token={file}");
    let _ = stores.with(&["validate", "--set-secret-file", &secret], &private).expect(0);
    let _ = stores.with(&["plan", "--set-secret-file", &secret], &private).expect(0);
    let _ = stores.with(&["run", "--set-secret-file", &secret], &private).expect(0);
    assert_eq!(content(&stores), format!("{CANARY}\n"));
    assert!(!stores.machine.sandbox.report().to_string().contains("canary"));
    let input = |text: &str, arguments: &[&str]| {
        let manifest = stores.machine.sandbox.write("manifest.toml", &private);
        let text = stores.machine.sandbox.write("input", text);
        let mut command = stores.machine.sandbox.command(&[arguments, &["--steps", &manifest]].concat());
        let _ = command.stdin(fs::File::open(text).unwrap());
        stores.finish(command)
    };
    let _ = input("canary-stdin\n", &["run", "--set-secret-file", "token=-"]).expect(0);
    assert_eq!(content(&stores), "canary-stdin");
    for (argument, words) in [
        ("token", "`--set-secret-file token` has no `=`"),
        ("token=/etc", "/etc is not a regular file"),
        ("token=/none", "/none does not exist"),
        ("token=-", "standard input is empty"),
    ] {
        let _ = input("", &["plan", "--set-secret-file", argument]).expect(2).says(words);
    }
    let named = input("canary", &["plan", "--set-secret-file", &format!("Token={file}")]).expect(2);
    let _ = named.says("`Token` is not a variable's name");
    let twice = input("canary", &["plan", "--set-secret-file", "token=-", "--set-secret-file", "b=-"]).expect(2);
    let _ = twice.says("standard input is named twice");
    std::os::unix::fs::chown(&file, Some(1000), Some(1000)).unwrap();
    let _ = stores.with(&["run", "--set-secret-file", &secret], &private).expect(2).says("belongs to uid 1000");
}

#[test]
fn what_cannot_be_read_is_named() {
    let stores = Stores::new();
    let manifest = file_of(&stores, "{{ token }}", "");
    for verb in ["validate", "plan", "run"] {
        let of = |arguments: &[&str], words: &str| {
            let refused = stores.with(&[&[verb], arguments].concat(), &manifest).expect(2);
            assert!(!refused.stderr.contains("the manifest cannot be read"), "{}", refused.stderr);
            let _ = refused.says(&format!("{words}; nothing was changed"));
        };
        of(&["--set-secret-file", "token=/none"], "the secret file of the variable `token` cannot be read");
        of(&["--variables", "s3://bucket/none"], "the variables of s3://bucket/none cannot be read");
        of(&["--variables", "s3://bucket/none?versionId=1"], "the variables of s3://bucket/none cannot be read");
        of(&["--variables", "/none"], "the variables of /none cannot be read");
        of(&["--variables", "ssm:///none/"], "the variables of ssm:///none/ cannot be read");
    }
}

#[test]
fn variables_of_a_bucket_are_never_on_a_disk() {
    let stores = Stores::new();
    let text = format!("token = \"canary\"\n# {}\n", "x".repeat(1 << 16));
    stores.answer("/bucket/app.toml", 200, json!(text));
    let steps = stores.machine.sandbox.write("manifest.toml", file_of(&stores, "{{ token }}", ""));
    for verb in ["run", "plan"] {
        // No file of this size fits the disk.
        let script = "mount -t tmpfs -o size=4k tmpfs /var/tmp; exec \"$@\"";
        let mut command = stores.machine.sandbox.shell(script);
        let arguments = [verb, "--steps", &steps, "--variables", "s3://bucket/app.toml"];
        let _ = command.arg(env!("CARGO_BIN_EXE_glovo-bootstrap")).args(arguments);
        let _ = stores.finish(command).expect(0);
    }
    assert_eq!(content(&stores), "canary");
}

#[test]
fn a_tree_knows_a_file_whose_secret_is_away() {
    let stores = Stores::new();
    let listing = "<ListBucketResult><EncodingType>url</EncodingType><Contents><Key>site/page</Key><Size>4</Size>\
                   <ETag>&quot;1&quot;</ETag></Contents></ListBucketResult>";
    stores.answer("/bucket/", 200, json!(listing));
    stores.answer("/bucket/site/page", 200, json!("page"));
    stores.answer("/app/token", 200, json!({ "Parameter": { "Value": CANARY, "Version": 1 } }));
    let site = stores.machine.sandbox.at("site");
    let manifest = format!(
        "[variables]\ntoken = {{ secret = \"ssm:///app/token\" }}\n[[step]]\nname = \"a\"\n\
         [[step.resource]]\nkind = \"tree\"\npath = \"{site}\"\nsource = \"s3://bucket/site/\"\n\
         [[step.resource]]\nkind = \"file\"\npath = \"{site}/token\"\ncontent = \"{{{{ token }}}}\"\nsecret = true\n"
    );
    let _ = stores.run(&manifest).expect(0);
    stores.answer("/app/token", 503, json!({}));
    let later = stores.run(&manifest).expect(0).says("stays as it is");
    assert!(!later.stdout.contains("not of the source"), "{}", later.stdout);
}
