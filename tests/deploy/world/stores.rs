//! Parameter Store, Secrets Manager and KMS. They describe secrets, and tell no values.

use std::collections::BTreeMap;

use serde_json::json;

use super::Answer;
use crate::tape::Call;

#[derive(Debug, Clone)]
pub struct Stores {
    /// The parameters: name and key. A parameter without a key is not encrypted.
    pub parameters: BTreeMap<&'static str, &'static str>,
    /// The secrets: name and key. Without one, it is the key of AWS.
    pub secrets: BTreeMap<&'static str, &'static str>,
    /// The values of parameters that name images.
    pub images: BTreeMap<String, &'static str>,
    /// The stages of the only version of each secret.
    pub stages: Vec<&'static str>,
    /// Whether the secrets are marked for deletion.
    pub is_deleted: bool,
    /// The state of all keys.
    pub key_state: &'static str,
}

impl Default for Stores {
    fn default() -> Self {
        Self {
            parameters: BTreeMap::from([("/app/db", "alias/app"), ("/app/token", "alias/aws/ssm"), ("plain", "")]),
            secrets: BTreeMap::from([("prod/notes", ""), ("prod/mail", "mail-key")]),
            images: BTreeMap::from([("amd64", "ami-24"), ("arm64", "ami-2")].map(|(processor, ami)| {
                let path = "/aws/service/canonical/ubuntu/server/24.04/stable/current";
                (format!("{path}/{processor}/hvm/ebs-gp3/ami-id"), ami)
            })),
            stages: vec!["AWSCURRENT"],
            is_deleted: false,
            key_state: "Enabled",
        }
    }
}

impl Stores {
    /// Returns the names and types of the parameters below a path.
    fn listed(&self, path: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
        let path = format!("{}/", path.trim_end_matches('/'));
        let kind = |key: &str| if key.is_empty() { "String" } else { "SecureString" };
        self.parameters
            .iter()
            .filter(move |(name, _)| name.starts_with(&path))
            .map(move |(name, key)| (*name, kind(key)))
    }

    /// Describes the parameters below a path, one on each page.
    fn below(&self, call: &Call) -> serde_json::Value {
        let filters: serde_json::Value = serde_json::from_str(call.get("ParameterFilters")).unwrap();
        assert_eq!(filters[0]["Option"], "Recursive");
        let page: usize = call.get("NextToken").parse().unwrap_or_default();
        let all: Vec<_> = self.listed(filters[0]["Values"][0].as_str().unwrap()).collect();
        let described =
            all.get(page).map(|(name, kind)| json!({ "Name": name, "Type": kind, "KeyId": self.parameters[name] }));
        let mut answer = json!({ "Parameters": described.as_slice() });
        if page + 1 < all.len() {
            answer["NextToken"] = json!((page + 1).to_string());
        }
        answer
    }

    /// Returns the answer to an operation, in JSON.
    pub fn answer(&self, call: &Call) -> Answer {
        let arn = |service: &str, rest: &str| format!("arn:aws:{service}:eu-central-1:123456789012:{rest}");
        let described = match call.operation.as_str() {
            "DescribeParameters" if call.get("ParameterFilters").contains("\"Path\"") => self.below(call),
            "GetParameter" => {
                let Some(ami) = self.images.get(call.get("Name")) else {
                    return Err(("ParameterNotFound", String::new()));
                };
                json!({ "Parameter": { "Name": call.get("Name"), "Type": "String", "Value": ami } })
            }
            "GetParametersByPath" => {
                let parameters: Vec<_> = self
                    .listed(call.get("Path"))
                    .map(|(name, kind)| {
                        assert_eq!(call.get("WithDecryption"), "", "the operator's machine decrypts nothing");
                        json!({ "Name": name, "Type": kind, "Value": format!("value of {name}") })
                    })
                    .collect();
                json!({ "Parameters": parameters })
            }
            // A page without members says nothing about the next one.
            "DescribeParameters" if call.get("NextToken").is_empty() => json!({ "Parameters": [], "NextToken": "2" }),
            "DescribeParameters" => {
                let filters: serde_json::Value = serde_json::from_str(call.get("ParameterFilters")).unwrap();
                assert_eq!((&filters[0]["Key"], &filters[0]["Option"]), (&json!("Name"), &json!("Equals")));
                let name = filters[0]["Values"][0].as_str().unwrap();
                let found = self.parameters.get(name).map(|key| json!({ "Name": name, "KeyId": key, "Version": 3 }));
                json!({ "Parameters": found.as_slice() })
            }
            "DescribeSecret" => {
                let id = call.get("SecretId").rsplit(":secret:").next().unwrap().trim_end_matches("-AbCdEf");
                let Some(key) = self.secrets.get(id) else {
                    let message = "Secrets Manager can't find the specified secret.";
                    return Err(("ResourceNotFoundException", message.into()));
                };
                let mut secret = json!({ "ARN": arn("secretsmanager", &format!("secret:{id}-AbCdEf")), "Name": id });
                secret["VersionIdsToStages"] = json!({ "version-1": self.stages });
                if !key.is_empty() {
                    secret["KmsKeyId"] = json!(arn("kms", &format!("key/{key}")));
                }
                if self.is_deleted {
                    secret["DeletedDate"] = json!(1.5e9);
                }
                secret
            }
            "DescribeKey" => {
                let id = call.get("KeyId").rsplit('/').next().unwrap();
                let manager = if id == "made-by-aws" { "AWS" } else { "CUSTOMER" };
                let arn = arn("kms", &format!("key/{}", id.replace("app", "app-key")));
                json!({ "KeyMetadata": { "Arn": arn, "KeyManager": manager, "KeyState": self.key_state } })
            }
            other => panic!("the stores do not know {other}"),
        };
        Ok(described.to_string())
    }
}
