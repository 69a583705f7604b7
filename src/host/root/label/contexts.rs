//! The file contexts of an SELinux policy: which label a path has; `selabel_file(5)` and libselinux's `label_file.c`.
//!
//! A line is a regular expression of a whole path, optionally a type of file, and a label:
//! `/home/[^/]+/\.ssh(/.*)?    --    system_u:object_r:ssh_home_t:s0`. An exact path counts over an expression. Otherwise,
//! the last line that fits counts.

use std::{collections::HashMap, sync::OnceLock};

use regex_lite::Regex;

use crate::host::root::FileType;

/// The label that says: this path gets none.
const NO_LABEL: &str = "<<none>>";
/// The characters with which an expression is more than a path.
const META: &[char] = &['.', '^', '$', '?', '*', '+', '|', '[', '(', '{'];
/// The characters that make the one before them optional.
const OPTIONAL: &[char] = &['?', '*', '{'];

/// The rules of a policy.
#[derive(Debug, Default)]
pub struct FileContexts {
    /// The exact paths, each with its rules.
    exact: HashMap<String, Vec<ContextRule>>,
    expressions: Vec<PathExpression>,
    /// Lists of the paths whose rules are those of another path, such as `/run` of `/var/run`. Each list is used on the
    /// result of the one before it.
    substitutes: Vec<Vec<(String, String)>>,
}

/// A label for one type of file, or for all.
#[derive(Debug)]
struct ContextRule {
    /// The letter of the type, as ls(1) shows it.
    file_type: Option<char>,
    label: String,
}

#[derive(Debug)]
struct PathExpression {
    /// What each path that fits begins with. Most rules are refused by it, without their expression.
    beginning: String,
    text: String,
    compiled: OnceLock<Option<Regex>>,
    rule: ContextRule,
}

impl FileContexts {
    /// Reads the text of `file_contexts`, then those of `file_contexts.homedirs` and `file_contexts.local`.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut contexts = Self::default();
        for line in texts.into_iter().flat_map(str::lines) {
            contexts.add(line);
        }
        contexts
    }

    /// Adds the lines of `file_contexts.subs`, then those of `file_contexts.subs_dist`: `/run /var/run`.
    #[must_use]
    pub fn with_substitutes(mut self, text: &str) -> Self {
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        let pairs = lines.filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.to_owned(), words.next()?.to_owned()))
        });
        // libselinux puts each line before the earlier ones.
        let mut pairs: Vec<_> = pairs.collect();
        pairs.reverse();
        self.substitutes.push(pairs);
        self
    }

    fn add(&mut self, line: &str) {
        let mut words = line.split_whitespace().filter(|_| !line.trim_start().starts_with('#'));
        let (Some(text), Some(second)) = (words.next(), words.next()) else { return };
        let (file_type, label) = match (second.strip_prefix('-'), words.next()) {
            (Some(letter), Some(label)) => (letter.chars().next(), label),
            _ => (None, second),
        };
        let rule = ContextRule { file_type, label: label.to_owned() };
        match beginning(text) {
            (path, true) => self.exact.entry(path).or_default().push(rule),
            (beginning, false) => {
                let (text, compiled) = (text.to_owned(), OnceLock::new());
                self.expressions.push(PathExpression { beginning, text, compiled, rule });
            }
        }
    }

    /// Returns the label of a path without links; `None` if the policy has none for it.
    pub fn label(&self, path: &str, file_type: FileType) -> Option<&str> {
        let path = self.substituted(path);
        let letter = match file_type {
            FileType::Regular => '-',
            FileType::Directory => 'd',
            FileType::Link => 'l',
            FileType::Special => return None,
        };
        let counts = |rule: &&ContextRule| rule.file_type.is_none_or(|of| of == letter);
        let exact = self.exact.get(&path).and_then(|rules| rules.iter().rev().find(counts));
        let rule = exact.or_else(|| {
            let mut expressions = self.expressions.iter().rev();
            expressions.find(|expression| counts(&&expression.rule) && expression.fits(&path)).map(|found| &found.rule)
        })?;
        (rule.label != NO_LABEL).then_some(rule.label.as_str())
    }

    fn substituted(&self, path: &str) -> String {
        self.substitutes.iter().fold(path.to_owned(), |path, pairs| {
            let found = pairs.iter().find_map(|(from, to)| {
                let rest = path.strip_prefix(from.as_str())?;
                let is_below = rest.starts_with('/');
                (is_below || rest.is_empty())
                    .then(|| format!("{}{rest}", if is_below { to.trim_end_matches('/') } else { to }))
            });
            found.unwrap_or(path)
        })
    }
}

impl PathExpression {
    /// Returns whether a whole path fits. An expression that only PCRE understands fits to none. `.` stands for a newline,
    /// too.
    fn fits(&self, path: &str) -> bool {
        let compile = || Regex::new(&format!("^(?s:{})$", self.text)).ok();
        path.starts_with(&self.beginning)
            && self.compiled.get_or_init(compile).as_ref().is_some_and(|regex| regex.is_match(path))
    }
}

/// Returns what each path that fits to an expression begins with, and whether that is the whole path.
fn beginning(expression: &str) -> (String, bool) {
    let mut found = String::new();
    let mut chars = expression.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                // `\d` and its like stand for several characters.
                Some(escaped) if !escaped.is_ascii_alphanumeric() => found.push(escaped),
                _ => return (found, false),
            },
            c if META.contains(&c) => {
                if OPTIONAL.contains(&c) {
                    _ = found.pop();
                }
                let has_alternatives = expression.contains('|') && !expression.contains('(');
                return (if has_alternatives { String::new() } else { found }, false);
            }
            c => found.push(c),
        }
    }
    (found, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = r"
# a comment
/.*                    system_u:object_r:default_t:s0
/etc(/.*)?             system_u:object_r:etc_t:s0
/etc/nginx(/.*)?       system_u:object_r:httpd_config_t:s0
/etc/shadow.*     --   system_u:object_r:shadow_t:s0
/etc/passwd       --   system_u:object_r:passwd_file_t:s0
/etc/.*\.pid           system_u:object_r:var_run_t:s0
/home/[^/]+       -d   system_u:object_r:user_home_dir_t:s0
/home/[^/]+/.+         system_u:object_r:user_home_t:s0
/home/[^/]+/\.ssh(/.*)?  system_u:object_r:ssh_home_t:s0
/tmp/.*                <<none>>
/usr/lib(/.*)?         system_u:object_r:lib_t:s0
/var/run(/.*)?         system_u:object_r:var_run_t:s0
/opt/a\.b              system_u:object_r:exact_t:s0
/opt/[[:digit:]]+      system_u:object_r:digits_t:s0
/x?y                   system_u:object_r:optional_t:s0
";

    fn contexts() -> FileContexts {
        let local = "/etc/nginx/own(/.*)? system_u:object_r:local_t:s0\n";
        FileContexts::parse([RULES, local])
            .with_substitutes("/srv/etc /etc\n")
            .with_substitutes("/run /var/run\n# x y\n/usr/lib64 /usr/lib\n")
    }

    #[test]
    fn the_label_of_a_path_follows_the_rules() {
        use FileType::{Directory, Link, Regular, Special};
        let contexts = contexts();
        for (path, file_type, expected) in [
            ("/etc", Directory, Some("etc_t")),
            ("/etc/hosts", Regular, Some("etc_t")),
            ("/etc/nginx/a", Regular, Some("httpd_config_t")),
            ("/etc/nginx/a\nb", Regular, Some("httpd_config_t")),
            ("/etc/nginx/own/a", Regular, Some("local_t")),
            ("/etc/nginxx", Regular, Some("etc_t")),
            ("/etc/passwd", Regular, Some("passwd_file_t")),
            ("/etc/passwd", Directory, Some("etc_t")),
            ("/etc/shadow-", Regular, Some("shadow_t")),
            ("/etc/shadow-", Link, Some("etc_t")),
            ("/etc/x.pid", Regular, Some("var_run_t")),
            ("/home/a", Directory, Some("user_home_dir_t")),
            ("/home/a", Regular, Some("default_t")),
            ("/home/a/.ssh", Directory, Some("ssh_home_t")),
            ("/home/a/.ssh/authorized_keys", Regular, Some("ssh_home_t")),
            ("/home/a/xssh/b", Regular, Some("user_home_t")),
            ("/tmp/x", Regular, None),
            ("/usr/lib64/x", Regular, Some("lib_t")),
            ("/usr/lib64", Directory, Some("lib_t")),
            ("/usr/lib640", Directory, Some("default_t")),
            ("/run/x", Regular, Some("var_run_t")),
            ("/srv/etc/nginx/a", Regular, Some("httpd_config_t")),
            ("/opt/a.b", Regular, Some("exact_t")),
            ("/opt/axb", Regular, Some("default_t")),
            ("/opt/12", Regular, Some("digits_t")),
            ("/y", Regular, Some("optional_t")),
            ("/xy", Regular, Some("optional_t")),
            ("/dev/x", Special, None),
        ] {
            let label = contexts.label(path, file_type);
            let found = label.map(|label| label.split(':').nth(2).unwrap());
            assert_eq!(found, expected, "{path}");
        }
    }

    #[test]
    fn the_beginning_of_an_expression_is_that_of_all_its_paths() {
        for (expression, expected) in [
            ("/etc/passwd", ("/etc/passwd", true)),
            (r"/opt/a\.b", ("/opt/a.b", true)),
            ("/etc(/.*)?", ("/etc", false)),
            ("/xy?", ("/x", false)),
            ("/xy*", ("/x", false)),
            ("/xy{0,1}", ("/x", false)),
            ("/xy+", ("/xy", false)),
            ("/a|/b", ("", false)),
            ("/a.|/b", ("", false)),
            (r"/a\d", ("/a", false)),
            ("/a(b|c)", ("/a", false)),
        ] {
            let (text, is_whole) = beginning(expression);
            assert_eq!((text.as_str(), is_whole), expected, "{expression}");
        }
    }
}
