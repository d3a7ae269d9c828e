//! What whole-lab tests share: labs made by the commands that users type, and
//! the promise that nothing of them is left.

mod agents;
mod cluster;
mod lab;
mod leftovers;
pub mod load;
mod machine;
mod pair;

pub use agents::{Program, next_version};
pub use cluster::Cluster;
pub use lab::{Lab, Printed, ripstop};
pub use leftovers::Leftovers;
pub use machine::{eventually, published, visible_folder, write_manifest};
pub use pair::PAIR;
