//! The reader of step texts. It turns tables with spans into steps and faults.

mod condition;
mod faults;
mod fields;
mod public;
mod substitution;
mod variants;

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    ops::Range,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use self::{fields::parse, substitution::Unknown};
use super::{
    Declared, Manifest, Step,
    given::restart_for_given_files,
    places::{self, Declaration},
    scope::{Managers, Scope},
    secrets::NamedSecrets,
};
use crate::{
    diagnostic::{Diagnostic, Faults, Place, Spot, Text, did_you_mean},
    redaction,
    resource::{Finding, KINDS, KindEntry, Resource, deferred::Deferred, unread::Unread},
    system::Phase,
    variables::Variables,
};

/// The most bytes of a table's first line that a caret underlines.
const MAX_HEADING_BYTES: usize = 200;

/// The state of reading a manifest's texts, one after the other.
pub(super) struct Reader<'a> {
    variables: &'a mut Variables,
    phase: Phase,
    faults: Faults,
    picks: &'a mut dyn FnMut(&str) -> bool,
    /// Whether the values of variables must be known: the step is picked, and what is read applies on this machine.
    asks: bool,
    /// The values of the current table that a placeholder has alone: their places and its name.
    whole: Vec<(Range<usize>, String)>,
    steps: Vec<Step>,
    step_names: BTreeMap<String, Spot<'a>>,
    paths: HashMap<String, Managers<'a>>,
    declarations: Vec<Declaration<'a>>,
    /// The account that has each numeric id.
    ids: BTreeMap<String, (String, Spot<'a>, Scope)>,
    secrets: NamedSecrets,
    /// Whether faults leave out the lines of the manifest: those of a resource with `secret = true`.
    conceals: bool,
    /// What is valid, but probably not meant.
    doubts: Vec<Diagnostic>,
}

impl<'a> Reader<'a> {
    /// Returns a reader without texts. It calls `picks` once for the name of each step.
    pub(super) fn new(
        variables: &'a mut Variables,
        phase: Phase,
        faults: Faults,
        picks: &'a mut dyn FnMut(&str) -> bool,
    ) -> Self {
        Self {
            variables,
            phase,
            faults,
            picks,
            asks: true,
            whole: vec![],
            steps: vec![],
            step_names: BTreeMap::new(),
            paths: HashMap::new(),
            declarations: vec![],
            ids: BTreeMap::new(),
            secrets: NamedSecrets::default(),
            conceals: false,
            doubts: vec![],
        }
    }

    /// Returns the steps, or all faults of the texts.
    pub(super) fn finish(mut self) -> Result<Manifest, Faults> {
        let loops = places::links::follow(&mut self.declarations);
        for fault in loops.into_iter().chain(places::all_faults(&self.declarations)) {
            self.faults.add(|| fault);
        }
        if self.steps.is_empty() && self.faults.is_empty() {
            self.faults.add(|| Diagnostic {
                message: "the manifest declares no step".into(),
                place: None,
                hint: Some("see: glovo-bootstrap steps export DIR".into()),
            });
        }
        if !self.faults.is_empty() {
            return Err(self.faults);
        }
        let mut warnings = self.doubts;
        warnings.extend(places::all_warnings(&self.declarations));
        self.secrets.known.extend(self.variables.stored_secrets().cloned());
        restart_for_given_files(&mut self.steps);
        Ok(Manifest { steps: self.steps, warnings, secrets: self.secrets })
    }

    /// Reads one file: a step, or `[variables]` and `[[step]]`s.
    pub(super) fn text(&mut self, text: &'a Text, table: Spanned<DeTable<'_>>) {
        let span = table.span();
        let mut table = table.into_inner();
        if !table.contains_key("step") && !table.contains_key("variables") {
            self.step(text, Spanned::new(span, table), "resource");
            return;
        }
        if let Some(variables) = table.remove("variables") {
            match variables.get_ref() {
                DeValue::Table(variables) => self.faults.extend(self.variables.declare_table(text, variables)),
                other => self.report(
                    text,
                    &variables.span(),
                    format!("`variables` is a {}, not a table", other.type_str()),
                    None,
                ),
            }
        }
        // `manifest::vault` has read it, before the steps that need its secrets.
        _ = table.remove("vault");
        for step in self.tables(text, table.remove("step"), "step") {
            self.step(text, step, "step.resource");
        }
        self.unknown(text, &table, &["variables", "vault", "step"], "a manifest of several steps", "step.resource");
    }

    /// Returns the elements of an array of tables.
    fn tables<'i>(
        &mut self,
        text: &Text,
        value: Option<Spanned<DeValue<'i>>>,
        name: &str,
    ) -> Vec<Spanned<DeTable<'i>>> {
        let Some(value) = value else { return vec![] };
        let span = value.span();
        let DeValue::Array(values) = value.into_inner() else {
            let one = if name == "step" { "; a file that is one step has [[resource]]" } else { "" };
            let hint = Some(format!("each {name} begins with [[{name}]], in double brackets{one}"));
            self.report(text, &span, format!("`{name}` is not an array of tables"), hint);
            return vec![];
        };
        let mut tables = vec![];
        for value in values {
            let span = value.span();
            match value.into_inner() {
                DeValue::Table(table) => tables.push(Spanned::new(span, table)),
                other => self.report(text, &span, format!("a {name} is a table, not a {}", other.type_str()), None),
            }
        }
        tables
    }

    /// Reads one step, whose resources begin with `[[heading]]`.
    fn step(&mut self, text: &'a Text, step: Spanned<DeTable<'_>>, heading_of_resource: &str) {
        let span = heading(text, &step.span());
        let mut table = step.into_inner();
        self.asks = true;
        let mut unknown = self.substitute_table(text, &mut table, |field| field == "name");
        self.secrets_of_step(text, &table, &unknown);
        let name = self.take::<String>(text, &mut table, "name", &unknown);
        match &name {
            None => self.report(text, &span, "the step has no `name`", Some("name = \"install_dependencies\"".into())),
            Some(name) => self.step_name(text, name, &unknown),
        }
        self.asks = (self.picks)(name.as_ref().map_or("", |name| name.get_ref()));
        let scope = self.scope(text, &mut table, &Scope::default());
        self.asks &= !scope.is_for_others(self.phase);
        unknown = self.substitute_table(text, &mut table, |field| field != "resource");
        self.secrets_of_step(text, &table, &unknown);
        let description = self.take::<String>(text, &mut table, "description", &unknown);
        let timeout = self.timeout(text, &mut table, &unknown);
        let at_boot = self.at_boot(text, &mut table, &unknown);
        let reboot = self.reboot(text, &mut table, &unknown);
        let mut resources = vec![];
        for resource in self.tables(text, table.remove("resource"), "resource") {
            let secret = resource.get_ref().get("secret").and_then(|secret| secret.get_ref().as_bool());
            self.conceals = secret == Some(true);
            resources.extend(self.resource(text, resource, at_boot, &scope));
            self.conceals = false;
        }
        let known = ["name", "description", "timeout", "phase", "reboot", "where", "resource"];
        self.unknown(text, &table, &known, "a step", heading_of_resource);
        self.steps.push(Step {
            name: name.map(Spanned::into_inner).unwrap_or_default(),
            description: description.map(Spanned::into_inner).unwrap_or_default(),
            timeout,
            not_here: scope.not_here,
            reboot,
            resources,
        });
    }

    fn step_name(&mut self, text: &'a Text, name: &Spanned<String>, unknown: &Unknown) {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.') || unknown.has("name");
        if name.get_ref().is_empty() || !name.get_ref().chars().all(plain) || name.get_ref().starts_with('-') {
            let hint = Some("a step's name is typed on the command line: use letters, digits, `_` and `-`".into());
            self.report(text, &name.span(), format!("`{}` is not a step's name", name.get_ref().escape_debug()), hint);
        }
        if let Some((first, span)) = self.step_names.insert(name.get_ref().clone(), (text, name.span())) {
            self.fault(text, &name.span(), || {
                let hint = format!("the first one is at {}", Place::new(first, &span));
                (format!("a second step is named `{}`", name.get_ref()), Some(hint))
            });
        }
    }

    /// Returns whether `phase` leaves a step or resource to the boot.
    fn at_boot(&mut self, text: &Text, table: &mut DeTable<'_>, unknown: &Unknown) -> bool {
        match self.take::<String>(text, table, "phase", unknown) {
            None => false,
            Some(_) if unknown.has("phase") => false,
            Some(phase) if phase.get_ref() == "boot" => true,
            Some(phase) => {
                let hint = Some("phase = \"boot\"; without it, it is baked into an image and ensured at boot".into());
                let message = format!("`{}` is not a phase", phase.get_ref().escape_debug());
                self.report(text, &phase.span(), message, hint);
                false
            }
        }
    }

    /// Returns whether the machine reboots after a step if its packages require that.
    fn reboot(&mut self, text: &Text, table: &mut DeTable<'_>, unknown: &Unknown) -> bool {
        match self.take::<String>(text, table, "reboot", unknown) {
            None => false,
            Some(_) if unknown.has("reboot") => false,
            Some(when) if when.get_ref() == "if-required" => true,
            Some(when) => {
                let message = format!("`{}` does not say when to reboot", when.get_ref().escape_debug());
                self.report(text, &when.span(), message, Some("reboot = \"if-required\"; without it, never".into()));
                false
            }
        }
    }

    /// Reads a resource of a step with this scope.
    fn resource(
        &mut self,
        text: &'a Text,
        resource: Spanned<DeTable<'_>>,
        step_at_boot: bool,
        step: &Scope,
    ) -> Option<Declared> {
        let span = resource.span();
        let mut table = resource.into_inner();
        let faults = self.faults.count();
        let scope = self.scope(text, &mut table, step);
        let asks = self.asks;
        self.asks &= !scope.is_for_others(self.phase);
        let declared = self.declared(text, Spanned::new(span, table), step_at_boot, scope);
        self.asks = asks;
        declared.filter(|_| self.faults.count() == faults)
    }

    fn declared(
        &mut self,
        text: &'a Text,
        resource: Spanned<DeTable<'_>>,
        step_at_boot: bool,
        scope: Scope,
    ) -> Option<Declared> {
        let span = heading(text, &resource.span());
        let mut table = resource.into_inner();
        let faults = self.faults.count();
        let unknown = self.substitute_table(text, &mut table, |_| true);
        let is_kind_unresolved = unknown.has("kind") && self.faults.count() > faults;
        let retries = self.take::<u32>(text, &mut table, "retries", &unknown);
        let timeout = self.timeout(text, &mut table, &unknown);
        let at_boot = self.at_boot(text, &mut table, &unknown) || step_at_boot;
        let names = || KINDS.iter().map(|kind| kind.name);
        let Some(kind) = table.remove("kind") else {
            let hint = Some(format!("the kinds are: {}", names().collect::<Vec<_>>().join(", ")));
            self.report(text, &span, "the resource has no `kind`", hint);
            return None;
        };
        if is_kind_unresolved {
            return None;
        }
        let name = kind.get_ref().as_str().unwrap_or_default();
        let Some(entry) = KINDS.iter().find(|kind| kind.name == name) else {
            self.fault(text, &kind.span(), || {
                let list = || format!("the kinds are: {}", names().collect::<Vec<_>>().join(", "));
                let hint = did_you_mean(name, names()).unwrap_or_else(list);
                (format!("unknown kind `{}`", name.escape_debug()), Some(hint))
            });
            return None;
        };
        if scope.not_here.is_none() {
            self.secrets.add_sources(&table, |field| unknown.has(field));
        }
        let mut variants = self.variants(text, table)?;
        let mut resource = self.kind(text, entry, variants.chosen, &span, &unknown, &scope)?;
        for other in &mut variants.others {
            if self.faults.count() == faults {
                drop(self.checked(text, entry, other, &span, &unknown));
            }
        }
        // A resource for others puts no secret into this image.
        let secret = resource.secret().filter(|_| scope.not_here.is_none()).cloned();
        let is_bake = self.phase == Phase::Bake;
        if let Some(why) = scope.why_deferred(is_bake, at_boot, secret.is_some()) {
            let (title, paths) = (resource.title(), resource.made_paths());
            resource = Box::new(Deferred { title, why, secret, paths });
        }
        let only_in_images = if is_bake || at_boot { None } else { resource.only_in_images() };
        Some(Declared {
            kind: entry.name,
            place: [&text.name, ":", &text.line_of(span.start).to_string()].concat(),
            retries: retries.map_or(0, Spanned::into_inner),
            timeout,
            not_here: scope.not_here.or_else(|| only_in_images.map(Into::into)),
            resource,
        })
    }

    /// Reads the fields of a resource of a kind.
    fn kind(
        &mut self,
        text: &'a Text,
        entry: &'static KindEntry,
        mut table: DeTable<'_>,
        span: &Range<usize>,
        unknown: &Unknown,
        scope: &Scope,
    ) -> Option<Box<dyn Resource>> {
        let resource = self.checked(text, entry, &mut table, span, unknown)?;
        let span_of = |fields: &[&str]| span_of(&table, fields, span);
        // The identifying field as written: `/srv/{{ instance.id }}`.
        let written = || title_as_written(&table);
        for Finding { field, message, hint } in resource.doubts().into_iter().filter(|doubt| !unknown.has(doubt.field))
        {
            let place = Some(faults::place(text, &span_of(&[field]), self.conceals));
            self.doubts.push(Diagnostic { message, place, hint });
        }
        let (title, unnamed) = (resource.title(), ["path", "name"].iter().any(|field| unknown.has(field)));
        // What is before the name stays: a user and a group may have the same one.
        let as_written = |owned: String| match written().filter(|_| unnamed) {
            Some(written) => owned.strip_suffix(&*title).unwrap_or_default().to_owned() + &written,
            None => owned,
        };
        if let Some(path) = resource.owned_path() {
            self.owned((text, span_of(&["path", "name"])), as_written(path.to_string()), scope, false);
        }
        let owned = resource.owned_things().into_iter().map(|thing| (thing, false));
        let shared = resource.shared_things().into_iter().map(|thing| (thing, true));
        for ((field, owned), shares) in owned.chain(shared) {
            if field == "names" && unknown.has(field) {
                continue;
            }
            let owned = if field == "name" { as_written(owned) } else { owned };
            self.owned((text, span_of(&[field])), owned, scope, shares);
        }
        if !["path", "owner", "group", "mode", "restart_on"].iter().any(|field| unknown.has(field)) {
            let has_path = resource.owned_path().is_some();
            let fields: &[&str] = if has_path { &["path"] } else { &["restart_on", "reload_on", "run_on"] };
            let spot = (text, span_of(fields));
            let mut declaration = Declaration::new(entry.name, &*resource, spot, scope.clone());
            declaration.link = declaration.link.filter(|_| !unknown.has("target"));
            for (field, file) in resource.needed_files().into_iter().filter(|(field, _)| !unknown.has(field)) {
                declaration.needs(field, file, (text, span_of(&[field])));
            }
            self.declarations.push(declaration);
        }
        if let Some(id) = resource.owned_id().filter(|_| !unknown.has("name")) {
            let spot = (text, span_of(id.split(' ').next().as_slice()));
            self.id(spot, &id, &title, scope);
        }
        let Some(fact) = &unknown.variable else { return Some(resource) };
        let secret = resource.secret().filter(|_| !unknown.has("path")).cloned();
        let title = written().unwrap_or_else(|| format!("at line {}", text.line_of(span.start)));
        let paths = if unknown.has("path") || unknown.has("name") { vec![] } else { resource.made_paths() };
        if let Some(error) = self.variables.unread(fact) {
            return Some(Box::new(Unread { title, secret, resource, error }));
        }
        let why = if self.variables.is_stored(fact) {
            "a secret does not go into an image".to_owned()
        } else {
            format!("each instance has its own {fact}")
        };
        Some(Box::new(Deferred { title, why, secret, paths }))
    }

    /// Passes the fields of a resource to its kind, and reports all of their faults.
    fn checked(
        &mut self,
        text: &Text,
        entry: &'static KindEntry,
        table: &mut DeTable<'_>,
        span: &Range<usize>,
        unknown: &Unknown,
    ) -> Option<Box<dyn Resource>> {
        // Only a refused resource is searched for all of its faults.
        let (resource, is_as_written) = match parse(entry, table, span) {
            Ok(resource) => (resource, true),
            Err(_) => self.faulty(text, entry, table, span, unknown)?,
        };
        // A replaced value says nothing about the fields that belong together with it.
        let findings = if is_as_written { resource.check() } else { vec![] };
        for finding in findings.into_iter().filter(|finding| !unknown.has(finding.field)) {
            // The line of a password is not shown.
            let place = span_of(table, &[finding.field], span);
            self.fault_of_field(text, &place, finding.field, finding.message, finding.hint);
        }
        if let Some(bytes) = resource.private_bytes() {
            redaction::learn_file(&bytes);
        }
        self.secrets_for_others(text, &*resource, &|field| span_of(table, &[field], span), unknown);
        Some(resource)
    }

    /// Records what only one resource of a machine may manage, such as a path or a kernel parameter, or what several may
    /// if all of them share it.
    fn owned(&mut self, spot: Spot<'a>, owned: String, scope: &Scope, shares: bool) {
        match self.paths.entry(owned) {
            Entry::Vacant(entry) => _ = entry.insert(Managers::new(spot, scope, shares)),
            Entry::Occupied(mut entry) => {
                let message = format!("two resources manage {}", entry.key());
                if let Err((first, first_span)) = entry.get_mut().add(spot.clone(), scope, shares) {
                    self.faults.add(|| {
                        let hint = Some(format!("the first one is at {}", Place::new(first, first_span)));
                        Diagnostic { message, place: Some(Place::new(spot.0, &spot.1)), hint }
                    });
                }
            }
        }
    }

    /// Records the numeric id of a declared account, so that a second account of the same machine cannot have it.
    fn id(&mut self, spot: Spot<'a>, id: &str, account: &str, scope: &Scope) {
        let (text, span) = spot.clone();
        let (first, first_spot, first_scope) =
            self.ids.entry(id.into()).or_insert_with(|| (account.into(), spot, scope.clone()));
        if first != account && !first_scope.excludes(scope) {
            let hint = format!("the first one is at {}", Place::new(first_spot.0, &first_spot.1));
            let message = format!("a second account has {id}, which {first} has");
            self.report(text, &span, message, Some(hint));
        }
    }
}

/// Returns the place of the first of these fields that a resource has, or else of the resource.
fn span_of(table: &DeTable<'_>, fields: &[&str], resource: &Range<usize>) -> Range<usize> {
    fields.iter().find_map(|field| Some(table.get(*field)?.span())).unwrap_or_else(|| resource.clone())
}

/// Returns the identifying field of a resource as written: a path, a name, names, or a URL.
fn title_as_written(table: &DeTable<'_>) -> Option<String> {
    let text = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Array(values) => {
            let texts: Vec<&str> = values.iter().filter_map(|value| value.get_ref().as_str()).collect();
            (!texts.is_empty()).then(|| texts.join(", "))
        }
        _ => None,
    };
    ["path", "name", "names", "url"].iter().find_map(|field| text(table.get(*field)?.get_ref()))
}

/// Returns the first line of a table's span. A caret under the whole table would be too long to help.
fn heading(text: &Text, span: &Range<usize>) -> Range<usize> {
    let start = span.start.min(text.text.len());
    let end = span.end.min(start + MAX_HEADING_BYTES).min(text.text.len());
    let length = text.text.get(start..end).and_then(|rest| rest.lines().next()).map_or(1, str::len);
    start..start + length.max(1)
}
