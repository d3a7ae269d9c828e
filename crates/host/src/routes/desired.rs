//! What the kernel shall have: a route per pod range, a peer per tunnelled node.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use ripstop_model::Mac;

use super::NextHop;
use super::tunnel::{Tunnels, link_local, vtep_mac};
use ripstop_netlink::neighbour::Neighbour;
use ripstop_netlink::route::Route;
use ripstop_netlink::{Error, Netlink};

/// The other end of a tunnel, as our device must know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    /// Tunnel device.
    pub(super) index: u32,
    pub(super) mac: Mac,
    /// Underlay address: where packets for the MAC are sent.
    pub(super) underlay: IpAddr,
    /// The address that routes name.
    pub(super) gateway: IpAddr,
}

impl Peer {
    pub(super) fn fdb(&self) -> Neighbour {
        Neighbour {
            index: self.index,
            address: self.underlay,
            mac: self.mac,
        }
    }

    pub(super) fn neighbour(&self) -> Neighbour {
        Neighbour {
            index: self.index,
            address: self.gateway,
            mac: self.mac,
        }
    }
}

/// Routes by pod range.
#[derive(Debug, Default)]
pub(super) struct Desired {
    routes: BTreeMap<IpNet, (Route, Option<Peer>)>,
}

impl Desired {
    /// Finds the way to node `via` and notes the route to its pods. `None` if
    /// there can be none: it would need a tunnel from an address of a family
    /// that this node has none of. Other nodes' routes are not held up by that.
    pub(super) fn resolve(
        &mut self,
        netlink: &mut Netlink,
        tunnels: &mut Tunnels,
        prefix: IpNet,
        via: IpAddr,
    ) -> Result<Option<NextHop>, Error> {
        let Some(Way { route, peer, mtu }) = way(netlink, tunnels, prefix, via)? else {
            tracing::warn!(%prefix, %via, "no way to a node: we have no address of its family");
            self.remove(prefix);
            return Ok(None);
        };
        let gateway = route.gateway.unwrap_or(via);
        self.routes.insert(prefix, (route, peer));
        let ifindex = route.index;
        Ok(Some(NextHop {
            ifindex,
            gateway,
            mtu,
        }))
    }

    pub(super) fn remove(&mut self, prefix: IpNet) {
        self.routes.remove(&prefix);
    }

    pub(super) fn contains(&self, prefix: IpNet) -> bool {
        self.routes.contains_key(&prefix)
    }

    pub(super) fn prefixes(&self) -> impl Iterator<Item = IpNet> {
        self.routes.keys().copied()
    }

    pub(super) fn routes(&self) -> impl Iterator<Item = &Route> {
        self.routes.values().map(|(route, _)| route)
    }

    pub(super) fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.routes.values().filter_map(|(_, peer)| peer.as_ref())
    }
}

struct Way {
    route: Route,
    peer: Option<Peer>,
    /// Largest IP packet that fits, bytes.
    mtu: u32,
}

fn way(
    netlink: &mut Netlink,
    tunnels: &mut Tunnels,
    prefix: IpNet,
    via: IpAddr,
) -> Result<Option<Way>, Error> {
    let direct = netlink.way_to(via)?;
    let link = match direct {
        Some(route) => netlink.link_by_index(route.index)?,
        None => None,
    };
    // While there is no way at all the tunnel is as good as anything: VXLAN asks
    // for the way again with each packet.
    let mtu = link.as_ref().map_or(1500, |link| link.mtu);
    // The kernel has no IPv6 routes with IPv4 gateways: those go by tunnel.
    let routable = prefix.addr().is_ipv4() || via.is_ipv6();
    if let Some(route) = direct
        && route.gateway.is_none()
        && routable
    {
        let route = Route::new(prefix, route.index).via(via).onlink();
        return Ok(Some(Way {
            route,
            peer: None,
            mtu,
        }));
    }
    let Some(tunnel) = tunnels.get(netlink, via, mtu)? else {
        return Ok(None);
    };
    let mac = vtep_mac(via);
    let gateway = if routable {
        via
    } else {
        link_local(mac).into()
    };
    let source = (tunnel.local.is_ipv4() == prefix.addr().is_ipv4()).then_some(tunnel.local);
    let route = Route::new(prefix, tunnel.index)
        .via(gateway)
        .onlink()
        .source(source);
    let peer = Peer {
        index: tunnel.index,
        mac,
        underlay: via,
        gateway,
    };
    Ok(Some(Way {
        route,
        peer: Some(peer),
        mtu: tunnel.mtu,
    }))
}
