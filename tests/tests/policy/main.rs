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

/// The engines that enforce policies, as `--datapath` has them.
const ENGINES: [&str; 2] = ["ebpf", "nftables"];
