//! The kind `log_forward`, and the collector of `packaging/log-collector`, on two booted machines.

use std::collections::BTreeSet;
use std::fs;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, bail};
use machine::logs::{FORWARD, Pair, burst, certificates, give, install, text};
use machine::step::{agent, converge, expect, run};
use machine::{Machine, Options, Tree};
use serde_json::Value;

/// Returns how long the collector is away before the forwarder is restarted: `GLOVO_LOG_OUTAGE`, in seconds.
fn outage() -> Duration {
    Duration::from_secs(std::env::var("GLOVO_LOG_OUTAGE").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(2))
}

#[test]
fn lines_arrive_with_their_build_also_after_an_outage() -> Result<()> {
    let mut logs = Pair::boot("256MiB")?;
    expect(&logs.sender.agent(&["status"])?, 0, &[]);
    logs.sender.sh("logger -t app marked")?;
    let found = logs.wait_for("message:marked", 1)?;
    let report: Value = serde_json::from_str(&logs.sender.sh("cat /var/lib/glovo-bootstrap/summary.json")?)?;
    let record = &found[0];
    assert_eq!((text(record, "build"), text(record, "tag")), ("42", "app"), "{record}");
    assert!(text(record, "instance").starts_with("i-") && text(record, "zone").starts_with("eu-central-1"), "{record}");
    // Two runs without a change came after the one that started the forwarder.
    assert!(!text(record, "run_id").is_empty() && text(record, "run_id") < text(&report, "run_id"), "{record}");
    assert!(!logs.search("build:42")?.is_empty());

    // What systemd says about a unit is sent, also if a program writes the same fields, which are then not its own.
    logs.wait_for("unit:%22app.service%22+AND+tag:systemd", 1)?;
    logs.sender.sh("printf 'MESSAGE=forged\\nUNIT=app.service\\n' | runuser --user daemon -- logger --journald")?;
    logs.sender.sh("printf 'MESSAGE=forged 1 from app.service\\nMESSAGE_ID=a596d6fe7bfa4994828e72309e95d61e\\n' | \
                    runuser --user daemon -- logger --journald")?;
    logs.sender.sh("printf 'MESSAGE=tagged\\nSYSLOG_IDENTIFIER=app\\nUNIT=app.service\\n' | logger --journald")?;
    let tagged = logs.wait_for("message:tagged", 1)?;
    assert_ne!(text(&tagged[0], "unit"), "app.service", "{tagged:?}");
    assert_eq!(logs.search("message:forged")?, Vec::<Value>::new());

    // One record, not five.
    logs.sender.sh("systemctl kill --signal=USR1 --kill-who=main app")?;
    let traces = logs.wait_for("message:Exception", 1)?;
    let trace = text(&traces[0], "message");
    assert!(trace.starts_with("Exception in thread") && trace.ends_with("\t... 2 more"), "{trace:?}");
    assert_eq!(trace.lines().count(), 5, "{trace:?}");

    // The run of user-data that fails; it is no unit's. The block is written by the supervisor of a run with --signal.
    let broken = "name = \"broken\"\n[[resource]]\nkind = \"command\"\nname = \"never\"\nargv = [\"false\"]\n\
                  unless = { argv = [\"false\"] }\n";
    fs::write(logs.sender.path("/root/broken.toml"), broken)?;
    expect(&logs.sender.agent(&["run", "--record", "--steps", "/root/broken.toml"])?, 1, &["command never: failed"]);
    let failures = logs.wait_for("tag:%22glovo-bootstrap%22+AND+severity:err", 1)?;
    assert!(text(&failures[0], "message").contains("failed with exit code 1"), "{failures:?}");

    // journald's default limit would drop a third of 50,000.
    logs.sender.sh("systemctl kill --signal=USR2 --kill-who=main app")?;
    logs.wait_for_count("message:burst", burst())?;
    let all = logs.messages("message:burst", usize::try_from(burst())?)?;
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len() as u64, burst(), "of {} records", all.len());

    // The collector is away. The forwarder is stopped and killed meanwhile.
    logs.collector.sh("systemctl stop log-collector")?;
    let log = |from: u32, to: u32| {
        let script = format!(
            "begin=$(date +%s%N); seq -f 'outage %.0f' {from} {to} | logger -t app; echo $(( ($(date +%s%N) - begin) / 1000000 ))"
        );
        logs.sender.sh(&script)
    };
    println!("3000 lines, in ms: {}", log(1, 3000)?);
    sleep(outage());
    logs.sender.sh("systemctl restart log-forward-app")?;
    log(3001, 4000)?;
    logs.sender.sh("systemctl kill --signal=KILL log-forward-app")?;
    log(4001, 4100)?;
    // The OpenSearch is away, too, and the collector is killed.
    logs.collector.sh("systemctl kill --signal=STOP osmem; systemctl start log-collector; sleep 1; systemctl kill --signal=KILL log-collector; sleep 2; systemctl kill --signal=CONT osmem")?;
    logs.wait_for("message:outage", 4100 - 64)?;
    sleep(Duration::from_secs(3));
    let found = logs.search("message:outage")?;
    let distinct: BTreeSet<&str> = found.iter().map(|record| text(record, "message")).collect();
    println!("{} records of {} lines", found.len(), distinct.len());
    // What was on its way over RELP when the forwarder was stopped can be lost: up to 32 records each time.
    assert!((4100 - 64..=4100).contains(&distinct.len()), "{} of 4100", distinct.len());
    // The line that was read when the forwarder was killed can come twice.
    assert!(found.len() <= distinct.len() + 2, "{} records of {} lines", found.len(), distinct.len());

    // The application is stopped before the forwarder, which sends its last line.
    logs.sender.power_off()?;
    logs.wait_for("message:lastwords", 1)?;
    Ok(())
}

#[test]
fn a_stack_trace_of_java_is_one_record() -> Result<()> {
    let converged = Options { tree: Tree::Converged, ..Options::default() };
    let pair = Pair::boot_with(converged, "256MiB")?;
    // The application's port is taken, so a second one fails.
    let java = "java -jar \"$(find / -xdev -name 'systems-engineer-interview*.jar' | head -n 1)\" server";
    pair.sender.sh(&format!("{java} 2>&1 | logger -t app; logger -t app the next line"))?;
    pair.wait_for("message:next", 1)?;
    let traces = pair.search("message:already")?;
    let [trace] = &traces[..] else { bail!("{traces:?}") };
    let trace = text(trace, "message");
    assert!(trace.starts_with("Exception in thread \"main\" java.net.BindException: "), "{trace}");
    assert!(trace.lines().count() > 5 && trace.lines().skip(1).all(|line| line.starts_with("\tat ")), "{trace}");
    Ok(())
}

/// Breaks the JSON of the record of a line in the queue, as a full disk does that takes half of a record.
const BREAK: &str = r#"
import glob, sys
for name in glob.glob("/var/lib/rsyslog/app/queue.0*"):
    with open(name, "r+b") as queue:
        records = queue.read()
        line = records.find(sys.argv[1].encode())
        if line >= 0:
            queue.seek(records.index(b"{", records.rindex(b"\n+json:", 0, records.rindex(sys.argv[1].encode()))))
            queue.write(b"}")
"#;

#[test]
fn a_record_that_is_broken_in_the_queue_is_counted() -> Result<()> {
    let pair = Pair::boot("256MiB")?;
    let sender = &pair.sender;
    pair.collector.sh("systemctl stop log-collector")?;
    sender.sh("seq -f 'number %.0f.' 200 | logger -t app; \
         until grep --text --quiet 'number 200[.]' /var/lib/rsyslog/app/queue.0*; do sleep 0.1; done")?;
    fs::write(sender.path("/root/break.py"), BREAK)?;
    sender.sh("python3 /root/break.py 'number 150.'")?;
    pair.collector.sh("systemctl start log-collector")?;
    pair.wait_for_count("message:number", 199)?;
    let reports = pair.wait_for("tag:log_forward", 1)?;
    assert_eq!(reports.iter().map(|report| report["dropped"].as_u64()).collect::<Vec<_>>(), [Some(1)], "{reports:?}");
    Ok(())
}

#[test]
fn a_target_that_never_comes_stops_nothing() -> Result<()> {
    let machine = Machine::boot(Options::default())?;
    install(&machine)?;
    let lone = FORWARD.replace("172.31.0.1:20514", "172.31.0.1:9");
    let lone = lone.split("[resource.tls]").next().unwrap_or_default().to_owned()
        + "\n[[resource]]\nkind = \"service\"\nname = \"log-forward-app.service\"\nrunning = true\n\
           restart_on = [\"/etc/rsyslog.d/app.forward\"]\n";
    converge(&machine, &lone, &["service log-forward-app.service: start"])?;
    let slowest = machine.sh("slowest=0; for n in $(seq 200); do begin=$(date +%s%N); logger -t app never $n; \
         took=$(( ($(date +%s%N) - begin) / 1000000 )); [ $took -le $slowest ] || slowest=$took; done; echo $slowest")?;
    println!("the slowest of 200 calls of logger, in ms: {}", slowest.trim());
    machine.sh("until grep -c . /var/lib/rsyslog/app/queue.0* > /dev/null; do sleep 0.1; done")?;

    // rsyslogd refuses a configuration whose module is missing. The present one stays, and runs.
    machine.sh("dpkg --purge rsyslog-elasticsearch > /dev/null")?;
    let before = machine.sh("sha256sum /etc/rsyslog.d/app.forward; systemctl show -P MainPID log-forward-app")?;
    let other = lone.replace("172.31.0.1:9", "http://172.31.0.1:9").replace("\"relp\"", "\"elasticsearch\"");
    expect(&run(&machine, &other)?, 1, &["was not replaced: its validator failed", "omelasticsearch"]);
    assert_eq!(machine.sh("sha256sum /etc/rsyslog.d/app.forward; systemctl show -P MainPID log-forward-app")?, before);
    expect(&agent(&machine, "plan", &lone)?, 0, &["0 changes pending"]);
    Ok(())
}

#[test]
fn the_built_in_step_ships_logs_once_it_is_switched_on() -> Result<()> {
    let machine = Machine::boot(Options::default())?;
    install(&machine)?;
    let pki = machine.directory().join("pki");
    certificates(&pki, &["sender.test"])?;
    give(&machine, &pki)?;
    let mut arguments = vec!["run", "ship_logs"];
    expect(&machine.bootstrap(&arguments)?, 0, &["not here: log_shipping is off", "converged: 0 changes"]);
    for value in [
        "log_shipping=on",
        "log_target=172.31.0.1:9",
        "log_ca=/etc/pki/logs/ca.pem",
        "log_certificate=/etc/pki/logs/sender.test.pem",
        "log_key=/etc/pki/logs/sender.test.key",
    ] {
        arguments.extend(["--set", value]);
    }
    expect(&machine.bootstrap(&arguments)?, 0, &["service log-forward-glovo-app.service: start"]);
    expect(&machine.bootstrap(&arguments)?, 0, &["converged: 0 changes"]);
    machine.sh("grep -q 'set $!doc!instance = \"i-' /etc/rsyslog.d/glovo-app.forward; \
         grep -q 'set $!doc!build = \"1.0.0\"' /etc/rsyslog.d/glovo-app.forward")?;
    Ok(())
}
