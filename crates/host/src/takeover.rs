//! A link between a pod and the node that another plugin has made, made ours while
//! the pod runs: a veth pair whose end on the node is a port of a bridge, or routed.
//!
//! The pair, the MAC of the pod's end and the pod's addresses stay, so connections
//! do. What changes is around them: the name and MAC of the node's end, its bridge,
//! the node's route, and inside the pod the gateway and the routes.
//!
//! Killed at any moment, it can be gone on with: [`Found::begin`] gives the node's
//! end our name before anything else, each of the other steps can be done again, and
//! the remark, which [`is_finished`](crate::pod::is_finished) looks at, comes last.

use std::net::IpAddr;

use ipnet::IpNet;
use ripstop_model::Mac;
use ripstop_netlink::link::Link;
use ripstop_netlink::netns::Netns;
use ripstop_netlink::route::Route;
use ripstop_netlink::traffic::Hook;
use ripstop_netlink::{Error, Netlink, Request, address, link};

use crate::pod::{Difference, Ends, HOST_MAC, PodLink, default_route, prepare_for_programs};

/// Why a link cannot be taken over as it is; nothing has been changed.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    #[error("the pod has no interface {0}")]
    NoInterface(String),
    #[error("the pod's interface {ifname} is no end of a veth pair but {kind}")]
    NoVeth { ifname: String, kind: String },
    #[error("the pod's interface {0} is down")]
    Down(String),
    #[error("the other end of the pod's interface {0} is not in the node's namespace")]
    Elsewhere(String),
    #[error("the pod has another interface that is up, {0}")]
    AnotherInterface(String),
    #[error("the pod's interface has no address {0}")]
    NoAddress(IpAddr),
    #[error("the pod's interface has another address, {0}")]
    AnotherAddress(IpNet),
    #[error("interface {0} has programs of somebody else")]
    Programs(String),
    #[error("interface {0} has a remark of somebody else")]
    Remark(String),
    #[error("interface {0} is a port of something that is no bridge")]
    NoBridge(String),
    #[error(transparent)]
    Kernel(#[from] Error),
}

/// Why a link was not taken over; what had been changed has been put back.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Kernel(#[from] Error),
    #[error("{0}")]
    Differs(Difference),
}

/// A pod's link as its plugin made it.
#[derive(Clone, Debug)]
pub struct Found {
    host: Link,
    pod: Link,
    /// Of the pod's end, but for the link-local ones.
    addresses: Vec<IpNet>,
    /// By the pod's end, as they were.
    routes: Vec<Route>,
}

impl Found {
    /// Looks at the link that is `ifname` in the pod.
    ///
    /// # Errors
    /// If there is no veth pair between the pod and the node.
    pub fn look(node: &mut Netlink, inside: &mut Netlink, ifname: &str) -> Result<Self, Unfit> {
        let named = || ifname.to_owned();
        let pod = inside
            .link(ifname)?
            .ok_or_else(|| Unfit::NoInterface(named()))?;
        if pod.kind != "veth" {
            return Err(Unfit::NoVeth {
                ifname: named(),
                kind: pod.kind,
            });
        }
        let host = match pod.peer {
            Some(index) => node.link_by_index(index)?,
            None => None,
        };
        let host = host.filter(|host| host.kind == "veth" && host.peer == Some(pod.index));
        let host = host.ok_or_else(|| Unfit::Elsewhere(named()))?;
        let addresses = inside.addresses()?.into_iter();
        let of_pod = addresses.filter(|one| one.index == pod.index && one.global);
        Ok(Self {
            addresses: of_pod.map(|one| one.address).collect(),
            routes: inside.routes_through(pod.index)?,
            host,
            pod,
        })
    }

    /// Whether all is as a plugin leaves it, and nobody else has to do with it.
    ///
    /// # Errors
    /// What is in the way.
    pub fn check(
        &self,
        node: &mut Netlink,
        inside: &mut Netlink,
        addresses: &[IpAddr],
    ) -> Result<(), Unfit> {
        let Self { host, pod, .. } = self;
        if !pod.up {
            return Err(Unfit::Down(pod.name.clone()));
        }
        let stranger = |link: &&Link| link.up && !link.loopback && link.index != pod.index;
        if let Some(other) = inside.links()?.iter().find(stranger) {
            return Err(Unfit::AnotherInterface(other.name.clone()));
        }
        let has = |address: &&IpAddr| self.addresses.iter().any(|net| net.addr() == **address);
        if let Some(address) = addresses.iter().find(|address| !has(address)) {
            return Err(Unfit::NoAddress(*address));
        }
        let more = |net: &&IpNet| !addresses.contains(&net.addr());
        if let Some(net) = self.addresses.iter().find(more) {
            return Err(Unfit::AnotherAddress(*net));
        }
        for hook in [Hook::Ingress, Hook::Egress] {
            if node.has_filters(host.index, hook)? {
                return Err(Unfit::Programs(host.name.clone()));
            }
        }
        if !host.alias.is_empty() {
            return Err(Unfit::Remark(host.name.clone()));
        }
        if let Some(master) = host.master {
            let bridge = node.link_by_index(master)?;
            if bridge.is_none_or(|bridge| bridge.kind != "bridge") {
                return Err(Unfit::NoBridge(host.name.clone()));
            }
        }
        Ok(())
    }

    /// The node's end.
    pub fn host(&self) -> &Link {
        &self.host
    }

    /// Of the pod's end.
    pub fn mac(&self) -> Option<Mac> {
        self.pod.mac
    }

    /// Of the pod's end, bytes.
    pub fn mtu(&self) -> u32 {
        self.pod.mtu
    }

    /// Gives the node's end the name of `link`: from now on it is known as ours.
    /// Everything else works as before.
    ///
    /// # Errors
    /// What the kernel refused; it has its old name then.
    pub fn begin(&self, link: &PodLink, node: &mut Netlink) -> Result<(), Error> {
        rename(node, self.host.index, &link.host_ifname)?;
        prepare_for_programs(node, self.host.index);
        Ok(())
    }

    /// Gives the node's end the name back that it was found with.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn unname(&self, node: &mut Netlink) -> Result<(), Error> {
        rename(node, self.host.index, &self.host.name)
    }

    /// Makes the link what `link` says. Its MAC and MTU must be those of the pod's
    /// end, its addresses those that the pod has.
    ///
    /// # Errors
    /// What the kernel refused, or did not do. Then all but the name of the node's end
    /// is as it was found.
    pub fn finish(&self, link: &PodLink, node: &mut Netlink, netns: &Netns) -> Result<(), Failure> {
        let mut inside = Netlink::in_netns(netns)?;
        let done = self.try_finish(link, node, &mut inside, netns);
        done.inspect_err(|_| self.put_back(link, node, &mut inside))
    }

    fn try_finish(
        &self,
        link: &PodLink,
        node: &mut Netlink,
        inside: &mut Netlink,
        netns: &Netns,
    ) -> Result<(), Failure> {
        let ends = Ends {
            host: self.host.index,
            pod: self.pod.index,
        };
        // What may fail comes first, and does no harm beside what is there.
        inside.execute(link.gateway_requests(ends.pod))?;
        let mut requests = vec![
            // First: some bridges have the MAC of one of their ports.
            link::no_master(ends.host),
            link::set_mac(ends.host, HOST_MAC),
            link::up(ends.host),
        ];
        requests.extend(link.node_requests(ends.host));
        node.execute(requests)?;
        inside.execute(self.replace_routes(link))?;
        // The remark says that it is done: not before it is.
        if let Some(difference) = link.verify(node, netns)? {
            return Err(Failure::Differs(difference));
        }
        node.execute(link.last_requests(ends.host))?;
        Ok(())
    }

    /// Inside the pod: everything by our gateway, and no other way.
    fn replace_routes(&self, link: &PodLink) -> Vec<Request> {
        let index = self.pod.index;
        let ours = link.addresses.iter();
        let mut requests: Vec<Request> = ours
            .map(|&address| default_route(address, index).replace())
            .collect();
        for &net in self.addresses.iter().filter(|net| !is_host_net(net)) {
            requests.push(match net {
                IpNet::V4(_) => address::delete(index, net).if_exists(),
                // It cannot have an address twice, and is not to be without.
                IpNet::V6(_) => address::set_prefix_route(index, net, false),
            });
        }
        let gone = self.routes.iter().filter(|route| {
            let is_default = |address| replaces(&default_route(address, index), route);
            !is_link_local(&route.destination) && !link.addresses.iter().copied().any(is_default)
        });
        requests.extend(gone.map(|route| route.delete().if_exists()));
        requests
    }

    /// As far as that is possible; what fails is in the log.
    fn put_back(&self, link: &PodLink, node: &mut Netlink, inside: &mut Netlink) {
        let Self { host, pod, .. } = self;
        let mut outside: Vec<Request> = link.forget_requests(host.index);
        outside.extend(host.mac.map(|mac| link::set_mac(host.index, mac)));
        outside.extend(
            host.master
                .map(|bridge| link::set_master(host.index, bridge)),
        );
        let had = self.addresses.iter();
        let mut within: Vec<Request> = had
            .map(|&net| match net {
                IpNet::V4(_) => address::add(pod.index, net).unless_exists(),
                IpNet::V6(_) => address::set_prefix_route(pod.index, net, true),
            })
            .collect();
        let given = link.addresses.iter().copied().map(IpNet::from);
        let new = given.filter(|net| !self.addresses.contains(net));
        within.extend(new.map(|net| address::delete(pod.index, net).if_exists()));
        within.extend(self.routes.iter().map(Route::replace));
        let routed = host.master.is_none();
        let results = [
            node.execute(outside),
            // The route that its plugin had made goes with ours.
            match routed {
                true => node.execute(link.route_requests(host.index)),
                false => Ok(()),
            },
            inside.execute(within),
        ];
        for error in results.into_iter().filter_map(Result::err) {
            tracing::warn!(pod = link.remark, %error, "putting its link back");
        }
    }
}

/// At once where the kernel can; else the interface is down for a moment, in which
/// nobody can be killed: it is one message.
fn rename(node: &mut Netlink, index: u32, name: &str) -> Result<(), Error> {
    match node.execute([link::rename(index, name)]) {
        Err(error) if error.errno() == Some(libc::EBUSY) => node.execute([
            link::down(index),
            link::rename(index, name),
            link::up(index),
        ]),
        result => result,
    }
}

fn is_host_net(net: &IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

fn is_link_local(net: &IpNet) -> bool {
    match net {
        IpNet::V4(_) => false,
        IpNet::V6(net) => net.addr().is_unicast_link_local(),
    }
}

/// Whether setting `new` takes the place of `old`.
fn replaces(new: &Route, old: &Route) -> bool {
    // The kernel's metric of an IPv6 route for which none was given.
    const DEFAULT_V6: u32 = 1024;
    let metric = |route: &Route| match (route.metric, route.destination) {
        (None, IpNet::V6(_)) => DEFAULT_V6,
        (metric, _) => metric.unwrap_or(0),
    };
    new.destination == old.destination && metric(new) == metric(old)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_route_of_another_metric_is_another() {
        let route = |net: &str, metric| Route {
            metric,
            ..Route::new(net.parse().unwrap(), 2)
        };
        let cases = [
            ("0.0.0.0/0", None, true),
            ("0.0.0.0/0", Some(0), true),
            ("0.0.0.0/0", Some(100), false),
            ("10.0.0.0/8", None, false),
        ];
        for (net, metric, expected) in cases {
            let new = route("0.0.0.0/0", None);
            assert_eq!(replaces(&new, &route(net, metric)), expected, "{net}");
        }
        for (metric, expected) in [(None, true), (Some(1024), true), (Some(1), false)] {
            let new = route("::/0", None);
            assert_eq!(replaces(&new, &route("::/0", metric)), expected);
        }
    }
}
