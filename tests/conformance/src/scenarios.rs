//! The scenarios.

mod ports;
mod reach;

use crate::scenario::Scenario;

/// All of them, in the order of the matrix.
pub fn all() -> Vec<Scenario> {
    [reach::SCENARIOS, ports::SCENARIOS].concat()
}
