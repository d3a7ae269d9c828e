//! The node loop with real namespaces and processes: root is needed. The CNI
//! plugin is a plain one of these tests' own.

mod access;
mod harness;
mod lifecycle;
mod network;
mod probes;
mod programs;
mod stand_in;
