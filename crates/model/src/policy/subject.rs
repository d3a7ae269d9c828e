//! What policies select.

use std::net::IpAddr;
use std::sync::Arc;

use crate::{Labels, ObjectKey, Protocol};

/// A pod of the cluster, as far as policies ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub key: ObjectKey,
    /// `metadata.uid`: tells a pod from its successor of the same name.
    pub uid: Box<str>,
    pub labels: Labels,
    /// `status.podIPs`, at most one per family; empty until they are known.
    pub addresses: Box<[IpAddr]>,
    /// `spec.nodeName`.
    pub node: Option<Arc<str>>,
    /// Container ports that have a name, in the order in which names are
    /// resolved: containers, then init containers that go on running.
    pub ports: Box<[ContainerPort]>,
    /// Has its node's addresses: policies neither select nor name it.
    pub host_network: bool,
    /// `status.phase` is Succeeded or Failed: its address may be somebody else's.
    pub ended: bool,
}

impl Pod {
    /// A running pod of which nothing but its name is known.
    pub fn new(key: ObjectKey) -> Self {
        Self {
            key,
            uid: Box::default(),
            labels: Labels::default(),
            addresses: Box::default(),
            node: None,
            ports: Box::default(),
            host_network: false,
            ended: false,
        }
    }

    /// Whether policies select it and name it as a peer.
    pub fn is_subject(&self) -> bool {
        !self.host_network && !self.ended
    }

    /// The number of a named port; the first of that name and protocol counts.
    pub fn port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        let is_it = |port: &&ContainerPort| &*port.name == name && port.protocol == protocol;
        self.ports.iter().find(is_it).map(|port| port.port)
    }
}

/// A container port with a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerPort {
    pub name: Arc<str>,
    pub protocol: Protocol,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    pub name: String,
    pub labels: Labels,
}

/// A node as policies name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    pub name: String,
    pub labels: Labels,
    /// All of `status.addresses` that are addresses.
    pub addresses: Vec<IpAddr>,
}
