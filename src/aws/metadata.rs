//! The client of the instance metadata service, version 2 only: facts about this instance.
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-categories.html>

use std::{
    error::Error,
    io,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use anyhow::Result;
use aws_config::{
    imds::{
        Client,
        client::{
            Builder,
            error::{ImdsError, TokenError},
        },
    },
    provider_config::ProviderConfig,
};
use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};

use super::sender::{Forbidden, Sender, TooLong};
use crate::{
    error::Fault,
    host::ec2,
    net::{Network, client::causes, retry::Failure},
    value::spoken,
};

/// The facts about an instance, but for its tags.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-metadata.html>
const FACTS: [KnownFact; 13] = [
    KnownFact::at("id", "instance-id"),
    KnownFact::at("region", "placement/region"),
    KnownFact::at("availability_zone", "placement/availability-zone"),
    KnownFact::at("availability_zone_id", "placement/availability-zone-id"),
    KnownFact::at("type", "instance-type"),
    KnownFact::at("ami", "ami-id"),
    KnownFact { source: FactSource::IdentityDocument("accountId"), ..KnownFact::at("account", "") },
    KnownFact::at("local_ipv4", "local-ipv4").absent("this instance has no private IPv4 address"),
    KnownFact::at("public_ipv4", "public-ipv4").absent("this instance has no public IPv4 address"),
    KnownFact::at("private_dns", "local-hostname"),
    KnownFact::at("mac", "mac"),
    KnownFact { source: FactSource::Interface("vpc-ipv4-cidr-block"), ..KnownFact::at("vpc_cidr", "") }
        .absent("this instance is in no VPC with an IPv4 range"),
    KnownFact::at("lifecycle_state", "autoscaling/target-lifecycle-state")
        .absent("this instance is in no Auto Scaling group"),
];
const META_DATA: &str = "/latest/meta-data/";
/// The tag with the build, which the templates give their machines.
pub(super) const BUILD_TAG: &str = "/latest/meta-data/tags/instance/build";

/// A fact of [`FACTS`].
#[derive(Debug)]
pub struct KnownFact {
    /// The part of its name after `instance.`.
    name: &'static str,
    source: FactSource,
    /// What it means that an instance does not have it, if that is usual.
    absent: Option<&'static str>,
}

/// The place of a fact.
#[derive(Debug)]
enum FactSource {
    /// A path below `meta-data`.
    Path(&'static str),
    /// A field of the identity document.
    IdentityDocument(&'static str),
    /// A name below the primary network interface.
    Interface(&'static str),
}

impl KnownFact {
    const fn at(name: &'static str, path: &'static str) -> Self {
        Self { name, source: FactSource::Path(path), absent: None }
    }

    const fn absent(self, meaning: &'static str) -> Self {
        Self { absent: Some(meaning), ..self }
    }
}

/// A JSON document. Only it has the account.
pub(crate) const IDENTITY_DOCUMENT: &str = "/latest/dynamic/instance-identity/document";
const TAGS: &str = "/latest/meta-data/tags/instance";
/// How long the network and the service of an instance may take to start. Bottlerocket's imdsclient waits as long.
const LATE_SERVICE_PATIENCE: Duration = Duration::from_mins(5);
/// The hint for systemd's own metadata service.
const IMDSD_HINT: &str =
    "systemd-imdsd keeps the service to itself: boot with systemd.imds.network=unlocked, see man systemd-imdsd";
/// The path with the role of the instance profile.
const ROLE: &str = "/latest/meta-data/iam/security-credentials/";

/// A fact about an instance: one of [`FACTS`], or `tags.NAME`.
#[derive(Debug)]
pub enum InstanceFact {
    /// A fact that each instance may have.
    Known(&'static KnownFact),
    /// One of the instance's tags.
    Tag(String),
}

impl InstanceFact {
    /// Parses the name of a fact.
    ///
    /// # Errors
    /// If a fact with this name does not exist.
    pub fn parse(name: &str) -> Result<Self, Fault> {
        if let Some(tag) = name.strip_prefix("tags.") {
            // EC2 allows this in a key if tags are in the metadata: no space, no slash, not `.` or `..`.
            let allowed = |c: char| c.is_ascii_alphanumeric() || "+-=._,:@".contains(c);
            if tag.is_empty() || tag.chars().all(|c| c == '.') || !tag.chars().all(allowed) {
                return Err(Fault::new(format!("instance metadata cannot contain a tag with the key `{tag}`"))
                    .hint("its key may hold letters, digits and + - = . _ , : @")
                    .invalid());
            }
            return Ok(Self::Tag(tag.into()));
        }
        if let Some(known) = FACTS.iter().find(|known| known.name == name) {
            return Ok(Self::Known(known));
        }
        let names = FACTS.each_ref().map(|known| known.name);
        let near = names.into_iter().map(|known| (strsim::damerau_levenshtein(known, name), known)).min();
        let hint = match near {
            Some((distance, known)) if distance <= 2 => format!("did you mean instance.{known}?"),
            _ => format!("known are {}, and tags.NAME", names.join(", ")),
        };
        Err(Fault::new(format!("the instance metadata has no fact `{name}`")).hint(hint).invalid())
    }
}

/// A client of the service, made at its first use. It keeps the session's token.
#[derive(Debug)]
pub(crate) struct Metadata {
    pub(super) network: Arc<Network>,
    builder: Builder,
    client: Mutex<Option<Client>>,
    /// How long it waits for a service that is not up yet.
    patience: OnceLock<Duration>,
    /// The end of this wait, by the clock of the network's pace.
    late_until: OnceLock<Duration>,
}

impl Metadata {
    /// Returns a client of the service at the address of the environment, the profile or EC2.
    pub(crate) fn new(network: Arc<Network>) -> Self {
        let sender = Sender::for_metadata(network.clients.clone());
        let config = ProviderConfig::without_region().with_http_client(sender);
        // The caller retries.
        let builder = Client::builder().configure(&config).max_attempts(1);
        let (patience, late_until) = (OnceLock::new(), OnceLock::new());
        Self { network, builder, client: Mutex::default(), patience, late_until }
    }

    /// Returns a client of the service at a URL. It waits this long for a service that is not up yet.
    #[cfg(test)]
    pub(crate) fn at(network: Arc<Network>, endpoint: &str, patience: Duration) -> Result<Self> {
        let metadata = Self::new(network);
        let builder = metadata.builder.endpoint(endpoint).map_err(anyhow::Error::from_boxed)?;
        Ok(Self { builder, patience: OnceLock::from(patience), ..metadata })
    }

    /// Returns the role of the instance profile, if the instance has one.
    pub(crate) async fn role(&self) -> Result<Option<String>, Failure> {
        self.get(ROLE).await
    }

    /// Returns the instance's region.
    pub(super) async fn region(&self) -> Result<Option<String>, Failure> {
        let region = self.get(&format!("{META_DATA}placement/region")).await?;
        Ok(region.filter(|region| !region.is_empty()))
    }

    /// Returns this role if the credentials are the role's.
    pub(crate) async fn role_holding(&self, access_key_id: &str) -> Option<String> {
        let role = self.role().await.ok()??;
        let credentials = self.get(&format!("{ROLE}{role}")).await.ok()??;
        credentials.contains(access_key_id).then_some(role)
    }

    /// Returns the text at a path; `None` if the path does not exist. Waits for a service that is not up yet.
    pub(crate) async fn get(&self, path: &str) -> Result<Option<String>, Failure> {
        loop {
            match self.session(path).await {
                Err(Failure::Transient(fault, _)) if self.is_awaited(&fault) => {
                    let pace = &self.network.settings.pace;
                    pace.clock.sleep(pace.first).await;
                }
                answered => return answered,
            }
        }
    }

    /// Returns whether the service may still start. A machine that is not an instance never has one.
    fn is_awaited(&self, fault: &Fault) -> bool {
        let clock = &self.network.settings.pace.clock;
        let until = self.late_until.get_or_init(|| {
            let usual = || if ec2::is_instance() { LATE_SERVICE_PATIENCE } else { Duration::ZERO };
            let patience = *self.patience.get_or_init(usual);
            if !patience.is_zero() {
                tracing::warn!("{fault}: waiting for it, for {} at most", spoken(patience));
            }
            clock.now() + patience
        });
        clock.now() < *until
    }

    /// Requests a path, and once more with a new token if the service refuses the token. The SDK keeps a token for its
    /// announced lifetime, even if the service has forgotten it.
    async fn session(&self, path: &str) -> Result<Option<String>, Failure> {
        for is_new in [false, true] {
            let client = self.client();
            match client.get(path).await {
                Ok(text) => return Ok(Some(text.as_ref().trim().to_owned())),
                Err(ImdsError::ErrorResponse(answer)) if answer.response().status().as_u16() == 404 => return Ok(None),
                Err(ImdsError::ErrorResponse(answer)) if answer.response().status().as_u16() == 401 && !is_new => {
                    *self.slot() = None;
                }
                Err(error) => return Err(explain(error)),
            }
        }
        Ok(None)
    }

    fn slot(&self) -> MutexGuard<'_, Option<Client>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self) -> Client {
        self.slot().get_or_insert_with(|| self.builder.clone().build()).clone()
    }

    /// Returns the text at a path, with the usual attempts; `None` if the path does not exist.
    pub(super) async fn text(&self, path: &str) -> Result<Option<String>, Fault> {
        self.network.attempts().run(&"the instance metadata service", || self.get(path)).await
    }

    /// Returns a fact about the instance, with the usual attempts.
    pub(super) async fn ask(&self, fact: &InstanceFact) -> Result<String, Fault> {
        self.network.attempts().run(&"the instance metadata service", || answer(self, fact)).await
    }
}

/// An instance's identity document.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-identity-documents.html>
#[derive(Debug)]
pub(crate) struct IdentityDocument(serde_json::Value);

impl IdentityDocument {
    /// Reads the document.
    ///
    /// # Errors
    /// If it is not JSON.
    pub(crate) fn read(document: &str) -> Result<Self, Failure> {
        let read = serde_json::from_str(document).map(Self);
        read.map_err(|error| Failure::Permanent(Fault::new("the identity document is not JSON").caused_by(error)))
    }

    /// Returns the text of a field.
    ///
    /// # Errors
    /// If the document has no text in a field of this name.
    pub(crate) fn fact(&self, name: &str) -> Result<&str, Failure> {
        let missing = || Failure::Permanent(Fault::new(format!("this instance's identity document has no {name}")));
        self.0[name].as_str().ok_or_else(missing)
    }
}

async fn answer(metadata: &Metadata, fact: &InstanceFact) -> Result<String, Failure> {
    let missing = |name: &str| {
        let message = format!("the metadata service of this instance has no `{name}`");
        let hint = format!("use a variable of your own instead of instance.{name}");
        Failure::Permanent(Fault::new(message).hint(hint))
    };
    match fact {
        InstanceFact::Known(fact) => match fact.source.read(metadata).await? {
            Some(value) => Ok(value),
            None => {
                Err(fact.absent.map_or_else(|| missing(fact.name), |meaning| Failure::Permanent(Fault::new(meaning))))
            }
        },
        InstanceFact::Tag(tag) => match metadata.get(&format!("{TAGS}/{tag}")).await? {
            Some(value) => Ok(value),
            None => Err(Failure::Permanent(match metadata.get(TAGS).await? {
                None => Fault::new("this instance has no tags in its metadata").hint(
                    "allow them: MetadataOptions InstanceMetadataTags=enabled in the launch template, or aws ec2 \
                     modify-instance-metadata-options --instance-metadata-tags enabled",
                ),
                Some(tags) => Fault::new(format!("this instance has no tag `{tag}`"))
                    .hint(format!("it has {}", tags.lines().collect::<Vec<_>>().join(", "))),
            })),
        },
    }
}

impl FactSource {
    /// Returns the text at this place; `None` if there is none.
    async fn read(&self, metadata: &Metadata) -> Result<Option<String>, Failure> {
        match self {
            Self::Path(path) => metadata.get(&format!("{META_DATA}{path}")).await,
            Self::IdentityDocument(field) => {
                let Some(document) = metadata.get(IDENTITY_DOCUMENT).await? else { return Ok(None) };
                Ok(Some(IdentityDocument::read(&document)?.fact(field)?.to_owned()))
            }
            Self::Interface(name) => {
                let Some(mac) = metadata.get(&format!("{META_DATA}mac")).await? else { return Ok(None) };
                // It becomes a part of the next path.
                if !mac.chars().all(|c| c.is_ascii_hexdigit() || c == ':') {
                    let message = "the instance metadata service sent an invalid MAC address";
                    return Err(Failure::Permanent(Fault::new(message)));
                }
                metadata.get(&format!("{META_DATA}network/interfaces/macs/{mac}/{name}")).await
            }
        }
    }
}

fn explain(error: ImdsError) -> Failure {
    let message = "the instance metadata service does not answer";
    if let Some(long) = causes(&error).find_map(|cause| cause.downcast_ref::<TooLong>()) {
        return Failure::Permanent(Fault::new(format!("the instance metadata service sent too much: {long}")));
    }
    if let Some(Forbidden { reason }) = causes(&error).find_map(|cause| cause.downcast_ref()) {
        return Failure::Permanent(forbidden(reason));
    }
    match error {
        ImdsError::FailedToLoadToken(_) => match token_status(&error) {
            // This error is the sender's; see `sender.rs`.
            None if causes(&error).any(<dyn Error>::is::<Fault>) => Failure::Permanent(ec2::untrusted()),
            None => Failure::transient(Fault::new(message).hint(if ec2::has_imdsd() {
                IMDSD_HINT
            } else {
                "is this an EC2 instance? In a container the answer may need a second hop: HttpPutResponseHopLimit=2"
            })),
            Some(403) => Failure::Permanent(
                Fault::new("the instance metadata service is disabled")
                    .hint("aws ec2 modify-instance-metadata-options --http-endpoint enabled"),
            ),
            Some(status @ (429 | 500..)) => {
                Failure::transient(Fault::new(format!("the instance metadata service answered {status}")))
            }
            Some(status) => Failure::Permanent(
                Fault::new(format!("the instance metadata service gives no session token, but answers {status}")).hint(
                    "version 1 of the service, without tokens, is not used: it gives credentials to every forwarded request; \
                     aws ec2 modify-instance-metadata-options --http-tokens required",
                ),
            ),
        },
        ImdsError::ErrorResponse(answer) => {
            let fault =
                Fault::new(format!("the instance metadata service answered {}", answer.response().status().as_u16()));
            if answer.response().status().is_server_error() {
                Failure::transient(fault)
            } else {
                Failure::Permanent(fault)
            }
        }
        // The SDK has no type for it. Another attempt would bring the same bytes.
        ImdsError::Unexpected(_) if causes(&error).any(|cause| cause.to_string() == "IMDS returned invalid UTF-8") => {
            Failure::Permanent(Fault::new("the answer of the instance metadata service is not UTF-8 text"))
        }
        error => Failure::transient(Fault::new(message).caused_by(error)),
    }
}

/// Returns the failure that this machine's kernel refuses the connection, with likely causes as hints.
fn forbidden(reason: &io::Error) -> Fault {
    let is_refused = reason.kind() == io::ErrorKind::ConnectionRefused;
    let hint = if ec2::has_imdsd() {
        IMDSD_HINT
    } else if is_refused {
        "nothing listens there, or a rule on this machine refuses it: see nft list ruleset, and ip route show table all"
    } else {
        "a rule on this machine forbids it: see IPAddressDeny= in the unit (systemctl cat glovo-bootstrap), \
         nft list ruleset, and ip route show table all"
    };
    let reason = io::Error::from_raw_os_error(reason.raw_os_error().unwrap_or_default());
    let message = "this machine does not let this program reach the instance metadata service";
    let fault = Fault::new(message).hint(hint).caused_by(reason);
    if is_refused { fault.transient() } else { fault }
}

/// Returns the status of the answer to the request for a token, if one came.
fn token_status(error: &ImdsError) -> Option<u16> {
    let error = error.source()?.downcast_ref::<SdkError<TokenError, HttpResponse>>()?;
    Some(error.raw_response()?.status().as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_answered_with_the_one_that_was_meant() {
        let refused = |name| {
            let error = anyhow::Error::from(InstanceFact::parse(name).unwrap_err());
            (crate::error::exit_code(&error), crate::error::hint(&error).unwrap().to_owned())
        };
        assert_eq!(refused("regoin"), (2, "did you mean instance.region?".into()));
        assert_eq!(
            refused("colour"),
            (
                2,
                "known are id, region, availability_zone, availability_zone_id, type, ami, account, local_ipv4, public_ipv4, \
                 private_dns, mac, vpc_cidr, lifecycle_state, and tags.NAME"
                    .into()
            )
        );
    }

    #[test]
    fn a_tag_stays_below_the_tags() {
        assert!(matches!(InstanceFact::parse("tags.app:version"), Ok(InstanceFact::Tag(tag)) if tag == "app:version"));
        for name in ["tags.", "tags...", "tags.a/../../x", "tags.a b", "tags.a?b"] {
            assert!(InstanceFact::parse(name).is_err(), "{name}");
        }
    }
}
