//! The distributions that manifests name, as os-release(5) writes their `ID`, and their families.

/// Each family, and the distributions of it.
const FAMILIES: [(&str, &[&str]); 2] =
    [("debian", &["debian", "ubuntu"]), ("redhat", &["almalinux", "amzn", "centos", "fedora", "ol", "rhel", "rocky"])];

/// Returns the family of a distribution; `None` if it is not known.
pub fn family_of(distribution: &str) -> Option<&'static str> {
    FAMILIES.iter().find(|(_, members)| members.contains(&distribution)).map(|(family, _)| *family)
}

/// Returns the names of all families and distributions, each once.
pub fn names() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().flat_map(|(family, members)| {
        std::iter::once(*family).chain(members.iter().copied().filter(move |member| member != family))
    })
}
