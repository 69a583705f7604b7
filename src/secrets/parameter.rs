//! Parameters of AWS Systems Manager's Parameter Store.
//! <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameter.html>

use anyhow::Result;

use super::{SecretDocument, SecretValue};
use crate::{
    aws::{answer::Element, query::Call, refusal::Refusal, service::SSM},
    error::Fault,
};

/// Reads a parameter, decrypted. `call` makes a call.
pub(super) fn read(
    name: &str,
    selector: Option<&str>,
    call: impl FnOnce(Call) -> Result<Element>,
) -> Result<SecretDocument> {
    let wanted = selector.map_or_else(|| name.to_owned(), |selector| format!("{name}:{selector}"));
    let request = Call::new(&SSM, "GetParameter").with("Name", wanted).with_json("WithDecryption", true);
    let answer = call(request).map_err(|error| explain(name, selector, error))?;
    let Some(value) = answer.find("Parameter/Value") else {
        return Err(Fault::new(format!("the answer has no value of the parameter {name}")).into());
    };
    let value = value.text.as_bytes().to_vec();
    Ok(SecretDocument {
        value: SecretValue::new(format!("ssm://{name}"), value),
        version: answer.text("Parameter/Version").to_owned(),
    })
}

/// Returns a refusal in the words of a parameter.
fn explain(name: &str, selector: Option<&str>, error: anyhow::Error) -> anyhow::Error {
    let Some(refusal) = Refusal::of(&error) else { return error };
    let fault = match refusal.code.as_str() {
        "ParameterNotFound" => Fault::new(format!("there is no parameter {name} in this account and region"))
            .hint(format!("correct the name, or store it: aws ssm put-parameter --type SecureString --name {name} --value file:///FILE")),
        "ParameterVersionNotFound" => {
            Fault::new(format!("the parameter {name} has no version or label {}", selector.unwrap_or("of this name")))
                .hint(format!("list them: aws ssm get-parameter-history --name {name}"))
        }
        "InvalidKeyId" => Fault::new(format!("the key of the parameter {name} does not decrypt it"))
            .hint("allow kms:Decrypt on the parameter's key in the role's policy, and see that the key is enabled"),
        "AccessDeniedException" if refusal.message.contains("kms:") || refusal.message.contains("ciphertext") => {
            Fault::new(format!("the role may read the parameter {name}, but not decrypt it"))
                .hint("allow kms:Decrypt on the parameter's key, in the role's policy and in the key's")
        }
        "AccessDeniedException" => {
            let of_path = || format!("arn:{}:ssm:*:*:parameter/{}", refusal.partition, name.trim_start_matches('/'));
            let resource = if name.starts_with("arn:") { name.to_owned() } else { of_path() };
            Fault::new(format!("the role may not read the parameter {name}"))
                .hint(format!("allow ssm:GetParameter on {resource}"))
        }
        _ => return error,
    };
    fault.caused_by(error).into()
}
