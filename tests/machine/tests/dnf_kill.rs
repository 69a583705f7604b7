//! `kill -9` of this program and of dnf at once, at system calls spread evenly over a transaction and between the commands
//! of a package's script: the next run completes the transaction, and calls no package installed whose script has not run.
//!
//! `GLOVO_KILL_POINTS` sets the number of kills; the default is 12.

use std::collections::{HashMap, HashSet};
use std::fs;

use anyhow::{Context, Result, ensure};
use machine::Machine;
use machine::made::{Made, machine, made, publish};

const POINTS: usize = 12;
/// The calls that change something, and those that start and end a script.
const CALLS: &str = "write,pwrite64,fsync,fdatasync,rename,renameat2,unlink,unlinkat,mkdir,symlink,ftruncate,fchown,chown,\
                     lchown,chmod,fchmod,utimensat,execve,clone,clone3,vfork,exit_group";
/// The commands of a script before which it can be killed.
const STEPS: usize = 5;
/// Leaves a mark when all of it has run. It stops itself where a test asks for it.
const SCRIPT: &str = "mkdir -p /var/lib/made\nfor step in 1 2 3 4 5; do\n  if [ \"$(cat /run/stop 2> /dev/null)\" = NAME$step ]; \
                      then touch /run/stopped; kill -STOP $$; fi\ndone\necho done > /var/lib/made/NAME.mark";

/// A transaction that is killed again and again.
struct Subject {
    name: &'static str,
    /// The fields of the resource `package`.
    fields: &'static str,
    /// Shell: restores the state from before.
    undo: &'static str,
    /// Shell: fails if rpm calls a package installed whose script has not run or whose files are gone.
    whole: &'static str,
    /// Shell: fails unless the machine is as declared.
    settled: &'static str,
    /// The packages whose scripts run.
    scripts: &'static [&'static str],
    /// The share of the points, in percent.
    share: usize,
}

const SUBJECTS: [Subject; 3] = [
    Subject {
        name: "installation",
        fields: "names = [\"app\"]",
        undo: "rpm -qa app library | xargs --no-run-if-empty rpm -e --noscripts --nodeps --allmatches
               rm -rf /var/lib/made /usr/share/made /etc/made",
        whole: "for name in app library; do
                  if rpm -q $name > /dev/null; then rpm -V $name; [ -e /var/lib/made/$name.mark ]; fi
                done",
        settled: "rpm -q app library",
        scripts: &["library", "app"],
        share: 50,
    },
    Subject {
        name: "upgrade",
        fields: "names = [\"app=2.0\"]",
        undo: "rpm -qa app library | xargs --no-run-if-empty rpm -e --noscripts --nodeps --allmatches
               rm -rf /var/lib/made /usr/share/made /etc/made
               rpm -i --noscripts /srv/made/app-1.0-1.test.noarch.rpm /srv/made/library-1.0-1.test.noarch.rpm",
        whole: "if rpm -q app | grep -q 2.0; then rpm -V app; [ -e /var/lib/made/app.mark ]; fi",
        settled: "[ $(rpm -q app) = app-2.0-1.test.noarch ]; [ $(cat /usr/share/made/app) = 2.0 ]; rpm -q library",
        scripts: &["app"],
        share: 30,
    },
    Subject {
        name: "removal",
        fields: "names = [\"library\"]\nabsent = true",
        undo: "rpm -qa app library | xargs --no-run-if-empty rpm -e --noscripts --nodeps --allmatches
               rm -rf /var/lib/made /usr/share/made /etc/made
               rpm -i --noscripts /srv/made/app-1.0-1.test.noarch.rpm /srv/made/library-1.0-1.test.noarch.rpm",
        whole: "for name in app library; do ! rpm -q $name > /dev/null || rpm -V $name; done",
        settled: "[ \"$(ls /usr/share/made; rpm -qa app library)\" = '' ]",
        scripts: &[],
        share: 20,
    },
];

#[test]
fn a_killed_transaction_is_completed_by_the_next_run() -> Result<()> {
    let points = match std::env::var("GLOVO_KILL_POINTS") {
        Ok(number) => number.parse().context("GLOVO_KILL_POINTS")?,
        Err(_) => POINTS,
    };
    let scripts = ["library", "app"].map(|name| SCRIPT.replace("NAME", name));
    let library = Made { post: &scripts[0], ..made("library", "1.0") };
    let app = Made { fields: "Requires: library", post: &scripts[1], ..made("app", "1.0") };
    let machine = machine(&[library, app])?;
    publish(&machine, &[Made { version: "2.0", ..app }])?;
    // The test's repository alone: reading others is not what is killed here.
    _ = machine.sh("rm /etc/yum.repos.d/amazonlinux.repo; dnf -q makecache")?;
    let mut failures = 0;
    for subject in SUBJECTS {
        let bench = Bench { machine: &machine, subject };
        let chosen = bench.points((points * bench.subject.share).div_ceil(100))?;
        let (mut killed, mut torn) = (0, 0);
        for point in &chosen {
            match bench.kill_at(point) {
                Ok(left) => {
                    killed += usize::from(left.is_killed);
                    torn += usize::from(left.is_torn);
                }
                Err(error) => {
                    println!("{} at {point:?}: {error:#}", bench.subject.name);
                    failures += 1;
                }
            }
        }
        println!("{}: {} points, {killed} reached, {torn} left a package torn", bench.subject.name, chosen.len());
        // How often a process writes is never quite the same twice.
        ensure!((killed + failures) * 2 > chosen.len(), "strace did not stop the processes");
    }
    ensure!(failures == 0, "{failures} points failed");
    Ok(())
}

/// Where the processes are killed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Point {
    /// The nth time that a process makes a system call.
    Call(String, usize),
    /// Before a command of a package's script.
    Script(&'static str, usize),
}

/// What a kill has left.
struct Left {
    is_killed: bool,
    /// rpm calls a package installed whose script has not run or whose files are gone.
    is_torn: bool,
}

struct Bench<'a> {
    machine: &'a Machine,
    subject: Subject,
}

impl Bench<'_> {
    /// At most `number` of all points of an undisturbed transaction, spread evenly. A third of them is in the scripts.
    fn points(&self, number: usize) -> Result<Vec<Point>> {
        let manifest = format!("name = \"kill\"\n[[resource]]\nkind = \"package\"\n{}\n", self.subject.fields);
        fs::write(self.machine.path("/root/kill.toml"), manifest)?;
        _ = self.machine.sh(self.subject.undo)?;
        let strace = format!("strace -f -q -y -o /root/kill.trace -e trace={CALLS}");
        _ = self.machine.sh(&format!("{strace} glovo-bootstrap run --steps /root/kill.toml"))?;
        self.settled()?;
        let all = points(&fs::read_to_string(self.machine.path("/root/kill.trace"))?);
        ensure!(all.len() > 50, "{} points", all.len());
        let scripts = self.subject.scripts;
        let in_scripts = (number / 3).min(scripts.len() * STEPS);
        let chosen = (number - in_scripts).min(all.len());
        let calls = (0..chosen).map(|index| all[index * all.len() / chosen].clone());
        let script = |index| Point::Script(scripts[index % scripts.len()], index / scripts.len() + 1);
        Ok(calls.chain((0..in_scripts).map(script)).collect())
    }

    /// One round: undo, kill all processes, look, run, look, run.
    fn kill_at(&self, point: &Point) -> Result<Left> {
        _ = self.machine.sh(self.subject.undo).context("undo")?;
        let (stop, strace) = match point {
            Point::Call(call, nth) => {
                let inject = format!("-e trace={call} -e inject={call}:signal=STOP:when={nth}");
                (String::new(), format!("strace -f -q -o /root/kill.trace {inject}"))
            }
            Point::Script(name, step) => (format!("{name}{step}"), String::new()),
        };
        // The process stops there, and then all of them are killed at once.
        let left = self.machine.sh(&format!(
            "rm -f /root/kill.trace /run/stopped; echo {stop} > /run/stop
             systemd-run --quiet --collect --unit=dying {strace} /usr/local/bin/glovo-bootstrap run --steps /root/kill.toml
             until grep -qs 'stopped by SIGSTOP' /root/kill.trace || [ -e /run/stopped ] ||
               ! systemctl --quiet is-active dying; do sleep 0.05; done
             ! systemctl --quiet is-active dying || echo killed
             systemctl kill --signal=KILL dying 2> /dev/null || :
             while systemctl --quiet is-active dying; do sleep 0.05; done; rm -f /run/stop /run/stopped
             # rpm unpacks to `NAME;SECONDS`, and does not replace what a killed rpm has left there in the same second.
             killed=$(date +%s); while [ $(date +%s) = $killed ]; do sleep 0.05; done"
        ))?;
        let is_torn = self.machine.sh(self.subject.whole).is_err();
        self.run()?.success().context("the next run")?;
        self.settled().context("settled")?;
        let again = self.run()?.success().context("one more run")?;
        ensure!(again.contains("converged: 0 changes"), "one more run: {again}");
        Ok(Left { is_killed: left.contains("killed"), is_torn })
    }

    /// Each installed package is whole, and all is as declared.
    fn settled(&self) -> Result<()> {
        _ = self.machine.sh(self.subject.whole)?;
        _ = self.machine.sh(self.subject.settled)?;
        Ok(())
    }

    fn run(&self) -> Result<machine::Output> {
        self.machine.agent(&["run", "--steps", "/root/kill.toml"])
    }
}

/// Every system call from the first one on that writes dnf's history or rpm's database, counted for each process by itself,
/// as `inject` counts.
fn points(trace: &str) -> Vec<Point> {
    let (mut counts, mut seen) = (HashMap::new(), HashSet::new());
    let mut has_begun = false;
    let mut points = vec![];
    for line in trace.lines() {
        let Some((pid, line)) = line.split_once(' ') else { continue };
        let Some((call, rest)) = line.trim_start().split_once('(') else { continue };
        if !call.starts_with(|c: char| c.is_ascii_lowercase()) {
            continue;
        }
        has_begun |= rest.contains("/var/lib/dnf/history.sqlite") || rest.contains("/var/lib/rpm/rpmdb.sqlite-wal");
        let nth = *counts.entry((pid, call)).and_modify(|count| *count += 1).or_insert(1);
        let point = Point::Call(call.to_owned(), nth);
        if seen.insert(point.clone()) && has_begun {
            points.push(point);
        }
    }
    points
}
