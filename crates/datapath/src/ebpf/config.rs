//! What the engine is told once.

use std::net::IpAddr;
use std::path::PathBuf;

/// Where an engine keeps its pins and attaches its programs.
#[derive(Clone, Debug)]
pub struct Config {
    /// A directory on a BPF file system, for this engine alone.
    pub bpffs: PathBuf,
    /// cgroup2 directory of the node's processes, pods included.
    pub cgroup_root: PathBuf,
    /// The node's own addresses: host ports are open on each of them.
    pub node_addresses: Vec<IpAddr>,
    /// Interface indexes of the links by which packets come in; more with
    /// [`crate::Datapath::attach_uplink`].
    pub uplinks: Vec<u32>,
    pub limits: Limits,
}

/// Rows that the tables take. Memory is used for rows that exist, plus eight to
/// sixteen bytes for each that could, and all of it for the last two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Addresses of pods on this node.
    pub endpoints: u32,
    /// Service address, port and protocol.
    pub frontends: u32,
    /// Over all frontends; a frontend that changes counts twice for a moment.
    pub backends: u32,
    /// Pod ranges of other nodes.
    pub routes: u32,
    /// Ports of the node, per address.
    pub host_ports: u32,
    /// Simultaneous flows through host ports.
    pub flows: u32,
    /// Unconnected UDP sockets and the backends that they sent to.
    pub reverse: u32,
}

impl Default for Limits {
    /// A node of 500 dual-stack pods in a cluster of 30,000 service ports and
    /// 5,000 nodes.
    fn default() -> Self {
        Self {
            endpoints: 1024,
            frontends: 65_536,
            backends: 131_072,
            routes: 16_384,
            host_ports: 4096,
            flows: 16_384,
            reverse: 8192,
        }
    }
}
