//! Disks for the tests of `filesystem` and `mount`: loop devices in a sandboxed machine with its own `/dev` and `/sys/class`.

use std::{
    collections::BTreeMap,
    fs::{self, File},
};

use crate::standin::Machine;

/// Attaches each image, and hides the host's devices. The kernel detaches an image when its last user ends, and keeps the
/// rest of a loop device: the partitions, and that it is read-only. So `as_new` takes both back at the end, also after a
/// failure, and before a test, if an earlier one was killed. `$1` is the directory of the outputs, `$2` the binary, the rest are
/// images. `gb NAME ARGUMENTS…` runs the binary, and keeps what it says and its exit code under a name.
const PRELUDE: &str = r#"
    out=$1 binary=$2; shift 2
    loops= number=0
    as_new() {
        blockdev --setrw "$1"
        for part in /sys/block/"${1#/dev/}"/"${1#/dev/}"p*/partition; do
            [ ! -e "$part" ] || delpart "$1" "$(cat "$part")"
        done
    }
    trap 'for loop in $loops; do as_new $loop || :; done' EXIT
    for image; do
        number=$((number + 1)); loop=$(losetup --find --show "$image"); loops="$loops $loop"
        eval "disk$number=$loop; exec $((number + 2))< $loop"; losetup --detach $loop
        as_new $loop
    done
    mkdir -p "$out/dev"; mount -t tmpfs tmpfs "$out/dev"; mount -t tmpfs tmpfs /sys/class; mkdir /sys/class/nvme
    cp -a /dev/null /dev/zero /dev/urandom /dev/loop* "$out/dev/"
    mkdir -p "$out/dev/disk/by-label" "$out/dev/disk/by-id"; mount --move "$out/dev" /dev
    gb() {
        name=$1; shift; code=0
        "$binary" "$@" > "$out/$name.said" 2>&1 || code=$?
        echo $code > "$out/$name.code"
    }
    # An NVMe disk: NAME MODEL SERIAL LOOP
    nvme() {
        mkdir -p "/sys/class/nvme/${1%n1}/$1"
        echo "$2 " > "/sys/class/nvme/${1%n1}/model"; echo "$3" > "/sys/class/nvme/${1%n1}/serial"
        mknod "/dev/$1" b 7 "${4#/dev/loop}"
        ln -s "../../$1" "/dev/disk/by-id/nvme-$(echo "$2" | tr ' ' _)_$3"
    }
"#;

/// A machine with disks.
pub struct Disks {
    pub machine: Machine,
    images: Vec<String>,
}

/// What the binary said in a script, and its exit codes, by name.
#[derive(Debug)]
pub struct Said(BTreeMap<String, (i32, String)>);

impl Disks {
    /// Makes blank disks of these sizes in MiB.
    pub fn new(sizes: &[u64]) -> Self {
        let machine = Machine::new();
        machine.write("etc/fstab", "");
        let images = sizes.iter().enumerate().map(|(index, size)| {
            let image = machine.sandbox.at(&format!("disk{}.img", index + 1));
            File::create(&image).unwrap().set_len(size << 20).unwrap();
            image
        });
        let images = images.collect();
        fs::create_dir(machine.at("srv")).unwrap();
        Self { machine, images }
    }

    /// Returns the path of the image of a disk, counted from 1.
    pub fn image(&self, number: usize) -> &str {
        &self.images[number - 1]
    }

    /// Returns a checksum of a whole disk, by the quickest program.
    pub fn checksum(&self, number: usize) -> String {
        let output = std::process::Command::new("cksum").arg(self.image(number)).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Writes a manifest of these resources, and returns its path.
    pub fn manifest(&self, name: &str, resources: &str) -> String {
        self.machine.sandbox.write(name, format!("name = \"disks\"\n{resources}"))
    }

    /// Runs a shell script in the machine, in which `$disk1` is the first disk.
    #[track_caller]
    pub fn script(&self, script: &str) -> Said {
        let out = self.machine.sandbox.at("said");
        let _ = fs::remove_dir_all(&out);
        fs::create_dir(&out).unwrap();
        let mut command = self.machine.sandbox.shell(&format!("{PRELUDE}\n{script}"));
        let _ = command.arg(&out).arg(env!("CARGO_BIN_EXE_glovo-bootstrap")).args(&self.images);
        let done = command.output().unwrap();
        let mut said = BTreeMap::new();
        for entry in fs::read_dir(&out).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "said") {
                let code = fs::read_to_string(path.with_extension("code")).unwrap_or_default();
                let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
                let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
                let _ = said.insert(name, (code.trim().parse().unwrap_or(-1), text));
            }
        }
        assert!(
            done.status.success(),
            "{}\n{}\n{said:#?}",
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        );
        Said(said)
    }
}

impl Said {
    /// Checks the exit code and some words of a run.
    #[track_caller]
    pub fn expect(&self, name: &str, code: i32, words: &[&str]) -> &Self {
        let (found, text) = self.0.get(name).unwrap_or_else(|| panic!("no {name}: {self:#?}"));
        assert_eq!(*found, code, "{name}:\n{text}");
        for words in words {
            assert!(text.contains(words), "{name} lacks {words:?}:\n{text}");
        }
        self
    }

    /// Returns what a run said.
    #[track_caller]
    pub fn text(&self, name: &str) -> &str {
        &self.0[name].1
    }
}
