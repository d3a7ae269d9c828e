//! The node's addresses at which NodePorts answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use ripstop_host::routes::is_tunnel;
use ripstop_model::Node;
use ripstop_netlink::{Error, Netlink};
use tracing::warn;

/// One value of `--nodeport-addresses`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodePortAddresses {
    /// The addresses of the Node object.
    Primary,
    /// All addresses of the node's interfaces that are in this range.
    Range(IpNet),
}

impl FromStr for NodePortAddresses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "primary" => Ok(Self::Primary),
            _ => text.parse().map(Self::Range).map_err(|_| {
                format!("{text:?} is neither \"primary\" nor a range like 10.0.0.0/8")
            }),
        }
    }
}

/// How this node finds its addresses for NodePorts.
#[derive(Debug)]
pub(crate) struct NodePorts {
    pub(crate) netlink: Netlink,
    pub(crate) wanted: Vec<NodePortAddresses>,
    pub(crate) node: Node,
    pub(crate) cluster_dns: Vec<IpAddr>,
}

impl NodePorts {
    /// Addresses as the node has them now; without those that it could not be
    /// asked for.
    pub(crate) fn find(&mut self) -> Vec<IpAddr> {
        let own = self.in_ranges().unwrap_or_else(|error| {
            warn!(%error, "NodePorts answer at fewer addresses than --nodeport-addresses says");
            Vec::new()
        });
        let mut addresses = own;
        // For processes of the node itself, as with every mode of kube-proxy
        // before nftables.
        addresses.push(IpAddr::V4(Ipv4Addr::LOCALHOST));
        addresses.push(IpAddr::V6(Ipv6Addr::LOCALHOST));
        if self.wanted.contains(&NodePortAddresses::Primary) {
            addresses.extend(&self.node.addresses);
        }
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    fn in_ranges(&mut self) -> Result<Vec<IpAddr>, Error> {
        if !self
            .wanted
            .iter()
            .any(|one| *one != NodePortAddresses::Primary)
        {
            return Ok(Vec::new());
        }
        let links = self.netlink.links()?;
        let tunnels = links.iter().filter(|link| is_tunnel(&link.name));
        let tunnels: Vec<u32> = tunnels.map(|link| link.index).collect();
        let own = self.netlink.addresses()?.into_iter();
        let own = own.filter(|own| !tunnels.contains(&own.index));
        let own = own.map(|own| own.address.addr());
        let wanted = |ip: &IpAddr| {
            self.wanted.iter().any(|one| match one {
                NodePortAddresses::Range(range) => range.contains(ip),
                NodePortAddresses::Primary => false,
            })
        };
        Ok(own
            .filter(|ip| wanted(ip) && !is_link_local(*ip) && !self.cluster_dns.contains(ip))
            .collect())
    }
}

/// Those mean nothing without an interface, which clients of a service do not
/// say.
fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(wanted: &str) -> Vec<String> {
        let wanted: Result<Vec<NodePortAddresses>, _> = wanted.split(',').map(str::parse).collect();
        let mut node_ports = NodePorts {
            netlink: Netlink::new().unwrap(),
            wanted: wanted.unwrap(),
            node: Node {
                name: "node1".to_owned(),
                addresses: vec![[172, 30, 1, 11].into()],
                pod_cidrs: Vec::new(),
                zone: None,
            },
            cluster_dns: Vec::new(),
        };
        let found = node_ports.find();
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn loopback_is_always_among_them() {
        assert_eq!(find("primary"), ["127.0.0.1", "172.30.1.11", "::1"]);
        // No interface has one of these.
        assert_eq!(find("240.0.0.0/8"), ["127.0.0.1", "::1"]);
        assert_eq!(find("127.0.0.0/8,primary"), find("primary"));
    }

    #[test]
    fn what_is_neither_is_refused() {
        let error = "all".parse::<NodePortAddresses>().unwrap_err();
        assert_eq!(
            error,
            "\"all\" is neither \"primary\" nor a range like 10.0.0.0/8"
        );
    }
}
