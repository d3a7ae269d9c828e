//! What a probe found, for people and programs: pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Check, Finding, Plan, Row};
use crate::text::{count, duration, table};

/// A matrix of more columns does not fit on a screen; nodes take the place of
/// pods then.
const MAX_COLUMNS: usize = 30;
/// Failures shown in full.
const MAX_FAILURES: usize = 50;

/// Sums over a probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub tried: usize,
    pub failed: usize,
    /// Pods that could not try.
    pub silent: usize,
}

impl Totals {
    pub fn of(rows: &[Row]) -> Self {
        let mut totals = Self::default();
        for row in rows {
            match &row.findings {
                Ok(findings) => {
                    totals.tried += findings.len();
                    totals.failed += findings.iter().filter(|f| f.error.is_some()).count();
                }
                Err(_) => totals.silent += 1,
            }
        }
        totals
    }

    pub fn is_good(self) -> bool {
        self.failed == 0 && self.silent == 0
    }
}

/// How the attempts of one cell went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cell {
    tried: usize,
    failed: usize,
}

impl Cell {
    fn add(&mut self, findings: &[Finding]) {
        self.tried += findings.len();
        self.failed += findings
            .iter()
            .filter(|finding| finding.error.is_some())
            .count();
    }

    /// `.` for good, else how many failed.
    fn text(self) -> String {
        match self {
            Self { tried: 0, .. } => "-".to_owned(),
            Self { failed: 0, .. } => ".".to_owned(),
            Self { tried, failed } if tried == failed => "x".to_owned(),
            Self { tried, failed } => format!("{failed}/{tried}"),
        }
    }

    /// `240 ok`, `3 of 240 failed`.
    fn sum(self) -> String {
        match self {
            Self { tried: 0, .. } => "-".to_owned(),
            Self { failed: 0, tried } => format!("{tried} ok"),
            Self { failed, tried } => format!("{failed} of {tried} failed"),
        }
    }
}

/// The matrix, the failures, the sums.
pub fn text(plan: &Plan, rows: &[Row], took: Duration) -> String {
    let mut text = match plan.targets.len() <= MAX_COLUMNS {
        true => by_target(plan, rows),
        false => by_node(plan, rows),
    };
    text.push_str(&failures(plan, rows));
    for skipped in &plan.skipped {
        text.push_str(&format!("left out: {skipped}\n"));
    }
    let totals = Totals::of(rows);
    let pods = plan
        .targets
        .iter()
        .filter(|target| !target.is_service)
        .count();
    text.push_str(&format!(
        "\n{} tried {} and {}: {}, {} failed, in {}\n",
        count(plan.sources.len(), "pod"),
        count(pods, "pod"),
        count(plan.targets.len() - pods, "service"),
        count(totals.tried, "attempt"),
        totals.failed,
        duration(took)
    ));
    text
}

/// Calls `f` with each target's number and its part of a row's findings.
fn each_target<'a>(plan: &Plan, findings: &'a [Finding], mut f: impl FnMut(usize, &'a [Finding])) {
    let mut rest = findings;
    for (number, target) in plan.targets.iter().enumerate() {
        let (own, after) = rest.split_at(target.checks.len().min(rest.len()));
        f(number, own);
        rest = after;
    }
}

/// A row for each pod, a column for each target.
fn by_target(plan: &Plan, rows: &[Row]) -> String {
    let mut legend = String::new();
    let mut header = vec![String::new(), "NODE".to_owned()];
    for (number, target) in plan.targets.iter().enumerate() {
        header.push((number + 1).to_string());
        legend.push_str(&format!("{:>4}  {}\n", number + 1, target.label));
    }
    let mut lines = vec![header];
    for row in rows {
        let mut line = vec![row.source.clone(), row.node.clone()];
        match &row.findings {
            Ok(findings) => each_target(plan, findings, |_, own| {
                let mut cell = Cell::default();
                cell.add(own);
                line.push(cell.text());
            }),
            Err(_) => line.push("could not try".to_owned()),
        }
        lines.push(line);
    }
    format!("{legend}\n{}", table(&lines))
}

/// A row for the pods of each node, a column for those of each and the services.
fn by_node(plan: &Plan, rows: &[Row]) -> String {
    const SERVICES: &str = "services";
    // node10 after node9.
    let order = |name: &str| (name == SERVICES, name.len(), name.to_owned());
    let mut cells = BTreeMap::<_, BTreeMap<_, Cell>>::new();
    let mut columns = BTreeMap::new();
    for row in rows {
        let line = cells.entry(order(&row.node)).or_default();
        let Ok(findings) = &row.findings else {
            continue;
        };
        each_target(plan, findings, |number, own| {
            let column = order(plan.targets[number].node.as_deref().unwrap_or(SERVICES));
            line.entry(column.clone()).or_default().add(own);
            columns.insert(column, ());
        });
    }
    let name = |(_, _, name): &(bool, usize, String)| name.clone();
    let header = ["FROM / TO".to_owned()]
        .into_iter()
        .chain(columns.keys().map(name));
    let mut lines = vec![header.collect::<Vec<_>>()];
    for (node, line) in &cells {
        let sums = columns
            .keys()
            .map(|column| line.get(column).copied().unwrap_or_default().sum());
        lines.push([name(node)].into_iter().chain(sums).collect());
    }
    table(&lines)
}

fn failures(plan: &Plan, rows: &[Row]) -> String {
    let mut lines = Vec::new();
    for row in rows {
        match &row.findings {
            Err(why) => lines.push(format!("FAILED  {} could not try: {why}", row.source)),
            Ok(findings) => each_target(plan, findings, |number, own| {
                let target = &plan.targets[number];
                for (check, finding) in target.checks.iter().zip(own) {
                    if let Some(error) = &finding.error {
                        lines.push(failure(&row.source, &target.label, check, finding, error));
                    }
                }
            }),
        }
    }
    if lines.is_empty() {
        return String::new();
    }
    let more = lines.len().saturating_sub(MAX_FAILURES);
    lines.truncate(MAX_FAILURES);
    let mut text = format!("\n{}\n", lines.join("\n"));
    if more > 0 {
        text.push_str(&format!("... and {more} more; all with --output json\n"));
    }
    text
}

fn failure(source: &str, target: &str, check: &Check, finding: &Finding, error: &str) -> String {
    let after = duration(Duration::from_micros(finding.micros));
    format!(
        "FAILED  {source} to {target} at {}: {error} (after {after})",
        check.describe()
    )
}

/// Everything, for programs.
pub fn json(plan: &Plan, rows: &[Row], took: Duration) -> Value {
    let totals = Totals::of(rows);
    let mut attempts = Vec::new();
    let mut silent = Vec::new();
    for row in rows {
        match &row.findings {
            Err(why) => silent.push(json!({"from": row.source, "error": why})),
            Ok(findings) => each_target(plan, findings, |number, own| {
                let target = &plan.targets[number];
                for (check, finding) in target.checks.iter().zip(own) {
                    attempts.push(json!({
                        "from": row.source, "to": target.label, "at": check.describe(),
                        "ok": finding.error.is_none(), "error": finding.error,
                        "by": finding.by, "microseconds": finding.micros,
                    }));
                }
            }),
        }
    }
    json!({
        "tried": totals.tried, "failed": totals.failed, "seconds": took.as_secs_f64(),
        "couldNotTry": silent, "leftOut": plan.skipped, "attempts": attempts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{Expect, Protocol, Target};

    /// `pods` pods on two nodes and a service; every source tries each once.
    fn plan(pods: usize) -> Plan {
        let check = || Check {
            host: "10.0.0.1".into(),
            port: 80,
            protocol: Protocol::Tcp,
            expect: Expect::Refused,
        };
        let mut targets: Vec<_> = (0..pods)
            .map(|number| Target {
                label: format!("pod a/p{number}"),
                is_service: false,
                node: Some(format!("node{}", number % 2 + 1)),
                checks: vec![check()],
            })
            .collect();
        targets.push(Target {
            label: "service a/web".into(),
            is_service: true,
            node: None,
            checks: vec![check(), check()],
        });
        Plan {
            targets,
            ..Plan::default()
        }
    }

    fn rows(plan: &Plan, pods: usize, broken: Option<usize>) -> Vec<Row> {
        let checks: usize = plan.targets.iter().map(|target| target.checks.len()).sum();
        let finding = |number| Finding {
            micros: 1500,
            error: (Some(number) == broken).then(|| "connection refused".to_owned()),
            by: None,
        };
        (0..pods)
            .map(|number| Row {
                source: format!("a/p{number}"),
                node: format!("node{}", number % 2 + 1),
                findings: Ok((0..checks).map(finding).collect()),
            })
            .collect()
    }

    #[test]
    fn few_pods_have_a_column_each() {
        let plan = plan(2);
        let text = text(&plan, &rows(&plan, 2, Some(1)), Duration::from_millis(20));
        let expect = "   1  pod a/p0
   2  pod a/p1
   3  service a/web

      NODE   1  2  3
a/p0  node1  .  x  .
a/p1  node2  .  x  .

FAILED  a/p0 to pod a/p1 at 10.0.0.1:80/TCP: connection refused (after 1.50 ms)
FAILED  a/p1 to pod a/p1 at 10.0.0.1:80/TCP: connection refused (after 1.50 ms)

0 pods tried 2 pods and 1 service: 8 attempts, 2 failed, in 20.0 ms
";
        assert_eq!(text, expect);
    }

    #[test]
    fn many_pods_are_summed_by_node() {
        let plan = plan(40);
        let text = by_node(&plan, &rows(&plan, 40, None));
        let expect = "FROM / TO  node1   node2   services
node1      400 ok  400 ok  40 ok
node2      400 ok  400 ok  40 ok
";
        assert_eq!(text, expect);
    }

    #[test]
    fn a_pod_that_could_not_try_is_a_failure() {
        let plan = plan(1);
        let mut rows = rows(&plan, 1, None);
        assert!(Totals::of(&rows).is_good());
        rows[0].findings = Err("not running".into());
        assert!(!Totals::of(&rows).is_good());
        assert!(failures(&plan, &rows).contains("a/p0 could not try: not running"));
        assert_eq!(
            json(&plan, &rows, Duration::ZERO)["couldNotTry"][0]["from"],
            "a/p0"
        );
    }
}
