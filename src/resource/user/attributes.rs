//! The comment, the date of expiry and the password of a user.

use std::fmt;

use anyhow::{Context, Result, ensure};
use schemars::JsonSchema;
use serde::Deserialize;
use time::{Date, Duration, Month, OffsetDateTime};

use super::User;
use crate::{
    host::{accounts::UserAccount, command::Program},
    resource::{Change, Finding, account_change::account_change},
    system::{Phase, System},
    value::printable,
};

/// The field of the password in a line of shadow(5).
const PASSWORD: usize = 1;
/// The field of the day of expiry, in days since 1970-01-01.
const EXPIRY: usize = 7;

/// A date such as `2027-01-31`, or `never`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(extend("pattern" = "^([0-9]{4}-[0-9]{2}-[0-9]{2}|never)$"))]
pub struct Expiry(String);

impl TryFrom<String> for Expiry {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        let days = if text == "never" { Ok(None) } else { days(&text).map(Some) };
        let is_past = days.with_context(|| format!("`{}` is not a date such as 2027-01-31", text.escape_debug()))?;
        ensure!(is_past.is_none_or(|days| days > 0), "{text} is not after 1970-01-01");
        Ok(Self(text))
    }
}

impl Expiry {
    fn days(&self) -> Option<i64> {
        days(&self.0).ok()
    }

    /// Returns the argument of useradd and usermod. Empty means never.
    pub(super) fn argument(&self) -> &str {
        if self.0 == "never" { "" } else { &self.0 }
    }
}

/// Returns the days from 1970-01-01 to a date.
fn days(text: &str) -> Result<i64> {
    ensure!(
        text.len() == 10
            && text.bytes().enumerate().all(|(at, byte)| match at {
                4 | 7 => byte == b'-',
                _ => byte.is_ascii_digit(),
            })
    );
    let month = Month::try_from(text[5..7].parse::<u8>()?)?;
    let date = Date::from_calendar_date(text[..4].parse()?, month, text[8..].parse()?)?;
    Ok((date - OffsetDateTime::UNIX_EPOCH.date()).whole_days())
}

/// Returns the date of a field of shadow(5).
fn date(field: &str) -> String {
    let day = field
        .parse()
        .ok()
        .and_then(|days: i64| OffsetDateTime::UNIX_EPOCH.date().checked_add(Duration::days(days.clamp(0, 10_000_000))));
    day.map_or_else(|| "never".to_owned(), |date| date.to_string())
}

/// The hash of a password in the format of crypt(5), or `!` or `*`, which no password matches.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct PasswordHash(String);

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl PasswordHash {
    /// Returns what other programs may print of it.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.0.clone().into_bytes()
    }

    /// Returns whether it is a hash or the sign of a locked password.
    fn is_valid(&self) -> bool {
        let hash = &self.0;
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "./$=,".contains(c);
        let is_hash = ["$y$", "$6$"].iter().any(|method| hash.starts_with(method))
            && hash.chars().all(is_allowed)
            && hash.split('$').count() >= 4
            && hash.rsplit('$').next().is_some_and(|digest| digest.len() >= 43)
            && hash.len() < 384;
        is_hash || hash == "!" || hash == "*"
    }

    fn is_locked(&self) -> bool {
        !self.0.starts_with('$')
    }
}

impl User {
    /// Returns the fault of a password that is no hash.
    pub(super) fn fault_of_password(&self) -> Option<Finding> {
        let message = "its `password_hash` is not a hash of yescrypt (`$y$`) or SHA-512 (`$6$`), nor `!` or `*`";
        let is_wrong = self.password_hash.as_ref().is_some_and(|hash| !hash.is_valid());
        is_wrong.then(|| Finding::new("password_hash", message).hint("make a hash: openssl passwd -6"))
    }

    /// Returns the fault of a comment that `/etc/passwd` cannot hold.
    pub(super) fn fault_of_comment(&self) -> Option<Finding> {
        let comment = self.comment.as_deref()?;
        let control = printable(comment).err().map(|error| error.to_string());
        let message =
            if comment.contains(':') { Some("contains `:`, which separates fields".to_owned()) } else { control };
        Some(Finding::new("comment", format!("the comment {}", message?)))
    }

    /// Returns the changes of an existing user's comment, expiry and password.
    pub(super) fn plan_attributes(&self, system: &System, user: &UserAccount) -> Result<Vec<Change>> {
        let mut changes = vec![];
        let usermod = |arguments: [&str; 2]| {
            // usermod reads a date in the machine's time zone, and rounds it to a day.
            Program::new(["usermod"]).args(arguments).arg(self.name.as_str()).env("TZ", "UTC")
        };
        if let Some(comment) = self.comment.as_ref().filter(|comment| **comment != user.comment) {
            let summary = format!("set comment `{comment}` (now `{}`)", user.comment);
            changes.push(account_change(system, summary, usermod(["--comment", comment]))?);
        }
        if self.expires.is_none() && self.password_hash.is_none() {
            return Ok(changes);
        }
        // Only root may read this file. Another user's plan cannot compare it.
        let Some(fields) = system.host.shadow_fields(&self.name.to_string())? else { return Ok(changes) };
        let field = |at: usize| fields.get(at).map_or("", String::as_str);
        if let Some(expires) = self.expires.as_ref().filter(|expires| expires.days() != field(EXPIRY).parse().ok()) {
            let summary = format!("set expiry {} (now {})", expires.0, date(field(EXPIRY)));
            changes.push(account_change(system, summary, usermod(["--expiredate", expires.argument()]))?);
            self.warn_of_expiry(system);
        }
        if self.password_hash.as_ref().is_some_and(|hash| hash.0 != field(PASSWORD)) {
            let is_locked = field(PASSWORD).starts_with("!$");
            changes.extend(self.plan_password(system, if is_locked { " (it is locked now)" } else { "" })?);
        }
        Ok(changes)
    }

    /// Warns of an expiry that locks the user out from now on.
    pub(super) fn warn_of_expiry(&self, system: &System) {
        let today = (OffsetDateTime::now_utc().date() - OffsetDateTime::UNIX_EPOCH.date()).whole_days();
        if let Some(expires) = self.expires.as_ref().filter(|expires| expires.days().is_some_and(|day| day <= today)) {
            system.warn(format!("{} cannot log in: the account expired on {}", self.name, expires.0));
        }
    }

    /// Returns the change that sets the password's hash of a new user. useradd gives it `!`.
    pub(super) fn plan_first_password(&self, system: &System) -> Result<Option<Change>> {
        let is_set = self.password_hash.as_ref().is_some_and(|hash| hash.0 != "!");
        if is_set { self.plan_password(system, "") } else { Ok(None) }
    }

    /// Returns the change that sets the password's hash. `now` says how the password is, after a space.
    fn plan_password(&self, system: &System, now: &str) -> Result<Option<Change>> {
        let Some(hash) = &self.password_hash else { return Ok(None) };
        let is_image = system.phase() == Phase::Bake || !system.root().is_host();
        if is_image && !hash.is_locked() {
            let summary = "set password (deferred: a secret does not go into an image)";
            return Ok(Some(Change::deferred(summary)));
        }
        let line = format!("{}:{}\n", self.name, hash.0);
        let command = Program::new(["chpasswd", "--encrypted"]).stdin(Some(line)).private();
        let summary = if hash.is_locked() { "lock its password".to_owned() } else { format!("set its password{now}") };
        account_change(system, summary, command).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_of_expiry_is_a_day_of_the_calendar() {
        let days = |text: &str| Expiry::try_from(text.to_owned()).map(|expiry| expiry.days());
        assert_eq!(days("2027-01-31").unwrap(), Some(20849));
        assert_eq!(date("20849"), "2027-01-31");
        assert_eq!((days("never").unwrap(), date("")), (None, "never".to_owned()));
        for bad in ["2027-02-29", "2027-1-31", "31.01.2027", "1970-01-01", "", "-2027-1-31", "２０27-01"] {
            assert!(days(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_password_is_a_hash_and_is_never_shown() {
        let good = format!("$6$salt${}", "a".repeat(86));
        let yescrypt = format!("$y$j9T$salt${}", "b".repeat(43));
        let hash = |text: &str| PasswordHash(text.to_owned());
        for good in [&good, &yescrypt, "!", "*"] {
            assert!(hash(good).is_valid() && format!("{:?}", hash(good)) == "***", "{good}");
        }
        for bad in
            ["secret", "$6$short", &format!("{good}\nroot:x"), &good.replace("salt", "sa:lt"), "", "!!", "$1$a$b"]
        {
            assert!(!hash(bad).is_valid(), "{bad}");
        }
    }
}
