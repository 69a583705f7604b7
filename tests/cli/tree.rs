//! The kind `tree`, with a bucket in this process.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink},
    sync::{Arc, Mutex},
};

use crate::{
    sandbox::{Finished, Sandbox},
    server::{Reply, Server},
};

type Objects = Arc<Mutex<BTreeMap<String, String>>>;

/// A machine and a bucket. An object with the content `denied` cannot be read.
struct Site {
    sandbox: Sandbox,
    objects: Objects,
    server: Server,
}

impl Site {
    fn new(objects: &[(&str, &str)]) -> Self {
        let pairs = objects.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned()));
        let objects: Objects = Arc::new(Mutex::new(pairs.collect()));
        let known = objects.clone();
        let server = Server::start(move |request| {
            let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
            let objects = known.lock().unwrap();
            if let Some(key) = path.strip_prefix("/bucket/").filter(|key| !key.is_empty()) {
                return match objects.get(key) {
                    Some(text) if text == "denied" => Reply::new(403, "<Error><Code>AccessDenied</Code></Error>"),
                    Some(text) => Reply::ok(text.clone()),
                    None => Reply::new(404, "<Error><Code>NoSuchKey</Code></Error>"),
                };
            }
            let prefix = query.split('&').find_map(|pair| pair.strip_prefix("prefix=")).unwrap().replace("%2F", "/");
            let contents = objects.iter().filter(|(key, _)| key.starts_with(&prefix)).map(|(key, text)| {
                let key = key.replace('\n', "%0A");
                let etag = format!("&quot;{text}&quot;");
                format!("<Contents><Key>{key}</Key><Size>{}</Size><ETag>{etag}</ETag></Contents>", text.len())
            });
            let contents: String = contents.collect();
            Reply::ok(format!("<ListBucketResult><EncodingType>url</EncodingType>{contents}</ListBucketResult>"))
        });
        Self { sandbox: Sandbox::new(), objects, server }
    }

    fn put(&self, key: &str, text: &str) {
        let _ = self.objects.lock().unwrap().insert(key.into(), text.into());
    }

    fn delete(&self, key: &str) {
        let _ = self.objects.lock().unwrap().remove(key);
    }

    fn on(&self, arguments: &[&str]) -> Finished {
        let mut command = self.sandbox.command(arguments);
        let _ = command.env("AWS_ENDPOINT_URL_S3", self.server.url("")).env("AWS_REGION", "eu-central-1");
        let _ = command.env("AWS_ACCESS_KEY_ID", "AK").env("AWS_SECRET_ACCESS_KEY", "s3cret");
        Finished::from(command.output().unwrap())
    }

    fn declared(&self, verb: &str, fields: &str, others: &str) -> Finished {
        let site = self.sandbox.at("site");
        let tree =
            format!("[[resource]]\nkind = \"tree\"\npath = \"{site}\"\nsource = \"s3://bucket/site/\"\n{fields}\n");
        let manifest = self.sandbox.manifest(&format!("{tree}{others}"));
        self.on(&[verb, "--steps", &manifest])
    }

    fn run(&self) -> Finished {
        self.declared("run", "", "")
    }

    fn plan(&self) -> Finished {
        self.declared("plan", "", "")
    }

    #[track_caller]
    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.sandbox.at(&format!("site/{path}"))).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn has(&self, path: &str) -> bool {
        fs::exists(self.sandbox.at(&format!("site/{path}"))).unwrap()
    }

    /// Returns how many objects were downloaded so far.
    fn downloads(&self) -> usize {
        self.server.requests().iter().filter(|request| request.target.starts_with("/bucket/site/")).count()
    }
}

const OBJECTS: [(&str, &str); 4] = [("site/", ""), ("site/a", "1"), ("site/deep/er/b", "22"), ("site/deep/c", "333")];

#[test]
fn a_directory_has_the_files_of_its_source() {
    let site = Site::new(&OBJECTS);
    let plan = site.plan().expect(0).says("create directory, mode 0755").says("2 changes pending");
    let _ = plan.says("download 3 files from s3://bucket/site/: a (new), deep/c (new), deep/er/b (new)");
    assert!(!fs::exists(site.sandbox.at("site")).unwrap());
    let _ = site.run().expect(0).says("2 changes");
    assert_eq!((site.read("a"), site.read("deep/er/b"), site.read("deep/c")), ("1".into(), "22".into(), "333".into()));
    let mode = |path: &str| fs::metadata(site.sandbox.at(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!([mode("site"), mode("site/deep/er"), mode("site/deep/c")], [0o755, 0o755, 0o644]);
    let _ = site.run().expect(0).says("0 changes");
    assert_eq!(site.downloads(), 3);

    site.put("site/a", "new");
    site.put("site/d", "4");
    site.delete("site/deep/er/b");
    let plan = site.plan().expect(0).says("download 2 files from s3://bucket/site/: a (other ETag), d (new)");
    let _ = plan.says("remove 1 file, gone from the source: deep/er/b").says("2 changes pending");
    let _ = site.run().expect(0).says("2 changes");
    assert_eq!((site.read("a"), site.has("deep/er"), site.has("deep/c")), ("new".into(), false, true));
    let _ = site.run().expect(0).says("0 changes");
    assert_eq!(site.downloads(), 5);
}

#[test]
fn each_drift_by_hand_is_named_and_fixed() {
    let site = Site::new(&OBJECTS);
    let _ = site.run().expect(0);
    let at = |path: &str| site.sandbox.at(&format!("site/{path}"));
    let chmod = |path: &str, mode: u32| fs::set_permissions(at(path), fs::Permissions::from_mode(mode)).unwrap();
    let drifts: [(&dyn Fn(), &str); 7] = [
        (&|| fs::write(at("a"), "by hand").unwrap(), "download 1 file from s3://bucket/site/: a (changed here)"),
        (&|| fs::remove_file(at("deep/c")).unwrap(), "download 1 file from s3://bucket/site/: deep/c (new)"),
        (&|| fs::remove_dir_all(at("deep/er")).unwrap(), "download 1 file from s3://bucket/site/: deep/er/b (new)"),
        (&|| chmod("a", 0o600), "set the owner or mode of 1 file: a: mode 0644 (now 0600)"),
        // Another user may have it open.
        (&|| chmod("a", 0o666), "download 1 file from s3://bucket/site/: a (other owner or mode)"),
        (&|| chmod("deep", 0o700), "deep/: set mode 0755 (now 0700)"),
        (
            &|| {
                fs::remove_file(at("a")).unwrap();
                symlink("/etc/passwd", at("a")).unwrap();
            },
            "a (a symbolic link now)",
        ),
    ];
    for (by_hand, words) in drifts {
        by_hand();
        let _ = site.plan().expect(0).says(words).says("1 change pending");
        let _ = site.run().expect(0).says(words).says("1 change");
        let _ = site.run().expect(0).says("0 changes");
    }
    assert_eq!((site.read("a"), site.read("deep/er/b")), ("1".into(), "22".into()));
    fs::remove_file(at("a")).unwrap();
    fs::create_dir(at("a")).unwrap();
    let _ = site.plan().expect(1).says("/site/a exists and is not a file").says("hint: move it away");
    let _ = site.run().expect(1).says("exists and is not a file");
}

#[test]
fn files_that_the_source_never_had_stay() {
    let site = Site::new(&OBJECTS);
    let _ = site.run().expect(0);
    let _ = site.sandbox.write("site/deep/er/own", "mine");
    let _ = site.sandbox.write("site/other/own", "mine");
    let words = "not of the source, and left as it is: deep/er/own, other";
    let _ = site.plan().expect(0).says(words).says("0 changes");
    fs::write(site.sandbox.at("site/a"), "mine").unwrap();
    for key in ["site/a", "site/deep/er/b"] {
        site.delete(key);
    }
    let run = site.run().expect(0).says("a is gone from the source, but was changed here: it stays");
    let _ = run.says("remove 1 file, gone from the source: deep/er/b").says(words);
    assert_eq!(
        (site.read("a"), site.read("deep/er/own"), site.read("other/own")),
        ("mine".into(), "mine".into(), "mine".into())
    );
}

#[test]
fn an_empty_source_removes_nothing() {
    let site = Site::new(&OBJECTS);
    let _ = site.run().expect(0);
    site.objects.lock().unwrap().retain(|key, _| key == "site/");
    for finished in [site.plan(), site.run()] {
        let _ = finished.expect(1).says("there are no objects below s3://bucket/site/");
    }
    assert_eq!(site.read("deep/er/b"), "22");
}

#[test]
fn a_key_that_leads_elsewhere_is_refused() {
    for key in ["site/../x", "site/a//b", "site/./a", "site/x\ny", "site/.a.part", &format!("site/{}", "x".repeat(256))]
    {
        let site = Site::new(&[("site/a", "1"), (key, "2")]);
        for finished in [site.plan(), site.run()] {
            let _ = finished.expect(1).says("cannot be a file below a directory");
        }
        assert!(!site.has("a"), "{key}");
    }
    let site = Site::new(&[("site/a", "1"), ("site/a/b", "2")]);
    let _ = site.plan().expect(1).says("s3://bucket/site/a would be a file and a directory");
}

#[test]
fn a_source_beyond_the_limits_is_refused() {
    let site = Site::new(&OBJECTS);
    let _ =
        site.declared("plan", "max_size = \"5\"", "").expect(1).says("more than 5 bytes").says("hint: set max_size");
    let many: Vec<(String, String)> = (0..10_001).map(|number| (format!("site/{number}"), String::new())).collect();
    site.objects.lock().unwrap().extend(many);
    let _ = site.run().expect(1).says("s3://bucket/site/ has 10004 objects; a tree has at most 10000");
}

#[test]
fn a_file_of_another_resource_is_not_the_sources() {
    let site = Site::new(&OBJECTS);
    let file = |name: &str| {
        format!(
            "[[resource]]\nkind = \"file\"\npath = \"{}\"\ncontent = \"own\"\n",
            site.sandbox.at(&format!("site/{name}"))
        )
    };
    let run = site.declared("run", "", &file("deep/own")).expect(0);
    let _ = run.says("3 changes");
    let again = site.declared("run", "", &file("deep/own")).expect(0).says("0 changes");
    assert!(!again.stdout.contains("not of the source"), "{again:?}");
    for verb in ["plan", "run"] {
        let refused = site.declared(verb, "", &file("deep/c")).expect(1);
        let _ = refused.says("s3://bucket/site/deep/c is ").says("which another resource manages");
    }
}

#[test]
fn a_tree_below_is_not_the_sources() {
    let site = Site::new(&OBJECTS);
    let below = site.sandbox.at("site/deep");
    let tree = format!("[[resource]]\nkind = \"tree\"\npath = \"{below}\"\nsource = \"s3://bucket/site/\"\n");
    for verb in ["plan", "run"] {
        let refused = site.declared(verb, "", &tree).expect(1);
        let words = format!("s3://bucket/site/deep/c would be in {below}, which another resource manages");
        let _ = refused.says(&words).says("hint: remove the object, or the other resource");
    }
    for key in ["site/deep/c", "site/deep/er/b"] {
        site.delete(key);
    }
    let _ = site.declared("run", "", &tree).expect(0).says("4 changes");
    let _ = site.declared("run", "", &tree).expect(0).says("0 changes");
}

#[test]
fn a_removal_that_run_refuses_is_refused_by_plan() {
    let site = Site::new(&OBJECTS);
    let fields = "owner = \"65534\"\ngroup = \"65534\"";
    let _ = site.declared("run", fields, "").expect(0);
    site.delete("site/deep/er/b");
    fs::rename(site.sandbox.at("site/deep/er"), site.sandbox.at("er")).unwrap();
    symlink(site.sandbox.at("er"), site.sandbox.at("site/deep/er")).unwrap();
    lchown(site.sandbox.at("site/deep/er"), Some(65534), Some(65534)).unwrap();
    for verb in ["plan", "run"] {
        let _ = site.declared(verb, fields, "").expect(1).says("links below a user's directory are not followed");
    }
    assert_eq!(fs::read_to_string(site.sandbox.at("er/b")).unwrap(), "22");
}

#[test]
fn a_failed_download_leaves_the_others() {
    let site = Site::new(&OBJECTS);
    site.put("site/deep/c", "denied");
    let failed = site.run().expect(1).says("1 of 3 downloads failed; the first one");
    let _ = failed.says("downloading s3://bucket/site/deep/c");
    assert_eq!((site.read("a"), site.has("deep/c")), ("1".into(), false));
    site.put("site/deep/c", "333");
    let _ = site.run().expect(0).says("download 1 file from s3://bucket/site/: deep/c (new)");
}

#[test]
fn another_source_replaces_all_files() {
    let site = Site::new(&[("site/a", "1"), ("site/b", "1"), ("new/a", "1")]);
    let _ = site.run().expect(0);
    let path = site.sandbox.at("site");
    let manifest = site
        .sandbox
        .manifest(&format!("[[resource]]\nkind = \"tree\"\npath = \"{path}\"\nsource = \"s3://bucket/new/\"\n"));
    let run = site.on(&["run", "--steps", &manifest]).expect(0).says("a (of an unknown source now)");
    let _ = run.says("remove 1 file, gone from the source: b");
}

#[test]
fn owners_and_modes_are_those_declared() {
    let site = Site::new(&OBJECTS);
    let fields = "owner = \"65534\"\ngroup = \"65534\"\nmode = \"0640\"";
    let _ = site.declared("run", fields, "").expect(0);
    let of = |path: &str| {
        let metadata = fs::metadata(site.sandbox.at(path)).unwrap();
        (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777)
    };
    assert_eq!(of("site/deep/c"), (65534, 65534, 0o640));
    assert_eq!((of("site"), of("site/deep/er")), ((65534, 65534, 0o750), (65534, 65534, 0o750)));
    let _ = site.declared("run", fields, "").expect(0).says("0 changes");
}

#[test]
fn an_image_gets_the_files() {
    let site = Site::new(&OBJECTS);
    fs::create_dir_all(site.sandbox.at("tree/etc")).unwrap();
    let manifest =
        site.sandbox.manifest("[[resource]]\nkind = \"tree\"\npath = \"/srv/site\"\nsource = \"s3://bucket/site/\"\n");
    let image = site.sandbox.at("tree");
    let _ = site.on(&["bake", "--steps", &manifest, "--root", &image]).expect(0).says("left to the boot: nothing");
    assert_eq!(fs::read_to_string(site.sandbox.at("tree/srv/site/deep/c")).unwrap(), "333");
    assert!(!fs::exists("/srv/site").unwrap());
    let _ = site.on(&["bake", "--steps", &manifest, "--root", &image]).expect(0).says("0 changes");
}

#[test]
fn wrong_declarations_are_refused() {
    let sandbox = Sandbox::new();
    for (fields, words) in [
        ("path = \"/srv/site\"\nsource = \"s3://bucket/site\"", "a prefix is s3://bucket/prefix/"),
        ("path = \"/srv/site\"\nsource = \"https://host/site/\"", "a prefix is s3://bucket/"),
        ("path = \"/srv/site\"", "kind `tree` needs the field `source`"),
        ("path = \"site\"\nsource = \"s3://bucket/site/\"", "`site` is not an absolute path"),
        ("path = \"/srv/site\"\nsource = \"s3://bucket/site/\"\nmode = 644", "`mode`"),
    ] {
        let manifest = sandbox.manifest(&format!("[[resource]]\nkind = \"tree\"\n{fields}\n"));
        let _ = sandbox.run(&["validate", "--steps", &manifest]).expect(2).says(words).says("manifest.toml:");
    }
}
