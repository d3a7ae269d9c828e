//! The rows that engines put into the kernel.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use ripstop_model::{ObjectKey, Protocol};

/// An address, protocol and port at which a service is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    pub address: IpAddr,
    pub protocol: Protocol,
    pub port: u16,
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}",
            SocketAddr::new(self.address, self.port),
            self.protocol
        )
    }
}

/// An address and port behind a frontend; the protocol is the frontend's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    pub address: IpAddr,
    pub port: u16,
}

/// Where a frontend leads. No backends means: refuse at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontendRow {
    pub service: ObjectKey,
    /// Sorted, without duplicates.
    pub backends: Vec<Backend>,
}

/// How packets for another node's pods leave this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRoute {
    pub node: String,
    /// Underlay address of that node, of either family. Whether it is on a link
    /// of ours (plain route) or behind a router (VXLAN) is for the host to say:
    /// it depends on this node's interfaces, which the plan does not know.
    pub via: IpAddr,
}

/// All rows of this node: the desired state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    pub frontends: BTreeMap<Frontend, FrontendRow>,
    /// By pod CIDR of the other nodes.
    pub routes: BTreeMap<IpNet, NodeRoute>,
}

/// The rows that one event changed; `None` removes the row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub frontends: BTreeMap<Frontend, Option<FrontendRow>>,
    pub routes: BTreeMap<IpNet, Option<NodeRoute>>,
}

impl Change {
    pub fn is_empty(&self) -> bool {
        self.frontends.is_empty() && self.routes.is_empty()
    }

    /// Adds a later change; where both have a row, the later one counts.
    pub fn merge(&mut self, later: Change) {
        self.frontends.extend(later.frontends);
        self.routes.extend(later.routes);
    }
}

impl Tables {
    pub fn apply(&mut self, change: &Change) {
        for (key, row) in &change.frontends {
            match row {
                Some(row) => drop(self.frontends.insert(*key, row.clone())),
                None => drop(self.frontends.remove(key)),
            }
        }
        for (key, row) in &change.routes {
            match row {
                Some(row) => drop(self.routes.insert(*key, row.clone())),
                None => drop(self.routes.remove(key)),
            }
        }
    }
}
