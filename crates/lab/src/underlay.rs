//! What lies between the nodes: a namespace with a bridge for each subnet and
//! a router between them. No link is made in the machine's own namespace.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use ripstop_host::sysctl;
use ripstop_netlink::link::{self, VethEnd};
use ripstop_netlink::netns::Netns;
use ripstop_netlink::route::Route;
use ripstop_netlink::{Netlink, Request, address, rule};

use crate::paths::LabPaths;
use crate::plan::{API_PORT, LabPlan, NodePlan, OutsidePlan};

/// Name of a node's interface to the underlay.
pub const UPLINK: &str = "eth0";
/// Name of the router's interface to the machine outside.
const OUTSIDE: &str = "outside";
/// `lo` is the first interface of every namespace.
const LOOPBACK: u32 = 1;
/// `RTPROT_STATIC`: routes of the machine's administrator, which the agent
/// leaves alone.
const STATIC: u8 = 4;

/// Priority of the rules that keep pods' packets from being forwarded; before
/// that of the main table (32766).
const REFUSE: u32 = 100;

/// Nobody else has our addresses. Without this the links' own fe80:: addresses
/// take a second or two to be usable, and a node that forwards for pods looks
/// for its neighbours from them (RFC 4861, 7.2.2).
const NO_DAD: (&str, &str) = ("net/ipv6/conf/default/accept_dad", "0");

#[derive(Debug, thiserror::Error)]
pub enum UnderlayError {
    #[error("network namespace {name}: {source}")]
    Namespace { name: String, source: io::Error },
    #[error("underlay of {of}: {source}")]
    Netlink {
        of: String,
        source: ripstop_netlink::Error,
    },
    #[error("underlay of {of}: {source}")]
    Sysctl { of: String, source: sysctl::Error },
    #[error("underlay: no interface {0} after making it")]
    NoLink(String),
    #[error("listening on {address} in the underlay: {source}")]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
}

/// The namespace of bridges and router.
#[derive(Debug)]
pub struct Underlay {
    netns: Netns,
    /// Interface indices, by [`LabPlan::subnets`].
    bridges: Vec<u32>,
    mtu: u32,
}

impl Underlay {
    /// # Errors
    /// What could not be made; what was made stays for a teardown by name.
    pub fn create(paths: &LabPaths, plan: &LabPlan) -> Result<Self, UnderlayError> {
        let netns = create_netns(&paths.underlay_netns())?;
        let of = || "the router".to_owned();
        let failed = |source| UnderlayError::Netlink { of: of(), source };
        let mut settings = vec![("net/ipv4/ip_forward", "1")];
        if plan.cluster_cidrs.iter().any(|cidr| cidr.addr().is_ipv6()) {
            settings.extend([NO_DAD, ("net/ipv6/conf/all/forwarding", "1")]);
        }
        sysctl::set_in(&netns, &settings)
            .map_err(|source| UnderlayError::Sysctl { of: of(), source })?;
        let mut kernel = Netlink::in_netns(&netns).map_err(failed)?;
        let create = plan
            .subnets
            .iter()
            .map(|subnet| link::create_bridge(&subnet.bridge));
        kernel
            .execute(create.chain([link::up(LOOPBACK)]))
            .map_err(failed)?;
        let mut bridges = Vec::new();
        let mut configure = Vec::new();
        for subnet in &plan.subnets {
            let bridge = kernel.link(&subnet.bridge).map_err(failed)?;
            let index = bridge
                .ok_or_else(|| UnderlayError::NoLink(subnet.bridge.clone()))?
                .index;
            configure.push(link::set_mtu(index, plan.mtu));
            configure.push(link::up(index));
            configure.extend(subnet.gateways.iter().map(|net| address::add(index, *net)));
            let ranges = plan.cluster_cidrs.iter();
            configure.extend(ranges.map(|cidr| rule::refuse(&subnet.bridge, *cidr, REFUSE)));
            bridges.push(index);
        }
        configure.extend(
            plan.nodes
                .iter()
                .flat_map(|node| ways_back(node, bridges[node.subnet])),
        );
        kernel.execute(configure).map_err(failed)?;
        Ok(Self {
            netns,
            bridges,
            mtu: plan.mtu,
        })
    }

    /// A socket for agents' connections to the API, at the router's address.
    ///
    /// # Errors
    /// If it cannot listen there.
    pub fn listen(&self, plan: &LabPlan) -> Result<TcpListener, UnderlayError> {
        let address = SocketAddr::from((plan.api, API_PORT));
        self.netns
            .run(|| TcpListener::bind(address))
            .and_then(|listener| listener)
            .map_err(|source| UnderlayError::Listen { address, source })
    }

    /// Makes a node's namespace, plugged into its subnet, with its addresses and
    /// default routes. May run for several nodes at once.
    ///
    /// # Errors
    /// As [`Underlay::create`].
    pub fn add_node(&self, paths: &LabPaths, node: &NodePlan) -> Result<Netns, UnderlayError> {
        let machine = Machine {
            name: &node.name,
            netns: paths.node_netns(&node.name),
            port: &node.name,
            addresses: &node.addresses,
            gateways: &node.gateways,
        };
        self.add(&machine, |port| {
            vec![link::set_master(port, self.bridges[node.subnet])]
        })
    }

    /// Makes a machine that is not of the cluster: its packets pass the router,
    /// which has routes to pods (so that answers to those that go out under their
    /// own addresses come back) and to load balancers' addresses, none to ClusterIPs.
    ///
    /// # Errors
    /// As [`Underlay::create`].
    pub fn add_outside(
        &self,
        paths: &LabPaths,
        outside: &OutsidePlan,
    ) -> Result<Netns, UnderlayError> {
        let gateways: Vec<_> = outside.gateways.iter().map(IpNet::addr).collect();
        let machine = Machine {
            name: OUTSIDE,
            netns: paths.outside_netns(),
            port: OUTSIDE,
            addresses: &outside.addresses,
            gateways: &gateways,
        };
        self.add(&machine, |port| {
            let gateways = outside.gateways.iter();
            gateways.map(|net| address::add(port, *net)).collect()
        })
    }

    /// Leads an address that no machine has to a node. Doing it again with another
    /// node moves it.
    ///
    /// # Errors
    /// As [`Underlay::create`].
    pub fn route(&self, address: IpAddr, node: &NodePlan) -> Result<(), UnderlayError> {
        let way = self.way(address, node);
        way.map_or(Ok(()), |way| self.in_router(way.replace()))
    }

    /// Ends what [`Underlay::route`] made; doing it again changes nothing.
    ///
    /// # Errors
    /// As [`Underlay::create`].
    pub fn unroute(&self, address: IpAddr, node: &NodePlan) -> Result<(), UnderlayError> {
        let way = self.way(address, node);
        way.map_or(Ok(()), |way| self.in_router(way.delete().if_exists()))
    }

    /// None if the node has no address of this family.
    fn way(&self, address: IpAddr, node: &NodePlan) -> Option<Route> {
        let like = |net: &&IpNet| net.addr().is_ipv4() == address.is_ipv4();
        let via = node.addresses.iter().find(like)?;
        let route = Route {
            protocol: STATIC,
            ..Route::new(address.into(), self.bridges[node.subnet])
        };
        Some(route.via(via.addr()))
    }

    fn in_router(&self, request: Request) -> Result<(), UnderlayError> {
        Netlink::in_netns(&self.netns)
            .and_then(|mut router| router.execute([request]))
            .map_err(|source| UnderlayError::Netlink {
                of: "the router".to_owned(),
                source,
            })
    }

    /// A namespace with one interface, whose other end is in the router's:
    /// `plug` says what becomes of that.
    fn add(
        &self,
        machine: &Machine<'_>,
        plug: impl FnOnce(u32) -> Vec<Request>,
    ) -> Result<Netns, UnderlayError> {
        let failed = |source| UnderlayError::Netlink {
            of: machine.name.to_owned(),
            source,
        };
        let netns = create_netns(&machine.netns)?;
        if machine.addresses.iter().any(|net| net.addr().is_ipv6()) {
            sysctl::set_in(&netns, &[NO_DAD]).map_err(|source| UnderlayError::Sysctl {
                of: machine.name.to_owned(),
                source,
            })?;
        }
        let mut router = Netlink::in_netns(&self.netns).map_err(failed)?;
        let port = VethEnd {
            name: machine.port,
            mac: None,
            netns: None,
        };
        let uplink = VethEnd {
            name: UPLINK,
            mac: None,
            netns: Some(netns.as_fd()),
        };
        let (port, uplink) = router
            .create_veth(&port, &uplink, self.mtu)
            .map_err(failed)?;
        router
            .execute(plug(port).into_iter().chain([link::up(port)]))
            .map_err(failed)?;
        let mut requests = vec![link::up(LOOPBACK), link::up(uplink)];
        let addresses = machine.addresses.iter();
        requests.extend(addresses.map(|net| address::add(uplink, *net)));
        requests.extend(machine.gateways.iter().map(|gateway| {
            let route = Route {
                protocol: STATIC,
                ..Route::new(default_of(gateway.is_ipv4()), uplink)
            };
            route.via(*gateway).add()
        }));
        let mut kernel = Netlink::in_netns(&netns).map_err(failed)?;
        kernel.execute(requests).map_err(failed)?;
        Ok(netns)
    }
}

/// A namespace with an interface to the underlay.
struct Machine<'a> {
    /// For errors.
    name: &'a str,
    netns: String,
    /// Name of the link's end in the router's namespace.
    port: &'a str,
    addresses: &'a [IpNet],
    gateways: &'a [IpAddr],
}

/// Routes from the router itself to the pods of `node`: the API answers pods,
/// which come with their own addresses. Between nodes the router carries no
/// pod's packet ([`REFUSE`]), as a real underlay would not.
fn ways_back(node: &NodePlan, bridge: u32) -> impl Iterator<Item = Request> {
    node.pod_cidrs
        .iter()
        .zip(&node.addresses)
        .map(move |(cidr, address)| {
            let route = Route {
                protocol: STATIC,
                ..Route::new(*cidr, bridge)
            };
            route.via(address.addr()).add()
        })
}

fn create_netns(name: &str) -> Result<Netns, UnderlayError> {
    Netns::create(name).map_err(|source| UnderlayError::Namespace {
        name: name.to_owned(),
        source,
    })
}

/// 0.0.0.0/0 or ::/0.
fn default_of(ipv4: bool) -> IpNet {
    if ipv4 {
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0))
    } else {
        IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0))
    }
}
