//! The pods of this node, as the CNI plugin made them.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{ObjectKey, Protocol};

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A pod sandbox with its link on this node. Comes from CNI ADD, not from the
/// API: it exists before the API shows the pod's address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalPod {
    /// Empty names for a container that is no pod of Kubernetes.
    pub pod: ObjectKey,
    /// `K8S_POD_UID`, if the runtime told: tells it from a pod of the same name
    /// before or after it.
    #[serde(default)]
    pub uid: Option<String>,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// One per family, from the node's pod CIDRs.
    pub addresses: Vec<IpAddr>,
    /// Interface index of the host's end of the pod's veth pair.
    pub host_ifindex: u32,
    pub host_ifname: String,
    /// Of the pod's end (`eth0`).
    pub mac: Mac,
    pub host_ports: Vec<HostPort>,
}

/// A port of the node that leads to a port of a pod (the CNI `portMappings`
/// capability).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HostPort {
    /// Only on this address of the node; on each of them if absent.
    pub host_ip: Option<IpAddr>,
    pub host_port: u16,
    pub container_port: u16,
    pub protocol: Protocol,
}
