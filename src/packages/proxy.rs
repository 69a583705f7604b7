//! The proxies in the form that all package managers read.

use crate::net::proxy::proxies;

/// Returns the variables that give a package manager the proxies of this process.
pub(crate) fn variables() -> Vec<(&'static str, String)> {
    let proxies = proxies();
    spelled(proxies.http(), proxies.https(), &proxies.exceptions())
}

/// Returns the variables for these proxies.
///
/// For some, an entry of `no_proxy` is one host, or with a leading dot all hosts of a domain. For curl and this program
/// it is both.
fn spelled(http: Option<&str>, https: Option<&str>, exceptions: &[&str]) -> Vec<(&'static str, String)> {
    if exceptions.contains(&"*") {
        return vec![];
    }
    let both = exceptions.iter().map(|entry| entry.trim_start_matches('.')).map(|name| format!("{name},.{name}"));
    let no = both.collect::<Vec<_>>().join(",");
    let variables = [("http_proxy", http), ("https_proxy", https), ("no_proxy", Some(no.as_str()))];
    let given = variables.into_iter().filter_map(|(name, value)| Some((name, value?.to_owned())));
    given.filter(|(_, value)| !value.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_managers_get_what_downloads_get() {
        let p = Some("http://p:1");
        assert_eq!(spelled(None, None, &[]), []);
        let both = [("http_proxy", "http://p:1".to_owned()), ("https_proxy", "http://p:1".to_owned())];
        assert_eq!(spelled(p, p, &[]), both);
        assert_eq!(spelled(p, p, &["a.test", ".b.test"])[2].1, "a.test,.a.test,b.test,.b.test");
        assert_eq!(spelled(p, p, &["*"]), []);
    }
}
