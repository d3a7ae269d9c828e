//! The results, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use crate::engine::{Engine, Family, Stack};
use crate::path::Path;
use crate::scenario::Scenario;

/// How a cell ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "result", content = "reason", rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    Fail(String),
    Skip(String),
}

/// A scenario on a path in a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    pub scenario: &'static str,
    pub path: Path,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Column {
    pub engine: Engine,
    pub stack: Stack,
    pub family: Family,
}

impl Column {
    pub fn title(self) -> String {
        let alone = if self.stack == Stack::Dual {
            ""
        } else {
            " only"
        };
        format!("{} {}{alone}", self.engine.name(), self.family.name())
    }
}

/// Every cell of what was run.
#[derive(Debug, Default)]
pub struct Matrix {
    /// In the order of the scenarios.
    rows: Vec<Row>,
    cells: BTreeMap<Column, BTreeMap<Row, Verdict>>,
}

#[derive(Serialize)]
struct Cell<'a> {
    scenario: &'a str,
    path: &'a str,
    engine: Engine,
    stack: Stack,
    family: Family,
    #[serde(flatten)]
    verdict: &'a Verdict,
}

impl Matrix {
    pub fn new(scenarios: &[Scenario]) -> Self {
        let rows = scenarios.iter().flat_map(|scenario| {
            scenario.paths.iter().map(|path| Row {
                scenario: scenario.name,
                path: *path,
            })
        });
        Self {
            rows: rows.collect(),
            cells: BTreeMap::new(),
        }
    }

    pub fn set(&mut self, column: Column, row: Row, verdict: Verdict) {
        self.cells.entry(column).or_default().insert(row, verdict);
    }

    /// In the order of the rows.
    pub fn cells(&self) -> impl Iterator<Item = (&Row, Column, &Verdict)> {
        self.rows.iter().flat_map(|row| {
            let cells = self.cells.iter();
            cells.filter_map(move |(column, cells)| Some((row, *column, cells.get(row)?)))
        })
    }

    pub fn failures(&self) -> usize {
        let cells = self.cells();
        cells
            .filter(|(.., verdict)| matches!(verdict, Verdict::Fail(_)))
            .count()
    }

    /// A table, then the reasons.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for single in [false, true] {
            self.table(&mut text, single);
        }
        self.reasons(&mut text);
        let count = |wanted: fn(&Verdict) -> bool| self.cells().filter(|(.., v)| wanted(v)).count();
        let _ = writeln!(
            text,
            "{} ok, {} failed, {} skipped",
            count(|verdict| *verdict == Verdict::Ok),
            self.failures(),
            count(|verdict| matches!(verdict, Verdict::Skip(_))),
        );
        text
    }

    /// Dual-stack clusters, or those that are not: they run fewer scenarios.
    fn table(&self, text: &mut String, single: bool) {
        let columns: Vec<_> = self
            .cells
            .iter()
            .filter(|(column, _)| (column.stack != Stack::Dual) == single)
            .collect();
        let rows: Vec<_> = self
            .rows
            .iter()
            .filter(|row| columns.iter().any(|(_, cells)| cells.contains_key(row)))
            .collect();
        if rows.is_empty() {
            return;
        }
        let scenario = width(rows.iter().map(|row| row.scenario)).max("scenario".len());
        let path = width(rows.iter().map(|row| row.path.name()));
        let _ = write!(text, "{:scenario$}  {:path$}", "scenario", "path");
        for (column, _) in &columns {
            let _ = write!(text, "  {}", column.title());
        }
        text.push('\n');
        let mut last = "";
        for row in rows {
            let name = if row.scenario == last {
                ""
            } else {
                row.scenario
            };
            last = row.scenario;
            let _ = write!(text, "{name:scenario$}  {:path$}", row.path.name());
            for (column, cells) in &columns {
                let word = match cells.get(row) {
                    Some(Verdict::Ok) => "ok",
                    Some(Verdict::Fail(_)) => "FAIL",
                    Some(Verdict::Skip(_)) => "skip",
                    None => "",
                };
                let _ = write!(text, "  {word:0$}", column.title().len());
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        text.push('\n');
    }

    /// Each reason once, with where it holds.
    fn reasons(&self, text: &mut String) {
        let mut skips: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
        for (row, column, verdict) in self.cells() {
            match verdict {
                Verdict::Ok => {}
                Verdict::Fail(reason) => {
                    let path = row.path.name();
                    let comma = if path.is_empty() { "" } else { ", " };
                    let title = column.title();
                    let _ = writeln!(
                        text,
                        "FAIL {} ({title}{comma}{path}): {reason}",
                        row.scenario
                    );
                }
                Verdict::Skip(reason) => {
                    let columns = skips.entry((row.scenario, reason)).or_default();
                    if !columns.contains(&column.title()) {
                        columns.push(column.title());
                    }
                }
            }
        }
        for ((scenario, reason), columns) in skips {
            let _ = writeln!(text, "skip {scenario} ({}): {reason}", columns.join(", "));
        }
    }

    /// An array of cells.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    pub fn json(&self) -> serde_json::Result<String> {
        let cells: Vec<_> = self
            .cells()
            .map(|(row, column, verdict)| Cell {
                scenario: row.scenario,
                path: row.path.name(),
                engine: column.engine,
                stack: column.stack,
                family: column.family,
                verdict,
            })
            .collect();
        serde_json::to_string_pretty(&cells)
    }
}

fn width<'a>(texts: impl Iterator<Item = &'a str>) -> usize {
    texts.map(str::len).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix() -> Matrix {
        const PATHS: &[Path] = &[Path::PodToNear, Path::Hairpin];
        let scenarios = [
            Scenario::new("one", "", |_| Ok(())).on(PATHS),
            Scenario::new("other", "", |_| Ok(())),
        ];
        let mut matrix = Matrix::new(&scenarios);
        for family in [Family::Ipv4, Family::Ipv6] {
            let column = Column {
                engine: Engine::Ebpf,
                stack: Stack::Dual,
                family,
            };
            for (index, row) in matrix.rows.clone().into_iter().enumerate() {
                let verdict = match (index, family) {
                    (0, _) => Verdict::Ok,
                    (1, Family::Ipv4) => Verdict::Fail("Silent".to_owned()),
                    (1, Family::Ipv6) => Verdict::Ok,
                    _ => Verdict::Skip("no such protocol".to_owned()),
                };
                matrix.set(column, row, verdict);
            }
        }
        matrix
    }

    #[test]
    fn people_see_a_table_and_reasons() {
        let expected = "\
scenario  path                  ebpf IPv4  ebpf IPv6
one       pod to pod, one node  ok         ok
          pod to itself         FAIL       ok
other                           skip       skip

FAIL one (ebpf IPv4, pod to itself): Silent
skip other (ebpf IPv4, ebpf IPv6): no such protocol
3 ok, 1 failed, 2 skipped
";
        assert_eq!(matrix().text(), expected);
    }

    #[test]
    fn programs_get_every_cell() {
        let cells: serde_json::Value = serde_json::from_str(&matrix().json().unwrap()).unwrap();
        assert_eq!(cells.as_array().unwrap().len(), 6);
        let failed = serde_json::json!({
            "scenario": "one", "path": "pod to itself", "engine": "ebpf", "stack": "dual",
            "family": "ipv4", "result": "fail", "reason": "Silent",
        });
        assert!(cells.as_array().unwrap().contains(&failed), "{cells}");
    }
}
