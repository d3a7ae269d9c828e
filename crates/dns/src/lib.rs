//! The DNS server of a node.
//!
//! Owns the wire format, the sockets at the cluster DNS addresses and the way
//! to upstream servers. What a service is called is the plan's to say: see
//! [`ripstop_plan::ServiceNames`]. Refuses to walk the tree from its root: names
//! outside of the cluster are asked for at servers that do.

mod answer;
mod explain;
mod find;
mod found;
mod keep;
mod log;
mod name;
mod query;
mod records;
mod reply;
mod search;
mod server;
mod sockets;
mod table;
mod upstream;
mod zone;

pub use answer::{Asker, Outcome, Realm, Transport, Verdict, answer};
pub use explain::{Explained, Step, kind_of};
pub use found::{Found, Ready, Witness};
pub use log::{Count, Counts, LATENCIES, Logged, Source, Stats};
pub use name::{Name, NameError};
pub use server::{Backlog, Server, ServerConfig, Work};
pub use sockets::{BindError, Sockets};
pub use upstream::{
    ServerError, ServerState, Stub, UpstreamConfig, UpstreamServer, UpstreamTransport,
};
pub use zone::{DomainError, PodNames, Zone, ZoneConfig};
