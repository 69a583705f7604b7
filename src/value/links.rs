//! Paths without symbolic links, by the targets of the links alone.

use super::AbsPath;

/// Limits the symbolic links of one path, as the kernel does (`ELOOP`).
pub const MAX_LINKS: usize = 40;

impl AbsPath {
    /// Returns the path without the links of its directory; `None` if there are too many, as in a loop.
    ///
    /// The last component is not followed: a resource manages the link itself. `target` returns the target of the link at
    /// a path, which has no other links; `None` if it has no link.
    pub fn real(&self, target: impl FnMut(&str) -> Option<String>) -> Option<Self> {
        let Some(directory) = self.directory() else { return Some(self.clone()) };
        format!("{}/{}", real(directory, target)?, self.leaf()).parse().ok()
    }

    /// Returns the path without any links, also that of its last component; `None` if there are too many.
    pub fn fully_real(&self, target: impl FnMut(&str) -> Option<String>) -> Option<Self> {
        let real = real(&self.0, target)?;
        if real.is_empty() { Some(Self("/".into())) } else { real.parse().ok() }
    }
}

/// Returns a path without links; empty for `/`.
fn real(path: &str, mut target: impl FnMut(&str) -> Option<String>) -> Option<String> {
    let mut pending: Vec<String> = path.rsplit('/').map(Into::into).collect();
    let (mut real, mut links) = (String::with_capacity(path.len()), 0);
    while let Some(name) = pending.pop() {
        let length = real.len();
        match name.as_str() {
            "" | "." => {}
            // `..` of the root is the root. The path has no links so far, so that it is exact.
            ".." => real.truncate(real.rfind('/').unwrap_or_default()),
            name => {
                real.push('/');
                real.push_str(name);
                let Some(target) = target(&real) else { continue };
                links += 1;
                if links > MAX_LINKS {
                    return None;
                }
                real.truncate(if target.starts_with('/') { 0 } else { length });
                pending.extend(target.rsplit('/').map(String::from));
            }
        }
    }
    Some(real)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the path without links on a machine with some links.
    fn real(path: &'static str) -> Option<String> {
        let target = |at: &str| {
            let links = [
                ("/bin", "usr/bin"),
                ("/opt/app", "app-1"),
                ("/opt/app-1/data", "/srv/./data/"),
                ("/srv/data/up", "../../../.."),
                ("/loop", "pool"),
                ("/pool", "loop/x"),
            ];
            links.iter().find(|(link, _)| *link == at).map(|(_, target)| (*target).to_owned())
        };
        AbsPath::from(path).real(target).map(Into::into)
    }

    #[test]
    fn the_links_of_a_directory_are_followed() {
        for (path, expected) in [
            ("/", "/"),
            ("/bin", "/bin"),
            ("/bin/foo", "/usr/bin/foo"),
            ("/opt/app/x", "/opt/app-1/x"),
            ("/opt/app/data/x", "/srv/data/x"),
            ("/opt/app/data/up/bin/x", "/usr/bin/x"),
            ("/srv/data/up/x", "/x"),
        ] {
            assert_eq!(real(path).as_deref(), Some(expected), "{path}");
        }
        assert_eq!(real("/loop/x"), None);
        assert_eq!(real("/loop").as_deref(), Some("/loop"), "the link itself can be managed");
    }

    #[test]
    fn the_last_link_is_followed_if_asked() {
        let target = |at: &str| (at == "/a").then(|| "..".to_owned());
        assert_eq!(AbsPath::from("/a").fully_real(target), Some("/".into()));
        assert_eq!(AbsPath::from("/b/a").fully_real(target), Some("/b/a".into()));
    }
}
