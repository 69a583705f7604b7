//! The notes about wrapped secret ids. Each serves one login. A note precedes the unwrap, so that a second attempt can tell
//! whether this machine made the first one.

use std::{error::Error, fmt};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::client::Hidden;
use crate::{
    error::Fault,
    host::{root::Root, state},
    value::Sha256,
};

/// The state file. It has digests of tokens, which are too random to be guessed from them.
const NAME: &str = "vault-unwrapped.json";
/// The most notes that are kept.
const MAX_NOTES: usize = 16;

/// The error that this machine has used up a wrapped secret id: nothing is wrong.
#[derive(Debug)]
pub(super) struct OwnLogin(String);

impl fmt::Display for OwnLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it is already unwrapped: by this machine's login at {}", self.0)
    }
}

impl Error for OwnLogin {}

/// The note about a wrapped secret id.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct UnwrapNote {
    token_sha256: Sha256,
    /// The time of the first attempt.
    attempted: String,
    /// Whether a login followed.
    #[serde(default)]
    logged_in: bool,
}

/// What is known about a wrapped secret id before Vault is asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Earlier {
    /// This machine did not try to unwrap it.
    No,
    /// An attempt began at this time. Its end is unknown.
    Attempt(String),
    /// This machine has logged in with it.
    Login(String),
}

fn read(root: &Root) -> Result<Vec<UnwrapNote>> {
    let notes = state::load(root, NAME).context("reading the notes about wrapped secret ids")?;
    Ok(notes.unwrap_or_default())
}

/// Returns what the notes say about a token.
pub(super) fn earlier(root: &Root, token: &Hidden) -> Result<Earlier> {
    let digest = Sha256::of(token.shown_to_vault().as_bytes());
    let note = read(root)?.into_iter().find(|note| note.token_sha256 == digest);
    Ok(match note {
        None => Earlier::No,
        Some(note) if note.logged_in => Earlier::Login(note.attempted),
        Some(note) => Earlier::Attempt(note.attempted),
    })
}

/// Notes an attempt, durably. Returns the time of the first one.
pub(super) fn note_attempt(root: &Root, token: &Hidden) -> Result<String> {
    note(root, token, false)
}

/// Notes that this machine has logged in with it.
pub(super) fn note_login(root: &Root, token: &Hidden) -> Result<()> {
    note(root, token, true).map(drop)
}

fn note(root: &Root, token: &Hidden, logged_in: bool) -> Result<String> {
    let digest = Sha256::of(token.shown_to_vault().as_bytes());
    let mut notes = read(root)?;
    let attempted = if let Some(known) = notes.iter_mut().find(|note| note.token_sha256 == digest) {
        known.logged_in |= logged_in;
        known.attempted.clone()
    } else {
        let now = OffsetDateTime::now_utc();
        let attempted = now.replace_nanosecond(0).unwrap_or(now).format(&Rfc3339).context("telling the time")?;
        notes.push(UnwrapNote { token_sha256: digest, attempted: attempted.clone(), logged_in });
        attempted
    };
    let surplus = notes.len().saturating_sub(MAX_NOTES);
    _ = notes.drain(..surplus);
    state::write(root, NAME, &notes).context("writing the note that must precede the unwrap")?;
    Ok(attempted)
}

/// Returns the fault of a wrapped secret id that Vault refuses.
pub(super) fn refused(earlier: &Earlier, words: &str) -> Fault {
    let new = "wrap a new secret id: vault write -wrap-ttl=10m -f auth/MOUNT/role/ROLE/secret-id, and write its token";
    let (message, hint) = match earlier {
        Earlier::Login(time) => {
            return Fault::new("the wrapped secret id serves one login only")
                .caused_by(OwnLogin(time.clone()))
                .hint(format!("{new} into the file; or declare a second login that works again and again"));
        }
        Earlier::Attempt(time) => (
            format!("the wrapped secret id is already unwrapped: by an earlier attempt at {time}, or by another party"),
            format!(
                "search Vault's audit log for sys/wrapping/unwrap; if it was another party, destroy the secret id; {new} into \
                 the file"
            ),
        ),
        Earlier::No => (
            "the wrapped secret id has expired, or another party has unwrapped it; this machine has not".to_owned(),
            format!(
                "search Vault's audit log for sys/wrapping/unwrap; if it was another party, destroy the secret id; {new} into \
                 the file"
            ),
        ),
    };
    Fault::new(message).caused_by(Fault::new(words)).hint(hint)
}
