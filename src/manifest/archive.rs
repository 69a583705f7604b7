//! Manifests in a tar.gz archive. They are read in memory; nothing is unpacked to the disk.

use std::{
    io::Read,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

use super::texts::{MAX_TEXT_BYTES, Texts, add, is_manifest_file, text};
use crate::error::Fault;

/// The most bytes that an archive may unpack to: a megabyte of gzip can be a gigabyte of tar.
const MAX_UNPACKED_BYTES: u64 = 2 * MAX_TEXT_BYTES;

/// Reads the texts of a manifest from the bytes of a tar.gz. As in a directory, the step files are in one directory;
/// deeper files, such as those below `files/`, are not read.
///
/// # Errors
/// If the archive is damaged, too large or ambiguous: two manifests, two files of one name, a link in a file's place.
pub fn read(name: &str, gzip: &[u8]) -> Result<Texts> {
    let reading = || format!("reading {name}");
    // All members of the gzip stream, as gunzip reads them. One byte more than allowed shows that there is more.
    let unpacked = flate2::read::MultiGzDecoder::new(gzip).take(MAX_UNPACKED_BYTES + 1);
    let mut archive = tar::Archive::new(unpacked);
    let entries = archive.entries().with_context(reading)?;
    let files = entries.map(|entry| file(entry?)).collect::<Result<Vec<_>>>();
    let mut rest = archive.into_inner();
    let drained = std::io::copy(&mut rest, &mut std::io::sink());
    ensure!(rest.limit() > 0, "{name} unpacks to more than a manifest has: over {MAX_UNPACKED_BYTES} bytes");
    let files = files.with_context(reading)?;
    _ = drained.with_context(reading)?;
    texts(name, files.into_iter().flatten().collect())
}

/// Returns the normalised path and the bytes of a file that may belong to the manifest; `None` for other entries.
fn file(mut entry: tar::Entry<'_, impl Read>) -> Result<Option<(PathBuf, Vec<u8>)>> {
    let path = entry.path()?.into_owned();
    let shown = path.display();
    let is_ours = path.file_name().is_some_and(|name| is_manifest_file(&name.to_string_lossy()));
    if !is_ours {
        return Ok(None);
    }
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(component) => normal.push(component),
            _ => bail!("`{shown}` leads out of the archive"),
        }
    }
    if !entry.header().entry_type().is_file() {
        let fault = Fault::new(format!("`{shown}` is not a regular file"));
        bail!(
            fault.hint("pack the files themselves: tar --dereference --hard-dereference -czf steps.tar.gz -C steps .")
        );
    }
    let mut bytes = vec![];
    _ = entry.by_ref().take(MAX_TEXT_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(Some((normal, bytes)))
}

/// Returns the files of the directory that is nearest to the archive's root.
fn texts(name: &str, mut files: Vec<(PathBuf, Vec<u8>)>) -> Result<Texts> {
    let depth = files.iter().map(|(path, _)| path.components().count()).min();
    files.retain(|(path, _)| Some(path.components().count()) == depth);
    // Stable and by whole paths: of two in one directory, that is by the bytes of their names.
    files.sort_by(|(a, _), (b, _)| a.as_os_str().cmp(b.as_os_str()));
    for pair in files.windows(2) {
        let [(a, _), (b, _)] = pair else { continue };
        if a == b {
            bail!(
                Fault::new(format!("{name} holds `{}` twice", a.display()))
                    .hint("pack one directory: tar -czf steps.tar.gz -C steps .")
            );
        }
        if a.parent() != b.parent() {
            let message = format!("{name} holds two manifests: `{}` and `{}`", folder(a), folder(b));
            bail!(Fault::new(message).hint("pack one directory: tar -czf steps.tar.gz -C steps ."));
        }
    }
    let mut texts = Texts::default();
    for (path, bytes) in files {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        add(&mut texts, &file, text(&format!("{name}:{}", path.display()), bytes)?)?;
    }
    Ok(texts)
}

fn folder(path: &Path) -> String {
    path.parent().unwrap_or(Path::new("")).display().to_string() + "/"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a tar.gz of these entries: type, name, bytes.
    fn tar_gz(entries: &[(tar::EntryType, &str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(flate2::write::GzEncoder::new(vec![], flate2::Compression::fast()));
        for (entry_type, name, bytes) in entries {
            let mut header = tar::Header::new_gnu();
            // As bytes: the builder itself refuses `..` and absolute names.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*entry_type);
            header.set_size(bytes.len() as u64);
            header.set_cksum();
            builder.append(&header, *bytes).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap()
    }

    fn files(names: &[&str]) -> Vec<u8> {
        let entries: Vec<_> =
            names.iter().map(|name| (tar::EntryType::Regular, *name, name.as_bytes() as &[u8])).collect();
        tar_gz(&entries)
    }

    fn names(bytes: &[u8]) -> Vec<String> {
        let texts = read("a", bytes).unwrap();
        texts.all().map(|text| text.name.clone()).collect()
    }

    #[track_caller]
    fn refused(bytes: &[u8], words: &str) {
        let error = format!("{:#}", read("a", bytes).unwrap_err());
        assert!(error.contains(words), "{error}");
    }

    #[test]
    fn an_archive_is_read_as_a_directory_is() {
        let archive =
            files(&["./20-b.toml", "./10-a.toml", "./variables.toml", "./files/app.toml", "./.x.toml", "./x"]);
        assert_eq!(names(&archive), ["a:variables.toml", "a:10-a.toml", "a:20-b.toml"]);
        let archive = files(&["steps/10-a.toml", "steps/files/variables.toml"]);
        assert_eq!(names(&archive), ["a:steps/10-a.toml"]);
    }

    #[test]
    fn an_archive_of_two_manifests_is_refused() {
        refused(&files(&["a/10-a.toml", "b/10-a.toml"]), "two manifests: `a/` and `b/`");
        refused(&files(&["a/variables.toml", "a/10-a.toml", "b/variables.toml"]), "two manifests");
    }

    #[test]
    fn a_file_that_is_there_twice_is_refused() {
        refused(&files(&["variables.toml", "10-a.toml", "variables.toml"]), "holds `variables.toml` twice");
        refused(&files(&["10-a.toml", "./10-a.toml"]), "holds `10-a.toml` twice");
    }

    #[test]
    fn names_that_lead_out_of_the_archive_are_refused() {
        for name in ["../10-a.toml", "a/../10-a.toml", "/10-a.toml"] {
            refused(&files(&[name]), "leads out of the archive");
        }
    }

    #[test]
    fn an_entry_that_is_no_regular_file_is_refused() {
        for entry_type in [tar::EntryType::Symlink, tar::EntryType::Link, tar::EntryType::Directory] {
            refused(&tar_gz(&[(entry_type, "10-a.toml", b"")]), "`10-a.toml` is not a regular file");
        }
    }

    #[test]
    fn a_large_archive_is_refused_and_never_cut() {
        let large = vec![b'#'; usize::try_from(MAX_TEXT_BYTES).unwrap() + 1];
        refused(&tar_gz(&[(tar::EntryType::Regular, "10-a.toml", &large)]), "is larger than a manifest");
        // The step behind it would stand right behind the last byte that is unpacked.
        let fill = vec![0; usize::try_from(MAX_UNPACKED_BYTES).unwrap() - 512];
        let bomb = [(tar::EntryType::Regular, "fill", &fill[..]), (tar::EntryType::Regular, "10-a.toml", b"")];
        refused(&tar_gz(&bomb), "unpacks to more than a manifest has");
    }

    #[test]
    fn a_cut_archive_is_refused() {
        let whole = files(&["10-a.toml", "20-b.toml"]);
        for length in 2..whole.len() {
            assert!(read("a", &whole[..length]).is_err(), "{length} of {} bytes", whole.len());
        }
    }

    #[test]
    fn every_member_of_the_gzip_stream_counts() {
        let tar: Vec<u8> = {
            let mut tar = vec![];
            _ = flate2::read::GzDecoder::new(&files(&["10-a.toml", "20-b.toml"])[..]).read_to_end(&mut tar).unwrap();
            tar
        };
        let mut gzip = vec![];
        for part in [&tar[..1024], &tar[1024..]] {
            let mut encoder = flate2::write::GzEncoder::new(&mut gzip, flate2::Compression::fast());
            std::io::Write::write_all(&mut encoder, part).unwrap();
            _ = encoder.finish().unwrap();
        }
        assert_eq!(names(&gzip), ["a:10-a.toml", "a:20-b.toml"]);
    }
}
