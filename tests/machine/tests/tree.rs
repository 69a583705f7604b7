//! The kind `tree` on a booted machine, from the world's S3.

use anyhow::{Result, ensure};
use machine::{Machine, Options};

const MANIFEST: &str = r#"
name = "site"

[[resource]]
kind = "tree"
path = "/srv/site"
source = "s3://glovo-config/site/"
"#;

#[test]
fn each_drift_is_named_and_fixed_alone() -> Result<()> {
    let machine = Machine::boot(Options::default())?;
    machine.world().store("glovo-config/site/index.html", b"hello")?;
    machine.world().store("glovo-config/site/css/main.css", b"body {}")?;
    std::fs::write(machine.path("/root/site.toml"), MANIFEST)?;
    let agent = |verb: &[&str]| machine.agent(&[verb, &["--steps", "/root/site.toml"]].concat());
    agent(&["run"])?.success()?;
    assert_eq!(machine.sh("cat /srv/site/index.html /srv/site/css/main.css")?, "hellobody {}");
    let download = |what: &str| format!("download 1 file from s3://glovo-config/site/: {what}");
    for (by_hand, change) in [
        ("echo more >> /srv/site/index.html", download("index.html (changed here)")),
        ("rm -r /srv/site/css", download("css/main.css (new)")),
        ("chmod 600 /srv/site/index.html", "set the owner or mode of 1 file: index.html: mode 0644 (now 0600)".into()),
        ("chown nobody /srv/site/index.html", download("index.html (other owner or mode)")),
        ("chmod 700 /srv/site", "set mode 0755 (now 0700)".into()),
    ] {
        machine.sh(by_hand)?;
        let plan = agent(&["plan", "--json", "--detailed-exitcode"])?;
        ensure!(plan.changes()? == [format!("tree /srv/site: {change}")], "{by_hand}: {:#?}", plan.changes()?);
        agent(&["run"])?.success()?;
        let left = agent(&["plan", "--detailed-exitcode"])?;
        ensure!(left.code == 0, "{by_hand}: {left:?}");
    }
    machine.world().store("glovo-config/site/index.html", b"hello again")?;
    agent(&["run"])?.success()?;
    assert_eq!(machine.sh("cat /srv/site/index.html")?, "hello again");
    Ok(())
}
