//! Files that stand next to each other in a step share their flushes, and nothing else.

use std::fs;

use crate::sandbox::{Finished, Sandbox};

/// Runs a manifest behind `strace` with these options.
fn run_traced(sandbox: &Sandbox, options: &str, manifest: &str) -> Finished {
    let mut command = sandbox.shell(&format!("exec strace -q -y {options} \"$@\""));
    let _ = command.args([env!("CARGO_BIN_EXE_glovo-bootstrap"), "run", "--steps", manifest]);
    Finished::from(command.output().expect("unshare and strace, as root"))
}

fn file(path: &str, content: &str) -> String {
    format!("[[resource]]\nkind = \"file\"\npath = \"{path}\"\ncontent = \"{content}\"\n")
}

/// The directory of the files, with `count` of them.
struct Neighbours {
    sandbox: Sandbox,
    count: usize,
}

impl Neighbours {
    fn new(count: usize) -> Self {
        let neighbours = Self { sandbox: Sandbox::new(), count };
        fs::create_dir(neighbours.sandbox.at("in")).unwrap();
        neighbours
    }

    fn path(&self, index: usize) -> String {
        self.sandbox.at(&format!("in/{index}"))
    }

    fn resources(&self, content: &str) -> String {
        (0..self.count).map(|index| file(&self.path(index), content)).collect()
    }

    fn write_all(&self, content: &str) {
        (0..self.count).for_each(|index| fs::write(self.path(index), content).unwrap());
    }

    /// The contents, which must be one of two, and that no other name is in the directory.
    fn has(&self, contents: &[&str]) -> bool {
        (0..self.count).all(|index| fs::read_to_string(self.path(index)).is_ok_and(|now| contents.contains(&&*now)))
    }

    fn names(&self) -> usize {
        fs::read_dir(self.sandbox.at("in")).unwrap().count()
    }

    /// Returns the system calls of a run that has to do with the directory or flushes it, in their order.
    fn calls(&self, resources: &str) -> Vec<String> {
        let trace = self.sandbox.at("trace");
        let options = format!("-o {trace} -e trace=fsync,syncfs,renameat,renameat2,symlinkat");
        let _ = run_traced(&self.sandbox, &options, &self.sandbox.manifest(resources)).expect(0);
        let (directory, below) = (format!("{}>", self.sandbox.at("in")), self.sandbox.at("in/"));
        let trace = fs::read_to_string(trace).unwrap();
        let ours = trace.lines().filter(|line| line.contains(&directory) || line.contains(&below));
        ours.map(str::to_owned).collect()
    }
}

fn count(calls: &[String], name: &str) -> usize {
    calls.iter().filter(|call| call.starts_with(&format!("{name}("))).count()
}

#[test]
fn neighbouring_files_share_their_flushes() {
    let few = Neighbours::new(3);
    let calls = few.calls(&few.resources("new"));
    assert_eq!((count(&calls, "fsync"), count(&calls, "syncfs")), (4, 0), "{calls:#?}");
    let many = Neighbours::new(150);
    let calls = many.calls(&many.resources("new"));
    assert_eq!((count(&calls, "fsync"), count(&calls, "syncfs")), (3, 3), "{calls:#?}");
    assert!(many.has(&["new"]) && many.names() == 150);
}

#[test]
fn their_bytes_are_durable_before_the_first_name() {
    let neighbours = Neighbours::new(20);
    neighbours.write_all("old");
    let link =
        format!("[[resource]]\nkind = \"link\"\npath = \"{}\"\ntarget = \"0\"\n", neighbours.sandbox.at("in/link"));
    let calls = neighbours.calls(&(neighbours.resources("new") + &link));
    let kinds: Vec<&str> = calls.iter().filter_map(|call| call.split('(').next()).collect();
    let mut kept = kinds.clone();
    kept.dedup();
    // The names are durable before the next resource, and the name of the link after it.
    let rename = kinds[1];
    assert_eq!(kept, ["syncfs", rename, "fsync", "symlinkat", "fsync"], "{calls:#?}");
    assert_eq!(kinds.iter().filter(|kind| **kind == rename).count(), 20, "{calls:#?}");
}

#[test]
fn each_gets_its_name_in_its_own_turn() {
    let neighbours = Neighbours::new(2);
    // The second one cannot be written: a directory is in its place.
    fs::create_dir(neighbours.path(1)).unwrap();
    let manifest = neighbours.resources("new") + &file(&neighbours.sandbox.at("in/2"), "third");
    let finished = neighbours.sandbox.run(&["run", "--steps", &neighbours.sandbox.manifest(&manifest)]).expect(1);
    let _ = finished.says("is a directory, not a file");
    assert_eq!(fs::read_to_string(neighbours.path(0)).unwrap(), "new");
    assert_eq!(neighbours.names(), 2, "nothing of the third file is left");
    let report = neighbours.sandbox.report();
    let outcomes: Vec<_> =
        report["steps"][0]["resources"].as_array().unwrap().iter().map(|one| &one["outcome"]).collect();
    assert_eq!(outcomes, ["changed", "failed"]);
}

#[test]
fn a_flush_that_fails_makes_each_file_stand_alone() {
    let neighbours = Neighbours::new(20);
    neighbours.write_all("old");
    let manifest = neighbours.sandbox.manifest(&neighbours.resources("new"));
    let inject = "-o /dev/null -e inject=syncfs:error=EIO";
    let _ = run_traced(&neighbours.sandbox, inject, &manifest).expect(0);
    assert!(neighbours.has(&["new"]) && neighbours.names() == 20);
}

#[test]
fn names_that_cannot_be_made_durable_are_an_error() {
    let neighbours = Neighbours::new(20);
    let manifest = neighbours.sandbox.manifest(&neighbours.resources("new"));
    let inject = format!("-o /dev/null -P {} -e inject=fsync:error=EIO", neighbours.sandbox.at("in"));
    let _ = run_traced(&neighbours.sandbox, &inject, &manifest).expect(1).says("EIO").says("flushing the directory of");
    let report = neighbours.sandbox.report();
    assert_eq!(report["steps"][0]["resources"][19]["outcome"], "failed", "{report:#}");
    let _ = neighbours.sandbox.run(&["run", "--steps", &manifest]).expect(0);
}

/// Runs files in two directories, the last one with a retry. One flush of a directory fails.
///
/// Returns the result and the flushes of the directories.
fn run_with_a_failing_flush(which: &str) -> (Neighbours, Finished, Vec<String>) {
    let neighbours = Neighbours::new(2);
    let (one, other, trace) =
        (neighbours.sandbox.at("in"), neighbours.sandbox.at("other"), neighbours.sandbox.at("trace"));
    fs::create_dir(&other).unwrap();
    let last = file(&format!("{other}/last"), "new") + "retries = 1\n";
    let manifest = neighbours.sandbox.manifest(&(neighbours.resources("new") + &last));
    let options = format!("-o {trace} -P {one} -P {other} -e trace=fsync -e inject=fsync:error=EIO{which}");
    let finished = run_traced(&neighbours.sandbox, &options, &manifest);
    let calls = fs::read_to_string(trace).unwrap().lines().map(str::to_owned).collect();
    (neighbours, finished, calls)
}

#[test]
fn a_retry_flushes_the_names_that_are_not_durable() {
    let (_, finished, calls) = run_with_a_failing_flush(":when=1");
    let _ = finished.expect(0);
    let directory = |call: &String| call.split(['<', '>']).nth(1).map(str::to_owned);
    let failed: Vec<_> = calls.iter().filter(|call| call.contains("EIO")).collect();
    let passed: Vec<_> = calls.iter().filter(|call| call.ends_with("= 0")).filter_map(directory).collect();
    // The other directory is flushed at once, and the failed one by the retry.
    assert_eq!((failed.len(), passed.len()), (1, 2), "{calls:#?}");
    assert_ne!(passed[0], passed[1], "{calls:#?}");
    assert_eq!(directory(failed[0]).as_ref(), passed.last(), "{calls:#?}");
}

#[test]
fn a_retry_fails_while_names_are_not_durable() {
    let (neighbours, finished, calls) = run_with_a_failing_flush("");
    let _ = finished.expect(1).says("making earlier files of the step durable").says("flushing the directory of");
    // The first try, the retry, and the end of the step.
    assert_eq!(count(&calls, "fsync"), 6, "{calls:#?}");
    let report = neighbours.sandbox.report();
    assert_eq!(report["steps"][0]["resources"][2]["outcome"], "failed", "{report:#}");
}

#[test]
fn a_flush_that_fails_at_the_end_hides_no_failure() {
    let neighbours = Neighbours::new(2);
    fs::create_dir(neighbours.path(1)).unwrap();
    let third = file(&neighbours.sandbox.at("in/2"), "third");
    let manifest = neighbours.sandbox.manifest(&(neighbours.resources("new") + &third));
    let inject = format!("-o /dev/null -P {} -e inject=fsync:error=EIO", neighbours.sandbox.at("in"));
    let finished = run_traced(&neighbours.sandbox, &inject, &manifest).expect(1);
    let _ = finished.says("is a directory, not a file").says("flushing the directory of");
    let report = neighbours.sandbox.report();
    assert_eq!((&report["outcome"], &report["steps"][0]["outcome"]), (&"failed".into(), &"failed".into()));
    let resources = report["steps"][0]["resources"].as_array().unwrap();
    let outcomes: Vec<_> = resources.iter().map(|one| (&one["resource"], &one["outcome"])).collect();
    assert_eq!(outcomes.len(), 3, "{report:#}");
    assert_eq!((outcomes[1].1, outcomes[2].1), (&"failed".into(), &"failed".into()), "{report:#}");
    assert_eq!(outcomes[2].0, "names of files");
}

#[test]
fn without_room_for_all_each_is_written_alone() {
    let neighbours = Neighbours::new(10);
    let (at, manifest) = (neighbours.sandbox.at("in"), neighbours.sandbox.manifest(&neighbours.resources("new")));
    // The directory, its ten files, and one more.
    let script = format!(
        "mount -t tmpfs -o nr_inodes=12 none {at}; for i in 0 1 2 3 4 5 6 7 8 9; do printf old > {at}/$i; done
        code=0; \"$@\" || code=$?; cat {at}/*; ls -A {at} | wc -l; exit $code"
    );
    let mut command = neighbours.sandbox.shell(&script);
    let _ = command.args([env!("CARGO_BIN_EXE_glovo-bootstrap"), "run", "--steps", &manifest]);
    let finished = Finished::from(command.output().expect("unshare, as root")).expect(0);
    let _ = finished.says(&"new".repeat(10)).says("10\n");
}

#[test]
fn a_killed_run_leaves_old_or_new_files() {
    let neighbours = Neighbours::new(12);
    let manifest = neighbours.sandbox.manifest(&neighbours.resources("new"));
    let (mut killed, mut mixed) = (0, 0);
    let here = format!("-P {}", neighbours.sandbox.at("in"));
    for (call, here) in [("renameat,renameat2", &*here), ("openat", &here), ("fsync", &here), ("syncfs", "")] {
        for nth in 1.. {
            neighbours.write_all("old");
            let inject = format!("-o /dev/null {here} -e inject={call}:signal=KILL:when={nth}");
            let finished = run_traced(&neighbours.sandbox, &inject, &manifest);
            if finished.code == Some(0) {
                break;
            }
            killed += 1;
            assert!(neighbours.has(&["old", "new"]), "{call} {nth}: {finished:?}");
            mixed += usize::from(!neighbours.has(&["old"]) && !neighbours.has(&["new"]));
            let _ = neighbours.sandbox.run(&["run", "--steps", &manifest]).expect(0);
            assert!(neighbours.has(&["new"]) && neighbours.names() == 12, "{call} {nth}");
        }
    }
    assert!(killed > 20 && mixed > 5, "{killed} kills, {mixed} with old and new files");
}
