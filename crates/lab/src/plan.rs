//! Which addresses a lab has: pure, from what `up` was asked for.
//!
//! Labs do not see each other, so every lab has the same ones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::names::{InvalidName, check_label};

/// Port of the API server in the underlay, where agents find it.
pub const API_PORT: u16 = 6443;
/// Domain of the cluster's names.
pub const CLUSTER_DOMAIN: &str = "cluster.local";
/// A bridge takes 1024 ports (`BR_MAX_PORTS`), a /24 fewer: .11 to .254.
pub const MAX_NODES: usize = 244;
pub const MAX_SUBNETS: usize = 64;
/// IPv6 does not work below (RFC 8200, section 5); IPv4-only labs keep to it
/// as well, so that VXLAN's 70 bytes still leave a useful MTU.
const MIN_MTU: u32 = 1280;
/// The largest MTU of a veth device.
const MAX_MTU: u32 = 65535;
/// Number of the first node's address within its subnet.
const FIRST_NODE: u16 = 11;

/// What `up` was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabOptions {
    pub name: String,
    pub nodes: usize,
    /// Underlay subnets that the nodes are spread over.
    pub subnets: usize,
    pub dual_stack: bool,
    /// Bytes of an IP packet on the underlay.
    pub mtu: u32,
    /// Probes keep their initial delay also for stand-ins.
    pub real_probe_timing: bool,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            nodes: 3,
            subnets: 1,
            dual_stack: false,
            mtu: 1500,
            real_probe_timing: false,
        }
    }
}

/// An option that no lab can have.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidOptions {
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error("--nodes {0}: a lab has 1 to {MAX_NODES} nodes")]
    Nodes(usize),
    #[error("--subnets {0}: a lab has 1 to {MAX_SUBNETS} underlay subnets")]
    Subnets(usize),
    #[error("--subnets {subnets} with --nodes {nodes}: a subnet would be without a node")]
    EmptySubnet { subnets: usize, nodes: usize },
    #[error("--mtu {0}: the underlay's MTU is {MIN_MTU} to {MAX_MTU}")]
    Mtu(u32),
}

/// A bridge of the underlay, and the router's addresses on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubnetPlan {
    pub bridge: String,
    /// At most one per family; the host part is the gateway's.
    pub gateways: Vec<IpNet>,
}

/// A node: its name and addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePlan {
    pub name: String,
    /// Index into [`LabPlan::subnets`].
    pub subnet: usize,
    /// On the underlay, with the subnet's prefix length.
    pub addresses: Vec<IpNet>,
    pub gateways: Vec<IpAddr>,
    pub pod_cidrs: Vec<IpNet>,
}

/// Every address of a lab. Lists are IPv4 first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabPlan {
    pub subnets: Vec<SubnetPlan>,
    pub nodes: Vec<NodePlan>,
    pub mtu: u32,
    pub cluster_cidrs: Vec<IpNet>,
    pub service_cidrs: Vec<IpNet>,
    pub cluster_dns: Vec<IpAddr>,
    /// Where agents find the API: the router of the first subnet.
    pub api: Ipv4Addr,
}

impl LabPlan {
    /// # Errors
    /// The first option that is out of range.
    pub fn new(options: &LabOptions) -> Result<Self, InvalidOptions> {
        check(options)?;
        let families = Families {
            v6: options.dual_stack,
        };
        let subnets: Vec<_> = (0..options.subnets)
            .map(|index| SubnetPlan {
                bridge: format!("br{}", index + 1),
                gateways: families.pick(subnet_v4(index, 1), subnet_v6(index, 1)),
            })
            .collect();
        let nodes = (0..options.nodes)
            .map(|index| {
                let subnet = index % options.subnets;
                let host = FIRST_NODE + u16::try_from(index / options.subnets).unwrap_or(u16::MAX);
                NodePlan {
                    name: format!("node{}", index + 1),
                    subnet,
                    addresses: families.pick(subnet_v4(subnet, host), subnet_v6(subnet, host)),
                    gateways: subnets[subnet].gateways.iter().map(IpNet::addr).collect(),
                    pod_cidrs: families.pick(pods_v4(index), pods_v6(index)),
                }
            })
            .collect();
        Ok(Self {
            nodes,
            mtu: options.mtu,
            cluster_cidrs: families.pick(
                v4([10, 244, 0, 0], 16),
                v6([0xfd00, 0x244, 0, 0, 0, 0, 0, 0], 48),
            ),
            service_cidrs: families.pick(
                v4([10, 96, 0, 0], 16),
                v6([0xfd00, 0x96, 0, 0, 0, 0, 0, 0], 112),
            ),
            cluster_dns: families
                .pick(
                    v4([10, 96, 0, 10], 32),
                    v6([0xfd00, 0x96, 0, 0, 0, 0, 0, 0xa], 128),
                )
                .iter()
                .map(IpNet::addr)
                .collect(),
            api: Ipv4Addr::new(172, 30, 1, 1),
            subnets,
        })
    }

    /// The API's URL for agents.
    pub fn agent_url(&self) -> String {
        format!("https://{}:{API_PORT}", self.api)
    }
}

fn check(options: &LabOptions) -> Result<(), InvalidOptions> {
    check_label("lab", &options.name)?;
    if !(1..=MAX_NODES).contains(&options.nodes) {
        return Err(InvalidOptions::Nodes(options.nodes));
    }
    if !(1..=MAX_SUBNETS).contains(&options.subnets) {
        return Err(InvalidOptions::Subnets(options.subnets));
    }
    if options.subnets > options.nodes {
        return Err(InvalidOptions::EmptySubnet {
            subnets: options.subnets,
            nodes: options.nodes,
        });
    }
    if !(MIN_MTU..=MAX_MTU).contains(&options.mtu) {
        return Err(InvalidOptions::Mtu(options.mtu));
    }
    Ok(())
}

/// Which families the lab has; IPv4 always.
#[derive(Clone, Copy)]
struct Families {
    v6: bool,
}

impl Families {
    fn pick(self, v4: IpNet, v6: IpNet) -> Vec<IpNet> {
        if self.v6 { vec![v4, v6] } else { vec![v4] }
    }
}

fn v4(octets: [u8; 4], prefix: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from(octets), prefix))
}

fn v6(segments: [u16; 8], prefix: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from(segments), prefix))
}

/// `index` and `host` are below 256: [`MAX_SUBNETS`], [`MAX_NODES`].
fn subnet_v4(index: usize, host: u16) -> IpNet {
    v4([172, 30, index as u8 + 1, host as u8], 24)
}

fn subnet_v6(index: usize, host: u16) -> IpNet {
    v6([0xfd00, 0x30, index as u16 + 1, 0, 0, 0, 0, host], 64)
}

fn pods_v4(index: usize) -> IpNet {
    v4([10, 244, index as u8 + 1, 0], 24)
}

fn pods_v6(index: usize) -> IpNet {
    v6([0xfd00, 0x244, 0, index as u16 + 1, 0, 0, 0, 0], 64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn options(nodes: usize, subnets: usize, dual_stack: bool) -> LabOptions {
        LabOptions {
            nodes,
            subnets,
            dual_stack,
            ..LabOptions::default()
        }
    }

    #[test]
    fn nodes_alternate_between_subnets() {
        let plan = LabPlan::new(&options(3, 2, true)).unwrap();
        let node = |i: usize| {
            let n = &plan.nodes[i];
            let text = |list: &[IpNet]| {
                list.iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(" ")
            };
            (
                n.name.clone(),
                n.subnet,
                text(&n.addresses),
                text(&n.pod_cidrs),
            )
        };
        assert_eq!(
            node(0),
            (
                "node1".into(),
                0,
                "172.30.1.11/24 fd00:30:1::b/64".into(),
                "10.244.1.0/24 fd00:244:0:1::/64".into()
            )
        );
        assert_eq!(node(1).2, "172.30.2.11/24 fd00:30:2::b/64");
        assert_eq!(node(2).2, "172.30.1.12/24 fd00:30:1::c/64");
        assert_eq!(
            plan.nodes[1].gateways,
            ["172.30.2.1", "fd00:30:2::1"].map(|a| a.parse::<IpAddr>().unwrap())
        );
        assert_eq!(
            plan.cluster_dns,
            ["10.96.0.10", "fd00:96::a"].map(|a| a.parse::<IpAddr>().unwrap())
        );
        assert_eq!(plan.subnets[1].bridge, "br2");
    }

    #[test]
    fn the_largest_lab_has_no_address_twice() {
        for subnets in [1, 2, 7, MAX_SUBNETS] {
            let plan = LabPlan::new(&options(MAX_NODES, subnets, true)).unwrap();
            let gateways = plan
                .subnets
                .iter()
                .flat_map(|s| s.gateways.iter().map(IpNet::addr));
            let addresses = plan
                .nodes
                .iter()
                .flat_map(|n| n.addresses.iter().map(IpNet::addr));
            let all: Vec<_> = gateways.chain(addresses).collect();
            assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
            for node in &plan.nodes {
                for cidr in &node.pod_cidrs {
                    assert!(
                        plan.cluster_cidrs.iter().any(|c| c.contains(cidr)),
                        "{cidr}"
                    );
                }
            }
            let cidrs: BTreeSet<_> = plan.nodes.iter().flat_map(|n| &n.pod_cidrs).collect();
            assert_eq!(cidrs.len(), 2 * MAX_NODES);
        }
    }

    #[test]
    fn one_family_unless_asked() {
        let plan = LabPlan::new(&options(2, 1, false)).unwrap();
        assert!(
            plan.nodes
                .iter()
                .all(|n| n.addresses.len() == 1 && n.pod_cidrs.len() == 1)
        );
        assert_eq!(plan.service_cidrs.len(), 1);
    }

    #[test]
    fn options_out_of_range_are_named() {
        for (options, message) in [
            (options(0, 1, false), "--nodes 0: a lab has 1 to 244 nodes"),
            (
                options(245, 1, false),
                "--nodes 245: a lab has 1 to 244 nodes",
            ),
            (
                options(3, 0, false),
                "--subnets 0: a lab has 1 to 64 underlay subnets",
            ),
            (
                options(2, 3, false),
                "--subnets 3 with --nodes 2: a subnet would be without a node",
            ),
            (
                LabOptions {
                    mtu: 500,
                    ..LabOptions::default()
                },
                "--mtu 500: the underlay's MTU is 1280 to 65535",
            ),
        ] {
            assert_eq!(LabPlan::new(&options).unwrap_err().to_string(), message);
        }
    }
}
