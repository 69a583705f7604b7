//! The figures as a picture: a panel for each cell, a bar for each peer.

use std::fmt::{Error, Write as _};

use crate::cells::{Cell, Protocol, SETS};
use crate::peers::OURS;
use crate::report::{Results, Summary};

const PANEL: (f64, f64) = (306.0, 134.0);
const HEAD: f64 = 54.0;
const MARGIN: f64 = 12.0;
const BAR: f64 = 11.0;
const ROW: f64 = 16.0;
/// Where bars begin and how long the longest is, in a panel.
const BARS: (f64, f64) = (92.0, 138.0);
/// A bar that is longer than this many times the panel's shortest is cut off.
const LONGEST: f64 = 6.0;

const STYLE: &str = "\
text { font: 11px system-ui, -apple-system, 'Segoe UI', sans-serif; fill: #1f2328 }
.title { font-weight: 600 } .head { font-size: 14px; font-weight: 600 } .ours { font-weight: 600 } .note { fill: #59636e }
.bar { fill: #8c959f } .ours.bar { fill: #1a7f37 } .floor.bar { fill: #d0d7de } .hash { fill: #bf8700; opacity: .45 }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc } .note { fill: #9198a1 }
.bar { fill: #7d8590 } .ours.bar { fill: #3fb950 } .floor.bar { fill: #3d444d } .hash { fill: #d29922 }
}";

/// An SVG for both light and dark pages. Cells on a disk are not in it.
pub fn svg(results: &[Results]) -> Result<String, Error> {
    // The margin leaves room for names in a wider font.
    let (width, height) = (PANEL.0 * 3.0 + 8.0 + MARGIN, HEAD + PANEL.1 * 4.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"-{MARGIN} 0 {width} {height}\" width=\"{width}\" height=\"{height}\">\n\
         <title>Downloads: seconds until the files are there, and until they are verified</title>\n<style>{STYLE}</style>\n\
         <text x=\"8\" y=\"18\" class=\"head\">Seconds until the files are there and verified (shorter is better)</text>\n",
    );
    let legend = [
        ("ours bar", "glovo-bootstrap fetch, hashes while downloading"),
        ("bar", "others"),
        ("hash", "sha256sum of what they leave unverified"),
        ("floor bar", "cp of the same files"),
    ];
    let mut x = 8.0;
    for (class, words) in legend {
        writeln!(svg, r#"<rect x="{x}" y="29" width="10" height="10" class="{class}"/>"#)?;
        writeln!(svg, r#"<text x="{}" y="38" class="note">{words}</text>"#, x + 14.0)?;
        x += 34.0 + 5.7 * words.len() as f64;
    }
    for results in results.iter().filter(|results| !results.cell.disk) {
        let Cell { objects, protocol, far, .. } = results.cell;
        let column = SETS.iter().position(|set| set.name == objects.name).unwrap_or(0);
        let row = usize::from(*protocol == Protocol::S3) * 2 + usize::from(*far);
        panel(&mut svg, results, PANEL.0 * column as f64 + 8.0, HEAD + PANEL.1 * row as f64)?;
    }
    svg += "</svg>\n";
    Ok(svg)
}

fn panel(svg: &mut String, results: &Results, x: f64, y: f64) -> Result<(), Error> {
    let Cell { objects, protocol, far, .. } = results.cell;
    let size =
        objects.name.replacen('x', " × ", 1).replace("GiB", " GiB").replace("MiB", " MiB").replace("KiB", " KiB");
    let protocol = if *protocol == Protocol::Http { "HTTP" } else { "S3" };
    let delay = if *far { ", 20 ms away" } else { "" };
    writeln!(svg, r#"<text x="{x}" y="{}" class="title">{size}, {protocol}{delay}</text>"#, y + 14.0)?;
    let summaries: Vec<Summary> =
        results.summaries().into_iter().filter(|summary| summary.peer != "sha256sum").collect();
    let shortest =
        summaries.iter().filter(|summary| !summary.floor).map(|summary| summary.hashed).fold(f64::MAX, f64::min);
    let longest = summaries.iter().map(|summary| summary.hashed).fold(0.0, f64::max).min(shortest * LONGEST);
    let scale = BARS.1 / longest;
    let start = x + BARS.0;
    for (index, summary) in summaries.iter().enumerate() {
        let top = y + 22.0 + ROW * index as f64;
        let class = if summary.peer == OURS {
            "ours "
        } else if summary.floor {
            "floor "
        } else {
            ""
        };
        let own = (summary.wall * scale).min(BARS.1);
        let all = (summary.hashed * scale).min(BARS.1);
        let base = top + BAR - 2.0;
        writeln!(
            svg,
            r#"<text x="{}" y="{base}" text-anchor="end" class="{class}">{}</text>"#,
            start - 5.0,
            summary.peer
        )?;
        writeln!(svg, r#"<rect x="{start}" y="{top}" width="{own:.1}" height="{BAR}" class="{class}bar"/>"#)?;
        if all > own {
            let (at, width) = (start + own, all - own);
            writeln!(svg, r#"<rect x="{at:.1}" y="{top}" width="{width:.1}" height="{BAR}" class="hash"/>"#)?;
        }
        let cut = if summary.hashed > longest { "… " } else { "" };
        let hash = if all > own { format!(" + {}", seconds(summary.hashed - summary.wall)) } else { String::new() };
        let label = format!("{cut}{}{hash}", seconds(summary.wall));
        writeln!(svg, r#"<text x="{:.1}" y="{base}" class="{class}">{label}</text>"#, start + all + 4.0)?;
    }
    Ok(())
}

fn seconds(seconds: f64) -> String {
    if seconds < 9.95 { format!("{seconds:.2}") } else { format!("{seconds:.0}") }
}
