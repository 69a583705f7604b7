//! The machines' variables: whether they exist, and the ARNs that the machines' role may read. No value is read.

use std::collections::BTreeSet;

use anyhow::Result;
use serde_json::json;

use super::{
    Findings,
    rights::ReadRights,
    secrets::{Looking, Said},
};
use crate::{
    aws::{query::Call, service::SSM},
    deploy::{Deploy, artifacts::Artifacts, variables::VariableSource},
    secrets::path::ParameterPath,
};

/// The most pages of an answer. A page may be empty.
const MAX_PAGES: usize = 1000;

/// Looks whether the sources exist, and what the role needs for them.
pub(super) fn look(found: &mut Findings, deploy: &Deploy, artifacts: &Artifacts) -> Result<ReadRights> {
    let sources = &artifacts.variable_sources;
    // An account that is unknown is a fault already.
    if sources.is_empty() || found.account.is_empty() {
        return Ok(ReadRights::default());
    }
    let mut looking = Looking::new(found, deploy)?;
    for source in sources {
        let names = match source {
            VariableSource::Parameters(path) => {
                let arn = looking.arn_of("ssm", &format!("parameter{}*", path.path()));
                _ = looking.role.arns.insert(arn);
                parameters(&mut looking, path)?
            }
            VariableSource::Object { bucket, key, version, url } => {
                let bucket_arn = format!("arn:{}:s3:::{bucket}", looking.partition());
                _ = looking.role.arns.insert(format!("{bucket_arn}/{key}"));
                let aws = &deploy.system.aws;
                let kms_key = aws.key_of_object(&deploy.system.host, bucket, key, version.as_deref())?;
                if looking.key(url, &kms_key)? {
                    // With a bucket key of S3, KMS sees the bucket's ARN. It allows to read no object.
                    // <https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-key.html>
                    _ = looking.role.arns.insert(bucket_arn);
                }
                vec![]
            }
            VariableSource::Web(_) | VariableSource::File(..) => vec![],
        };
        let names = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
        looking.role.named.push(format!("{source}{names}"));
    }
    Ok(looking.role)
}

/// Returns the variables of the parameters below a path, after a look at their keys.
fn parameters(looking: &mut Looking<'_>, path: &ParameterPath) -> Result<Vec<String>> {
    let (mut names, mut keys, mut next) = (vec![], BTreeSet::new(), String::new());
    let source = path.to_string();
    for _ in 0..MAX_PAGES {
        let filter = json!([{ "Key": "Path", "Option": "Recursive", "Values": [path.path().trim_end_matches('/')] }]);
        let call = Call::new(&SSM, "DescribeParameters").with_json("ParameterFilters", filter);
        let call = if next.is_empty() { call } else { call.with("NextToken", &next) };
        let page = match looking.ask(&source, ("", ""), call)? {
            Said::Answer(page) => page,
            Said::Denied => {
                looking.unchecked(&source, "allow ssm:DescribeParameters in the caller's IAM policy");
                return Ok(names);
            }
            Said::Refused => return Ok(names),
        };
        for parameter in page.list("Parameters") {
            names.push(path.variable(parameter.text("Name")));
            if parameter.text("Type") == "SecureString" {
                _ = keys.insert(parameter.text("KeyId").to_owned());
            }
        }
        page.text("NextToken").clone_into(&mut next);
        if next.is_empty() {
            break;
        }
    }
    names.sort_unstable();
    for key in keys {
        _ = looking.key(&source, &key)?;
    }
    Ok(names)
}
