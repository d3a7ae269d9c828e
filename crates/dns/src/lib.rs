//! The DNS server of a node.
//!
//! Owns the wire format, the sockets at the cluster DNS addresses and the way
//! to upstream servers. What a service is called is the plan's to say: see
//! [`ripstop_plan::ServiceNames`]. Refuses to walk the tree from its root: names
//! outside of the cluster are asked for at servers that do.

mod answer;
mod find;
mod forward;
mod name;
mod query;
mod records;
mod reply;
mod search;
mod server;
mod table;
mod zone;

pub use answer::{Asker, Outcome, Realm, Transport, Verdict, answer};
pub use forward::Forwarder;
pub use name::{Name, NameError};
pub use server::{BindError, Server, Stats};
pub use zone::{DomainError, PodNames, Zone, ZoneConfig};
