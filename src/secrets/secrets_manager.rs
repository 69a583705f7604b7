//! Secrets of AWS Secrets Manager.
//! <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html>

use anyhow::Result;
use base64::{Engine, prelude::BASE64_STANDARD};

use super::{SecretDocument, SecretValue};
use crate::{
    aws::{answer::Element, query::Call, refusal::Refusal, service::SECRETS_MANAGER},
    error::Fault,
    value::secret_source::SecretVersion,
};

/// Reads a secret. `call` makes a call.
pub(super) fn read(
    id: &str,
    version: Option<&SecretVersion>,
    call: impl FnOnce(Call) -> Result<Element>,
) -> Result<SecretDocument> {
    let mut request = Call::new(&SECRETS_MANAGER, "GetSecretValue").with("SecretId", id);
    request = match version {
        None => request,
        Some(SecretVersion::Id(version)) => request.with("VersionId", version),
        Some(SecretVersion::Stage(stage)) => request.with("VersionStage", stage),
    };
    let answer = call(request).map_err(|error| explain(id, error))?;
    let value = match (answer.find("SecretString"), answer.find("SecretBinary")) {
        (Some(text), _) => Some(text.text.as_bytes().to_vec()),
        (None, Some(binary)) => BASE64_STANDARD.decode(&binary.text).ok(),
        (None, None) => None,
    };
    let unreadable = || Fault::new(format!("the answer has no value of the secret {id}"));
    let value = value.ok_or_else(unreadable)?;
    Ok(SecretDocument {
        value: SecretValue::new(format!("secretsmanager://{id}"), value),
        version: answer.text("VersionId").to_owned(),
    })
}

/// Returns a refusal in the words of a secret.
fn explain(id: &str, error: anyhow::Error) -> anyhow::Error {
    let Some(refusal) = Refusal::of(&error) else { return error };
    let fault = match refusal.code.as_str() {
        "ResourceNotFoundException" => Fault::new(format!(
            "Secrets Manager has no secret {id}, or not this version of it, in this account and region"
        ))
        .hint(format!("see its versions: aws secretsmanager list-secret-version-ids --secret-id {id}")),
        "InvalidRequestException" => Fault::new(format!("the secret {id} cannot be read in its present state"))
            .hint(format!("if it is to be deleted, keep it: aws secretsmanager restore-secret --secret-id {id}")),
        "DecryptionFailure" => Fault::new(format!("the key of the secret {id} does not decrypt it"))
            .hint("allow kms:Decrypt on the secret's key in the role's policy, and see that the key is enabled"),
        "AccessDeniedException" if refusal.message.contains("KMS") || refusal.message.contains("kms:") => {
            Fault::new(format!("the role may read the secret {id}, but not decrypt it"))
                .hint("allow kms:Decrypt on the secret's key, in the role's policy and in the key's")
        }
        "AccessDeniedException" => {
            let resource = if id.starts_with("arn:") {
                id.to_owned()
            } else {
                format!("arn:{}:secretsmanager:*:*:secret:{id}-??????", refusal.partition)
            };
            Fault::new(format!("the role may not read the secret {id}"))
                .hint(format!("allow secretsmanager:GetSecretValue on {resource}"))
        }
        _ => return error,
    };
    fault.caused_by(error).into()
}
