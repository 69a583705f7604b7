//! `kill -9` while an archive replaces a directory: the path has the old tree or the new one, nothing is lost, and the next
//! run completes the change.
//!
//! The kills are at system calls spread evenly over the run. `GLOVO_KILL_POINTS` sets their number; the default is 12.

use std::{collections::HashMap, fs};

use crate::{
    archive::{Member, digest, gzip, tar},
    sandbox::{Finished, Sandbox},
};

const POINTS: usize = 12;
/// Calls that change files, or that decide what to change.
const CALLS: [&str; 13] = [
    "openat",
    "mkdirat",
    "symlinkat",
    "linkat",
    "renameat",
    "renameat2",
    "unlinkat",
    "fchmod",
    "write",
    "syncfs",
    "fsync",
    "close",
    "getdents64",
];

/// A sandbox in which one archive replaces another again and again.
struct Bench {
    sandbox: Sandbox,
    /// The manifests of the old and of the new archive.
    manifests: [String; 2],
}

impl Bench {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let manifests = ["old", "new"].map(|name| {
            let bytes = gzip(&tar(&[
                Member(b'0', "d/file", 0o644, name),
                Member(b'0', "d/e/file", 0o644, name),
                Member(b'1', "d/same", 0o644, "d/file"),
                Member(b'2', "link", 0o777, "d/file"),
                Member(b'0', &format!("only-{name}/file"), 0o644, name),
            ]));
            let source = sandbox.write(&format!("{name}.tgz"), &bytes);
            sandbox.write(
                &format!("{name}.toml"),
                format!(
                    "name = \"step\"\n[[resource]]\nkind = \"archive\"\npath = \"{}\"\nsource = \"file://{source}\"\n\
                     sha256 = \"{}\"\nkeep = [\"data\", \"d/kept\"]\n",
                    sandbox.at("tree/app"),
                    digest(&bytes)
                ),
            )
        });
        Self { sandbox, manifests }
    }

    /// Restores the state from before the new archive: the old one, with files of the application.
    fn undo(&self) {
        for directory in ["tree", "var-lib"] {
            _ = fs::remove_dir_all(self.sandbox.path.join(directory));
        }
        fs::create_dir(self.sandbox.path.join("tree")).unwrap();
        let _ = self.sandbox.run(&["run", "--steps", &self.manifests[0]]).expect(0);
        _ = self.sandbox.write("tree/app/data/mine", "mine");
        _ = self.sandbox.write("tree/app/d/kept/mine", "mine");
    }

    /// Runs the new archive below strace.
    fn traced(&self, arguments: &[&str]) -> Finished {
        let mut command = self.sandbox.shell("exec \"$@\"");
        let command = command.args(["strace", "-q"]).args(arguments);
        let command = command.args([env!("CARGO_BIN_EXE_glovo-bootstrap"), "run", "--steps", &self.manifests[1]]);
        Finished::from(command.output().unwrap())
    }

    /// Returns the points: a call and which use of it.
    fn points(&self) -> Vec<(String, usize)> {
        self.undo();
        let trace = self.sandbox.at("trace");
        let _ = self.traced(&["-o", &trace]).expect(0);
        let mut counts = HashMap::new();
        let trace = fs::read_to_string(trace).unwrap();
        let calls = trace.lines().filter_map(|line| line.split_once('(')).map(|(call, _)| call.to_owned());
        let numbered = calls.map(|call| {
            let nth = *counts.entry(call.clone()).and_modify(|count| *count += 1).or_insert(1);
            (call, nth)
        });
        numbered.filter(|(call, _)| CALLS.contains(&call.as_str())).collect()
    }

    /// Returns the one archive whose members the directory has.
    fn name(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.sandbox.path.join("tree/app").join(name)).unwrap_or_default();
        let name = read("d/file");
        assert!(matches!(name.as_str(), "old" | "new"), "{name:?}");
        let members = [read("d/e/file"), read("d/same"), read("link"), read(&format!("only-{name}/file"))];
        assert!(members.iter().all(|member| *member == name), "{name}: {members:?}");
        let other = if name == "old" { "only-new" } else { "only-old" };
        assert!(!self.sandbox.path.join("tree/app").join(other).exists(), "{name} has {other}");
        name
    }

    fn kill_at(&self, (call, nth): &(String, usize)) -> String {
        self.undo();
        let inject = format!("inject={call}:signal=KILL:when={nth}");
        let killed = self.traced(&["-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject]);
        assert_ne!(killed.code, Some(0), "it was not killed");
        let name = self.name();
        for mine in ["data/mine", "d/kept/mine"] {
            let places =
                ["app", ".app.tree.glovo-bootstrap"].map(|top| self.sandbox.path.join("tree").join(top).join(mine));
            let found = places.iter().filter(|place| fs::read_to_string(place).is_ok_and(|text| text == "mine"));
            assert_eq!(found.count(), 1, "{mine} is lost or there twice");
        }
        let run = || self.sandbox.run(&["run", "--steps", &self.manifests[1]]).expect(0);
        let _ = run();
        assert_eq!(self.name(), "new");
        for mine in ["data/mine", "d/kept/mine"] {
            assert_eq!(fs::read_to_string(self.sandbox.path.join("tree/app").join(mine)).unwrap(), "mine");
        }
        let names = |directory: &str| {
            let entries = fs::read_dir(self.sandbox.path.join(directory)).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(names("tree"), ["app"]);
        assert!(!names("var-lib/glovo-bootstrap").iter().any(|name| name.ends_with(".next")));
        let _ = run().says("0 changes");
        name
    }
}

#[test]
fn a_killed_exchange_leaves_the_old_directory_or_the_new() {
    let bench = Bench::new();
    let all = bench.points();
    let number = std::env::var("GLOVO_KILL_POINTS").map_or(POINTS, |points| points.parse().unwrap()).min(all.len());
    let mut counts = HashMap::<String, usize>::new();
    for index in 0..number {
        let point = &all[index * all.len() / number];
        println!("{} {}", point.0, point.1);
        *counts.entry(bench.kill_at(point)).or_default() += 1;
    }
    println!("{number} of {} system calls, by the directory after the kill: {counts:?}", all.len());
}

#[test]
fn a_kill_beside_the_exchange_leaves_one_whole_directory() {
    let bench = Bench::new();
    let all = bench.points();
    // The renames are the note, the exchange and the kept paths; the call after each of them shows what it has done.
    let near: Vec<usize> =
        (0..all.len()).filter(|index| all[*index].0 == "renameat2").flat_map(|index| [index, index + 1]).collect();
    let names: Vec<String> = near.iter().map(|index| bench.kill_at(&all[*index])).collect();
    assert!(names.len() >= 6 && names[0] == "old" && names[1..].iter().all(|name| name == "new"), "{names:?}");
}
