use super::*;

fn script(agent: &Agent, arguments: &[String]) -> Result<String> {
    super::script(agent, arguments, None)
}

fn cloud_config(agent: &Agent, arguments: &[String]) -> Result<String> {
    super::cloud_config(agent, arguments, None)
}

fn s3(url: &str) -> Agent {
    Agent::Fetched(url.parse().unwrap(), Sha256::of(b"the agent"))
}

fn arguments(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// The line of a script that holds some text.
fn line(script: &str, text: &str) -> String {
    script.lines().find(|line| line.contains(text)).unwrap_or_default().to_owned()
}

#[test]
fn long_but_plausible_user_data_has_less_than_2_kib() {
    let bucket = "glovo-artifacts-123456789012-ap-southeast-2";
    let object = "glovo-bootstrap/releases/1.24.0/aarch64/glovo-bootstrap";
    let steps = format!("s3://{bucket}/steps/2026-11-24.tar.gz#sha256={}", Sha256::of(b"steps"));
    let run = arguments(&["--steps", &steps, "--set", "environment=production", "--set", "app_version=12.24.1"]);
    let object_version = format!("s3://{bucket}/{object}?versionId=3HL4kqtJvjVBH40Nrjfkd.xKqV2NxYBA");
    for agent in [s3(&object_version), s3(&format!("https://{bucket}.example.com/{object}")), Agent::Baked] {
        for text in [script(&agent, &run).unwrap(), cloud_config(&agent, &run).unwrap()] {
            assert!(text.len() < 2048, "{} bytes:\n{text}", text.len());
        }
    }
    let bare = script(&s3("s3://b/k"), &[]).unwrap().len();
    println!("room for bucket, key, version and arguments: {} bytes", 2048 - bare);
    assert!(bare < 2048 - 400, "{bare} bytes");
}

#[test]
fn a_bucket_that_no_certificate_covers_is_part_of_the_path() {
    for (url, host, path) in [
        ("s3://my-bucket/a/b", r#"s=f"my-bucket.s3.{r}.""#, r#"p,q="/a/b","""#),
        ("s3://my.bucket/a/b", r#"s=f"s3.{r}.""#, r#"p,q="/my.bucket/a/b","""#),
        ("s3://My_Bucket/a/b", r#"s=f"s3.{r}.""#, r#"p,q="/My_Bucket/a/b","""#),
        ("s3://b//a/../b", r#"s=f"b.s3.{r}.""#, r#"p,q="//a/../b","""#),
        ("s3://b/é+ ~%'\"\\{x}", r#"s=f"b.s3.{r}.""#, r#"p,q="/%C3%A9%2B%20~%25%27%22%5C%7Bx%7D","""#),
        ("s3://b/k?versionId=a.b/c=", r#"s=f"b.s3.{r}.""#, r#"p,q="/k","versionId=a.b%2Fc%3D""#),
    ] {
        let script = script(&s3(url), &[]).unwrap();
        assert!(line(&script, "s=f\"").starts_with(host), "{url}: {script}");
        assert_eq!(line(&script, "p,q="), path);
    }
    for bucket in ["a'b", "a\"b", "a b", "é", "{x}", "a%2f"] {
        assert!(script(&s3(&format!("s3://{bucket}/k")), &[]).is_err(), "{bucket}");
    }
}

#[test]
fn the_shell_reads_each_argument_back_as_it_was() {
    let script = |word: &str| script(&Agent::Baked, &arguments(&[word])).map(|script| line(&script, "exec"));
    let exec = "[ -x $to ] && exec $to run --record ";
    for (word, quoted) in [
        ("a=b/c:1,2+3@x%20#y", "a=b/c:1,2+3@x%20#y"),
        ("", "''"),
        ("#a", "'#a'"),
        ("~", "'~'"),
        ("a b", "'a b'"),
        ("it's", r"'it'\''s'"),
        ("$(reboot)`x`\\", r"'$(reboot)`x`\'"),
        ("é😀", "'é😀'"),
        ("@sha256@ @arguments@", "'@sha256@ @arguments@'"),
    ] {
        assert_eq!(script(word).unwrap(), format!("{exec}{quoted}"));
    }
    for word in ["a\nb", "a\0b", "a\x1b[0m", "a\tb"] {
        assert!(script(word).is_err(), "{word:?}");
    }
}

#[test]
fn user_data_that_no_machine_can_use_is_refused() {
    let file = Agent::Fetched("file:///agent".parse().unwrap(), Sha256::of(b""));
    assert!(script(&file, &[]).unwrap_err().to_string().contains("/agent is a file of this machine"));
    let error = script(&Agent::Baked, &arguments(&[&"x".repeat(MAX_USER_DATA_BYTES)])).unwrap_err();
    assert!(error.to_string().contains("EC2 takes at most 16384"), "{error}");
    for c in ['\u{2028}', '\u{2029}', '\u{fffe}'] {
        let word = arguments(&[&format!("a{c}b")]);
        assert!(cloud_config(&Agent::Baked, &word).is_err() && script(&Agent::Baked, &word).is_ok());
    }
}

#[test]
fn comments_are_left_out_and_every_slot_is_filled() {
    for agent in [s3("s3://b/k"), s3("https://a.example/@url@"), Agent::Baked] {
        let script = script(&agent, &[]).unwrap();
        assert!(script.starts_with("#!/bin/sh\nto="), "{script}");
        assert!(!script.lines().any(|line| line.trim_start().starts_with("# ")), "{script}");
        let unknown = script.replace("https://a.example/@url@", "");
        assert!(!unknown.contains('@'), "{script}");
    }
}

#[test]
fn a_url_means_the_same_to_curl_and_to_the_shell() {
    let script = script(&s3("https://a.example/{1,2}[3]'?x=\"a\\b$c"), &[]).unwrap();
    let urls = script.lines().filter(|line| line.contains("a.example"));
    for url in urls {
        assert!(url.contains(r"'https://a.example/%7B1,2%7D[3]'\''?x=%22a%5Cb$c'"), "{url}");
    }
}

#[test]
fn user_data_of_this_program_is_read_back_as_its_script() {
    let words = arguments(&["--set", "a=it's #cloud-config"]);
    for agent in [s3("s3://b/k?versionId=v"), s3("https://a.example/agent"), Agent::Baked] {
        for signal in [None, Some(("stack", "resource"))] {
            let script = super::script(&agent, &words, signal).unwrap();
            let config = super::cloud_config(&agent, &words, signal).unwrap();
            // The metadata client removes the last newline.
            for text in [&script, &config, &config.trim_end().to_owned()] {
                assert_eq!(own_script(text).unwrap(), script);
            }
        }
    }
    let framed = signalling("#!/bin/bash\necho it\n", "stack", "resource");
    assert_eq!(own_script(&framed).unwrap(), framed);
}

#[test]
fn other_user_data_is_refused_by_its_sort() {
    let config = cloud_config(&Agent::Baked, &[]).unwrap();
    for (text, sort) in [
        ("#!/bin/bash\napt-get update\n", "a script of other authors, which begins with `#!/bin/bash`"),
        ("#!/bin/sh\ncurl https://a.example | sh\n", "which begins with `#!/bin/sh`"),
        ("#cloud-config\npackages: [nginx]\n", "#cloud-config with more"),
        (&format!("{config}packages: [nginx]\n"), "#cloud-config with more"),
        ("MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"b\"\n\n--b--\n", "a MIME message"),
        ("Content-Type: multipart/mixed; boundary=\"b\"\n", "a MIME message"),
        ("<powershell>", "of no known format"),
        ("", "of no known format"),
    ] {
        let error = own_script(text).unwrap_err();
        assert!(error.to_string().contains(sort), "{text}: {error}");
        assert!(crate::error::hint(&error).is_some_and(|hint| hint.contains("user-data --baked")));
    }
}
