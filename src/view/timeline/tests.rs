use serde_json::json;

use super::*;

/// A run of 20 s that began 11 s after power-on.
fn report(outcome: &str, exit_code: Option<u8>) -> Report {
    let resource = |name: &str, began: u64, milliseconds: u64| json!({"resource": name, "outcome": "changed", "began": began, "milliseconds": milliseconds, "attempts": 1, "changes": []});
    let mut jar = resource("file /opt/<app>.jar", 12_000, 3_000);
    jar["downloads"] = json!([
        {"source": "https://h/a", "bytes": 1_048_576, "began": 100, "wanted": 12_000, "ended": 14_000, "behind": ["packages"]}
    ]);
    let report = json!({
        "run_id": "64f-1", "version": "0", "command": "run", "started": "2026-11-29T05:00:11Z", "ended": null,
        "boot": {"id": "b", "milliseconds": 11_000}, "milliseconds": 20_000, "outcome": outcome, "exit_code": exit_code,
        "steps": [
            {"name": "packages", "outcome": "changed", "began": 0, "milliseconds": 12_000, "resources": [
                resource("package java", 0, 11_950), resource("package curl", 11_950, 10)]},
            {"name": "jar", "outcome": "changed", "began": 12_000, "milliseconds": 3_000, "resources": [jar]},
            {"name": "skipped", "outcome": "skipped", "began": 0, "milliseconds": 0, "resources": []},
            {"name": "verify", "outcome": outcome, "began": 15_000, "milliseconds": 5_000, "resources": [
                resource("http_check http://127.0.0.1/", 15_000, 5_000)]},
        ],
    });
    serde_json::from_value(report).unwrap()
}

fn boot() -> Vec<BootPart> {
    let part = |name, began, ended| BootPart { name, began, ended };
    vec![
        part("kernel", 0, Some(2_000)),
        part("systemd and its units", 2_000, None),
        part("cloud-init, user-data", 10_500, None),
        part("a later unit", 12_000, Some(13_000)),
    ]
}

fn labels(timeline: &Timeline) -> Vec<(&str, u64, u64, bool)> {
    timeline.rows.iter().map(|row| (row.label.as_str(), row.began, row.ended, row.is_open)).collect()
}

#[test]
fn a_boot_and_its_run_are_on_one_clock() {
    let timeline = Timeline::new(&report("changed", Some(0)), &boot(), None);
    assert_eq!(
        labels(&timeline),
        [
            ("kernel", 0, 2_000, false),
            ("systemd and its units", 2_000, 31_000, true),
            ("cloud-init, user-data", 10_500, 31_000, true),
            ("packages", 11_000, 23_000, false),
            ("package java", 11_000, 22_950, false),
            ("1 shorter: 10 ms in all", 11_000, 11_000, false),
            ("jar", 23_000, 26_000, false),
            ("file /opt/<app>.jar", 23_000, 26_000, false),
            ("download of 1 MiB", 11_100, 25_000, false),
            ("verify", 26_000, 31_000, false),
            ("http_check http://127.0.0.1/", 26_000, 31_000, false),
        ]
    );
    assert_eq!(timeline.rows[8].waited, Some(23_000));
    assert_eq!(timeline.summary, "from power-on to converged: 31.0 s");
    assert_eq!(timeline.marks, [(11_000, "the run begins"), (31_000, "first answer")]);
    let longest = "longest: package java 11.9 s (38 %) · http_check http://127.0.0.1/ 5.0 s (16 %) · file /opt/<app>.jar 3.0 s (9 %)";
    assert_eq!(timeline.longest, longest);
}

#[test]
fn a_run_without_its_boot_begins_at_zero() {
    let timeline = Timeline::new(&report("failed", Some(1)), &[], None);
    assert_eq!(timeline.rows[0].began, 0);
    assert_eq!(timeline.summary, "from the run's beginning to failed with exit code 1: 20.0 s");
    assert_eq!(timeline.rows.iter().filter(|row| row.kind == rows::RowKind::Failed).count(), 1);
}

#[test]
fn a_run_long_after_the_boot_is_drawn_without_it() {
    let complete = |ended| vec![BootPart { name: "kernel", began: 0, ended: Some(ended) }];
    let mut run = report("changed", Some(0));
    for (began, is_drawn) in [(70_000, true), (70_001, false)] {
        run.boot.as_mut().unwrap().milliseconds = began;
        let timeline = Timeline::new(&run, &complete(10_000), None);
        assert_eq!(timeline.rows[0].label == "kernel", is_drawn, "{began}");
    }
}

#[test]
fn a_run_that_goes_on_is_drawn_up_to_now() {
    let timeline = Timeline::new(&report("running", None), &boot(), Some(41_000));
    let verify = timeline.rows.iter().find(|row| row.label == "verify").unwrap();
    assert_eq!((verify.ended, verify.is_open), (41_000, true));
    assert!(timeline.summary.contains("the run goes on"), "{}", timeline.summary);
    // One that was cut off ends with what it has reported.
    let timeline = Timeline::new(&report("running", None), &boot(), None);
    assert_eq!(timeline.end, 31_000);
}

#[test]
fn the_picture_is_well_formed_and_its_texts_are_harmless() {
    let mut run = report("changed", Some(0));
    run.steps[0].name = "\u{1b}]52;c;x\u{7}<script>\"&".into();
    for (boot, now) in [(boot(), None), (vec![], None)] {
        let timeline = Timeline::new(&run, &boot, now);
        for picture in [svg(&timeline), html(&timeline)] {
            assert!(!picture.contains('\u{1b}') && !picture.contains("<script"), "{picture}");
        }
        let picture = svg(&timeline);
        let document = roxmltree::Document::parse(&picture).unwrap();
        let texts: Vec<_> = document.descendants().filter_map(|node| node.text()).collect();
        assert!(texts.iter().any(|text| text.contains("<script>\"&")), "{texts:?}");
        // No bar begins or ends outside of the picture.
        for bar in document.descendants().filter(|node| node.has_tag_name("rect")) {
            let number = |name| bar.attribute(name).map_or(0, |value| value.parse::<u64>().unwrap());
            assert!(number("x") + number("width") <= 1200, "{bar:?}");
        }
    }
}

#[test]
fn times_that_make_no_sense_break_no_picture() {
    let mut run = report("changed", Some(0));
    run.milliseconds = u64::MAX;
    run.steps[0].milliseconds = u64::MAX;
    run.steps[0].resources[0].began = u64::MAX;
    run.steps[0].resources[0].milliseconds = u64::MAX;
    let late = vec![BootPart { name: "kernel", began: u64::MAX, ended: Some(0) }];
    for boot in [late, boot()] {
        let picture = svg(&Timeline::new(&run, &boot, Some(0)));
        assert!(roxmltree::Document::parse(&picture).is_ok());
    }
}
