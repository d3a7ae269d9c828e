//! Cells that fail today, and why. `cargo test` fails on every other failure,
//! and when one of these passes that always fails: then it is to be taken from
//! the list.

use std::collections::BTreeSet;

use crate::engine::{Engine, Family, Stack};
use crate::matrix::{Column, Matrix, Row, Verdict};
use crate::path::Path;

/// Cells of one scenario that fail for one reason.
#[derive(Clone, Copy, Debug)]
struct Known {
    engine: Engine,
    stacks: &'static [Stack],
    families: &'static [Family],
    scenario: &'static str,
    paths: &'static [Path],
    /// It passes now and then.
    sometimes: bool,
    why: &'static str,
}

const KNOWN: &[Known] = &[];

impl Known {
    fn matches(&self, row: &Row, column: Column) -> bool {
        self.engine == column.engine
            && self.stacks.contains(&column.stack)
            && self.families.contains(&column.family)
            && self.scenario == row.scenario
            && self.paths.contains(&row.path)
    }
}

/// What a matrix is beside the list: a line each.
#[derive(Debug, Default)]
pub struct Judgement {
    /// Failures that are on the list.
    pub known: Vec<String>,
    /// Failures that are not.
    pub new: Vec<String>,
    /// Scenarios of those.
    pub scenarios: BTreeSet<&'static str>,
    /// On the list as always failing, and not failing.
    pub passed: Vec<String>,
}

/// Compares a matrix with the list.
pub fn judge(matrix: &Matrix) -> Judgement {
    judge_by(KNOWN, matrix)
}

fn judge_by(known: &[Known], matrix: &Matrix) -> Judgement {
    let mut judgement = Judgement::default();
    for (row, column, verdict) in matrix.cells() {
        let cell = format!("{} ({}, {})", row.scenario, column.title(), row.path.name());
        let listed = known.iter().find(|known| known.matches(row, column));
        match (listed, verdict) {
            (Some(known), Verdict::Fail(_)) => {
                judgement.known.push(format!("{cell}: {}", known.why));
            }
            (None, Verdict::Fail(reason)) => {
                judgement.new.push(format!("{cell}: {reason}"));
                judgement.scenarios.insert(row.scenario);
            }
            (Some(known), _) if !known.sometimes => judgement.passed.push(cell),
            (_, _) => {}
        }
    }
    judgement
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    #[test]
    fn only_what_is_listed_may_fail_and_has_to() {
        let known = [Known {
            engine: Engine::Ebpf,
            stacks: &[Stack::Dual],
            families: &[Family::Ipv4],
            scenario: "one",
            paths: &[Path::Own],
            sometimes: false,
            why: "because",
        }];
        let fail = || Verdict::Fail("Silent".to_owned());
        let judged = |v4: Verdict, v6: Verdict| {
            let mut matrix = Matrix::new(&[Scenario::new("one", "", |_| Ok(()))]);
            for (family, verdict) in [(Family::Ipv4, v4), (Family::Ipv6, v6)] {
                let column = Column {
                    engine: Engine::Ebpf,
                    stack: Stack::Dual,
                    family,
                };
                let row = Row {
                    scenario: "one",
                    path: Path::Own,
                };
                matrix.set(column, row, verdict);
            }
            let judgement = judge_by(&known, &matrix);
            [&judgement.known, &judgement.new, &judgement.passed].map(Vec::len)
        };
        assert_eq!(judged(fail(), Verdict::Ok), [1, 0, 0]);
        assert_eq!(judged(fail(), fail()), [1, 1, 0]);
        assert_eq!(judged(Verdict::Ok, Verdict::Ok), [0, 0, 1]);
    }
}
