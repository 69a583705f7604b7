//! Draws the picture as SVG, or as a page of HTML around it. It needs no script, no font and no other file.

use std::{fmt::Write, time::Duration};

use super::{
    Timeline,
    rows::{RowKind, TimelineRow},
};
use crate::{value::spoken, visible::Shown};

/// The width of the picture, of its labels on the left, and of its times on the right, in pixels.
const WIDTH: u64 = 1200;
const LABELS: u64 = 400;
const TIMES: u64 = 90;
/// The height of a row, of its bar, and of what is above the rows.
const ROW: u64 = 22;
const BAR: u64 = 14;
const HEAD: u64 = 132;
/// The most characters of a label; the whole text appears under the pointer.
const LABEL_CHARACTERS: usize = 46;
/// The possible distances of the lines of the axis, in milliseconds, and the most lines.
const DISTANCES: [u64; 16] =
    [10, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 30_000, 60_000, 120_000, 300_000, 600_000, 1_800_000];
const MAX_LINES: u64 = 10;
/// The colours of the kinds, by Okabe and Ito: also for readers who see fewer colours.
const LEGEND: [(&str, &str); 6] = [
    ("#999999", "boot"),
    ("#0072B2", "step"),
    ("#56B4E9", "resource"),
    ("#009E73", "download"),
    ("#E69F00", "the run waits for it"),
    ("#D55E00", "failed"),
];
const WAITED: &str = "#E69F00";

fn colour(kind: RowKind) -> &'static str {
    match kind {
        RowKind::Boot => "#999999",
        RowKind::Step => "#0072B2",
        RowKind::Resource => "#56B4E9",
        RowKind::Download => "#009E73",
        RowKind::Failed => "#D55E00",
    }
}

/// Returns the picture as a page of HTML.
pub fn html(timeline: &Timeline) -> String {
    let title = escaped(&timeline.title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n{}</html>\n",
        svg(timeline)
    )
}

/// Returns the picture as SVG 1.1.
pub fn svg(timeline: &Timeline) -> String {
    let height = HEAD + ROW * u64::try_from(timeline.rows.len()).unwrap_or_default() + ROW;
    let mut picture = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    head(&mut picture, timeline);
    axis(&mut picture, timeline, height);
    for (index, row) in (0..).zip(&timeline.rows) {
        draw(&mut picture, row, HEAD + ROW * index, timeline.end);
    }
    marks(&mut picture, timeline, height);
    picture.push_str("</svg>\n");
    picture
}

fn head(picture: &mut String, timeline: &Timeline) {
    text(picture, 16, 28, "font-size=\"18\" font-weight=\"bold\"", &timeline.summary);
    text(picture, 16, 50, "fill=\"#555555\"", &timeline.title);
    text(picture, 16, 72, "", &timeline.longest);
    let mut left = 16;
    for (colour, name) in LEGEND {
        _ = writeln!(picture, "<rect x=\"{left}\" y=\"84\" width=\"12\" height=\"12\" fill=\"{colour}\"/>");
        text(picture, left + 17, 95, "fill=\"#555555\"", name);
        left += 40 + 8 * u64::try_from(name.len()).unwrap_or_default();
    }
}

fn axis(picture: &mut String, timeline: &Timeline, height: u64) {
    let fits = |distance: &&u64| timeline.end / **distance <= MAX_LINES;
    let distance = *DISTANCES.iter().find(fits).unwrap_or(&(timeline.end / MAX_LINES).max(1));
    for line in 0..=timeline.end / distance {
        let (time, x) = (line * distance, x(line * distance, timeline.end));
        _ = writeln!(picture, "<line x1=\"{x}\" y1=\"{HEAD}\" x2=\"{x}\" y2=\"{}\" stroke=\"#dddddd\"/>", height - ROW);
        text(picture, x, height - 6, "fill=\"#555555\" text-anchor=\"middle\"", &on_axis(time));
    }
}

/// Returns a time for the axis, without a decimal that says nothing.
fn on_axis(milliseconds: u64) -> String {
    match milliseconds {
        0 => "0".into(),
        whole if whole < 60_000 && whole.is_multiple_of(1000) => format!("{} s", whole / 1000),
        whole if whole.is_multiple_of(60_000) => format!("{} min", whole / 60_000),
        other => spoken(Duration::from_millis(other)),
    }
}

fn draw(picture: &mut String, row: &TimelineRow, y: u64, end: u64) {
    let indent = if matches!(row.kind, RowKind::Resource | RowKind::Download) { 36 } else { 16 };
    let weight = if row.kind == RowKind::Step { "font-weight=\"bold\"" } else { "" };
    let time = spoken(Duration::from_millis(row.ended.saturating_sub(row.began)));
    _ = writeln!(picture, "<g><title>{}</title>", escaped(&format!("{}: {time}", row.label)));
    text(picture, indent, y + 15, weight, &shortened(&row.label));
    if row.ended > row.began || row.kind != RowKind::Resource {
        bar(picture, (row.began, row.ended), y, end, colour(row.kind));
        if let Some(waited) = row.waited {
            bar(picture, (waited, row.ended), y, end, WAITED);
        }
        let shown = if row.is_open { format!("{time} …") } else { time };
        text(picture, WIDTH - TIMES + 10, y + 15, "", &shown);
    }
    picture.push_str("</g>\n");
}

fn bar(picture: &mut String, (began, ended): (u64, u64), y: u64, end: u64, colour: &str) {
    let left = x(began, end);
    let width = x(ended, end).saturating_sub(left).max(2);
    let top = y + (ROW - BAR) / 2;
    _ = writeln!(picture, "<rect x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{BAR}\" fill=\"{colour}\"/>");
}

fn marks(picture: &mut String, timeline: &Timeline, height: u64) {
    for (index, (time, name)) in (0..).zip(&timeline.marks) {
        let x = x(*time, timeline.end);
        // Two marks may be close, so each has a line of its own.
        let y = HEAD - 6 - 14 * (index % 2);
        _ = writeln!(
            picture,
            "<line x1=\"{x}\" y1=\"{}\" x2=\"{x}\" y2=\"{}\" stroke=\"#000000\" stroke-dasharray=\"3 3\"/>",
            y + 2,
            height - ROW
        );
        let place = if x > u64::midpoint(LABELS, WIDTH) { "text-anchor=\"end\"" } else { "" };
        text(picture, x, y, place, &format!("{name}: {}", spoken(Duration::from_millis(*time))));
    }
}

/// Returns the place of a time, in pixels from the left.
fn x(time: u64, end: u64) -> u64 {
    let width = WIDTH - LABELS - TIMES;
    LABELS + u64::try_from(u128::from(time.min(end)) * u128::from(width) / u128::from(end.max(1))).unwrap_or(width)
}

fn text(picture: &mut String, x: u64, y: u64, style: &str, text: &str) {
    _ = writeln!(picture, "<text x=\"{x}\" y=\"{y}\" {style}>{}</text>", escaped(text));
}

fn shortened(label: &str) -> String {
    match label.char_indices().nth(LABEL_CHARACTERS) {
        Some((end, _)) => format!("{}…", &label[..end]),
        None => label.to_owned(),
    }
}

/// Makes the text of others harmless: for a terminal as everywhere, and for XML.
fn escaped(text: &str) -> String {
    let shown = Shown::from(text);
    shown.as_str().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
