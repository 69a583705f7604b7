//! The kind `log_forward` and the collector, with faults on the way. In each, no program that logs waits.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use machine::Machine;
use machine::logs::{Pace, Pair};

/// The longest time without anything new, for what the forwarder says once a minute, on a busy machine.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(180);

/// Logs numbered lines of about this many bytes, below 1 KiB: `logger` splits longer ones. It would wait if journald did.
fn log(machine: &Machine, word: &str, lines: u64, bytes: usize) -> Result<()> {
    machine.sh(&format!("seq -f \"{word} %.0f $(printf %{bytes}s | tr ' ' y)\" {lines} | timeout 60 logger -t app"))?;
    Ok(())
}

/// Waits until the journal of a machine has these words, and returns the lines with them.
fn wait_for_journal(machine: &Machine, tag: &str, words: &str) -> Result<String> {
    let start = Instant::now();
    loop {
        let journal = machine.sh(&format!("journalctl --boot --no-pager --output cat --identifier {tag}"))?;
        let found: Vec<&str> = journal.lines().filter(|line| line.contains(words)).collect();
        if !found.is_empty() {
            return Ok(found.join("\n"));
        }
        ensure!(start.elapsed() < NOTICE_TIMEOUT, "no {words:?} of {tag}: {journal}");
        sleep(Duration::from_secs(1));
    }
}

/// Waits until the forwarder has read the journal to its end: it needs hardly any processor time for some seconds. The
/// place where it notes how far it has read is on the full disk.
fn wait_until_idle(sender: &Machine) -> Result<()> {
    let used = || -> Result<u64> {
        let nanoseconds = sender.sh("systemctl show --property CPUUsageNSec --value log-forward-app")?;
        Ok(nanoseconds.trim().parse()?)
    };
    let (mut last, mut idle, start) = (used()?, 0, Instant::now());
    while idle < 3 {
        ensure!(start.elapsed() < NOTICE_TIMEOUT, "the forwarder is still busy");
        sleep(Duration::from_secs(1));
        let now = used()?;
        idle = if now - last < 20_000_000 { idle + 1 } else { 0 };
        last = now;
    }
    Ok(())
}

/// Waits until the lines with each word have arrived, or the target was told that they are missing. Returns the number of
/// those.
///
/// The target is told with the next line. So lines are logged until one arrives; they count too.
fn wait_for_all_or_their_report(pair: &Pair, words: &[&str], mut lines: u64) -> Result<u64> {
    let mut last = (0, Instant::now());
    loop {
        if pair.count("message:next")? == 0 {
            log(&pair.sender, "next", 1, 1)?;
            lines += 1;
            sleep(Duration::from_secs(1));
        }
        let reports = pair.search("tag:log_forward")?;
        let dropped: u64 = reports.iter().filter_map(|record| record["dropped"].as_u64()).sum();
        let mut arrived = pair.count("message:next")?;
        for word in words {
            arrived += pair.count(&format!("message:{word}"))?;
        }
        if arrived + dropped == lines {
            return Ok(dropped);
        }
        if arrived + dropped > last.0 {
            last = (arrived + dropped, Instant::now());
        }
        ensure!(
            last.1.elapsed() < NOTICE_TIMEOUT,
            "{arrived} arrived and {dropped} are missing of {lines}: {reports:?}"
        );
        sleep(Duration::from_millis(500));
    }
}

#[test]
fn a_full_queue_holds_no_logger_up_and_is_reported_exactly() -> Result<()> {
    let pair = Pair::boot("16MiB")?;
    let sender = &pair.sender;
    // The rate limit is higher than journald's, but its space on the disk is bounded: 10 % of it, 4 GiB at most.
    let bound =
        sender.sh("journalctl --boot --identifier systemd-journald --output cat | grep 'System Journal.* max '")?;
    let max = bound.split(" max ").nth(1).and_then(|rest| rest.split([',', ' ']).next()).context(bound.clone())?;
    let (number, unit) = max.split_at(max.len() - 1);
    ensure!(unit == "M" || unit == "G" && number.parse::<f64>()? <= 4.0, "{bound}");

    sender.sh("systemctl kill --signal=STOP log-forward-app")?;
    log(sender, "stopped", 2000, 20)?;
    sender.sh("systemctl kill --signal=CONT log-forward-app")?;
    pair.wait_for_count("message:stopped", 2000)?;

    pair.collector.sh("systemctl stop log-collector")?;
    log(sender, "over", 10_000, 900)?;
    wait_for_journal(sender, "log_forward", "because the queue is full")?;
    pair.collector.sh("systemctl start log-collector")?;
    let dropped = wait_for_all_or_their_report(&pair, &["stopped", "over"], 12_000)?;
    println!("dropped of 10000: {dropped}");
    ensure!((1..10_000).contains(&dropped), "{dropped} are missing");
    wait_for_journal(sender, "log_forward", "lines were dropped before this one")?;
    Ok(())
}

#[test]
fn what_a_full_disk_drops_is_reported_exactly() -> Result<()> {
    let pair = Pair::boot("256MiB")?;
    let sender = &pair.sender;
    pair.collector.sh("systemctl stop log-collector")?;
    sender.sh("systemctl stop log-forward-app; mount -t tmpfs -o size=24m,mode=700 tmpfs /var/lib/rsyslog/app; \
         head -c 20M /dev/zero > /var/lib/rsyslog/app/filler; systemctl start log-forward-app")?;
    log(sender, "brim", 6000, 900)?;
    wait_for_journal(sender, "rsyslogd", "No space left on device")?;
    wait_until_idle(sender)?;
    sender.sh("rm /var/lib/rsyslog/app/filler")?;
    log(sender, "again", 500, 200)?;
    pair.collector.sh("systemctl start log-collector")?;
    let dropped = wait_for_all_or_their_report(&pair, &["brim", "again"], 6500)?;
    println!("dropped of 6500: {dropped}");
    ensure!((1..6000).contains(&dropped), "{dropped} are missing");
    Ok(())
}

#[test]
fn lost_packets_and_a_slow_target_lose_no_line() -> Result<()> {
    let pair = Pair::boot("256MiB")?;
    let firewall = |verb: &str, rest: &[&str]| -> Result<()> {
        let rule = [verb, "INPUT", "--in-interface", "vpc", "--protocol", "tcp", "--dport", "20514"];
        let drop = ["--jump", "DROP"];
        let status = pair.sender.world().command("iptables").args(rule).args(rest).args(drop).status()?;
        ensure!(status.success(), "iptables {verb} {rest:?}: {status}");
        Ok(())
    };
    let third = ["--match", "statistic", "--mode", "random", "--probability", "0.3"];
    firewall("--append", &third)?;
    log(&pair.sender, "third", 500, 20)?;
    pair.wait_for_count("message:third", 500)?;
    firewall("--delete", &third)?;

    firewall("--append", &[])?;
    log(&pair.sender, "none", 2000, 20)?;
    firewall("--delete", &[])?;
    pair.wait_for_count("message:none", 2000)?;

    pair.wire.set_pace(Pace::Slow);
    log(&pair.sender, "slow", 2000, 20)?;
    sleep(Duration::from_secs(5));
    log(&pair.sender, "slower", 500, 20)?;
    pair.wire.set_pace(Pace::Full);
    pair.wait_for_count("message:slow", 2000)?;
    pair.wait_for_count("message:slower", 500)?;
    assert_eq!(pair.count("tag:log_forward")?, 0);
    Ok(())
}

/// An `OpenSearch` that knows no user.
const REFUSING: &str = r#"
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        body = b'{"error":{"reason":"no user"},"status":401}'
        self.send_response(401)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_GET = do_HEAD = do_POST
http.server.ThreadingHTTPServer(("127.0.0.1", 9200), Handler).serve_forever()
"#;

/// Sends again what was refused, as the collector's README says.
const RESEND: &str = r#"
import json, subprocess
for line in open("/var/log/log-collector/refused"):
    body = json.loads(line)["request"]["postdata"]
    command = ["curl", "--fail", "--silent", "--data-binary", "@-", "--output", "/dev/null",
               "--header", "content-type: application/x-ndjson", "http://127.0.0.1:9200/_bulk"]
    subprocess.run(command, input=body.encode(), check=True)
"#;

#[test]
fn a_collector_keeps_what_is_refused_and_deletes_old_indices() -> Result<()> {
    let pair = Pair::boot("256MiB")?;
    let collector = &pair.collector;
    fs::write(collector.path("/root/refusing.py"), REFUSING)?;
    fs::write(collector.path("/root/resend.py"), RESEND)?;
    collector.sh("systemctl stop osmem; systemd-run --quiet --unit refusing python3 /root/refusing.py; \
         until curl -s 127.0.0.1:9200 > /dev/null; do sleep 0.1; done")?;
    log(&pair.sender, "refused", 200, 20)?;
    wait_for_journal(collector, "log-collector", "requests; they are kept in /var/log/log-collector/refused")?;
    collector.sh("systemctl stop refusing; systemd-run --quiet --unit osmem osmem-server -addr 127.0.0.1:9200 \
         -no-stdin-watch -no-ja; until curl -fs 127.0.0.1:9200 > /dev/null; do sleep 0.1; done")?;
    log(&pair.sender, "accepted", 200, 20)?;
    pair.wait_for_count("message:accepted", 200)?;
    collector.sh("python3 /root/resend.py; python3 /root/resend.py")?;
    // Their ids make the second time harmless.
    pair.wait_for_count("message:refused", 200)?;

    let indices = || collector.sh("curl -fs '127.0.0.1:9200/_cat/indices?h=index' | sort");
    collector
        .sh("for index in logs-2020-01-31 logs-2020-01-31-kept logs-kept other-2020-01-31 logs-2999-01-01; do \
         curl -fs --request PUT 127.0.0.1:9200/$index; done")?;
    let before = indices()?;
    collector
        .sh("systemctl is-active log-collector-retention.timer; systemctl start log-collector-retention.service")?;
    assert_eq!(indices()?, before.replace("logs-2020-01-31\n", ""));
    wait_for_journal(collector, "log-collector-retention", "deleted the index logs-2020-01-31")?;
    Ok(())
}
