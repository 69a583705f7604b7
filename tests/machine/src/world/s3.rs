//! S3, by the crates `s3s` (protocol, signatures) and `s3s-fs` (objects in directories). Added here: permissions.

use std::path::Path;

use anyhow::{Result, anyhow};
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::SimpleAuth;
use s3s::host::MultiDomain;
use s3s::path::S3Path;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3Result, s3_error};

use super::imds::{ACCESS_KEY, INSTANCE, SECRET_KEY, SESSION_TOKEN};
use super::{ACCOUNT, REGION};

/// The operator's access key and its secret. They also allow writing into these buckets.
pub(super) const OPERATOR: (&str, &str) = ("AKIAOPERATOR", "the-operators-secret-key");
/// The buckets that the machine's role may read.
const READABLE: [&str; 2] = ["glovo-config", "glovo.artifacts"];

pub(super) fn service(root: &Path) -> Result<S3Service> {
    let files = s3s_fs::FileSystem::new(root).map_err(|error| anyhow!("{}: {error:?}", root.display()))?;
    let mut service = S3ServiceBuilder::new(files);
    let mut keys = SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY);
    let _ = keys.register(OPERATOR.0.into(), OPERATOR.1.into());
    service.set_auth(keys);
    service.set_access(RolePolicy);
    service.set_host(MultiDomain::new([format!("s3.{REGION}.amazonaws.com"), "s3.amazonaws.com".to_owned()])?);
    Ok(service.build())
}

/// `s3:Get*` and `s3:List*` on these buckets but for the objects of failures, and `s3:PutObject` on the instance's own one, for
/// the role's temporary credentials, in the bucket's region.
struct RolePolicy;

impl S3Access for RolePolicy {
    fn check<'life0, 'life1, 'life2, 'async_trait>(
        &'life0 self,
        context: &'life1 mut S3AccessContext<'life2>,
    ) -> std::pin::Pin<Box<dyn Future<Output = S3Result<()>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        'life2: 'async_trait,
        Self: 'async_trait,
    {
        let decision = decide(context);
        Box::pin(async { decision })
    }
}

fn decide(context: &S3AccessContext<'_>) -> S3Result<()> {
    let Some(credentials) = context.credentials() else {
        return Err(s3_error!(AccessDenied, "the request is not signed"));
    };
    let is_operator = credentials.access_key == OPERATOR.0;
    let header = |name| context.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !is_operator && header("x-amz-security-token") != SESSION_TOKEN {
        return Err(s3_error!(InvalidToken, "the role's session token is missing or wrong"));
    }
    if !header("authorization").contains(&format!("/{REGION}/s3/aws4_request")) {
        return Err(s3_error!(AuthorizationHeaderMalformed, "the region is wrong; expecting '{}'", REGION));
    }
    let (bucket, key) = match context.s3_path() {
        S3Path::Root => ("", ""),
        S3Path::Bucket { bucket } => (&**bucket, ""),
        S3Path::Object { bucket, key } => (&**bucket, &**key),
    };
    let operation = context.s3_op().name();
    let reads = ["Get", "List", "Head"].iter().any(|verb| operation.starts_with(verb));
    let failure = key.split_once(".failures/").map(|(_, arn)| arn);
    let own = format!("arn:aws:ec2:{REGION}:{ACCOUNT}:instance/{INSTANCE}");
    let may_do = match failure {
        _ if is_operator => true,
        Some(arn) => operation == "PutObject" && arn == own,
        None => reads,
    };
    if !READABLE.contains(&bucket) || !may_do {
        return Err(s3_error!(AccessDenied, "the role may not do {} on '{}'", operation, bucket));
    }
    Ok(())
}
