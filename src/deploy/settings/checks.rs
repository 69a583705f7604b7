//! Refuses settings that are invalid by themselves, or that contradict each other.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use super::{DeploySettings, name_of};
use crate::{deploy::application::ApplicationProbe, error::Fault, host::operator};

/// The most alarms that may be named. CloudWatch shows at most 100 at once, and a slot has two of its own.
const MAX_ALARMS: usize = 98;

impl DeploySettings {
    /// Returns what the application is asked for; `None` if it is not asked.
    ///
    /// # Errors
    /// If a setting of it is invalid.
    pub fn probe(&self) -> Result<Option<ApplicationProbe>> {
        if self.probe.is_none() && self.build_field.is_none() {
            return Ok(None);
        }
        let path = self.probe.clone().unwrap_or_else(|| "/".into());
        ensure!(
            path.starts_with('/'),
            Fault::new(format!("`--probe {path}` is no path")).hint("begin it with a slash: --probe /health").invalid()
        );
        let build = self.build_field.as_ref().map(|field| field.parse()).transpose()?;
        Ok(Some(ApplicationProbe { path, status: self.probe_status.unwrap_or(200), build }))
    }

    /// Returns the words of the command that checks a new build; `None` without one.
    ///
    /// # Errors
    /// If it has no words, or a quote without an end.
    pub fn probe_command(&self) -> Result<Option<Vec<String>>> {
        let Some(line) = &self.probe_command else { return Ok(None) };
        let words = operator::words(line).filter(|words| words.first().is_some_and(|name| !name.is_empty()));
        let invalid = || {
            Fault::new(format!("`--probe-command {line}` names no program, or has a quote without an end"))
                .hint("pass a program and its arguments: --probe-command './check.sh --quick'")
                .invalid()
        };
        Ok(Some(words.ok_or_else(invalid)?))
    }

    /// Returns whether the application is asked, by this program or by a command.
    pub(in crate::deploy) fn asks_application(&self) -> bool {
        self.probe.is_some() || self.build_field.is_some() || self.probe_command.is_some()
    }

    /// Fails if the application cannot be asked by a name of its certificate. These settings are completed from the stack.
    pub(in crate::deploy) fn check_probe(&self) -> Result<()> {
        ensure!(
            !self.asks_application() || self.certificate.is_none() || self.dns_record.is_some(),
            Fault::new("--probe needs a DNS name: the balancer's own name is not in the certificate")
                .hint("pass --dns-record NAME or set DNSRECORD=NAME")
                .invalid()
        );
        Ok(())
    }

    /// Fails if an account, a role or a tag cannot be one.
    fn check_ownership(&self) -> Result<()> {
        let refuse = |what: String, hint: &str| Err(Fault::new(what).hint(hint).invalid().into());
        let is_account = |owner: &String| owner.len() == 12 && owner.bytes().all(|byte| byte.is_ascii_digit());
        if let Some(owner) = self.bucket_owner.as_ref().filter(|owner| !is_account(owner)) {
            let hint = "pass --bucket-owner with the 12 digits of the account that owns the bucket";
            return refuse(format!("`{owner}` is not an AWS account"), hint);
        }
        let is_role = |arn: &String| arn.starts_with("arn:") && arn.contains(":role/");
        if let Some(arn) = self.service_role.as_ref().filter(|arn| !is_role(arn)) {
            let hint = "pass --service-role with an ARN such as arn:aws:iam::123456789012:role/cloudformation";
            return refuse(format!("`{arn}` is not a role"), hint);
        }
        // The machines' tags are in their metadata, where a name may not have other characters: a machine with such a tag does
        // not start. https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/work-with-tags-in-IMDS.html
        let is_tag = |pair: &String| {
            let (name, value) = pair.split_once('=').unwrap_or_default();
            !name.starts_with("aws:")
                && (1..=128).contains(&name.len())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || "+-._,@:".contains(c))
                && ![".", "..", "_index"].contains(&name)
                && value.chars().count() <= 256
        };
        if let Some(pair) = self.tag.iter().find(|pair| !is_tag(pair)) {
            let hint = "a name has up to 128 letters, digits and + - . _ , @ :, and does not begin with aws:; a value has up to 256";
            return refuse(format!("`{pair}` is not a tag"), hint);
        }
        Ok(())
    }

    /// Fails if the settings contradict each other.
    pub fn check(&self) -> Result<()> {
        let sizes = [self.min_size.unwrap_or(1), self.desired_capacity.unwrap_or(2), self.max_size.unwrap_or(3)];
        let given = self.min_size.and(self.desired_capacity).and(self.max_size).is_some();
        ensure!(
            !given || sizes.is_sorted(),
            Fault::new(format!("sizes {}, {}, {} are not in order", sizes[0], sizes[1], sizes[2]))
                .hint("choose MINSIZE ≤ DESIREDCAPACITY ≤ MAXSIZE")
                .invalid()
        );
        let repeated =
            [("--set", &self.set), ("--file", &self.file), ("--parameter", &self.parameter), ("--tag", &self.tag)];
        for (what, pairs) in repeated {
            if let Some(pair) = pairs.iter().find(|pair| !pair.contains('=')) {
                return Err(Fault::new(format!("`{what} {pair}` has no `=`"))
                    .hint(format!("write {what} NAME=VALUE"))
                    .invalid()
                    .into());
            }
            let mut names = BTreeSet::new();
            if let Some(pair) = pairs.iter().find(|pair| !names.insert(name_of(pair))) {
                return Err(Fault::new(format!("{what} {} is given twice", name_of(pair)))
                    .hint(format!("pass {what} {} once", name_of(pair)))
                    .invalid()
                    .into());
            }
        }
        self.check_ownership()?;
        ensure!(
            self.shift.is_sorted_by(|share, next| share < next) && self.shift.last().is_none_or(|last| *last == 100),
            Fault::new("the shares of --shift must rise and end with 100")
                .hint("pass shares such as --shift 10,50,100")
                .invalid()
        );
        ensure!(
            self.alarm.len() <= MAX_ALARMS,
            Fault::new(format!("more than {MAX_ALARMS} alarms are named")).hint("name a composite alarm").invalid()
        );
        _ = (self.probe()?, self.probe_command()?);
        if let (Some(watch), Some(keep)) = (self.watch, self.keep_for) {
            ensure!(
                keep.0 >= watch.0,
                Fault::new("--keep-for is shorter than --watch: the way back would not carry the load")
                    .hint("pass a --keep-for of at least --watch")
                    .invalid()
            );
        }
        Ok(())
    }
}
