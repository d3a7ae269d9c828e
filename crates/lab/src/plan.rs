//! Which addresses a lab has: pure, from what `up` was asked for.
//!
//! Labs do not see each other, so every lab has the same ones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

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
    pub ip_family: IpFamily,
    /// Zones that the nodes are spread over; none: nodes have no zone.
    pub zones: usize,
    /// Ranges of load balancers' addresses, at most one per family; a default
    /// for families without one.
    pub lb_pool: Vec<IpNet>,
    /// Of `ripstop agent`; its default if empty.
    pub nodeport_addresses: Vec<String>,
    /// Of `ripstop agent`.
    pub no_masquerade: Vec<IpNet>,
    /// Of `ripstop agent`; its default if empty.
    #[serde(default)]
    pub datapath: String,
    /// Of `ripstop agent`.
    #[serde(default)]
    pub dns_expand_search: bool,
    /// Of `ripstop agent`; its default if empty.
    #[serde(default)]
    pub pod_names: String,
    /// Of `ripstop agent`; its default if empty.
    #[serde(default)]
    pub policy_deny: String,
    /// Of `ripstop agent`: a machine's own servers are out of a lab's reach.
    #[serde(default)]
    pub upstream_dns: Vec<String>,
    /// Executable of the agents, in place of this one.
    #[serde(default)]
    pub agent: Option<PathBuf>,
    /// Bytes of an IP packet on the underlay.
    pub mtu: u32,
    /// Probes keep their initial delay also for stand-ins.
    pub real_probe_timing: bool,
}

/// Which families the lab's nodes, pods and services have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpFamily {
    Ipv4,
    Ipv6,
    /// Both; IPv4 is the family of single-stack services.
    Dual,
}

impl IpFamily {
    /// What the lab has for each of its families; IPv4 first.
    fn pick<T>(self, v4: T, v6: T) -> Vec<T> {
        match self {
            Self::Ipv4 => vec![v4],
            Self::Ipv6 => vec![v6],
            Self::Dual => vec![v4, v6],
        }
    }

    fn has(self, address: IpAddr) -> bool {
        self == Self::Dual || address.is_ipv4() == (self == Self::Ipv4)
    }
}

impl Default for LabOptions {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            nodes: 3,
            subnets: 1,
            ip_family: IpFamily::Ipv4,
            zones: 0,
            lb_pool: Vec::new(),
            nodeport_addresses: Vec::new(),
            no_masquerade: Vec::new(),
            datapath: String::new(),
            dns_expand_search: false,
            pod_names: String::new(),
            policy_deny: String::new(),
            upstream_dns: Vec::new(),
            agent: None,
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
    #[error("--zones {zones} with --nodes {nodes}: a zone would be without a node")]
    EmptyZone { zones: usize, nodes: usize },
    #[error("--lb-pool {0}: the lab has no addresses of this family")]
    PoolFamily(IpNet),
    #[error("--lb-pool {0}: one range per family is enough")]
    PoolTwice(IpNet),
    #[error("--lb-pool {pool} has addresses of {of}, {range}")]
    PoolTaken {
        pool: IpNet,
        of: &'static str,
        range: IpNet,
    },
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
    pub zone: Option<String>,
}

/// A machine that is not of the cluster, behind the router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutsidePlan {
    /// With the prefix length of its subnet.
    pub addresses: Vec<IpNet>,
    /// The router's addresses on that subnet.
    pub gateways: Vec<IpNet>,
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
    pub outside: OutsidePlan,
    /// Where load balancers' addresses come from, at most one per family.
    pub lb_pools: Vec<IpNet>,
    /// Where agents find the API: the router of the first subnet.
    pub api: IpAddr,
}

impl LabPlan {
    /// # Errors
    /// The first option that is out of range.
    pub fn new(options: &LabOptions) -> Result<Self, InvalidOptions> {
        check(options)?;
        let families = options.ip_family;
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
                    zone: (options.zones > 0).then(|| format!("zone{}", index % options.zones + 1)),
                }
            })
            .collect();
        Ok(Self {
            nodes,
            mtu: options.mtu,
            cluster_cidrs: families.pick(CLUSTER_V4, CLUSTER_V6),
            service_cidrs: families.pick(SERVICES_V4, SERVICES_V6),
            cluster_dns: families
                .pick(
                    v4([10, 96, 0, 10], 32),
                    v6([0xfd00, 0x96, 0, 0, 0, 0, 0, 0xa], 128),
                )
                .iter()
                .map(IpNet::addr)
                .collect(),
            outside: OutsidePlan {
                addresses: families.pick(outside_v4(2), outside_v6(2)),
                gateways: families.pick(outside_v4(1), outside_v6(1)),
            },
            lb_pools: pools(options),
            api: subnets[0].gateways[0].addr(),
            subnets,
        })
    }

    /// The API's URL for agents.
    pub fn agent_url(&self) -> String {
        format!("https://{}", SocketAddr::new(self.api, API_PORT))
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
    if options.zones > options.nodes {
        return Err(InvalidOptions::EmptyZone {
            zones: options.zones,
            nodes: options.nodes,
        });
    }
    if !(MIN_MTU..=MAX_MTU).contains(&options.mtu) {
        return Err(InvalidOptions::Mtu(options.mtu));
    }
    check_pools(options)
}

/// Load balancers' addresses: in no subnet of the underlay, which has routes to
/// them as an announcer would make them.
fn pools(options: &LabOptions) -> Vec<IpNet> {
    let default = |net: IpNet| {
        let asked = options.lb_pool.iter();
        let mut asked = asked.filter(|pool| pool.addr().is_ipv4() == net.addr().is_ipv4());
        asked.next().map_or(net, IpNet::trunc)
    };
    options.ip_family.pick(
        default(v4([172, 30, 255, 0], 24)),
        default(v6([0xfd00, 0x30, 0xff, 0, 0, 0, 0, 0], 112)),
    )
}

fn check_pools(options: &LabOptions) -> Result<(), InvalidOptions> {
    let overlap = |a: &IpNet, b: &IpNet| a.contains(b) || b.contains(a);
    let taken = [
        ("the cluster's pods", CLUSTER_V4, CLUSTER_V6),
        ("the cluster's services", SERVICES_V4, SERVICES_V6),
        ("the machine outside", outside_v4(0), outside_v6(0)),
    ];
    let subnets = (0..options.subnets).map(|index| {
        let nets = (subnet_v4(index, 0), subnet_v6(index, 0));
        ("the nodes", nets.0, nets.1)
    });
    let taken: Vec<_> = taken.into_iter().chain(subnets).collect();
    for (index, pool) in options.lb_pool.iter().enumerate() {
        if !options.ip_family.has(pool.addr()) {
            return Err(InvalidOptions::PoolFamily(*pool));
        }
        let twin = |other: &IpNet| other.addr().is_ipv4() == pool.addr().is_ipv4();
        if options.lb_pool[..index].iter().any(twin) {
            return Err(InvalidOptions::PoolTwice(*pool));
        }
        for (of, v4, v6) in &taken {
            let range = if pool.addr().is_ipv4() { v4 } else { v6 };
            if overlap(pool, range) {
                return Err(InvalidOptions::PoolTaken {
                    pool: *pool,
                    of,
                    range: range.trunc(),
                });
            }
        }
    }
    Ok(())
}

const CLUSTER_V4: IpNet = v4([10, 244, 0, 0], 16);
const CLUSTER_V6: IpNet = v6([0xfd00, 0x244, 0, 0, 0, 0, 0, 0], 48);
const SERVICES_V4: IpNet = v4([10, 96, 0, 0], 16);
const SERVICES_V6: IpNet = v6([0xfd00, 0x96, 0, 0, 0, 0, 0, 0], 112);

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix))
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], prefix: u8) -> IpNet {
    let address = Ipv6Addr::new(a, b, c, d, e, f, g, h);
    IpNet::V6(Ipv6Net::new_assert(address, prefix))
}

fn outside_v4(host: u8) -> IpNet {
    v4([172, 31, 0, host], 24)
}

fn outside_v6(host: u16) -> IpNet {
    v6([0xfd00, 0x31, 0, 0, 0, 0, 0, host], 64)
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

    fn options(nodes: usize, subnets: usize, dual: bool) -> LabOptions {
        LabOptions {
            nodes,
            subnets,
            ip_family: if dual { IpFamily::Dual } else { IpFamily::Ipv4 },
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
    fn ipv6_alone() {
        let plan = LabPlan::new(&LabOptions {
            ip_family: IpFamily::Ipv6,
            zones: 2,
            ..LabOptions::default()
        })
        .unwrap();
        assert_eq!(plan.agent_url(), "https://[fd00:30:1::1]:6443");
        let node = &plan.nodes[2];
        let all = node.addresses.iter().chain(&node.pod_cidrs);
        assert!(all.chain(&plan.lb_pools).all(|net| net.addr().is_ipv6()));
        assert_eq!(node.addresses.len(), 1);
        let zones: Vec<_> = plan.nodes.iter().flat_map(|n| n.zone.as_deref()).collect();
        assert_eq!(zones, ["zone1", "zone2", "zone1"]);
    }

    #[test]
    fn pools_are_the_lab_s_own() {
        let with = |pools: &[&str]| LabOptions {
            lb_pool: pools.iter().map(|pool| pool.parse().unwrap()).collect(),
            ip_family: IpFamily::Dual,
            ..LabOptions::default()
        };
        let plan = LabPlan::new(&with(&["192.0.2.1/28"])).unwrap();
        let pools: Vec<_> = plan.lb_pools.iter().map(ToString::to_string).collect();
        assert_eq!(pools, ["192.0.2.0/28", "fd00:30:ff::/112"]);
        for (pools, message) in [
            (
                &["172.30.1.128/25"][..],
                "--lb-pool 172.30.1.128/25 has addresses of the nodes, 172.30.1.0/24",
            ),
            (
                &["10.0.0.0/8"],
                "--lb-pool 10.0.0.0/8 has addresses of the cluster's pods, 10.244.0.0/16",
            ),
            (
                &["192.0.2.0/28", "192.0.3.0/28"],
                "--lb-pool 192.0.3.0/28: one range per family is enough",
            ),
        ] {
            let error = LabPlan::new(&with(pools)).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
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
