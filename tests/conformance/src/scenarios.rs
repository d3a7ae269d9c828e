//! The scenarios: a file for each part of what Services promise.

mod choice;
mod egress;
mod endings;
mod local;
mod ports;
mod reach;
mod restart;
mod types;

use crate::scenario::Scenario;

/// All of them, in the order of the matrix.
pub fn all() -> Vec<Scenario> {
    [
        reach::SCENARIOS,
        local::SCENARIOS,
        types::SCENARIOS,
        ports::SCENARIOS,
        choice::SCENARIOS,
        endings::SCENARIOS,
        egress::SCENARIOS,
        restart::SCENARIOS,
    ]
    .concat()
}
