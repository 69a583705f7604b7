//! `kill -9` in the middle of a run, at system calls spread evenly over the run: no file is torn, and the next run
//! completes the changes.
//!
//! At 200 of them, which takes two minutes; `GLOVO_KILL_POINTS` asks for another number, `tests/nightly` for 500.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use machine::{Machine, Options, Release};

const POINTS: usize = 200;
const JAR: &str = "origin.test/kill.jar";
const SITE: &str = include_str!("../../../steps/files/nginx-default");

/// Declarations whose run is killed again and again.
struct Subject {
    name: &'static str,
    manifest: &'static str,
    /// Shell: restores the state from before a run that was killed.
    undo: &'static str,
    /// Shell: what must be so when all is converged, beyond what the agent itself says.
    settled: &'static str,
    /// Every file it writes, with its bytes before (`None`: no file) and after.
    files: &'static [(&'static str, Option<&'static str>, &'static str)],
    /// So many of a hundred points kill the agent, and so many the first process of the run, be it the agent or one it
    /// started, that comes to a system call.
    shares: [usize; 2],
}

const FILES: Subject = Subject {
    name: "files",
    manifest: r#"
name = "files"
[[resource]]
kind = "directory"
path = "/srv/kill/parent/directory"
mode = "0750"
[[resource]]
kind = "file"
path = "/srv/kill/content"
content = "new content\n"
mode = "0640"
[[resource]]
kind = "file"
path = "/srv/kill/neighbour"
content = "new neighbour\n"
[[resource]]
kind = "file"
path = "/srv/kill/jar"
source = "http://{{ jar }}"
verify = "none"
[[resource]]
kind = "file"
path = "/srv/kill/site"
source = "s3://glovo-config/nginx/default"
[[resource]]
kind = "link"
path = "/srv/kill/link"
target = "new"
[[resource]]
kind = "link"
path = "/srv/kill/first-link"
target = "new"
"#,
    undo: "rm -rf /srv/kill /var/lib/glovo-bootstrap; mkdir /srv/kill
        echo old content > /srv/kill/content; echo old site > /srv/kill/site; ln -s old /srv/kill/link",
    settled: "cd /srv/kill; [ $(stat -c %a parent/directory) = 750 ]; [ $(stat -c %a content) = 640 ]
        [ $(readlink link)$(readlink first-link) = newnew ]",
    files: &[
        ("/srv/kill/content", Some("old content\n"), "new content\n"),
        ("/srv/kill/neighbour", None, "new neighbour\n"),
        ("/srv/kill/jar", None, JAR),
        ("/srv/kill/site", Some("old site\n"), SITE),
    ],
    shares: [40, 10],
};

const ACCOUNTS_AND_SWAP: Subject = Subject {
    name: "accounts and swap",
    manifest: r#"
name = "accounts"
[[resource]]
kind = "group"
name = "kill-group"
[[resource]]
kind = "user"
name = "kill-user"
system = true
groups = ["kill-group"]
[[resource]]
kind = "swap"
path = "{{ swap }}"
size = "1MiB"
"#,
    undo: "swapoff $swap 2> /dev/null || true
        rm -rf $swap /var/lib/glovo-bootstrap; sed -i '\\|^/mnt/ext4|d' /etc/fstab
        userdel kill-user 2> /dev/null || true; groupdel kill-user 2> /dev/null || true; groupdel kill-group 2> /dev/null || true",
    settled: "swapon --show --noheadings | grep -q $swap; [ $(grep -c ^$swap /etc/fstab) = 1 ]; [ $(stat -c %a $swap) = 600 ]
        [ \"$(id -Gn kill-user)\" = 'kill-user kill-group' ]",
    files: &[],
    shares: [15, 15],
};

const SERVICE: Subject = Subject {
    name: "service",
    manifest: r#"
name = "service"
[[resource]]
kind = "file"
path = "/srv/kill.conf"
content = "SLEEP={{ seconds }}\n"
[[resource]]
kind = "file"
path = "/etc/systemd/system/kill.service"
content = """
[Service]
EnvironmentFile=/srv/kill.conf
ExecStart=sleep ${SLEEP}.{{ seconds }}
[Install]
WantedBy=multi-user.target
"""
[[resource]]
kind = "service"
name = "kill.service"
enabled = true
running = true
restart_on = ["/srv/kill.conf", "/etc/systemd/system/kill.service"]
stable = "1ms"
"#,
    undo: "glovo-bootstrap run --steps /root/kill.toml --set seconds=1001 > /dev/null; systemctl disable -q kill",
    settled: "grep -zqx 1002.1002 /proc/$(systemctl show --value -p MainPID kill)/cmdline; systemctl -q is-enabled kill",
    files: &[
        ("/srv/kill.conf", Some("SLEEP=1001\n"), "SLEEP=1002\n"),
        (
            "/etc/systemd/system/kill.service",
            Some(
                "[Service]\nEnvironmentFile=/srv/kill.conf\nExecStart=sleep ${SLEEP}.1001\n[Install]\nWantedBy=multi-user.target\n",
            ),
            "[Service]\nEnvironmentFile=/srv/kill.conf\nExecStart=sleep ${SLEEP}.1002\n[Install]\nWantedBy=multi-user.target\n",
        ),
    ],
    shares: [10, 0],
};

const PACKAGE: Subject = Subject {
    name: "package",
    // So many that the agent fetches them itself.
    manifest: r#"
name = "package"
[[resource]]
kind = "package"
names = ["glovo-test-conffile", "glovo-test-hello", "glovo-test-service", "tree"]
"#,
    // A killed dpkg may leave a package that it would not even remove unless forced.
    undo: "dpkg --purge --force-remove-reinstreq glovo-test-conffile glovo-test-hello glovo-test-service tree > /dev/null 2>&1; apt-get clean",
    settled: "dpkg --verify glovo-test-conffile; [ -z \"$(dpkg --audit)\" ]",
    files: &[("/etc/glovo-test-conffile.conf", None, "version = 2.0\n")],
    shares: [4, 6],
};

#[test]
fn a_killed_run_tears_nothing_and_the_next_one_converges() -> Result<()> {
    let points = match std::env::var("GLOVO_KILL_POINTS") {
        Ok(number) => number.parse().context("GLOVO_KILL_POINTS")?,
        Err(_) => POINTS,
    };
    let machine = Machine::boot(Options::default())?;
    machine.world().publish(JAR, JAR);
    let mut subjects = vec![FILES, ACCOUNTS_AND_SWAP, SERVICE];
    // With dnf, tests/machine/tests/dnf_kill.rs kills installations.
    if Release::default() != Release::Amazon {
        // The lists: fetching them is not what is killed here, and they stay.
        machine.sh("apt-get -qq update")?;
        subjects.push(PACKAGE);
    }
    let (mut by_call, mut killed, mut failures) = (BTreeMap::new(), 0, vec![]);
    for subject in subjects {
        let start = Instant::now();
        let bench = Bench { machine: &machine, subject };
        fs::write(machine.path("/root/kill.toml"), bench.subject.manifest)?;
        for (victim, share) in [Victim::Agent, Victim::AnyProcess].into_iter().zip(bench.subject.shares) {
            for point in bench.points(victim, points * share / 100)? {
                *by_call.entry(point.call.clone()).or_insert(0) += 1;
                match bench.kill_at(victim, &point) {
                    Ok(reached) => killed += usize::from(reached),
                    Err(error) => failures.push(format!("{}, {victim:?} at {point:?}: {error:#}", bench.subject.name)),
                }
            }
        }
        println!("{}: {:.0?}", bench.subject.name, start.elapsed());
    }
    let points = by_call.values().sum::<usize>();
    println!("{points} points: {by_call:?}; {killed} of them reached");
    // How often a process waits is never quite the same twice.
    ensure!(killed + failures.len() > points * 9 / 10, "strace did not kill");
    ensure!(failures.is_empty(), "{} points failed:\n{}", failures.len(), failures.join("\n"));
    Ok(())
}

/// The process that is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    /// The agent. What it has started lives on.
    Agent,
    /// The first process of the run that makes the call.
    AnyProcess,
}

/// The nth time that a process makes a system call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Point {
    call: String,
    nth: usize,
}

struct Bench<'a> {
    machine: &'a Machine,
    subject: Subject,
}

impl Bench<'_> {
    /// At most `number` of all points of an undisturbed run, spread evenly.
    fn points(&self, victim: Victim, number: usize) -> Result<Vec<Point>> {
        self.shell(self.subject.undo)?;
        ensure!(self.trace(victim, &[])?.code == 0, "{} does not converge", self.subject.name);
        let trace = fs::read_to_string(self.machine.path("/root/kill.trace"))?;
        let all = points(&trace, matches!(victim, Victim::AnyProcess));
        let chosen = number.min(all.len());
        Ok((0..chosen).map(|index| all[index * all.len() / chosen].clone()).collect())
    }

    /// One round: undo, kill, look, run, look, run. Was anything killed?
    fn kill_at(&self, victim: Victim, point: &Point) -> Result<bool> {
        self.shell(self.subject.undo).context("undo")?;
        let Point { call, nth } = point;
        let inject = format!("inject={call}:signal=KILL:when={nth}");
        self.trace(victim, &["-e", &format!("trace={call}"), "-e", &inject])?;
        let killed = fs::read_to_string(self.machine.path("/root/kill.trace"))?.contains("killed by SIGKILL");
        self.nothing_is_torn()?;
        self.run()?.success().context("the next run")?;
        self.shell(self.subject.settled).context("settled")?;
        self.nothing_is_left_behind()?;
        self.run()?.success().context("one more run")?;
        ensure!(self.report()?.context("no report")?["outcome"] == "unchanged", "one more run changed something");
        Ok(killed)
    }

    fn nothing_is_torn(&self) -> Result<()> {
        for (path, before, after) in self.subject.files {
            match fs::read_to_string(self.machine.path(path)) {
                Ok(bytes) => ensure!(Some(&*bytes) == *before || bytes == *after, "{path} is torn:\n{bytes}"),
                Err(_) => ensure!(before.is_none(), "{path} is gone"),
            }
        }
        self.report().map(drop)
    }

    fn nothing_is_left_behind(&self) -> Result<()> {
        let left = self.machine.sh("ls -d /usr/sbin/policy-rc.d 2> /dev/null || true
            find /etc /srv /usr/sbin /mnt/ext4 /var/lib/glovo-bootstrap /var/cache -name '*.glovo-bootstrap'")?;
        ensure!(left.is_empty(), "left behind: {left}");
        Ok(())
    }

    /// What the last run wrote of itself, if it came so far.
    fn report(&self) -> Result<Option<serde_json::Value>> {
        match fs::read(self.machine.path("/var/lib/glovo-bootstrap/report.json")) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).context("the report is torn")?)),
            Err(_) => Ok(None),
        }
    }

    fn run(&self) -> Result<machine::Output> {
        self.machine.exec(&self.agent().iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// A run under strace, with these arguments to it.
    fn trace(&self, victim: Victim, arguments: &[&str]) -> Result<machine::Output> {
        let all_processes: &[&str] = match victim {
            Victim::Agent => &[],
            Victim::AnyProcess => &["-f"],
        };
        let agent = self.agent();
        let agent: Vec<&str> = agent.iter().map(String::as_str).collect();
        self.machine.exec(&[&["strace", "-q", "-o", "/root/kill.trace"], all_processes, arguments, &agent].concat())
    }

    fn agent(&self) -> Vec<String> {
        let swap = format!("swap={}", self.machine.swap_path());
        let jar = format!("jar={JAR}");
        let set = ["--set", &jar, "--set", &swap, "--set", "seconds=1002"];
        [&["glovo-bootstrap", "run", "--steps", "/root/kill.toml"], &set[..]]
            .concat()
            .into_iter()
            .map(Into::into)
            .collect()
    }

    fn shell(&self, script: &str) -> Result<String> {
        self.machine.sh(&format!("swap={}\n{script}", self.machine.swap_path()))
    }
}

/// Every system call in strace's output, counted for each process by itself, as `inject` counts.
fn points(trace: &str, has_pids: bool) -> Vec<Point> {
    let mut counts = HashMap::new();
    let mut seen = HashSet::new();
    let calls = trace.lines().filter_map(|line| {
        let (pid, line) = if has_pids { line.split_once(' ')? } else { ("", line) };
        let (call, _) = line.trim_start().split_once('(')?;
        call.starts_with(|c: char| c.is_ascii_lowercase()).then_some((pid, call))
    });
    let points = calls.map(|(pid, call)| {
        let nth = counts.entry((pid, call)).and_modify(|count| *count += 1).or_insert(1);
        Point { call: call.to_owned(), nth: *nth }
    });
    points.filter(|point| seen.insert(point.clone())).collect()
}
