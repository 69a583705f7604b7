//! What is left out of a text, and what is not.

use super::*;

#[test]
fn possible_credentials_are_removed() {
    let key = ["9drTJvcXLB89EXZL", "B5hxzQeXWxtvRL2wPq", "s7/+Kd"].concat();
    let jwt = ["eyJhbGciOiJIUzI1NiIsInR5cCI6", "IkpXVCJ9eyJzdWIiOiIxMjM0NTY3"].concat();
    for (text, shown) in [
        (
            "downloading https://b.s3.amazonaws.com/app.jar?X-Amz-Signature=abc&X-Amz-Credential=ASIA: 403",
            "downloading https://b.s3.amazonaws.com/app.jar: 403",
        ),
        ("s3://b/k#sha256=00, then", "s3://b/k, then"),
        ("https://example.com/?token=x", "https://example.com/"),
        ("http://example.com:8080/a is down", "http://example.com:8080/a is down"),
        ("password=hunter2 user=a", "password=*** user=a"),
        ("db.password = hunter2 user", "db.password = *** user"),
        ("Authorization: Bearer abc def", "Authorization: ***"),
        ("\"SessionToken\": \"abc\"", "\"SessionToken\": ***"),
        (&format!("key {key} is bad"), "key *** is bad"),
        (&format!("jwt ({jwt})"), "jwt (***)"),
        (&format!("aws_secret_access_key = {key}"), "***"),
        ("https://user:pass@example.com/x", "***"),
        ("https://user@example.com/x", "https://example.com/x"),
        ("a\x1b[31mb\tc\u{e9}", "a [31mb c?"),
    ] {
        assert_eq!(line(text), shown, "{text}");
    }
}

#[test]
fn names_digests_and_arns_are_kept() {
    for text in [
        "the instance metadata service gives no session token, but answers 403",
        "`systemctl start glovo-app.service` failed with exit code 1",
        "/var/www/glovo-app/systems-engineer-interview-1.0.0.jar: its sha256 is e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "arn:aws:s3:::my-bucket/systemd/glovo-app.service",
    ] {
        assert_eq!(line(text), text);
    }
}

#[test]
fn values_are_learned_one_by_one_as_all_at_once() {
    let secrets = [
        ("db_password", "hunter-22"),
        ("token", "abcdefgh\nsecond line\n"),
        // This value is in a name, and the next name has a value.
        ("n", "my_token"),
        ("of my_token", "other-value"),
        ("hunter-22 again", "third-value"),
        ("pin", "7461"),
        ("token_again", "abcdefgh"),
    ];
    let at_once = Redaction::of_variables(secrets);
    let mut learned = Redaction::default();
    for (name, value) in secrets {
        learned.add(parts(name, value));
    }
    assert_eq!((learned.forms.len(), learned.values.len()), (at_once.forms.len(), at_once.values.len()));
    for text in ["hunter-22 abcdefgh", "second line: my_token", "other-value, third-value", "pin 7461", "aHVudGVyLTIy"]
    {
        assert_eq!(learned.text(text), at_once.text(text));
        assert_eq!(learned.content(text), at_once.content(text));
    }
    // No replacement shows a value.
    assert_eq!(learned.text("other-value third-value"), "*** ***");
    // A short value is hidden as soon as one of its names says that it is a secret.
    learned.add(parts("password", "7461"));
    assert_eq!(learned.text("pin 7461"), "pin {{ password }}");
}

/// A value with every kind of character that an encoding changes.
const VALUE: &str = "Hün/ter \"22\"+&?";

#[test]
fn a_value_is_removed_in_every_form() {
    let redaction = Redaction::of_variables([("db", VALUE), ("lines", "first line\nsecond line\n"), ("pin", "7461")]);
    let url = |set| percent_encoding::utf8_percent_encode(VALUE, set).to_string();
    let everything = url(percent_encoding::NON_ALPHANUMERIC);
    let spaces = Redaction::of_variables([("a", "pass word")]).text("p=pass+word").into_owned();
    assert_eq!(spaces, "p={{ a }}");
    let form = url(percent_encoding::NON_ALPHANUMERIC).replace("%20", "+");
    let json = serde_json::to_string(VALUE).unwrap();
    for text in [
        VALUE,
        &everything,
        &everything.to_lowercase().replace("h%c3%bcn", "H%c3%bcn"),
        &url(percent_encoding::CONTROLS),
        &form,
        json.trim_matches('"'),
        &BASE64_STANDARD.encode(VALUE),
        &BASE64_URL_SAFE.encode(VALUE),
        "second line",
    ] {
        let shown = redaction.text(&format!("before {text} after")).into_owned();
        let is_named = shown == "before {{ db }} after" || shown == "before {{ lines }} after";
        assert!(is_named, "{text} is shown as {shown}");
    }
    // In longer data a few bits may remain, but never the value.
    for before in ["", "u", "us", "user:"] {
        let encoded = BASE64_STANDARD.encode(format!("{before}{VALUE}@host"));
        let shown = redaction.text(&encoded).into_owned();
        assert!(shown.contains("{{ db }}") && shown.len() < encoded.len(), "{encoded} is shown as {shown}");
    }
}

#[test]
fn a_value_is_left_out_of_encoded_text_with_line_breaks() {
    let value = "9drTJvcXLB89EXZLB5hxzQeXWxtvRL2wPqs7-9drTJvcXLB89EXZLB5hxzQeXWxtvRL2wPqs7";
    let redaction = Redaction::of_variables([("key", value)]);
    let hexadecimal: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
    for (encoded, columns) in [(BASE64_STANDARD.encode(value), 76), (hexadecimal, 60)] {
        let (first, rest) = encoded.split_at(columns);
        for between in ["\n", "\n  ", "\r\n"] {
            assert_eq!(redaction.text(&format!("key:\n{first}{between}{rest}\n")), "key:\n{{ key }}\n");
        }
    }
    assert_eq!(redaction.text("two\nlines\n  of\n\nwords"), "two\nlines\n  of\n\nwords");
}

#[test]
fn a_value_is_left_out_as_shells_quote_it() {
    let redaction = Redaction::of_variables([("a", "it's-very'secret"), ("b", r#"ab\cd"ef$gh"#)]);
    for text in [
        r"it'\''s-very'\''secret",
        r#"it'"'"'s-very'"'"'secret"#,
        r#"ab\\cd"ef$gh"#,
        r#"ab\\cd\"ef\$gh"#,
        "61625c6364226566246768",
        "61625C6364226566246768",
    ] {
        let shown = redaction.text(text).into_owned();
        assert!(["{{ a }}", "{{ b }}"].contains(&shown.as_str()), "{text} is shown as {shown}");
    }
}

#[test]
fn a_value_is_left_out_as_web_pages_and_json_escape_it() {
    let redaction = Redaction::of_variables([("a", r#"<it's> "a&b" é/\"#)]);
    for text in [
        // Python, Go, PHP and XML, in this order; then numbers alone.
        r"&lt;it&#x27;s&gt; &quot;a&amp;b&quot; é/\",
        r"&lt;it&#39;s&gt; &#34;a&amp;b&#34; é/\",
        r"&lt;it&#039;s&gt; &quot;a&amp;b&quot; é/\",
        r"&lt;it&apos;s&gt; &quot;a&amp;b&quot; &#233;/\",
        r"&#60;it&#X27;s&#x3E;&#32;&#x22;a&#38;b&#x22; &#xe9;&#47;&#92;",
        // Go, Python and PHP.
        r#"\u003cit's\u003e \"a\u0026b\" é/\\"#,
        r#"<it's> \"a&b\" \u00e9/\\"#,
        r"\u003Cit\u0027s\u003E \u0022a\u0026b\u0022 \u00E9\/\\",
    ] {
        let shown = redaction.text(&format!("x=\"{text}\";")).into_owned();
        assert_eq!(shown, "x=\"{{ a }}\";", "{text}");
    }
    for text in ["a & b &; &#; &#x; &nothing; &#1114112; \\u \\ud800 \\", "&amp;lt;it"] {
        assert_eq!(redaction.text(text), text);
    }
}

#[test]
fn a_short_value_whose_name_says_secret_is_left_out_of_all() {
    let redaction = Redaction::of_variables([("db_password", "ab1"), ("token", "7"), ("port", "8080")]);
    let told = redaction.text("login failed: user:ab1@host (7), port 8080, x7 ab12").into_owned();
    assert_eq!(told, "login failed: user:{{ db_password }}@host ({{ token }}), port 8080, x7 ab12");
}

#[test]
fn another_short_value_is_left_out_of_contents_alone() {
    let redaction = Redaction::of_variables([("pin", "7461"), ("empty", ""), ("one", "1")]);
    assert_eq!(redaction.text("exit code 1, pin=7461"), "exit code 1, pin=7461");
    assert_eq!(redaction.content("pin=7461 17461 x7461 7461."), "pin={{ pin }} 17461 x7461 {{ pin }}.");
    assert_eq!(redaction.content("a 1 é1 (1)"), "a {{ one }} é1 ({{ one }})");
}

#[test]
fn the_replacement_of_a_value_does_not_show_a_value() {
    let redaction = Redaction::of_variables([("password", "password"), ("other", "hunter22")]);
    assert_eq!(redaction.text("password hunter22 50%"), "*** {{ other }} 50%");
    assert_eq!(Redaction::default().text("100 % a%2Fb"), "100 % a%2Fb");
}

#[test]
fn a_url_is_shown_without_its_password() {
    for (text, expected) in [
        ("503 for http://u:hunter2@r.test:80/x (IP: 1)", "503 for http://u:***@r.test:80/x (IP: 1)"),
        ("http://u:a@b@r/ https://v:w@r/", "http://u:***@r/ https://v:***@r/"),
        ("a://b:c", "a://b:c"),
        ("http://r.test/a:b@c", "http://r.test/a:b@c"),
        ("http://u@r.test http://u:@r", "http://u@r.test http://u:@r"),
        ("see http://r: u:w@x", "see http://r: u:w@x"),
    ] {
        assert_eq!(shown(text), expected);
    }
}

#[test]
fn values_that_contain_or_overlap_another_are_removed_as_a_whole() {
    let values = [("whole", "hunter22-and-more"), ("part", "hunter22"), ("other", "and-more-words"), ("pin", "w1")];
    let redaction = Redaction::of_variables(values);
    for (text, shown) in [
        ("hunter22-and-more hunter22", "{{ whole }} {{ part }}"),
        ("hunter22-and-more-words", "{{ whole }}{{ other }}"),
        ("hunter22and-more-words", "{{ part }}{{ other }}"),
        ("hunter22w1 w12", "{{ part }}{{ pin }} w12"),
        ("hunter%322-and-more", "{{ whole }}"),
    ] {
        assert_eq!(redaction.content(text), shown, "{text}");
    }
    // A value that is in a replacement is not looked for there.
    let redaction = Redaction::of_variables([("db_password", "ab1"), ("token", "db_pa"), ("key", "first-secret")]);
    assert_eq!(redaction.content("first-secret ab1 db_pa"), "{{ key }} {{ db_password }} {{ token }}");
    let same = Redaction::of_variables([("token", "abcabcabc")]);
    assert_eq!(same.text("abcabcabcabc!"), "{{ token }}!");
}

/// Texts are made of parts of the values themselves, so that they contain, overlap and follow each other.
#[test]
fn no_byte_of_any_place_of_a_value_is_shown() {
    let mut random = fastrand::Rng::with_seed(14);
    for _ in 0..3000 {
        let alphabet = ["ab", "c", "\u{e9}", "/", " ", "&", "x1"];
        let mut text = |parts: usize| (0..parts).map(|_| alphabet[random.usize(..alphabet.len())]).collect::<String>();
        let values: Vec<String> = (4..9).map(&mut text).collect();
        let names = ["token", "q_token", "r_token", "s_token", "t_token"];
        let redaction = Redaction::of_variables(names.into_iter().zip(values.iter().map(String::as_str)));
        let mut told = text(6);
        for _ in 0..4 {
            let value = &values[random.usize(..values.len())];
            let cut = value.char_indices().nth(random.usize(..3)).map_or(0, |(at, _)| at);
            told += if random.bool() { value } else { &value[cut..] };
        }
        let mut is_hidden = vec![false; told.len()];
        for value in values.iter().map(|value| value.trim()).filter(|value| value.len() >= MIN_VALUE_BYTES) {
            for at in (0..told.len()).filter(|at| told.as_bytes()[*at..].starts_with(value.as_bytes())) {
                is_hidden[at..at + value.len()].fill(true);
            }
        }
        let shown = redaction.text(&told).into_owned();
        let left: String =
            shown.split("{{ ").map(|part| part.split_once(" }}").map_or(part, |(_, rest)| rest)).collect();
        let expected: Vec<u8> =
            told.bytes().zip(&is_hidden).filter(|(_, is_hidden)| !**is_hidden).map(|(byte, _)| byte).collect();
        // A value may also be hidden in a form of another encoding, never less than it.
        assert!(left.len() <= expected.len(), "{told:?} is shown as {shown:?}, with {values:?}");
        let mut rest = expected.iter();
        assert!(left.bytes().all(|byte| rest.any(|kept| *kept == byte)), "{told:?} is shown as {shown:?}");
    }
}

#[test]
fn a_name_says_secret_behind_a_prefix_too() {
    for name in ["DB_PWD", "db-pass", "db.pass", "TLS_PRIVATE_KEY", "secret_key", "aws_secret_key", "DB_PASSWORD"] {
        assert!(is_sensitive(name), "{name}");
    }
    for name in ["PWD", "OLDPWD", "COMPASS", "passenger", "private_keys", "key", "monkey"] {
        assert!(!is_sensitive(name), "{name}");
    }
    assert!(names_secret("db_pass") && names_secret("tls_private_key") && !names_secret("oldpwd"));
}

#[test]
fn half_of_a_secret_at_a_cut_is_not_shown() {
    learn_file(b"password=0123456789secret\n");
    let text = format!("the start 0123456789secret {}0123456789sec", "-".repeat(9000));
    let shown = printed_start(&text);
    assert!(shown.starts_with("the start *** -") && !shown.contains("0123456789"), "{shown}");
    assert!(printed(&text).ends_with("-0123456789sec"));
}

#[test]
fn a_setting_of_a_file_is_left_out_of_contents_alone() {
    let redaction = Redaction::of_variables([
        ("environment", "staging"),
        ("unit", "service"),
        ("db_password", "postgres"),
        ("made", "abcdefghijklm"),
        ("region", "eu-central-1"),
    ]);
    let told = "shop.service: staging, postgres, abcdefghijklm, eu-central-1";
    let shown = "shop.service: staging, {{ db_password }}, {{ made }}, {{ region }}";
    assert_eq!(redaction.text(told), shown);
    assert_eq!(redaction.content("env=staging"), "env={{ environment }}");
    let of_file = Redaction::of([("smtp_login", "sunshine")], [("environment", "staging")]);
    assert_eq!(of_file.text("sunshine on staging"), "{{ smtp_login }} on staging");
    for name in ["api_tokens", "db_pw", "wifi_psk", "card_pin", "snmp_community"] {
        assert_eq!(Redaction::of_variables([(name, "sunshine")]).text("sunshine"), format!("{{{{ {name} }}}}"));
    }
    // The secret of a store may be a word, too.
    let mut learned = Redaction::default();
    learned.add(parts("ssm:///shop/word", "staging"));
    assert_eq!(learned.text("env=staging"), "env={{ ssm:///shop/word }}");
}

#[test]
fn a_value_inside_of_what_was_typed_is_kept_there() {
    let mut redaction = Redaction::of_variables([("region", "eu-central-1")]);
    redaction.typed.push("s3://app-eu-central-1/steps".into());
    assert_eq!(redaction.text("run --steps s3://app-eu-central-1/steps"), "run --steps s3://app-eu-central-1/steps");
    assert_eq!(redaction.text("s3://app-eu-central-1/x of eu-central-1"), "s3://app-{{ region }}/x of {{ region }}");
}
