//! The table at the end: each figure with its peer, their ratio and the goal.

use std::fmt;

use anyhow::Result;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    #[default]
    Table,
    Json,
}

/// One figure.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) what: String,
    /// With its unit.
    pub(crate) ours: String,
    /// Name and figure of what it is compared with.
    pub(crate) peer: String,
    #[serde(flatten)]
    pub(crate) ratio: Option<Ratio>,
    pub(crate) goal: String,
}

/// Ours divided by the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ratio {
    pub(crate) ratio: f64,
    /// Where it really is, with 95 % confidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) interval: Option<(f64, f64)>,
    /// The same of the CPU time for each operation, which scatters less. Less is
    /// better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_ratio: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_interval: Option<(f64, f64)>,
}

impl From<f64> for Ratio {
    fn from(ratio: f64) -> Self {
        Self {
            ratio,
            interval: None,
            cpu_ratio: None,
            cpu_interval: None,
        }
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut one = |what: &str, ratio: f64, interval: Option<(f64, f64)>| {
            write!(f, "{what}{ratio:.2}")?;
            interval.map_or(Ok(()), |(low, high)| write!(f, " ({low:.2}-{high:.2})"))
        };
        one("", self.ratio, self.interval)?;
        let cpu = self
            .cpu_ratio
            .map(|ratio| one(", CPU ", ratio, self.cpu_interval));
        cpu.unwrap_or(Ok(()))
    }
}

#[derive(Debug)]
pub(crate) struct Report {
    output: Output,
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(output: Output) -> Self {
        Self {
            output,
            rows: Vec::new(),
        }
    }

    /// Says on standard error what is being measured now.
    #[expect(clippy::unused_self, reason = "progress belongs to the report")]
    pub(crate) fn progress(&self, what: &str) {
        eprintln!("measuring: {what}");
    }

    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    pub(crate) fn finish(self) -> Result<()> {
        if self.output == Output::Json {
            println!("{}", serde_json::to_string_pretty(&self.rows)?);
            return Ok(());
        }
        println!("\n| what | ours | peer | ratio | goal |\n|---|---|---|---|---|");
        for row in self.rows {
            let ratio = row
                .ratio
                .map_or_else(String::new, |ratio| ratio.to_string());
            println!(
                "| {} | {} | {} | {ratio} | {} |",
                row.what, row.ours, row.peer, row.goal
            );
        }
        Ok(())
    }
}

/// The middle one of `values`, or NaN of none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    quantile(values, 0.5)
}

/// The value below which `q` (0 to 1) of `values` lie.
pub(crate) fn quantile(values: impl IntoIterator<Item = f64>, q: f64) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index into a short list"
    )]
    let index = (q * (sorted.len().saturating_sub(1)) as f64).round() as usize;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}
