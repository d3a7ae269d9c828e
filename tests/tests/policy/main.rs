//! Network policies in a lab: who really reaches whom, beside what the API's
//! documentation says.

mod boutique;
mod leak;
mod names;
mod objects;
mod packets;
mod probes;
#[path = "../../../crates/plan/tests/policy/reference.rs"]
mod reference;
mod scenarios;
mod sctp;
mod stage;
mod switch;
mod town;
mod truth;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The engines that enforce policies, as `--datapath` has them.
const ENGINES: [&str; 2] = ["ebpf", "nftables"];

/// Held by a test that loads the machine as long as it runs. Two of them at once on
/// a machine with two cores would measure who gets a core, and wait for each other.
fn loads_the_machine() -> MutexGuard<'static, ()> {
    static LOADED: Mutex<()> = Mutex::new(());
    // A test that failed has ended all the same.
    LOADED.lock().unwrap_or_else(PoisonError::into_inner)
}
