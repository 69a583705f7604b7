//! The fuzz target of archives: no member of any archive leaves its directory.

#![allow(clippy::missing_panics_doc, reason = "a panic is the answer of a target")]

use std::{
    collections::HashMap,
    fs::File,
    io::{Read, Write},
};

use flate2::{Compression, write::GzEncoder};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::{ArchiveLimits, MemberKind, read};

const LIMITS: ArchiveLimits = ArchiveLimits { members: 200, bytes: 64 << 10 };
/// As many links as the kernel follows.
const MAX_LINKS: usize = 40;

/// What a member was unpacked as.
enum Unpacked {
    Directory,
    File,
    Link(String),
}

/// Checks the bytes as an archive, and in a tar.gz: each member is below directories, none twice, and no chain of links
/// leads above the directory.
pub fn archive(input: &[u8]) {
    let mut gzip = GzEncoder::new(vec![], Compression::fast());
    let gzip = gzip.write_all(input).and_then(|()| gzip.finish()).expect("bytes in memory");
    for bytes in [input, &gzip] {
        for strip in [0, 1] {
            check(&file(bytes), strip);
        }
    }
}

fn file(bytes: &[u8]) -> File {
    let mut file = File::from(memfd_create("archive", MFdFlags::MFD_CLOEXEC).expect("a file in memory"));
    file.write_all(bytes).expect("bytes in memory");
    file
}

fn check(file: &File, strip: usize) {
    let mut tree: HashMap<String, Unpacked> = HashMap::new();
    let mut size = 0;
    _ = read(file, strip, LIMITS, &mut |member, body| {
        let path = member.path;
        assert!(path.split('/').all(|part| !matches!(part, "" | "." | "..") && part.len() < 256), "{path:?}");
        assert!(!path.chars().any(char::is_control), "{path:?}");
        assert_eq!(member.mode & 0o7022, 0, "{path:?}");
        if let Some((above, _)) = path.rsplit_once('/') {
            assert!(matches!(tree.get(above), Some(Unpacked::Directory)), "{path:?} is below no directory");
        }
        let unpacked = match member.kind {
            MemberKind::Directory => Unpacked::Directory,
            MemberKind::Link(target) => Unpacked::Link(target.to_owned()),
            MemberKind::SameAs(original) => {
                assert!(matches!(tree.get(original), Some(Unpacked::File)), "{original:?} is no file");
                Unpacked::File
            }
            MemberKind::File => {
                size += std::io::copy(&mut body.take(LIMITS.bytes + 1), &mut std::io::sink())?;
                Unpacked::File
            }
        };
        let is_directory = matches!(unpacked, Unpacked::Directory);
        let before = tree.insert(path.to_owned(), unpacked);
        assert!(before.is_none_or(|before| is_directory && matches!(before, Unpacked::Directory)), "{path:?} is there");
        Ok(())
    });
    assert!(size <= LIMITS.bytes && tree.len() as u64 <= LIMITS.members, "{size} bytes, {} members", tree.len());
    for path in tree.keys() {
        resolve(&tree, path);
    }
}

/// Follows a path as the kernel does. Panics if it leads above the directory.
fn resolve(tree: &HashMap<String, Unpacked>, path: &str) {
    let mut pending: Vec<String> = path.split('/').rev().map(Into::into).collect();
    let (mut at, mut links) = (Vec::<String>::new(), 0);
    while let Some(component) = pending.pop() {
        match component.as_str() {
            "" | "." => continue,
            ".." => {
                assert!(at.pop().is_some(), "{path:?} leads out");
                continue;
            }
            _ => at.push(component),
        }
        if let Some(Unpacked::Link(target)) = tree.get(&at.join("/")) {
            links += 1;
            if links > MAX_LINKS {
                return;
            }
            assert!(!target.starts_with('/'), "{path:?} leads out");
            _ = at.pop();
            pending.extend(target.split('/').rev().map(Into::into));
        }
    }
}
