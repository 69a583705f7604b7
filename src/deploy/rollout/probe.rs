//! Asks the application: the idle slot before it receives any traffic, and the public URL afterwards.
//!
//! The health check of the balancer looks at one path of each machine. This looks from outside, through the balancer, and
//! can compare the build that the application itself tells.

use std::{
    str::FromStr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::Value;

use super::Health;
use crate::{
    deploy::{
        Deploy,
        layout::Slot,
        parameters::{Output, SlotParameter},
        settings::DeploySettings,
        slots::{Slots, active},
        stack::Stack,
    },
    error::{self, Class, Fault},
    net::probe::{ProbeAnswer, ProbeRequest},
    value::spoken,
    view::count,
};

/// How long the application may fail to answer as it should.
const PROBE_TIME: Duration = Duration::from_mins(1);
/// The most characters of the application's build that are shown.
const MAX_SHOWN_CHARS: usize = 40;

/// What the application is asked for, and what it must answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplicationProbe {
    /// Path and query.
    pub path: String,
    /// HTTP status code of the answer.
    pub status: u16,
    /// Where the answer tells its build.
    pub build: Option<BuildField>,
}

/// Where an answer tells the number of its build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildField {
    /// In the header of this name, in lower case.
    Header(String),
    /// In this field of a JSON object; in an object inside, with dots between the names.
    Json(String),
}

impl FromStr for BuildField {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            Some(("header", name)) if !name.is_empty() => Ok(Self::Header(name.to_ascii_lowercase())),
            Some(("json", field)) if !field.is_empty() => Ok(Self::Json(field.to_owned())),
            _ => Err(Fault::new(format!("`--build-field {text}` names no header and no field"))
                .hint("write --build-field header:X-Build, or --build-field json:build")
                .invalid()
                .into()),
        }
    }
}

impl BuildField {
    /// Returns the build that an answer tells.
    fn read(&self, answer: &ProbeAnswer) -> Option<String> {
        match self {
            Self::Header(name) => {
                answer.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.trim().to_owned())
            }
            Self::Json(field) => {
                let document: Value = serde_json::from_str(&answer.body).ok()?;
                match field.split('.').try_fold(&document, |value, name| value.get(name))? {
                    Value::String(text) => Some(text.clone()),
                    Value::Number(number) => Some(number.to_string()),
                    _ => None,
                }
            }
        }
    }
}

impl ApplicationProbe {
    /// Returns what is wrong with an answer of a build; `None` if nothing is.
    fn objection(&self, answer: &ProbeAnswer, build: &str) -> Option<String> {
        if answer.status != self.status {
            return Some(format!("answers with status {}, not {}", answer.status, self.status));
        }
        let told = self.build.as_ref()?.read(answer);
        match told {
            Some(told) if told == build => None,
            Some(told) => {
                let told: String = told.chars().take(MAX_SHOWN_CHARS).collect();
                Some(format!("answers as build {told}, not {build}"))
            }
            None => Some("answers, but does not tell its build".to_owned()),
        }
    }

    /// Returns the words for an answer as it should be.
    fn confirmed(&self, build: &str) -> String {
        match self.build {
            Some(_) => format!("answers with status {}, as build {build}", self.status),
            None => format!("answers with status {}", self.status),
        }
    }
}

/// Returns a URL of the application.
fn url_of(stack: &Stack, probe: &ApplicationProbe) -> Result<String> {
    Ok(format!("{}{}", stack.output(Output::Url)?.trim_end_matches('/'), probe.path))
}

impl Deploy {
    /// Fails if the application cannot be asked by a name of its certificate.
    pub(in crate::deploy) fn check_probe(&self, settings: &DeploySettings) -> Result<()> {
        ensure!(
            settings.probe()?.is_none() || settings.certificate.is_none() || settings.dns_record.is_some(),
            Fault::new("--probe needs a DNS name: the balancer's own name is not in the certificate")
                .hint("pass --dns-record NAME or set DNSRECORD=NAME")
                .invalid()
        );
        Ok(())
    }

    /// Asks the machines of a slot without traffic, through the balancer.
    pub(super) fn probe_idle(&self, slots: &Slots, slot: Slot, machines: u32) -> Result<Health> {
        let (Some(probe), Some(stack)) = (self.settings.probe()?, slots.stack(slot)) else { return Ok(Health::Well) };
        let mut request = ProbeRequest::new(url_of(stack, &probe)?);
        // The name of the application leads to the slot that serves, or nowhere yet.
        request.connect_to = Some(stack.output(Output::BalancerDns)?.to_owned());
        request.header = self.shape().probe_header(slots, slot);
        self.await_answers(slots, slot, &probe, &request, machines, PROBE_TIME)
    }

    /// Asks the public URL, to which the machines of this slot must answer.
    pub(super) fn probe_public(&self, slots: &Slots, slot: Slot, machines: u32) -> Result<Health> {
        let (Some(probe), Some(stack)) = (self.settings.probe()?, slots.stack(slot)) else { return Ok(Health::Well) };
        let request = ProbeRequest::new(url_of(stack, &probe)?);
        let lag = if self.shape().lags() { self.pause() } else { Duration::ZERO };
        self.await_answers(slots, slot, &probe, &request, machines, PROBE_TIME + lag)
    }

    /// Asks until as many answers in a row are right as the slot has machines.
    fn await_answers(
        &self,
        slots: &Slots,
        slot: Slot,
        probe: &ApplicationProbe,
        request: &ProbeRequest,
        machines: u32,
        limit: Duration,
    ) -> Result<Health> {
        let (began, limit) = (Instant::now(), limit.min(self.health_timeout()));
        let build = slots.parameter(slot, SlotParameter::Build);
        let mut right = 0;
        loop {
            let objection = match self.ask_application(request, probe, build)? {
                None => {
                    right += 1;
                    if right >= machines {
                        let answers = count(machines as usize, "answer");
                        let (here, confirmed) = (slots.described(slot), probe.confirmed(build));
                        self.say(&format!("{here}: {} {confirmed} ({answers})", request.url));
                        return Ok(Health::Well);
                    }
                    continue;
                }
                Some(objection) => objection,
            };
            right = 0;
            if began.elapsed() > limit {
                let text = format!("{} {objection}, after {}", request.url, spoken(limit));
                return Ok(Health::Sick(Fault::new(text)));
            }
            self.system.host.stop.wait(self.poll)?;
        }
    }

    /// Asks once. Returns what is wrong with the answer; `None` if nothing is.
    fn ask_application(&self, request: &ProbeRequest, probe: &ApplicationProbe, build: &str) -> Result<Option<String>> {
        match self.system.fetcher.probe(&self.system.host, request.clone(), PROBE_TIME) {
            Ok(answer) => Ok(probe.objection(&answer, build)),
            Err(error) if matches!(error::class(&error), Class::Interrupted(_)) => Err(error),
            Err(error) => Ok(Some(format!("does not answer: {error:#}"))),
        }
    }

    /// Waits until the public URL answers as it should, at the end of a deploy. It may be new, and so may its DNS name.
    pub(in crate::deploy) fn await_public(&self) -> Result<()> {
        if self.settings.probe()?.is_none() {
            return Ok(());
        }
        let slots = Slots::get(self)?;
        let serving = active(self.shape().shares(&self.system, &slots)?).unwrap_or(Slot::Blue);
        let build = slots.parameter(serving, SlotParameter::Build);
        let (began, limit) = (Instant::now(), PROBE_TIME.min(self.health_timeout()));
        while let Some((false, _)) = self.ask_public(&slots, build)?
            && began.elapsed() <= limit
        {
            self.system.host.stop.wait(self.poll)?;
        }
        Ok(())
    }

    /// Asks the public URL once, if the settings say so. Returns whether this build answers, and the words for it.
    pub(in crate::deploy) fn ask_public(&self, slots: &Slots, build: &str) -> Result<Option<(bool, String)>> {
        let (Some(probe), Some(stack)) = (self.settings.probe()?, slots.stacks().next()) else { return Ok(None) };
        let request = ProbeRequest::new(url_of(stack, &probe)?);
        let objection = self.ask_application(&request, &probe, build)?;
        let is_right = objection.is_none();
        Ok(Some((is_right, format!("{} {}", request.url, objection.unwrap_or_else(|| probe.confirmed(build))))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(headers: &[(&str, &str)], body: &str) -> ProbeAnswer {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        ProbeAnswer { status: 200, headers, body: body.to_owned() }
    }

    #[test]
    fn a_build_is_read_from_a_header_or_a_field() {
        for (field, answer, build) in [
            ("header:X-Build", answer(&[("x-build", " 42 ")], ""), Some("42")),
            ("header:X-Build", answer(&[], "42"), None),
            ("json:build", answer(&[], r#"{"build": 42}"#), Some("42")),
            ("json:app.build", answer(&[], r#"{"app": {"build": "42"}}"#), Some("42")),
            ("json:app.build", answer(&[], r#"{"app": null}"#), None),
            ("json:build", answer(&[], "<html>"), None),
        ] {
            let field: BuildField = field.parse().unwrap();
            assert_eq!(field.read(&answer).as_deref(), build, "{field:?}");
        }
        for wrong in ["", "build", "header:", "json:", "body:x"] {
            assert!(wrong.parse::<BuildField>().is_err(), "{wrong}");
        }
    }
}
