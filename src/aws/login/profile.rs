//! What a profile of `~/.aws/config` and `~/.aws/credentials` says about credentials.
//! <https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html>

use std::path::Path;

use aws_config::profile::{self, Profile, ProfileSet};
use aws_credential_types::Credentials;
use aws_types::os_shim_internal::{Env, Fs};

use crate::{environment, error::Fault, host::root::trusted::Trusted, value::quoted};

/// The longest chain of `source_profile`. A longer one is a mistake.
const MAX_PROFILES: usize = 16;
/// The most profiles that a hint lists.
const MAX_LISTED: usize = 10;

/// What chooses a profile on the command line.
const OPTION: &str = "--profile";

/// How a profile gets its credentials.
pub(super) struct Plan {
    /// The profile that names the first credentials.
    pub(super) base_profile: String,
    pub(super) base: Base,
    /// The roles to assume after that, each with the credentials of the one before.
    pub(super) roles: Vec<ProfileRole>,
}

/// Where the first credentials come from.
pub(super) enum Base {
    Static(Credentials),
    /// `credential_source`, such as `Environment`.
    Source(String),
    WebIdentity {
        role: ProfileRole,
        token_file: String,
    },
    Sso(SsoRole),
    /// The session of `aws login`.
    Console(String),
    /// A command line.
    Process(String),
}

/// A role to assume.
pub(super) struct ProfileRole {
    /// The profile that names it.
    pub(super) profile: String,
    pub(super) arn: String,
    pub(super) session_name: Option<String>,
    pub(super) external_id: Option<String>,
    pub(super) duration: Option<String>,
    /// The device whose code must be typed.
    pub(super) mfa: Option<String>,
}

/// A role of IAM Identity Center.
pub(super) struct SsoRole {
    /// The section `sso-session`; `None` in the old form.
    pub(super) session: Option<String>,
    pub(super) start_url: String,
    pub(super) region: String,
    pub(super) account: String,
    pub(super) role: String,
}

/// Returns the path of the file with the profiles' settings, as the user would write it.
pub(super) fn config_file() -> String {
    environment::value(environment::CONFIG_FILE).unwrap_or_else(|| "~/.aws/config".into())
}

/// Returns the path of the file with static keys.
pub(super) fn credentials_file() -> String {
    environment::value(environment::CREDENTIALS_FILE).unwrap_or_else(|| "~/.aws/credentials".into())
}

/// Fails if another user could have written the command line of a profile.
pub(super) fn check_files() -> Result<(), Fault> {
    for file in [config_file(), credentials_file()] {
        let path = match file.strip_prefix("~/") {
            Some(relative) => Path::new(&environment::value(environment::HOME).unwrap_or_default()).join(relative),
            None => file.into(),
        };
        drop(Trusted::open(&path).map_err(|error| {
            Fault::new("no program is started that the AWS profiles name: another user may have chosen it")
                .caused_by(error)
        })?);
    }
    Ok(())
}

impl Plan {
    fn of(profile: &str, base: Base) -> Self {
        Self { base_profile: profile.to_owned(), base, roles: vec![] }
    }
}

/// The profiles of both files, and of each of them: keys in `~/.aws/credentials` come before a program, and keys in
/// `~/.aws/config` after it.
struct Files {
    all: ProfileSet,
    credentials: ProfileSet,
    config: ProfileSet,
}

impl Files {
    async fn load(name: &str) -> Result<Self, Fault> {
        let (config, credentials) = (environment::CONFIG_FILE, environment::CREDENTIALS_FILE);
        let (all, credentials, config) =
            (load(name, "").await?, load(name, config).await?, load(name, credentials).await?);
        Ok(Self { all, credentials, config })
    }
}

/// Loads the files' profiles, but for one file, which is named by its variable.
async fn load(name: &str, left_out: &str) -> Result<ProfileSet, Fault> {
    let names = [environment::HOME, environment::CONFIG_FILE, environment::CREDENTIALS_FILE];
    let value = |name| if name == left_out { Some("/dev/null".into()) } else { environment::value(name) };
    let values: Vec<(&str, String)> = names.into_iter().filter_map(|name| Some((name, value(name)?))).collect();
    let values: Vec<(&str, &str)> = values.iter().map(|(name, value)| (*name, value.as_str())).collect();
    #[expect(clippy::default_trait_access, reason = "the crate that has the type's name is not needed otherwise")]
    let set =
        profile::load(&Fs::real(), &Env::from_slice(&values), &Default::default(), Some(name.to_owned().into())).await;
    set.map_err(|error| {
        Fault::new("the AWS profiles cannot be read").caused_by(error).hint("correct the file that the cause names")
    })
}

/// Returns the names of the profiles, as a hint says them; `None` if there are none.
pub(super) async fn names() -> Option<String> {
    load("default", "").await.ok().and_then(|set| listed(&set, ""))
}

/// The profile that the user chose.
pub(super) struct ChosenProfile {
    pub(super) name: String,
    /// What chose it; `None` for the usual one.
    chosen_by: Option<&'static str>,
}

impl ChosenProfile {
    /// Returns the profile of the command line, of the environment, or the usual one.
    pub(super) fn new(option: Option<&str>) -> Self {
        match option {
            Some(name) => Self { name: name.to_owned(), chosen_by: Some(OPTION) },
            None => match environment::value(environment::PROFILE) {
                Some(name) => Self { name, chosen_by: Some(environment::PROFILE) },
                None => Self { name: "default".into(), chosen_by: None },
            },
        }
    }

    /// Returns how the profile gets its credentials; `None` if it says nothing about that, and the command line does not
    /// insist on it.
    ///
    /// # Errors
    /// If the files cannot be read, or if the profile is missing or wrong.
    pub(super) async fn plan(&self) -> Result<Option<Plan>, Fault> {
        let files = Files::load(&self.name).await?;
        // The command line comes before the environment.
        let of_environment = if self.chosen_by == Some(OPTION) { None } else { token_of_environment()? };
        match (files.all.get_profile(&self.name).is_some(), self.chosen_by) {
            (false, None) => return Ok(of_environment.map(|base| Plan::of(&self.name, base))),
            (false, Some(by)) => {
                let fault = Fault::new(format!("the AWS profile {} does not exist ({by})", self.name));
                return Err(fault.hint(missing_hint(&files.all, &self.name)).invalid());
            }
            (true, _) => {}
        }
        match plan(&files, &self.name, of_environment)? {
            None if self.chosen_by == Some(OPTION) => {
                Err(Fault::new(format!("the AWS profile {} has no credentials", self.name))
                    .hint(profile_hint(&self.name))
                    .logged_out())
            }
            plan => Ok(plan),
        }
    }
}

/// Returns the hint for a profile without credentials.
pub(in crate::aws) fn profile_hint(profile: &str) -> String {
    let (config, credentials) = (config_file(), credentials_file());
    format!("see {config} and {credentials}; aws configure --profile {} writes them", quoted(profile))
}

fn missing_hint(set: &ProfileSet, name: &str) -> String {
    listed(set, name).unwrap_or_else(|| profile_hint(name))
}

/// Returns the sentence with the names of the profiles, the most similar first; `None` if there are none.
fn listed(set: &ProfileSet, name: &str) -> Option<String> {
    let mut names: Vec<&str> = set.profiles().collect();
    names.sort_by_key(|other| (strsim::damerau_levenshtein(other, name), *other));
    names.truncate(MAX_LISTED);
    (!names.is_empty()).then(|| format!("{} and {} have: {}", config_file(), credentials_file(), names.join(", ")))
}

/// Returns how a profile gets its credentials; `None` if it says nothing about that. A token of the environment comes
/// before those of a profile that assumes no role.
fn plan(files: &Files, name: &str, of_environment: Option<Base>) -> Result<Option<Plan>, Fault> {
    let set = &files.all;
    let (mut name, mut roles) = (name.to_owned(), Vec::<ProfileRole>::new());
    loop {
        let Some(profile) = set.get_profile(&name) else {
            let by = roles.last().map_or_else(String::new, |role| role.profile.clone());
            let fault =
                Fault::new(format!("the AWS profile {by} names the source_profile {name}, which does not exist"));
            return Err(fault.hint(missing_hint(set, &name)).invalid());
        };
        // A source that has keys assumes no role.
        let role = role_of(profile, &name).filter(|_| roles.is_empty() || !has_keys(profile));
        let Some(role) = role else {
            return match of_environment.filter(|_| roles.is_empty()) {
                Some(base) => Ok(Some(Plan::of(&name, base))),
                None => finished(&name, roles, base(files, profile, &name)?),
            };
        };
        roles.push(role);
        let next = match (profile.get("source_profile"), profile.get("credential_source")) {
            (Some(source), None) => source.to_owned(),
            (None, Some(source)) => return finished(&name, roles, Some(Base::Source(source.to_owned()))),
            (source, _) => {
                let what = if source.is_some() { "both source_profile and" } else { "neither source_profile nor" };
                return Err(wrong(&name, &format!("a role_arn, and {what} credential_source")));
            }
        };
        // A profile may be its own source, for its keys.
        if next == name {
            return finished(&name, roles, base(files, profile, &name)?);
        }
        if roles.len() > MAX_PROFILES || roles.iter().any(|role| role.profile == next) {
            let chain: Vec<&str> = roles.iter().map(|role| &*role.profile).chain([&*next]).collect();
            return Err(wrong(&roles[0].profile, &format!("a source_profile that leads back: {}", chain.join(", "))));
        }
        name = next;
    }
}

/// Returns the plan of a chain that ends with this profile.
fn finished(name: &str, mut roles: Vec<ProfileRole>, base: Option<Base>) -> Result<Option<Plan>, Fault> {
    roles.reverse();
    match base {
        Some(base) => Ok(Some(Plan { base_profile: name.to_owned(), base, roles })),
        None if roles.is_empty() => Ok(None),
        None => {
            Err(Fault::new(format!("the AWS profile {name}, which others name as their source, has no credentials"))
                .hint(profile_hint(name))
                .invalid())
        }
    }
}

/// Returns the role that a profile assumes with other credentials.
fn role_of(profile: &Profile, name: &str) -> Option<ProfileRole> {
    let get = |key| profile.get(key).map(str::to_owned);
    // With a token, the role needs no credentials.
    let arn = get("role_arn").filter(|_| profile.get("web_identity_token_file").is_none())?;
    Some(ProfileRole {
        profile: name.to_owned(),
        arn,
        session_name: get("role_session_name"),
        external_id: get("external_id"),
        duration: get("duration_seconds"),
        mfa: get("mfa_serial"),
    })
}

fn has_keys(profile: &Profile) -> bool {
    ["aws_access_key_id", "aws_secret_access_key"].iter().any(|key| profile.get(key).is_some())
}

/// Returns the keys that one file has for a profile.
fn static_keys(set: &ProfileSet, name: &str) -> Result<Option<Base>, Fault> {
    let get = |key| set.get_profile(name).and_then(|profile| profile.get(key));
    match (get("aws_access_key_id"), get("aws_secret_access_key")) {
        (None, None) => Ok(None),
        (Some(id), Some(secret)) => {
            let token = get("aws_session_token").map(str::to_owned);
            Ok(Some(Base::Static(Credentials::new(id, secret, token, None, "profile"))))
        }
        (Some(_), None) => Err(wrong(name, "an aws_access_key_id, and no aws_secret_access_key")),
        (None, Some(_)) => Err(wrong(name, "an aws_secret_access_key, and no aws_access_key_id")),
    }
}

/// Returns the web identity that the environment names.
fn token_of_environment() -> Result<Option<Base>, Fault> {
    let Some(token_file) = environment::value(environment::TOKEN_FILE) else { return Ok(None) };
    let (file, role) = (environment::TOKEN_FILE, environment::ROLE_ARN);
    let arn = environment::value(role).ok_or_else(|| {
        let fault = Fault::new(format!("the environment has {file}, and not {role}"));
        fault.hint(format!("export {role}, too, or unset {file} to use a profile")).invalid()
    })?;
    let session_name = environment::value(environment::ROLE_SESSION_NAME);
    let role =
        ProfileRole { profile: file.to_owned(), arn, session_name, external_id: None, duration: None, mfa: None };
    Ok(Some(Base::WebIdentity { role, token_file }))
}

/// Returns where the first credentials of a profile come from, in the order of botocore, which the AWS CLI has. A test
/// compares each pair.
fn base(files: &Files, profile: &Profile, name: &str) -> Result<Option<Base>, Fault> {
    let get = |key| profile.get(key).map(str::to_owned);
    if let Some(token_file) = get("web_identity_token_file") {
        let Some(arn) = get("role_arn") else { return Err(wrong(name, "a web_identity_token_file, and no role_arn")) };
        let role = ProfileRole {
            profile: name.to_owned(),
            arn,
            session_name: get("role_session_name"),
            external_id: None,
            duration: get("duration_seconds"),
            mfa: None,
        };
        return Ok(Some(Base::WebIdentity { role, token_file }));
    }
    if let Some(sso) = sso_role(&files.all, profile, name)? {
        return Ok(Some(Base::Sso(sso)));
    }
    if let Some(keys) = static_keys(&files.credentials, name)? {
        return Ok(Some(keys));
    }
    if let Some(session) = get("login_session") {
        return Ok(Some(Base::Console(session)));
    }
    if let Some(process) = get("credential_process") {
        return Ok(Some(Base::Process(process)));
    }
    if let Some(keys) = static_keys(&files.config, name)? {
        return Ok(Some(keys));
    }
    match get("sso_session").or(get("sso_start_url")) {
        Some(_) => Err(wrong(name, "IAM Identity Center, and neither sso_account_id nor sso_role_name")),
        None => Ok(None),
    }
}

fn sso_role(set: &ProfileSet, profile: &Profile, name: &str) -> Result<Option<SsoRole>, Fault> {
    let get = |key| profile.get(key).map(str::to_owned);
    let (account, role) = (get("sso_account_id"), get("sso_role_name"));
    if account.is_none() && role.is_none() {
        return Ok(None);
    }
    let session = get("sso_session");
    let section = match &session {
        Some(session) => Some(set.sso_session(session).ok_or_else(|| {
            wrong(name, &format!("the sso_session {session}, and there is no section [sso-session {session}]"))
        })?),
        None => None,
    };
    // What the profile says beside its session must be the same, so the session's value counts.
    let shared = |key| section.and_then(|section| section.get(key)).map(str::to_owned).or_else(|| get(key));
    let need = |value: Option<String>, key: &str| {
        value.ok_or_else(|| wrong(name, &format!("IAM Identity Center, and no {key}")))
    };
    Ok(Some(SsoRole {
        start_url: need(shared("sso_start_url"), "sso_start_url")?,
        region: need(shared("sso_region"), "sso_region")?,
        account: need(account, "sso_account_id")?,
        role: need(role, "sso_role_name")?,
        session,
    }))
}

/// Returns the fault of a profile in `~/.aws/config`.
fn wrong(profile: &str, what: &str) -> Fault {
    Fault::new(format!("the AWS profile {profile} has {what}"))
        .hint(format!("correct it in {}", config_file()))
        .invalid()
}
