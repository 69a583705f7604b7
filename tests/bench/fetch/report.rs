//! The figures as a table and as JSON.

use serde_json::{Value, json};

use crate::cells::Cell;
use crate::measure::Figure;
use crate::peers::{OURS, Peer};

/// One peer's figures in one cell, a round each; `None` in a round it was left out of.
pub struct Series<'a> {
    pub peer: &'a Peer,
    pub rounds: Vec<Option<Figure>>,
    /// Why it has no more figures.
    pub failure: Option<String>,
}

/// One cell's figures.
pub struct Results<'a> {
    pub cell: &'a Cell,
    pub series: Vec<Series<'a>>,
}

/// What the table, the JSON and the picture say of a peer in a cell; medians of the rounds.
pub struct Summary {
    pub peer: &'static str,
    pub floor: bool,
    pub rounds: usize,
    pub wall: f64,
    /// The same plus `sha256sum` of the result, for peers that do not hash.
    pub hashed: f64,
    pub cpu: f64,
    pub memory: f64,
    /// Medians of the rounds' ratios to ours: of `wall`, `hashed`, `cpu`.
    pub ratios: Option<[f64; 3]>,
}

/// The median; the lower one of the middle two.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

impl Results<'_> {
    pub fn summaries(&self) -> Vec<Summary> {
        self.series.iter().filter_map(|series| self.summary(series)).collect()
    }

    fn of(&self, name: &str, round: usize) -> Option<Figure> {
        *self.series.iter().find(|series| series.peer.name == name)?.rounds.get(round)?
    }

    fn summary(&self, series: &Series) -> Option<Summary> {
        // In seconds: wall time, wall time with the hash, CPU time.
        let seconds = |name: &str, hashes: bool, round: usize| {
            let figure = self.of(name, round)?;
            let hash = if hashes { 0.0 } else { self.of("sha256sum", round).map_or(f64::NAN, |hash| hash.wall) };
            Some([figure.wall, figure.wall + hash, figure.cpu])
        };
        let rounds = 0..series.rounds.len();
        let theirs: Vec<[f64; 3]> =
            rounds.clone().filter_map(|round| seconds(series.peer.name, series.peer.hashes, round)).collect();
        if theirs.is_empty() {
            return None;
        }
        let ratios: Vec<[f64; 3]> = rounds
            .filter_map(|round| {
                let (theirs, ours) =
                    (seconds(series.peer.name, series.peer.hashes, round)?, seconds(OURS, true, round)?);
                Some(std::array::from_fn(|index| theirs[index] / ours[index]))
            })
            .collect();
        let column = |rows: &[[f64; 3]], index: usize| median(rows.iter().map(|row| row[index]).collect());
        Some(Summary {
            peer: series.peer.name,
            floor: series.peer.floor,
            rounds: theirs.len(),
            wall: column(&theirs, 0),
            hashed: column(&theirs, 1),
            cpu: column(&theirs, 2),
            memory: median(series.rounds.iter().flatten().map(|figure| figure.memory).collect()),
            ratios: (!ratios.is_empty()).then(|| std::array::from_fn(|index| column(&ratios, index))),
        })
    }

    /// The cell's table.
    pub fn table(&self) -> String {
        let mib = self.cell.objects.bytes() as f64 / f64::from(1 << 20);
        let mut table = format!(
            "\n{:<22} {:>8} {:>9} {:>7} {:>7} {:>9} {:>8}   {:>6} {:>7} {:>6}\n",
            self.cell.name(),
            "wall s",
            "+ hash s",
            "MiB/s",
            "CPU s",
            "CPU s/GiB",
            "RSS MiB",
            "× wall",
            "× +hash",
            "× CPU",
        );
        for Summary { peer, floor, rounds, wall, hashed, cpu, memory, ratios } in self.summaries() {
            let name = if floor { format!("  ({peer})") } else { format!("  {peer}") };
            let ratios = ratios
                .map_or_else(String::new, |[wall, hashed, cpu]| format!("   {wall:>6.2} {hashed:>7.2} {cpu:>6.2}"));
            let fewer = if rounds < self.most_rounds() { format!("   rounds: {rounds}") } else { String::new() };
            table += &format!(
                "{name:<22} {wall:>8.3} {hashed:>9.3} {:>7.0} {cpu:>7.2} {:>9.2} {memory:>8.1}{ratios}{fewer}\n",
                mib / wall,
                cpu / (mib / 1024.0),
            );
        }
        for series in &self.series {
            if let Some(failure) = &series.failure {
                table += &format!("  {} failed: {failure}\n", series.peer.name);
            }
        }
        table
    }

    fn most_rounds(&self) -> usize {
        self.series.iter().map(|series| series.rounds.iter().flatten().count()).max().unwrap_or(0)
    }

    pub fn json(&self) -> Value {
        let peers: Vec<Value> = self
            .summaries()
            .into_iter()
            .map(|summary| {
                let series = self.series.iter().find(|series| series.peer.name == summary.peer);
                let rounds: Vec<Value> = series
                    .into_iter()
                    .flat_map(|series| &series.rounds)
                    .map(|figure| {
                        figure.map_or(Value::Null, |f| json!({ "wall": f.wall, "cpu": f.cpu, "rss_mib": f.memory }))
                    })
                    .collect();
                json!({
                    "peer": summary.peer, "floor": summary.floor, "wall": summary.wall, "wall_hashed": summary.hashed,
                    "cpu": summary.cpu, "rss_mib": summary.memory, "ratios_to_ours": summary.ratios, "rounds": rounds,
                })
            })
            .collect();
        json!({ "cell": self.cell.name(), "bytes": self.cell.objects.bytes(), "peers": peers })
    }
}
