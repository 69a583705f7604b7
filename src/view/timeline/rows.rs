//! The rows of the picture: which bars it has, and when each begins and ends.

use std::time::Duration;

use crate::{
    host::boot::BootPart,
    run::report::{Outcome, Report, ResourceReport, StepReport},
    value::{ByteSize, spoken},
};

/// A resource shorter than this part of the picture gets no row of its own.
const SHORTEST_PART: u64 = 150;
/// How many of the longest parts the picture names.
const LONGEST: usize = 3;
/// The boot parts that the run itself can be a part of.
const USER_DATA: [&str; 2] = ["cloud-init, user-data", "first boot, user-data"];

/// The kind of a row, which decides its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowKind {
    Boot,
    Step,
    Resource,
    Download,
    Failed,
}

/// A row with one bar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TimelineRow {
    pub(super) kind: RowKind,
    pub(super) label: String,
    pub(super) began: u64,
    pub(super) ended: u64,
    /// From when the run waited for it, for a download.
    pub(super) waited: Option<u64>,
    /// Whether its end is not known: it goes on, or was cut off.
    pub(super) is_open: bool,
}

/// Where the run lies on the picture's clock.
#[derive(Debug)]
pub(super) struct PictureClock {
    /// Zero of the picture, on the boot's clock.
    pub(super) origin: u64,
    /// When the run began.
    pub(super) run: u64,
    /// The end of the picture.
    pub(super) end: u64,
}

/// Returns when the last step or resource that is reported ended, in milliseconds after the run began.
pub(super) fn last_known(report: &Report) -> u64 {
    let resources = report
        .steps
        .iter()
        .flat_map(|step| &step.resources)
        .map(|resource| resource.began.saturating_add(resource.milliseconds));
    report
        .steps
        .iter()
        .map(|step| step.began.saturating_add(step.milliseconds))
        .chain(resources)
        .max()
        .unwrap_or_default()
}

pub(super) fn rows(report: &Report, boot: &[BootPart], span: &PictureClock) -> Vec<TimelineRow> {
    // What began after the run is no part of the boot that the run waited for.
    let before = |part: &&BootPart| part.began.saturating_sub(span.origin) <= span.run;
    let mut rows: Vec<TimelineRow> = boot.iter().filter(before).map(|part| of_boot(part, span)).collect();
    for step in &report.steps {
        if matches!(step.outcome, Outcome::NotRun | Outcome::Skipped) {
            continue;
        }
        rows.push(of_step(step, span));
        rows.extend(of_resources(step, span));
    }
    rows
}

fn of_boot(part: &BootPart, span: &PictureClock) -> TimelineRow {
    let at = |time: u64| time.saturating_sub(span.origin).min(span.end);
    let ended = part.ended.map_or(span.end, at);
    TimelineRow {
        kind: RowKind::Boot,
        label: part.name.into(),
        began: at(part.began),
        ended,
        waited: None,
        is_open: part.ended.is_none() || ended == span.end,
    }
}

fn of_step(step: &StepReport, span: &PictureClock) -> TimelineRow {
    let is_open = step.outcome == Outcome::Running;
    let began = span.run.saturating_add(step.began);
    TimelineRow {
        kind: kind(step.outcome, RowKind::Step),
        label: step.name.clone(),
        began,
        ended: if is_open { span.end } else { began.saturating_add(step.milliseconds) },
        waited: None,
        is_open,
    }
}

fn kind(outcome: Outcome, otherwise: RowKind) -> RowKind {
    if matches!(outcome, Outcome::Failed | Outcome::Stopped) { RowKind::Failed } else { otherwise }
}

/// Returns the rows of the resources that took long, failed, or waited for a download, and one for the sum of the others.
fn of_resources(step: &StepReport, span: &PictureClock) -> Vec<TimelineRow> {
    let mut rows = vec![];
    let (mut others, mut others_time) = (0_u64, 0);
    for resource in step.resources.iter().filter(|resource| resource.outcome != Outcome::Skipped) {
        let is_short = resource.milliseconds.saturating_mul(SHORTEST_PART) < span.end;
        let is_plain = resource.downloads.is_empty() && resource.error.is_none();
        if is_short && is_plain && resource.outcome != Outcome::Running {
            others += 1;
            others_time = u64::saturating_add(others_time, resource.milliseconds);
            continue;
        }
        rows.push(of_resource(resource, span));
        rows.extend(of_downloads(resource, span));
    }
    if others > 0 && !rows.is_empty() {
        let began = span.run.saturating_add(step.began);
        let label = format!("{others} shorter: {} in all", spoken(Duration::from_millis(others_time)));
        rows.push(TimelineRow { kind: RowKind::Resource, label, began, ended: began, waited: None, is_open: false });
    }
    rows
}

fn of_resource(resource: &ResourceReport, span: &PictureClock) -> TimelineRow {
    let is_open = resource.outcome == Outcome::Running;
    let began = span.run.saturating_add(resource.began);
    TimelineRow {
        kind: kind(resource.outcome, RowKind::Resource),
        label: resource.resource.clone(),
        began,
        ended: if is_open { span.end } else { began.saturating_add(resource.milliseconds) },
        waited: None,
        is_open,
    }
}

/// The downloads of a resource in one row: they ran side by side.
fn of_downloads(resource: &ResourceReport, span: &PictureClock) -> Option<TimelineRow> {
    let began = resource.downloads.iter().map(|download| download.began).min()?;
    let ended = resource.downloads.iter().map(|download| download.ended).max()?;
    let wanted = resource.downloads.iter().map(|download| download.wanted).min()?;
    let bytes = ByteSize(resource.downloads.iter().fold(0, |sum, download| sum.saturating_add(download.bytes)));
    Some(TimelineRow {
        kind: RowKind::Download,
        label: match resource.downloads.len() {
            1 => format!("download of {bytes}"),
            files => format!("download of {files} files, {bytes}"),
        },
        began: span.run.saturating_add(began),
        ended: span.run.saturating_add(ended),
        waited: (wanted < ended).then_some(span.run.saturating_add(wanted.max(began))),
        is_open: false,
    })
}

/// Returns the longest parts in words: `longest: package java 12.0 s (30 %), …`.
///
/// A part that only contains others is left out: a step with resources, systemd's whole boot, the stage of cloud-init in
/// which the run is. A download is part of its resource's time, as far as the run waited for it.
pub(super) fn longest(rows: &[TimelineRow], end: u64) -> String {
    let contains_others = |index: usize, row: &TimelineRow| match row.kind {
        RowKind::Boot => USER_DATA.contains(&&*row.label) || row.label.starts_with("systemd"),
        RowKind::Step => rows.get(index + 1).is_some_and(|next| next.kind != RowKind::Step),
        RowKind::Download => true,
        RowKind::Resource | RowKind::Failed => false,
    };
    let mut parts: Vec<&TimelineRow> =
        rows.iter().enumerate().filter(|(index, row)| !contains_others(*index, row)).map(|(_, row)| row).collect();
    parts.sort_by_key(|row| std::cmp::Reverse(row.ended.saturating_sub(row.began)));
    let named = parts.iter().take(LONGEST).filter(|row| row.ended > row.began).map(|row| {
        let time = row.ended - row.began;
        format!("{} {} ({} %)", row.label, spoken(Duration::from_millis(time)), time.saturating_mul(100) / end)
    });
    match named.collect::<Vec<_>>().join(" · ") {
        named if named.is_empty() => String::new(),
        named => format!("longest: {named}"),
    }
}
