//! The rows that engines put into the kernel.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use ripstop_model::{ObjectKey, Protocol};

use crate::Backends;
use crate::policy::{PolicyChange, PolicyTables};

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

/// Which of a service's addresses a frontend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FrontendKind {
    ClusterIp,
    /// An address of this node. With a loopback address it is for processes in
    /// the node's own network namespace alone: elsewhere that address is
    /// somebody else's.
    NodePort,
    ExternalIp,
    LoadBalancer,
}

/// What becomes of packets to a frontend that come from outside: neither from
/// this node nor from one of its pods. Pods of other nodes are clients like any
/// other to [`Outside::Local`] (who asks a NodePort has chosen a node).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outside {
    /// To [`FrontendRow::backends`], with this node's address as source, so that
    /// answers come back this way.
    Cluster,
    /// To these, which are on this node, with the client's own address. Nobody
    /// to go to means: drop, so that who balances over nodes takes another one
    /// (refused, as ever, if [`FrontendRow::backends`] is empty too).
    Local(Backends),
}

/// Where a frontend leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontendRow {
    pub service: ObjectKey,
    pub kind: FrontendKind,
    /// For pods and processes of this node. None means: refuse at once, TCP
    /// with a reset, others with an ICMP error.
    pub backends: Backends,
    /// [`Outside::Cluster`] for loopback addresses.
    pub outside: Outside,
    /// For how many seconds after its last connection a client (by address)
    /// keeps its backend.
    pub affinity: Option<u32>,
    /// Clients from elsewhere are dropped; everybody may if empty. Sorted.
    pub source_ranges: Vec<IpNet>,
}

impl FrontendRow {
    /// A ClusterIP's row that refuses everybody.
    pub fn new(service: ObjectKey) -> Self {
        Self {
            service,
            kind: FrontendKind::ClusterIp,
            backends: Backends::default(),
            outside: Outside::Cluster,
            affinity: None,
            source_ranges: Vec::new(),
        }
    }
}

/// What the addresses of a range are to a packet of a pod of this node; the
/// longest prefix counts, and everything else is outside of the cluster: such
/// packets leave with the node's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Range {
    Pods,
    /// A node's own address.
    Node,
    /// Of a ServiceCIDR: who is no frontend there is refused.
    Services,
    /// Outside, but pods are to be seen under their own addresses.
    Excluded,
}

/// What a port of this node says of a service to load balancers
/// (`healthCheckNodePort`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    pub service: ObjectKey,
    /// Ready endpoints on this node.
    pub local_endpoints: usize,
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
    pub ranges: BTreeMap<IpNet, Range>,
    pub policy: PolicyTables,
}

/// The rows that one event changed; `None` removes the row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub frontends: BTreeMap<Frontend, Option<FrontendRow>>,
    pub routes: BTreeMap<IpNet, Option<NodeRoute>>,
    pub ranges: BTreeMap<IpNet, Option<Range>>,
    pub policy: PolicyChange,
}

impl Change {
    pub fn is_empty(&self) -> bool {
        self.frontends.is_empty()
            && self.routes.is_empty()
            && self.ranges.is_empty()
            && self.policy.is_empty()
    }

    /// Adds a later change; where both have a row, the later one counts.
    pub fn merge(&mut self, later: Change) {
        self.frontends.extend(later.frontends);
        self.routes.extend(later.routes);
        self.ranges.extend(later.ranges);
        self.policy.merge(later.policy);
    }
}

impl Tables {
    pub fn apply(&mut self, change: &Change) {
        self.policy.apply(&change.policy);
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
        for (key, row) in &change.ranges {
            match row {
                Some(row) => drop(self.ranges.insert(*key, *row)),
                None => drop(self.ranges.remove(key)),
            }
        }
    }
}
