//! Ways to other nodes' pods: kernel routes, and tunnels where they are needed.
//!
//! A node that is on a link of ours is the gateway of a plain route. Another one
//! is reached by VXLAN: its tunnel end's MAC is derived from its underlay
//! address, so that nodes need not tell each other. On the tunnel's link, that
//! node's gateway is its underlay address again, with a permanent neighbour
//! entry; routed and tunnelled look the same: interface, gateway, MTU.
//!
//! Every route here has [`PROTOCOL`] and a gateway; no other route is touched.

mod desired;
mod kernel;
mod tunnel;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use desired::Desired;
use kernel::Kernel;
pub use ripstop_netlink::route::PROTOCOL;
use ripstop_netlink::{Error, Netlink};
use tunnel::Tunnels;
pub use tunnel::is_tunnel;

/// How a packet leaves this node for another node's pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Uplink or tunnel.
    pub ifindex: u32,
    /// Neighbour on that interface.
    pub gateway: IpAddr,
    /// Largest IP packet that fits, bytes.
    pub mtu: u32,
}

/// A way that is new, changed, or (without next hop) gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResolvedRoute {
    pub prefix: IpNet,
    pub next_hop: Option<NextHop>,
}

/// What an audit found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Every route that there shall be, and those that are gone since the last call.
    pub routes: Vec<ResolvedRoute>,
    /// One line for each thing that was missing, different or too many.
    pub repaired: Vec<String>,
}

/// The routes to other nodes' pods.
#[derive(Debug)]
pub struct NodeRoutes {
    netlink: Netlink,
    desired: Desired,
    tunnels: Tunnels,
    /// What the kernel has, as we left it; `None` if that is in doubt.
    kernel: Option<Kernel>,
}

impl NodeRoutes {
    /// `node_addresses` are this node's own underlay addresses: tunnels start
    /// there. Nothing is changed before the first call of another method, so
    /// that what an earlier agent left goes on working.
    pub fn new(netlink: Netlink, node_addresses: Vec<IpAddr>) -> Self {
        Self {
            netlink,
            desired: Desired::default(),
            tunnels: Tunnels::new(node_addresses),
            kernel: None,
        }
    }

    /// Changes routes: pod range to underlay address of its node, or `None` to
    /// remove it. Returns what changed; a node that cannot be reached at all, for
    /// want of an address of its family, has no next hop there. Routes of an earlier agent that were
    /// never named here stay until [`NodeRoutes::audit`].
    ///
    /// # Errors
    /// What the kernel refused; the next call tries it again.
    pub fn apply(
        &mut self,
        changes: impl IntoIterator<Item = (IpNet, Option<IpAddr>)>,
    ) -> Result<Vec<ResolvedRoute>, Error> {
        let mut kernel = self.known_kernel()?;
        let mut changed = Vec::new();
        let mut removed = Vec::new();
        for (prefix, via) in changes {
            let prefix = prefix.trunc();
            let next_hop = match via {
                Some(via) => self.resolve(prefix, via)?,
                None => None,
            };
            if next_hop.is_none() {
                self.desired.remove(prefix);
                removed.push(prefix);
            }
            changed.push(ResolvedRoute { prefix, next_hop });
        }
        let obsolete = kernel.obsolete(&self.desired, |prefix| removed.contains(&prefix));
        kernel.converge(&mut self.netlink, &self.desired, &obsolete)?;
        self.tunnels.remove_unused(&mut self.netlink, &kernel)?;
        self.kernel = Some(kernel);
        Ok(changed)
    }

    /// Reads the kernel, finds each way again (links may have changed) and makes
    /// the routes those of `desired`, exactly.
    ///
    /// # Errors
    /// What the kernel refused; the next call tries it again.
    pub fn audit(&mut self, desired: &BTreeMap<IpNet, IpAddr>) -> Result<Audit, Error> {
        self.kernel = None;
        self.tunnels.forget();
        let before: Vec<IpNet> = self.desired.prefixes().collect();
        self.desired = Desired::default();
        let mut routes = Vec::new();
        for (&prefix, &via) in desired {
            let next_hop = self.resolve(prefix.trunc(), via)?;
            routes.push(ResolvedRoute {
                prefix: prefix.trunc(),
                next_hop,
            });
        }
        let mut kernel = self.known_kernel()?;
        let obsolete = kernel.obsolete(&self.desired, |_| true);
        let gone = obsolete.prefixes().chain(before);
        let gone: std::collections::BTreeSet<IpNet> = gone
            .filter(|&prefix| !self.desired.contains(prefix))
            .collect();
        routes.extend(gone.into_iter().map(|prefix| ResolvedRoute {
            prefix,
            next_hop: None,
        }));
        let repaired = kernel.converge(&mut self.netlink, &self.desired, &obsolete)?;
        self.tunnels.remove_unused(&mut self.netlink, &kernel)?;
        self.kernel = Some(kernel);
        Ok(Audit { routes, repaired })
    }

    /// Indices of the tunnel devices that exist: packets from other nodes' pods
    /// come in by them. Changes with the routes.
    pub fn tunnels(&self) -> Vec<u32> {
        self.tunnels.indices().collect()
    }

    fn resolve(&mut self, prefix: IpNet, via: IpAddr) -> Result<Option<NextHop>, Error> {
        self.desired
            .resolve(&mut self.netlink, &mut self.tunnels, prefix, via)
    }

    /// Takes the kernel's state out, so that an error leaves it in doubt.
    fn known_kernel(&mut self) -> Result<Kernel, Error> {
        match self.kernel.take() {
            Some(kernel) => Ok(kernel),
            None => {
                self.tunnels.find(&mut self.netlink)?;
                Kernel::read(&mut self.netlink, &self.tunnels)
            }
        }
    }
}
