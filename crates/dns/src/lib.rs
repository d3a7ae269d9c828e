//! The DNS server of a node.
//!
//! Owns the wire format, the sockets at the cluster DNS addresses and the way
//! to upstream servers. What a name means is the plan's: see
//! [`ripstop_plan::Names`]. Refuses to keep a cache or to walk the tree: names
//! outside the cluster are somebody else's to resolve.

mod answer;
mod forward;
mod query;
mod reply;
mod server;
mod zone;

pub use answer::{Transport, Verdict, answer};
pub use forward::Forwarder;
pub use server::{BindError, Server, Stats};
pub use zone::{DomainError, Zone};
