//! The report of the last run, when its file is missing or damaged.

use std::fs;

use crate::sandbox::{Sandbox, eventually};

#[test]
fn a_damaged_report_is_told_and_renamed() {
    let garbage = |path: &str| fs::write(path, b"\xff{\"run_id\": 7").unwrap();
    let huge = |path: &str| fs::File::create(path).unwrap().set_len(60 << 20).unwrap();
    let directory = |path: &str| fs::create_dir_all(format!("{path}/full")).unwrap();
    let other = |path: &str| fs::write(path, "{}").unwrap();
    let cut_off = |path: &str| fs::write(path, "{\"run_id\":\"1\",\"steps\":[{\"resources\":[]}").unwrap();
    let zeros = |path: &str| fs::write(path, "{\"run_id\":\"1\",\"steps\":[\0\0\0\0]}\n").unwrap();
    let one_letter = |path: &str| fs::write(path, "{\"run_id\":\"1\",\"stepz\":[]}\n").unwrap();
    let sandbox = Sandbox::new();
    let manifest = sandbox
        .manifest(&format!("[[resource]]\nkind = \"file\"\npath = \"{}\"\ncontent = \"\"\n", sandbox.at("file")));
    let _ = sandbox.run(&["status"]).expect(1).says("no run has left a report");
    let (report, aside) = (sandbox.at("var-lib/glovo-bootstrap/report.json"), "report.json.damaged");
    fs::create_dir_all(sandbox.at("var-lib/glovo-bootstrap")).unwrap();
    for damage in [garbage, huge, directory, other, cut_off, zeros, one_letter, directory] {
        let _ = fs::remove_file(&report);
        damage(&report);
        for arguments in [&["status"][..], &["status", "--json"]] {
            let said = sandbox.run(arguments).expect(1).says("the report of the last run cannot be read");
            let _ = said.says("caused by: /var/lib/glovo-bootstrap/report.json");
        }
        let plan = sandbox.run(&["plan", "--steps", &manifest]).expect(0);
        assert!(!plan.stderr.contains(aside), "a plan moves nothing: {plan:?}");
        let run = sandbox.run(&["run", "--steps", &manifest]).expect(0);
        let _ = run
            .says("the report of the last run cannot be read")
            .says(&format!("renamed to /var/lib/glovo-bootstrap/{aside}"));
        let _ = sandbox.run(&["status"]).expect(0).says("converged");
        assert!(fs::exists(sandbox.at(&format!("var-lib/glovo-bootstrap/{aside}"))).unwrap());
        let run = sandbox.run(&["run", "--steps", &manifest]).expect(0);
        assert!(!run.stderr.contains(aside), "{run:?}");
    }
}

#[test]
fn a_report_of_which_a_crash_left_nothing_is_none() {
    let sandbox = Sandbox::new();
    let manifest = sandbox
        .manifest(&format!("[[resource]]\nkind = \"file\"\npath = \"{}\"\ncontent = \"\"\n", sandbox.at("file")));
    let _ = sandbox.run(&["run", "--steps", &manifest]).expect(0);
    fs::write(sandbox.at("var-lib/glovo-bootstrap/report.json"), "").unwrap();
    let _ = sandbox.run(&["status"]).expect(1).says("no run has left a report");
    let run = sandbox.run(&["run", "--steps", &manifest]).expect(0);
    assert!(!run.stderr.contains("report"), "{run:?}");
    let _ = sandbox.run(&["status"]).expect(0).says("converged");
}

#[test]
fn a_running_step_has_no_time_and_times_have_no_fractions() {
    let sandbox = Sandbox::new();
    let (ready, go) = (sandbox.at("ready"), sandbox.at("go"));
    let manifest = sandbox.manifest(&format!(
        "[[resource]]\nkind = \"file\"\npath = \"{}\"\ncontent = \"\"\nvalidate = [\"sh\", \"-c\", ': {{}}; touch {ready}; while [ ! -e {go} ]; do sleep 0.05; done']\n",
        sandbox.at("f")
    ));
    let mut run = sandbox.start(&["run", "--steps", &manifest]);
    eventually("the validator runs", || fs::exists(&ready).unwrap());
    let status = sandbox.run(&["status"]).expect(4).stdout;
    fs::write(&go, "").unwrap();
    assert!(run.wait().unwrap().success());
    assert!(status.contains("running") && !status.contains(" ms"), "{status}");
    let started = sandbox.report()["started"].as_str().unwrap().to_owned();
    assert!(status.contains(&started) && started.len() == "2026-01-01T00:00:00Z".len(), "{started}\n{status}");
}
