//! `HashiCorp` Vault and `OpenBao`: logging in, and reading values of their key-value engines.
//!
//! A token lives as long as the run: it is never written, and revoked at the end.

mod client;
mod kv;
mod login;
pub mod path;
pub mod settings;
mod wrapped;

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::BTreeMap,
    error::Error,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use anyhow::{Context, Result};

use self::{
    client::{Hidden, VaultClient},
    kv::{KvSecret, TokenRefused},
    login::{Evidence, Session, Unwrap},
    path::VaultPath,
    settings::{Login, VaultSettings},
    wrapped::{Earlier, OwnLogin},
};
use crate::{
    aws::{Aws, account::Account},
    error::{self, Class, Fault},
    host::Host,
    net::{
        client::TlsMaterial,
        retry::{Failure, Pace, Patience},
        tls::Identity,
        worker::Worker,
    },
    value::AbsPath,
};

/// Limits the size of a file with a token, a certificate or a key.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A value of Vault. It has no `Debug`.
pub struct VaultValue {
    /// The value; never empty.
    pub value: String,
    /// The version of its secret; `None` for the key-value engine's version 1, which keeps none.
    pub version: Option<u64>,
}

/// The path and the version of a secret.
type SecretName = (String, Option<u64>);

/// A Vault, and this run's login to it. A signal or a deadline ends a call early.
pub struct Vault {
    settings: VaultSettings,
    account: Arc<Account>,
    worker: Rc<Worker>,
    /// Whether a wrapped secret id may be used up: not in a plan.
    may_unwrap: bool,
    /// How long the present read waits for a Vault that does not answer.
    patience: Cell<Patience>,
    client: OnceCell<Arc<VaultClient>>,
    session: RefCell<Option<Arc<Session>>>,
    /// A token that wrapped a secret id, and this secret id, until Vault accepts or denies a login with it.
    unwrapped: RefCell<Option<(Hidden, Hidden)>>,
    /// The secrets that were read, so that all keys of one secret have one version.
    secrets: RefCell<BTreeMap<SecretName, Rc<KvSecret>>>,
}

impl Vault {
    /// Returns a Vault; nothing is sent. A wrapped secret id is used up only if `may_unwrap`: a plan must leave it to the run.
    pub fn new(settings: VaultSettings, aws: &Aws, may_unwrap: bool) -> Self {
        let (account, worker) = aws.connection();
        Self {
            settings,
            account,
            worker,
            may_unwrap,
            patience: Cell::new(Patience::Full),
            client: OnceCell::new(),
            session: RefCell::default(),
            unwrapped: RefCell::default(),
            secrets: RefCell::default(),
        }
    }

    /// Reads a value. A secret is read once in a run, whichever of its keys are asked for.
    ///
    /// # Errors
    /// Class [`Class::Transient`] if Vault cannot be asked now. Otherwise Vault has no such value, or denies it.
    pub fn read(&self, host: &Host, path: &VaultPath, patience: Patience) -> Result<VaultValue> {
        self.patience.set(patience);
        let address = &self.settings.address;
        let read = || -> Result<VaultValue> {
            let secret = self.secret(host, path)?;
            Ok(VaultValue { value: secret.value(path)?, version: secret.version })
        };
        read().with_context(|| format!("reading {path} from Vault at {address}"))
    }

    /// Returns whether this run has read the secret of a value.
    pub fn knows(&self, path: &VaultPath) -> bool {
        self.secrets.borrow().contains_key(&(path.path.clone(), path.version))
    }

    /// Revokes the token of this run's login. The run is over: a failure is only logged.
    pub fn close(&self, host: &Host) {
        let Some(session) = self.session.take().filter(|session| session.is_own) else { return };
        let Some(client) = self.client.get().cloned() else { return };
        let revoke = async move { login::revoke(&client, &session.token).await.map_err(Failure::into_fault) };
        if let Err(error) = self.worker.run(&host.stop, revoke) {
            tracing::debug!("the token of Vault is not revoked and ends by itself: {error:#}");
        }
    }

    fn secret(&self, host: &Host, path: &VaultPath) -> Result<Rc<KvSecret>> {
        let name = (path.path.clone(), path.version);
        if let Some(known) = self.secrets.borrow().get(&name) {
            return Ok(known.clone());
        }
        let is_new = self.session.borrow().is_none();
        let read = match self.read_once(host, path) {
            // The token has expired since the login. One more login is made.
            Err(error) if !is_new && error.chain().any(<dyn Error>::is::<TokenRefused>) => {
                tracing::info!("logging in to Vault again: {error:#}");
                *self.session.borrow_mut() = None;
                self.read_once(host, path)
            }
            read => read,
        };
        let secret = Rc::new(read?);
        _ = self.secrets.borrow_mut().insert(name, secret.clone());
        Ok(secret)
    }

    fn read_once(&self, host: &Host, path: &VaultPath) -> Result<KvSecret> {
        let (client, session, path) = (self.client(host)?, self.session(host)?, path.clone());
        let pace = self.pace();
        self.worker.run(&host.stop, async move {
            client.network.attempts_at(&pace).run(&path, || kv::read(&client, &session.token, &path)).await
        })
    }

    /// Returns the pace of the present read.
    fn pace(&self) -> Pace {
        self.account.network.settings.pace.with(self.patience.get())
    }

    fn client(&self, host: &Host) -> Result<Arc<VaultClient>> {
        if let Some(client) = self.client.get() {
            return Ok(client.clone());
        }
        let VaultSettings { ca, client_certificate, client_key, .. } = &self.settings;
        let read = |path: &Option<AbsPath>| path.as_ref().map(|path| read_file(host, path)).transpose();
        let identity = read(client_certificate)?.zip(read(client_key)?);
        let identity = identity.map(|(certificate, key)| Identity { certificate, key });
        let files = TlsMaterial { ca: read(ca)?, identity };
        let client = Arc::new(VaultClient::new(&self.settings, &files, self.account.network.clone())?);
        Ok(self.client.get_or_init(|| client).clone())
    }

    /// Returns the session of this run, which begins with the first login that Vault accepts.
    fn session(&self, host: &Host) -> Result<Arc<Session>> {
        if let Some(session) = &*self.session.borrow() {
            return Ok(session.clone());
        }
        let mut denials: Vec<(&Login, anyhow::Error)> = vec![];
        for login in self.settings.login.all() {
            match denials.last() {
                None => {}
                // Each run but the first one comes here.
                Some((before, error)) if error.chain().any(<dyn Error>::is::<OwnLogin>) => {
                    tracing::debug!("login to Vault by {before}: {error:#}; trying {login}");
                }
                Some((before, error)) => tracing::warn!("login to Vault by {before}: {error:#}; trying {login}"),
            }
            match self.log_in(host, login) {
                Ok(session) => {
                    let session = Arc::new(session);
                    *self.session.borrow_mut() = Some(session.clone());
                    return Ok(session);
                }
                // Vault is away for all logins, or the run ends.
                Err(error) if error::class(&error) != Class::Permanent => {
                    return Err(error.context(format!("logging in by {login}")));
                }
                Err(error) => denials.push((login, error)),
            }
        }
        Err(all_denied(denials))
    }

    fn log_in(&self, host: &Host, login: &Login) -> Result<Session> {
        match evidence(host, login)? {
            Evidence::Wrapped(token) => self.log_in_once(host, login, token),
            evidence => self.send_login(host, login, evidence),
        }
    }

    /// Logs in with a wrapped secret id, which works once.
    fn log_in_once(&self, host: &Host, login: &Login, token: Hidden) -> Result<Session> {
        let held = self.unwrapped.take().filter(|(of, _)| *of == token);
        let secret_id = match held {
            Some((_, secret_id)) => secret_id,
            None => self.unwrap(host, login, token.clone())?,
        };
        let session = self.send_login(host, login, Evidence::Value(secret_id.clone()));
        if session.as_ref().is_err_and(|error| error::class(error) != Class::Permanent) {
            // Vault gave no answer, and would not unwrap it again.
            *self.unwrapped.borrow_mut() = Some((token, secret_id));
            return session;
        }
        let session = session?;
        wrapped::note_login(host.root(), &token)?;
        Ok(session)
    }

    /// Returns the secret id that a token wraps.
    fn unwrap(&self, host: &Host, login: &Login, token: Hidden) -> Result<Hidden> {
        let earlier = wrapped::earlier(host.root(), &token)?;
        if let Earlier::Login(_) = earlier {
            // Vault would only log one more failed unwrap, which looks like an attack.
            return Err(wrapped::refused(&earlier, "").into());
        }
        if !self.may_unwrap {
            let fault = Fault::new("a plan does not use up the wrapped secret id");
            return Err(fault.hint("run the steps; a plan needs a second login that works again and again").into());
        }
        let time = wrapped::note_attempt(host.root(), &token)?;
        let (client, mount, pace) = (self.client(host)?, login.mount().to_owned(), self.pace());
        self.worker.run(&host.stop, async move {
            // The answer to an attempt of this run may have been lost.
            let is_again = AtomicBool::new(earlier != Earlier::No);
            let unwrapped = client.network.attempts_at(&pace).run(&"the wrapped secret id", || async {
                let earlier = if is_again.swap(true, Relaxed) { Earlier::Attempt(time.clone()) } else { Earlier::No };
                login::unwrap(&client, &token, &mount).await.map_err(|failure| match failure {
                    Unwrap::Refused(words) => Failure::Permanent(wrapped::refused(&earlier, &words)),
                    Unwrap::Failed(failure) => failure,
                })
            });
            unwrapped.await
        })
    }

    fn send_login(&self, host: &Host, login: &Login, evidence: Evidence) -> Result<Session> {
        let (client, account, login) = (self.client(host)?, self.account.clone(), login.clone());
        let pace = self.pace();
        self.worker.run(&host.stop, async move {
            let what = format!("the login to Vault by {login}");
            client.network.attempts_at(&pace).run(&what, || login::log_in(&client, &account, &login, &evidence)).await
        })
    }
}

/// Returns the error of logins that Vault denies, all of them.
fn all_denied(mut denials: Vec<(&Login, anyhow::Error)>) -> anyhow::Error {
    if denials.len() == 1
        && let Some((login, error)) = denials.pop()
    {
        return error.context(format!("logging in by {login}"));
    }
    let reasons: String = denials.iter().map(|(login, error)| format!("\n| {login}: {error:#}")).collect();
    let fault = Fault::new(format!("all {} logins to Vault failed{reasons}", denials.len()));
    match denials.iter().find_map(|(_, error)| error::hint(error)) {
        Some(hint) => fault.hint(hint).into(),
        None => fault.into(),
    }
}

/// Reads the file of a login.
fn evidence(host: &Host, login: &Login) -> Result<Evidence> {
    let hidden = |path: &AbsPath, name: &str| -> Result<Hidden> {
        let text = String::from_utf8(read_file(host, path)?);
        let text = text.map_err(|_| Fault::new(format!("{path} is not text")))?;
        // The value must be one word: a header and a line of a log could have no other.
        let value = text.trim();
        if value.is_empty() || value.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(Fault::new(format!("{path} has no value, or more than one"))
                .hint("write the value alone into the file")
                .into());
        }
        Ok(Hidden::new(name, value.to_owned()))
    };
    Ok(match login {
        Login::AppRole { wrapped_secret_id_file: Some(file), .. } => {
            Evidence::Wrapped(hidden(file, "wrapped secret id")?)
        }
        Login::AppRole { secret_id_file: Some(file), .. } => Evidence::Value(hidden(file, "secret id of Vault")?),
        Login::Jwt { file, .. } => Evidence::Value(hidden(file, "jwt of Vault")?),
        Login::Token { file } => Evidence::Value(hidden(file, "token of Vault")?),
        Login::Aws { .. } | Login::Cert { .. } | Login::AppRole { .. } => Evidence::None,
    })
}

/// Reads a file of a login. Links of root are followed.
fn read_file(host: &Host, path: &AbsPath) -> Result<Vec<u8>> {
    let file = host.root().resolve_trusted(path)?;
    let bytes = host.root().read(&file, MAX_FILE_BYTES)?;
    bytes.ok_or_else(|| Fault::new(format!("{path} does not exist")).hint("write the file before the run").into())
}

#[cfg(test)]
mod tests;
