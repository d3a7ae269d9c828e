//! The link of one pod: a veth pair between the pod's namespace and the node's,
//! with what both sides must know of each other.
//!
//! The pod routes everything to a gateway that no interface has
//! (169.254.1.1, fe80::1); a permanent neighbour entry gives it the MAC that
//! every host end has. So nobody asks by ARP or NDP, and pods need no subnet.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

use ipnet::IpNet;
use ripstop_model::Mac;

use crate::sysctl;
use ripstop_netlink::link::{self, VethEnd};
use ripstop_netlink::neighbour::Neighbour;
use ripstop_netlink::netns::Netns;
use ripstop_netlink::route::Route;
use ripstop_netlink::{Error, Netlink, Request, address, traffic};

/// Of every host end; pods see the same gateway wherever they are.
pub const HOST_MAC: Mac = Mac([0xee; 6]);
/// What pods route IPv4 to.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// What pods route IPv6 to.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// Start of the name of every host end; 13 hexadecimal digits follow.
pub const HOST_PREFIX: &str = "rs";

const LOOPBACK: u32 = 1;
/// `IPV4_DEVCONF_RP_FILTER` of linux/ip.h.
const RP_FILTER: u16 = 8;

/// What a pod's link shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodLink {
    pub host_ifname: String,
    /// Inside the pod; `eth0` as a rule.
    pub pod_ifname: String,
    /// Of the pod's end.
    pub mac: Mac,
    /// At most one per family.
    pub addresses: Vec<IpAddr>,
    /// Largest IP packet, bytes.
    pub mtu: u32,
    /// Shown by `ip link` on the host's end, which gets it when all else is done;
    /// not empty.
    pub remark: String,
}

/// Interface indexes of a link's two ends, each in its own namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    pub host: u32,
    pub pod: u32,
}

/// How a pod's link differs from what it shall be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Difference {
    #[error("interface {0} does not exist")]
    NoInterface(String),
    #[error("interface {0} is down")]
    Down(String),
    #[error("interface {0} is not the other end of the pod's")]
    WrongPeer(String),
    #[error("interface {ifname} has MAC {found}, not {expected}")]
    WrongMac {
        ifname: String,
        found: String,
        expected: Mac,
    },
    #[error("the pod's interface has no address {0}")]
    NoAddress(IpAddr),
    #[error("{place} has no route to {destination}")]
    NoRoute { place: Place, destination: IpNet },
    #[error("{place} does not know the MAC of {address}")]
    NoNeighbour { place: Place, address: IpAddr },
}

/// A side of a pod's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Node,
    Pod,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "the node",
            Self::Pod => "the pod",
        })
    }
}

/// Names that are the same whenever the same attachment is made again: the host
/// end's, and the MAC of the pod's end (locally administered, unicast).
pub fn derive_names(container_id: &str, ifname: &str) -> (String, Mac) {
    // FNV-1a, 64 bits; a slash is in neither part.
    let hash = container_id
        .bytes()
        .chain(*b"/")
        .chain(ifname.bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    let [_, _, a, b, c, d, e, f] = hash.to_be_bytes();
    let mac = Mac([a & 0xfc | 0x02, b, c, d, e, f]);
    (format!("{HOST_PREFIX}{:013x}", hash >> 12), mac)
}

/// Makes the node's end of a link, in the calling thread's namespace, deaf to
/// routers: a node that believes them although it is one (`accept_ra` 2) would
/// believe a pod. To be called before anything moves on the link.
///
/// # Errors
/// If the setting cannot be written.
pub fn ignore_routers(host_ifname: &str) -> Result<(), sysctl::Error> {
    match sysctl::set(&format!("net/ipv6/conf/{host_ifname}/accept_ra"), "0") {
        // A kernel without IPv6.
        Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// True if [`PodLink::open`] came to its end for this host end, and
/// [`PodLink::close`] has not begun. Nothing else is looked at: what a pod does to
/// its own interface later is its business.
pub fn is_finished(host: &link::Link) -> bool {
    !host.alias.is_empty() && host.up
}

/// True for names that [`derive_names`] gives.
pub fn is_host_end(name: &str) -> bool {
    name.strip_prefix(HOST_PREFIX).is_some_and(|digits| {
        digits.len() == 13
            && digits
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

/// To do it later, for an engine of programs that takes over, would stop the
/// interface for a moment. A kernel that cannot has no use for it either.
pub(crate) fn prepare_for_programs(node: &mut Netlink, index: u32) {
    if let Err(error) = node.execute([traffic::prepare(index).unless_exists()]) {
        tracing::debug!(index, %error, "no programs can be put on this interface");
    }
}

impl PodLink {
    /// Makes the link between `netns` and the namespace of `node`, and opens it;
    /// returns the host end's index. After an error nothing is left.
    ///
    /// # Errors
    /// What the kernel refused; `EEXIST` if a name is taken on its side.
    pub fn create(&self, node: &mut Netlink, netns: &Netns) -> Result<u32, Error> {
        let ends = self.make(node, netns)?;
        self.open(node, netns, ends).inspect_err(|_| {
            let _ = node.execute([link::delete(ends.host).if_exists()]);
        })?;
        Ok(ends.host)
    }

    /// Makes the link; nothing moves on it before [`PodLink::open`]: whoever is to
    /// watch it can come between.
    ///
    /// # Errors
    /// What the kernel refused; `EEXIST` if a name is taken on its side.
    pub fn make(&self, node: &mut Netlink, netns: &Netns) -> Result<Ends, Error> {
        let host = VethEnd {
            name: &self.host_ifname,
            mac: Some(HOST_MAC),
            netns: None,
        };
        let pod = VethEnd {
            name: &self.pod_ifname,
            mac: Some(self.mac),
            netns: Some(netns.as_fd()),
        };
        let (host, pod) = node.create_veth(&host, &pod, self.mtu)?;
        prepare_for_programs(node, host);
        Ok(Ends { host, pod })
    }

    /// Gives both sides of a link that was made their addresses and ways.
    ///
    /// # Errors
    /// What the kernel refused; the link is of no use then.
    pub fn open(&self, node: &mut Netlink, netns: &Netns, ends: Ends) -> Result<(), Error> {
        let mut inside = Netlink::in_netns(netns)?;
        // The node's side first: nothing moves before the pod's end is up, and
        // the host end must not choose a link-local address then.
        node.execute(self.node_requests(ends.host))?;
        self.configure_pod(&mut inside, netns, ends.pod)?;
        node.execute(self.last_requests(ends.host))?;
        // While the node's side is finished, this has come of itself.
        if !inside.settle(&self.addresses)? {
            tracing::warn!(
                pod = self.remark,
                "its IPv6 address is slow to come into use"
            );
        }
        Ok(())
    }

    /// Sets the node's side again, as after a restart; what is right stays.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn restore(&self, node: &mut Netlink, host_index: u32) -> Result<(), Error> {
        node.execute(self.node_requests(host_index))
    }

    pub(crate) fn last_requests(&self, index: u32) -> [Request; 2] {
        // Whoever learns of the pod may send to it.
        [link::settle(index), link::set_alias(index, &self.remark)]
    }

    pub(crate) fn node_requests(&self, index: u32) -> Vec<Request> {
        let mut requests = vec![
            // Packets from the pod are checked against its address elsewhere;
            // the kernel's check drops what comes back by another way.
            link::set_ipv4_conf(index, &[(RP_FILTER, 0)]),
            link::no_ipv6_link_local(index),
        ];
        requests.extend(self.neighbours(index).map(|one| one.replace()));
        requests.extend(self.route_requests(index));
        requests
    }

    /// The node's routes to the pod.
    pub(crate) fn route_requests(&self, index: u32) -> Vec<Request> {
        self.routes(index).map(|route| route.replace()).collect()
    }

    /// Takes from the node's side what [`PodLink::restore`] sets, but for settings of
    /// the interface.
    pub(crate) fn forget_requests(&self, index: u32) -> Vec<Request> {
        let neighbours = self.neighbours(index).map(|one| one.delete());
        let routes = self.routes(index).map(|route| route.delete());
        neighbours.chain(routes).map(Request::if_exists).collect()
    }

    fn neighbours(&self, index: u32) -> impl Iterator<Item = Neighbour> {
        self.addresses.iter().map(move |&address| Neighbour {
            index,
            address,
            mac: self.mac,
        })
    }

    fn routes(&self, index: u32) -> impl Iterator<Item = Route> {
        let nets = self.addresses.iter().copied().map(host_net);
        nets.map(move |net| Route::new(net, index))
    }

    fn configure_pod(&self, inside: &mut Netlink, netns: &Netns, index: u32) -> Result<(), Error> {
        let result = inside.execute(self.pod_requests(index));
        let refused_v6 = matches!(&result, Err(error) if error.errno() == Some(libc::EACCES))
            && self.addresses.iter().any(IpAddr::is_ipv6);
        if !refused_v6 {
            return result;
        }
        // Some runtimes make namespaces with IPv6 off; this pod shall have it.
        let _ = sysctl::set_in(
            netns,
            &[
                ("net/ipv6/conf/all/disable_ipv6", "0"),
                ("net/ipv6/conf/default/disable_ipv6", "0"),
            ],
        );
        inside.execute(self.pod_requests(index))
    }

    fn pod_requests(&self, index: u32) -> Vec<Request> {
        let mut requests = vec![link::up(LOOPBACK)];
        if !self.addresses.iter().any(IpAddr::is_ipv6) {
            // Without IPv6 in the cluster a link-local address leads nowhere.
            requests.push(link::no_ipv6_link_local(index));
        }
        requests.push(link::up(index));
        for &address in &self.addresses {
            requests.extend(gateway_requests(address, index));
            requests.push(default_route(address, index).replace());
        }
        requests
    }

    /// The pod's addresses and the MAC of its gateway, which nothing leads to yet.
    pub(crate) fn gateway_requests(&self, index: u32) -> Vec<Request> {
        let addresses = self.addresses.iter();
        addresses
            .flat_map(|&address| gateway_requests(address, index))
            .collect()
    }

    /// Ends all that moves on the link, and the node's routes with it, which is
    /// quick; the link itself may follow later. One that is gone is no error.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn close(node: &mut Netlink, host_index: u32) -> Result<(), Error> {
        node.execute([link::down(host_index).if_exists()])
    }

    /// Compares the kernel with what this link shall be; `None` if they agree.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn verify(&self, node: &mut Netlink, netns: &Netns) -> Result<Option<Difference>, Error> {
        let Some(host) = node.link(&self.host_ifname)? else {
            return Ok(Some(Difference::NoInterface(self.host_ifname.clone())));
        };
        if let Some(difference) = self.verify_mac(&host, HOST_MAC) {
            return Ok(Some(difference));
        }
        let neighbours = node.neighbours(host.index)?;
        let routes = node.routes_through(host.index)?;
        for &address in &self.addresses {
            let destination = host_net(address);
            if !routes.iter().any(|route| route.destination == destination) {
                return Ok(Some(Difference::NoRoute {
                    place: Place::Node,
                    destination,
                }));
            }
            if !neighbours.contains(&Neighbour {
                index: host.index,
                address,
                mac: self.mac,
            }) {
                return Ok(Some(Difference::NoNeighbour {
                    place: Place::Node,
                    address,
                }));
            }
        }
        self.verify_pod(&mut Netlink::in_netns(netns)?, &host)
    }

    fn verify_pod(
        &self,
        inside: &mut Netlink,
        host: &link::Link,
    ) -> Result<Option<Difference>, Error> {
        let Some(pod) = inside.link(&self.pod_ifname)? else {
            return Ok(Some(Difference::NoInterface(self.pod_ifname.clone())));
        };
        if pod.peer != Some(host.index) || host.peer != Some(pod.index) {
            return Ok(Some(Difference::WrongPeer(self.host_ifname.clone())));
        }
        if let Some(difference) = self.verify_mac(&pod, self.mac) {
            return Ok(Some(difference));
        }
        let addresses = inside.addresses()?;
        let routes = inside.routes_through(pod.index)?;
        let neighbours = inside.neighbours(pod.index)?;
        for &address in &self.addresses {
            if !addresses
                .iter()
                .any(|a| a.index == pod.index && a.address.addr() == address)
            {
                return Ok(Some(Difference::NoAddress(address)));
            }
            let wanted = default_route(address, pod.index);
            if !routes
                .iter()
                .any(|r| r.destination == wanted.destination && r.gateway == wanted.gateway)
            {
                let destination = wanted.destination;
                return Ok(Some(Difference::NoRoute {
                    place: Place::Pod,
                    destination,
                }));
            }
            let entry = Neighbour {
                index: pod.index,
                address: gateway(address),
                mac: HOST_MAC,
            };
            if !neighbours.contains(&entry) {
                let address = entry.address;
                return Ok(Some(Difference::NoNeighbour {
                    place: Place::Pod,
                    address,
                }));
            }
        }
        Ok(None)
    }

    fn verify_mac(&self, link: &link::Link, expected: Mac) -> Option<Difference> {
        let ifname = link.name.clone();
        if !link.up {
            return Some(Difference::Down(ifname));
        }
        let found = link
            .mac
            .map_or_else(|| "none".to_owned(), |mac| mac.to_string());
        (link.mac != Some(expected)).then_some(Difference::WrongMac {
            ifname,
            found,
            expected,
        })
    }
}

/// The gateway of the family of `address`.
pub fn gateway(address: IpAddr) -> IpAddr {
    if address.is_ipv4() {
        GATEWAY_V4.into()
    } else {
        GATEWAY_V6.into()
    }
}

/// The prefix of all addresses of the family of `address`.
pub fn everything(address: IpAddr) -> IpNet {
    if address.is_ipv4() {
        IpNet::new_assert(Ipv4Addr::UNSPECIFIED.into(), 0)
    } else {
        IpNet::new_assert(Ipv6Addr::UNSPECIFIED.into(), 0)
    }
}

/// Inside the pod: an address, and the MAC of its family's gateway.
fn gateway_requests(address: IpAddr, index: u32) -> [Request; 2] {
    let gateway = Neighbour {
        index,
        address: gateway(address),
        mac: HOST_MAC,
    };
    [
        address::add(index, host_net(address)).unless_exists(),
        gateway.replace(),
    ]
}

pub(crate) fn default_route(address: IpAddr, index: u32) -> Route {
    Route::new(everything(address), index)
        .via(gateway(address))
        .onlink()
}

/// The prefix that contains this address only.
fn host_net(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_differ() {
        let (name, mac) = derive_names("3f4c", "eth0");
        assert_eq!(name.len(), 15, "IFNAMSIZ less its zero byte");
        assert!(is_host_end(&name), "{name}");
        assert_eq!(mac.0[0] & 3, 2, "{mac} is local and unicast");
        assert_eq!(derive_names("3f4c", "eth0"), (name.clone(), mac));
        assert_ne!(derive_names("3f4c", "eth1").0, name);
        assert_ne!(derive_names("3f4d", "eth0").0, name);
    }

    #[test]
    fn other_interfaces_are_not_taken_for_host_ends() {
        for name in [
            "rs",
            "rs0",
            "rsyslog0",
            "rsABCDEF0123456",
            "ripstop.vx",
            "rs0123456789abcd",
        ] {
            assert!(!is_host_end(name), "{name}");
        }
    }
}
