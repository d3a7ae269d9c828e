//! What the engine is told once.

use std::net::IpAddr;
use std::path::PathBuf;

use ripstop_abi::Place;

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

/// Rows that the tables take. Memory is used for rows that exist, plus sixteen
/// bytes for each that could, and all of it for places and the last two. Tables of
/// which big clusters have many rows are made smaller at first
/// ([`Limits::at_first`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Addresses of pods on this node.
    pub endpoints: u32,
    /// Service address, port and protocol; ports of the node that lead to pods.
    pub frontends: u32,
    /// Over all frontends. Rows of eight say which are whose, of frontends with
    /// more than eight.
    pub backends: u32,
    /// Rows of 128 entries by which packets from outside find their backend.
    pub maglev: u32,
    /// Source ranges over all frontends.
    pub sources: u32,
    /// Pod ranges of other nodes.
    pub routes: u32,
    /// Ranges that tell inside from outside.
    pub ranges: u32,
    /// Packets' directions: two for each translated flow. A power of two.
    pub flows: u32,
    /// Prefixes of addresses that policies name.
    pub policy_classes: u32,
    /// What the rules of a pod's side say of a class, over all.
    pub policy_pairs: u32,
    /// Rows of eight port ranges, over all rules by port.
    pub policy_ports: u32,
    /// Connections of pods that policies are about, but for those that have places.
    pub connections: u32,
    /// Their places, of [`Place::COUNT`].
    pub places: u32,
    /// Denials that are counted one by one.
    pub denials: u32,
    /// Clients that keep their backend.
    pub affinity: u32,
    /// Sockets and the backends that they were led to: as many TCP sockets, and
    /// as many others.
    pub reverse: u32,
}

impl Limits {
    /// Rows of the tables before one of them was full.
    pub(crate) fn at_first(&self) -> Self {
        Self {
            frontends: self.frontends.min(16_384),
            backends: self.backends.min(32_768),
            maglev: self.maglev.min(8192),
            policy_pairs: self.policy_pairs.min(32_768),
            policy_ports: self.policy_ports.min(8192),
            ..*self
        }
    }
}

impl Default for Limits {
    /// A node of 500 dual-stack pods in a cluster of 30,000 service ports,
    /// 250,000 endpoints of services, 10,000 network policies and 5,000 nodes.
    fn default() -> Self {
        Self {
            endpoints: 1024,
            frontends: 65_536,
            backends: 262_144,
            maglev: 65_536,
            sources: 16_384,
            routes: 16_384,
            ranges: 16_384,
            flows: rows_of_flows(memory()),
            policy_classes: 262_144,
            policy_pairs: 524_288,
            policy_ports: 65_536,
            connections: 131_072,
            places: Place::COUNT,
            denials: 8192,
            affinity: 8192,
            reverse: 8192,
        }
    }
}

/// Rows of the table of flows of a node with that much memory, bytes: all of them
/// (192 bytes each, as the kernel allocates them) are 0.3 % of it. A machine of 16 GB
/// says that it has somewhat less.
fn rows_of_flows(memory: u64) -> u32 {
    const MEMORY_EACH: u64 = 64 << 10;
    let rows = ((memory + memory / 4) / MEMORY_EACH).clamp(65_536, 1 << 20);
    1 << rows.ilog2()
}

/// Of the machine, bytes; 0 if it does not say.
fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = total.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    kilobytes.unwrap_or(0_u64) << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn larger_nodes_have_more_flows() {
        const GB: u64 = 1 << 30;
        for (memory, rows) in [
            (0, 65_536),
            (4 * GB, 65_536),
            (6 * GB, 65_536),
            (7 * GB, 131_072),
            (15 * GB, 262_144),
            (23 * GB, 262_144),
            (64 * GB, 1 << 20),
            (2048 * GB, 1 << 20),
        ] {
            assert_eq!(rows_of_flows(memory), rows, "{memory}");
        }
        assert!(memory() > 0);
    }
}
