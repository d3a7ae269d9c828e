//! What the kernel has of ours, and how it becomes what it shall have.

use ipnet::IpNet;

use super::desired::Desired;
use super::tunnel::Tunnels;
use ripstop_netlink::neighbour::Neighbour;
use ripstop_netlink::route::{PROTOCOL, Route};
use ripstop_netlink::{Error, Netlink, Request};

/// Routes with our protocol number and a gateway, and the entries of our
/// tunnel devices.
#[derive(Debug, Default)]
pub(super) struct Kernel {
    routes: Vec<Route>,
    fdb: Vec<Neighbour>,
    neighbours: Vec<Neighbour>,
}

/// Routes that shall go.
#[derive(Debug)]
pub(super) struct Obsolete(Vec<Route>);

impl Obsolete {
    pub(super) fn prefixes(&self) -> impl Iterator<Item = IpNet> {
        self.0.iter().map(|route| route.destination)
    }
}

impl Kernel {
    pub(super) fn read(netlink: &mut Netlink, tunnels: &Tunnels) -> Result<Self, Error> {
        let mut routes = netlink.routes()?;
        routes.retain(|route| route.protocol == PROTOCOL && route.gateway.is_some());
        for route in &mut routes {
            // The kernel gives IPv6 routes a metric.
            route.metric = None;
        }
        let (mut fdb, mut neighbours) = (Vec::new(), Vec::new());
        for index in tunnels.indices() {
            fdb.extend(netlink.fdb(index)?);
            neighbours.extend(netlink.neighbours(index)?);
        }
        Ok(Self {
            routes,
            fdb,
            neighbours,
        })
    }

    /// Routes that are not desired, of those prefixes that `may_go` names.
    pub(super) fn obsolete(&self, desired: &Desired, may_go: impl Fn(IpNet) -> bool) -> Obsolete {
        let routes = self
            .routes
            .iter()
            .filter(|route| !desired.contains(route.destination) && may_go(route.destination));
        Obsolete(routes.copied().collect())
    }

    /// True if a route goes through this interface.
    pub(super) fn uses(&self, index: u32) -> bool {
        self.routes.iter().any(|route| route.index == index)
    }

    /// Makes the desired routes and removes the obsolete ones. What a route
    /// needs comes before it and goes after it. Returns what was done.
    pub(super) fn converge(
        &mut self,
        netlink: &mut Netlink,
        desired: &Desired,
        obsolete: &Obsolete,
    ) -> Result<Vec<String>, Error> {
        let mut steps = Steps::default();
        for peer in desired.peers() {
            let (fdb, neighbour) = (peer.fdb(), peer.neighbour());
            if !self.fdb.contains(&fdb) {
                steps.add(fdb.replace_fdb());
                self.fdb.push(fdb);
            }
            if !self.neighbours.contains(&neighbour) {
                steps.add(neighbour.replace());
                self.neighbours.push(neighbour);
            }
        }
        for route in desired.routes() {
            if !self.routes.contains(route) {
                // IPv6 routes to one prefix may stand beside each other: the
                // old one is not replaced but goes afterwards.
                steps.add(route.replace());
                let others = self
                    .routes
                    .extract_if(.., |r| r.destination == route.destination);
                let others: Vec<Route> = others.collect();
                steps.extend(
                    others
                        .iter()
                        .filter(|old| old.index != route.index)
                        .map(|old| old.delete().if_exists()),
                );
                self.routes.push(*route);
            }
        }
        for route in &obsolete.0 {
            steps.add(route.delete().if_exists());
        }
        self.routes.retain(|route| !obsolete.0.contains(route));
        self.drop_unused_peers(desired, &mut steps);
        netlink.execute(steps.requests)?;
        Ok(steps.done)
    }

    /// Peers of routes that are kept although they are not desired (yet) stay.
    fn drop_unused_peers(&mut self, desired: &Desired, steps: &mut Steps) {
        let Self {
            routes,
            fdb,
            neighbours,
        } = self;
        let kept = |entry: &Neighbour| {
            routes
                .iter()
                .any(|r| r.index == entry.index && r.gateway == Some(entry.address))
        };
        let unused = neighbours.extract_if(.., |entry| !kept(entry));
        for entry in unused.collect::<Vec<_>>() {
            steps.add(entry.delete().if_exists());
        }
        let unused = fdb.extract_if(.., |entry| {
            !desired.peers().any(|peer| peer.fdb() == *entry)
                && !neighbours
                    .iter()
                    .any(|n| n.index == entry.index && n.mac == entry.mac)
        });
        for entry in unused.collect::<Vec<_>>() {
            steps.add(entry.delete_fdb().if_exists());
        }
    }
}

/// Requests with a line about each.
#[derive(Default)]
struct Steps {
    requests: Vec<Request>,
    done: Vec<String>,
}

impl Steps {
    fn add(&mut self, request: Request) {
        self.done.push(request.operation().to_owned());
        self.requests.push(request);
    }

    fn extend(&mut self, requests: impl Iterator<Item = Request>) {
        requests.for_each(|request| self.add(request));
    }
}
