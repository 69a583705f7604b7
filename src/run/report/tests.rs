use super::*;

#[test]
fn a_download_names_the_steps_that_ran_meanwhile() {
    let mut report = Report::begin(None, ["fast", "slow", "skipped", "next", "own"].into_iter().map(Into::into));
    for (step, (began, milliseconds)) in report.steps.iter_mut().zip([(0, 10), (10, 5000), (0, 0), (5010, 90)]) {
        (step.began, step.milliseconds) = (began, milliseconds);
    }
    let said = |began, wanted, ended| {
        let behind = report.steps_between(4, began, u64::min(wanted, ended));
        DownloadReport { source: "s3://b/x".into(), bytes: 12 << 20, began, wanted, ended, behind }.to_string()
    };
    assert_eq!(said(5, 5100, 345), "12 MiB in 340 ms, while fast, slow ran");
    assert_eq!(said(10, 5100, 5100), "12 MiB in 5.1 s, while slow, next ran");
    assert_eq!(said(10, 5100, 6010), "12 MiB in 6.0 s, 5.1 s of it while slow, next ran");
    assert_eq!(said(5100, 5100, 5440), "12 MiB in 340 ms");

    let of = |began, wanted, ended| DownloadReport {
        source: "http://a/x.deb".into(),
        bytes: 1 << 20,
        began,
        wanted,
        ended,
        behind: vec![],
    };
    assert_eq!(DownloadReport::sum(&[]), None);
    assert_eq!(DownloadReport::sum(&[of(10, 10, 30)]).unwrap(), "1 MiB in 20 ms");
    let sum = DownloadReport::sum(&[of(10, 10, 30), of(12, 40, 200), of(12, 41, 90)]);
    assert_eq!(sum.unwrap(), "3 files, 3 MiB in 190 ms");
}

#[test]
fn a_command_line_is_shown_without_the_values_of_variables() {
    let arguments = ["run", "--set", "token=s3cr=et", "--set=key=hidden", "verify"].map(String::from);
    assert_eq!(redact(arguments.into_iter()), "run --set token=… --set=key=… verify");
}
