//! What is known of secret files, and what other programs show of it.

use base64::{Engine, prelude::BASE64_STANDARD};

use super::*;

fn shown(private: &mut PrivateTexts, text: &str) -> String {
    places::without(text, private.found(text)).into_owned()
}

#[test]
fn values_are_found_by_their_names_in_the_forms_of_usual_files() {
    for (line, expected) in [
        ("password=hunter2!", &["hunter2!"][..]),
        ("password=ab,cd;ef # old", &["ab", "ab,cd;ef", "ab,cd;ef # old"]),
        ("password = hunter2 and more", &["hunter2 and more", "hunter2"]),
        ("export DB_PASSWORD='hunter2 and more'", &["hunter2 and more"]),
        ("password: 'it''s'", &["it''s", "it's"]),
        ("spring.datasource.password: hunter2", &["hunter2"]),
        (r#"{"user": "application", "token": "a\"b, c", "port": 5432}"#, &[r#"a\"b, c"#, r#"a"b, c"#]),
        (r#"{"token": "a\\", "user": "application"}"#, &[r"a\\", r"a\", "a"]),
        (r#""private_key": "first\nsecond""#, &[r"first\nsecond", "first\nsecond"]),
        ("<password>hunter2</password>", &["hunter2</password>", "hunter2"]),
        ("machine example.com login app password hunter2", &["hunter2"]),
        ("'secret_key' => 'hunter2',", &["hunter2"]),
        ("PrivateKey = aGVsbG8=", &["aGVsbG8="]),
        ("PASS=/k9Zq/7x", &["/k9Zq/7x"]),
        ("Authorization: Bearer hunter2", &["Bearer hunter2", "hunter2"]),
        ("private_key = /etc/app/tls.key", &[]),
        ("password required", &[]),
        ("# password: ask the administrator", &[]),
        ("user = application", &[]),
        ("password_encryption = scram-sha-256", &[]),
        ("é password=é", &["é"]),
    ] {
        let found = values(line);
        let found: BTreeSet<&str> = found.iter().map(String::as_str).filter(|value| !value.is_empty()).collect();
        assert_eq!(found, expected.iter().copied().collect(), "{line}");
    }
}

#[test]
fn lines_go_and_headings_stay() {
    let mut private = PrivateTexts::new();
    private.add("database:\n[Service]\nserver {\n  host = db.example.com\rexit 1\nshort\n");
    let text = "database: short [Service] server { host = db.example.com } exit 1 exit 127";
    assert_eq!(shown(&mut private, text), "database: short [Service] server { *** } *** exit 127");
}

#[test]
fn a_part_of_a_long_line_is_known_too() {
    let key = "0123456789abcdefghij".repeat(100);
    let mut private = PrivateTexts::new();
    private.add(&format!("{{\"private_key\": \"-----BEGIN-----\\n{key}\\n\", \"user\": \"é{key}\"}}"));
    for printed in [&*key, &format!("error: é{key}"), &key[..PIECE_BYTES]] {
        let shown = shown(&mut private, printed);
        assert!(!shown.contains("0123456789"), "{shown}");
    }
    assert!(private.longest_bytes() < 512, "{}", private.longest_bytes());
}

#[test]
fn named_values_of_all_files_come_before_lines() {
    let mut private = PrivateTexts::new();
    let mut tokens = |name: &str| {
        let pairs = (0..900).map(|number| format!("\"{name}_{number:04}\": {{\"token\": \"{name}-{number:06}\"}}, "));
        private.add(&format!("{{{}}}", pairs.collect::<String>()));
    };
    ["one", "two", "three", "four", "five"].into_iter().for_each(&mut tokens);
    private.add("password=hunter2\n");
    assert_eq!(shown(&mut private, "one-000000, hunter2"), "***, ***");
    let bytes = [private.values.bytes, private.lines.bytes];
    assert!(bytes[0] <= MAX_VALUES_BYTES && bytes[1] <= MAX_BYTES, "{bytes:?}");
}

#[test]
fn a_file_that_is_made_for_it_takes_no_long_time() {
    for text in [" ".repeat(MAX_FILE_BYTES), "password=".repeat(4000), "\"".repeat(MAX_FILE_BYTES), "a ".repeat(16000)]
    {
        let mut private = PrivateTexts::new();
        private.add(&text);
        assert!(private.found("nothing of it").is_empty());
    }
}

/// Returns what is shown of a text beside these secret files.
fn shown_beside(files: &[&str], text: &str) -> String {
    let mut private = PrivateTexts::new();
    for file in files {
        private.add(file);
    }
    shown(&mut private, text)
}

/// Returns a text in base64, in lines of these many columns.
fn wrapped_base64(text: &str, columns: usize, between: &str) -> String {
    let encoded = BASE64_STANDARD.encode(text);
    let lines: Vec<&str> =
        (0..encoded.len()).step_by(columns).map(|at| &encoded[at..encoded.len().min(at + columns)]).collect();
    lines.join(between)
}

#[test]
fn base64_of_a_file_is_hidden_across_its_line_breaks() {
    let key = "0123456789abcdefghijKLMNO".repeat(8);
    let file = format!("user = application\npassword = hunter2 and {key}\nsession = {key}\n");
    for (columns, between) in [(76, "\n"), (64, "\n    "), (64, "\r\n"), (48, "\n")] {
        let printed = wrapped_base64(&file, columns, between);
        let shown = shown_beside(&[&file], &printed);
        let is_shown = |part: &[u8]| shown.contains(&*String::from_utf8_lossy(part));
        let left: Vec<_> =
            printed.as_bytes().windows(8).filter(|part| !part.contains(&b'\n') && is_shown(part)).collect();
        assert!(left.is_empty(), "{columns}: {shown}");
    }
}

#[test]
fn a_file_of_one_short_line_is_known_in_every_form() {
    let base64 = BASE64_STANDARD.encode("hunter2!x\n");
    let login = BASE64_STANDARD.encode("admin:hunter2!x");
    for file in ["hunter2!x", "\n  hunter2!x\n"] {
        for (printed, expected) in [
            ("-phunter2!x", "-p***"),
            (r"'hunter2!x\n'", r"'***\n'"),
            ("p=hunter2%21x&", "p=***&"),
            ("68756e7465723221780a", "***0a"),
            (&base64, "***Cg=="),
            (&login, "YWRtaW46***"),
        ] {
            assert_eq!(shown_beside(&[file], printed), expected, "{file:?}");
        }
    }
}

#[test]
fn a_line_is_known_percent_encoded() {
    let text = "GET /?q=host%20%3D%20db%2Eexample%2Ecom HTTP/1.1";
    assert_eq!(shown_beside(&["host = db.example.com\nport = 1\n"], text), "GET /?q=*** HTTP/1.1");
}

#[test]
fn a_file_of_one_line_is_no_heading() {
    for secret in ["zqTokenA1b2c3:", "[zqTokenA1b2c3]", "zqToken{", "[Service]"] {
        assert_eq!(shown_beside(&[secret], &format!("no {secret}!")), "no ***!");
        assert_eq!(shown_beside(&[&format!("{secret}\n\n")], secret), "***");
    }
    // Of several lines, one with a digit inside of a word may be a key.
    let text = "zqTokenA1b2c3: [zqTokenA1b2c3] [Service] server-1: [x86_64]";
    let file = "zqTokenA1b2c3:\n[zqTokenA1b2c3]\n[Service]\nserver-1:\n[x86_64]\n";
    assert_eq!(shown_beside(&[file], text), "*** *** [Service] server-1: [x86_64]");
}

#[test]
fn plain_words_and_numbers_are_hidden_only_as_whole_words() {
    let files = ["password: postgres\n\ntoken: 123456\nexit 1\n"];
    for (printed, expected) in [
        ("postgres: restart postgresql.service 1234567 123456.", "***: restart postgresql.service 1234567 ***."),
        ("exit 127, exit 1", "exit 127, ***"),
        ("postgres+postgresql", "***+postgresql"),
        ("password=postgres&x=postgresql%20", "password=***&x=postgresql%20"),
        (&BASE64_STANDARD.encode("postgres"), "***"),
        (&BASE64_STANDARD.encode("app:postgres"), "YXBwOn***"),
    ] {
        assert_eq!(shown_beside(&files, printed), expected);
    }
}

/// Returns whether these are among the values of a line.
#[track_caller]
fn has_values(line: &str, expected: &[&str]) {
    let found = values(line);
    for value in expected {
        assert!(found.iter().any(|one| one == value), "{value} is not in {found:?}");
    }
}

#[test]
fn values_are_found_inside_of_quotes_brackets_and_larger_texts() {
    for (line, expected) in [
        (r#"Environment="DB_PASSWORD=zqsystemd1""#, &["zqsystemd1"][..]),
        (r#"header = "Authorization: Bearer zqcurlhdr1""#, &["zqcurlhdr1"]),
        (r#"{"Authorization": "Bearer zqjson01", "list": ["--password=zqarg0001"]}"#, &["zqjson01", "zqarg0001"]),
        (r#"proxy_set_header Authorization "Basic enFiYXNpYzE=";"#, &["enFiYXNpYzE="]),
        (r#"password = """zqtriple01""""#, &["zqtriple01"]),
        ("DB_PASSWORD = b'zqbytes001'", &["zqbytes001"]),
        ("passwd=(zqparen001)", &["zqparen001"]),
        (r#"secret: ["zqlist0001", "zqlist0002", 'zqlist0003']"#, &["zqlist0001", "zqlist0002", "zqlist0003"]),
        ("run `mysql --password=zqtick001`", &["zqtick001"]),
        (r#"sh -c \"curl --token=zqescaped1\""#, &["zqescaped1"]),
        ("password=[zqopen,1]x", &["[zqopen,1]x"]),
    ] {
        has_values(line, expected);
    }
}

#[test]
fn each_value_of_a_long_line_and_all_of_a_passphrase_is_known() {
    let pairs: String =
        (0..150).map(|number| format!("\"u{number}\":{{\"token\":\"zqTok{number:03}Xy9\"}},")).collect();
    has_values(&format!("{{{pairs}}}"), &["zqTok000Xy9", "zqTok149Xy9"]);
    for (file, printed) in [
        ("user: app\npassword: correct horse, battery staple\n", "denied: correct horse, battery staple"),
        ("user: app\nclient_secret: abc123 & def456, ghi789 xyz\n", "denied: abc123 & def456, ghi789 xyz"),
        ("user: app\npassword: correct horse battery staple\n", "denied: correct%20horse%20battery%20staple"),
    ] {
        assert_eq!(shown_beside(&[file], printed), "denied: ***", "{file:?}");
    }
    for alone in ["12345678", "topsecret\n"] {
        assert_eq!(shown_beside(&[alone], &format!("mysql -p{}x", alone.trim())), "mysql -p***x");
    }
}

#[test]
fn values_are_known_as_their_file_means_them() {
    for (line, expected) in [
        (r#"DB_PASSWORD="hunt\$er2zq""#, &[r"hunt\$er2zq", "hunt$er2zq"][..]),
        ("password: 'it''s-zq-secret'", &["it''s-zq-secret", "it's-zq-secret"]),
        (r"export PASSWORD='it'\''s-zq-secret'", &["it's-zq-secret"]),
        ("<password>zqa&amp;b&lt;zq9</password>", &["zqa&amp;b&lt;zq9", "zqa&b<zq9"]),
        (r"password=zq9\:colon\=eq", &["zq9:colon=eq"]),
        (r#"{"token": "zq\u0026\/9"}"#, &["zq&/9"]),
    ] {
        has_values(line, expected);
    }
}

#[test]
fn usual_names_of_secrets_have_values() {
    for (line, value) in [
        ("requirepass zqredis01", "zqredis01"),
        ("masterauth zqredis02", "zqredis02"),
        ("SECRET_KEY_BASE=zqrails01", "zqrails01"),
        ("PresharedKey = zqwire001=", "zqwire001="),
        ("DATABASE_URL=postgres://app:zqurl%21001@db/app", "zqurl!001"),
        ("url: 'redis://:zqurl%21002@db:6379/0'", "zqurl%21002"),
        ("DB_PASSWORD_2=zqsuffix01", "zqsuffix01"),
        ("DB_PASSWORD_PROD=zqsuffix02", "zqsuffix02"),
        ("password2: zqsuffix03", "zqsuffix03"),
    ] {
        has_values(line, &[value]);
    }
}

#[test]
fn algorithms_and_paths_are_no_values() {
    for line in [
        "signature: SHA256",
        "signature = scram-sha-256",
        "token: argon2id",
        "private_key = /etc/App/TLS.key",
        r#"private_key = ["/opt/App/Keys/one.pem"]"#,
        "Secret: required",
    ] {
        assert_eq!(values(line).len(), 0, "{line}: {:?}", values(line));
    }
    // A key in base64 may begin with a slash, too.
    has_values("secret_key = /k9Zq/7x+AbCd", &["/k9Zq/7x+AbCd"]);
}

#[test]
fn the_values_of_a_file_take_no_room_from_its_lines() {
    let line = |file: usize, number: usize| format!("{{\"password\": \"{file}-hunter-{number:04}\"}}\n");
    let files: Vec<String> = (0..4).map(|file| (0..1000).map(|number| line(file, number)).collect()).collect();
    assert!(files.iter().all(|file| file.len() < MAX_FILE_BYTES) && files.concat().len() < MAX_BYTES);
    let mut private = PrivateTexts::new();
    for file in &files {
        private.add(file);
    }
    let last = line(3, 999);
    assert_eq!(shown(&mut private, &format!("no {last}")), "no ***\n");
    let encoded = BASE64_STANDARD.encode(last.trim());
    assert_eq!(shown(&mut private, &encoded), "***");
}

#[test]
fn short_lines_count_where_a_text_is_cut() {
    let mut private = PrivateTexts::new();
    private.add("short line\nx\n");
    assert_eq!(private.longest_bytes(), "short line".len());
}
