//! Objects of S3 by their versions.

use std::fs;

use serde_json::json;

use super::Stores;

#[test]
fn another_version_is_another_source() {
    let stores = Stores::new();
    for version in ["1", "2"] {
        stores.answer(&format!("/artifacts/app.conf{version}"), 200, json!(format!("version {version}")));
    }
    let of_version =
        |version: &str| stores.file(&format!("s3://artifacts/app.conf?versionId={version}"), "verify = \"none\"\n");
    let (path, first) = of_version("1");
    let _ = stores.run(&first).expect(0).says("1 change");
    let _ = stores.run(&first).expect(0).says("0 changes");
    assert_eq!(fs::read_to_string(&path).unwrap(), "version 1");
    let (_, second) = of_version("2");
    let _ = stores.command("plan", &second).expect(0).says("write content of another source");
    let _ = stores.run(&second).expect(0).says("1 change");
    assert_eq!(fs::read_to_string(&path).unwrap(), "version 2");
}
