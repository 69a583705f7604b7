//! What another user of the machine, or an image's tree, can put in the way: none of it is obeyed or written through.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, chown, symlink},
};

use crate::sandbox::Sandbox;

const NOBODY: u32 = 65534;
const STEP: &str = "name = \"step\"\n";

fn directory(sandbox: &Sandbox, name: &str, owner: (u32, u32), mode: u32) -> String {
    let path = sandbox.at(name);
    fs::create_dir_all(&path).unwrap();
    chown(&path, Some(owner.0), Some(owner.1)).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn a_manifest_below_a_directory_of_another_user_is_refused() {
    let sandbox = Sandbox::new();
    let validate = |path: &str| sandbox.run(&["validate", "--steps", path]);
    for (name, owner, mode, words) in [
        ("theirs", (NOBODY, 0), 0o755, "belongs to uid 65534"),
        ("open", (0, 0), 0o777, "others may write to"),
        ("of-a-group", (0, 1), 0o775, "others may write to"),
    ] {
        let parent = directory(&sandbox, name, owner, mode);
        let manifest = sandbox.write(&format!("{name}/steps/10-a.toml"), STEP);
        let _ = validate(&manifest).expect(2).says(words).says(&parent);
        let _ = validate(&format!("{parent}/steps")).expect(2).says(words).says(&parent);
    }
    // A sticky directory is no harm: nobody else can replace what is root's in it.
    let _ = directory(&sandbox, "shared", (0, 0), 0o1777);
    let manifest = sandbox.write("shared/steps.toml", STEP);
    let _ = validate(&manifest).expect(0);
    // A link of another user leads wherever that user wants.
    let link = sandbox.at("shared/link");
    symlink(&manifest, &link).unwrap();
    let _ = validate(&link).expect(0);
    std::os::unix::fs::lchown(&link, Some(NOBODY), Some(NOBODY)).unwrap();
    let _ = validate(&link).expect(2).says("belongs to uid 65534").says("shared/link");
    let variables = sandbox.write("theirs/variables.toml", "");
    let _ = sandbox.run(&["validate", "--steps", &manifest, "--variables", &variables]).expect(2);
}
