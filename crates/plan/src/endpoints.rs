//! Which endpoints of a service port get traffic from where.
//!
//! The rules are those of kube-proxy's `CategorizeEndpoints`
//! (`pkg/proxy/topology.go`), so that who changes from it sees no difference.

use ripstop_model::{EndpointSlice, Service, ServicePort, SliceEndpoint};

use crate::{Backend, Backends};

/// This node, as endpoints and their hints speak of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Here<'a> {
    pub(crate) node: &'a str,
    pub(crate) zone: Option<&'a str>,
}

/// Endpoints of one port and family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Choice {
    /// For traffic policy Cluster, hints considered.
    pub(crate) cluster: Backends,
    /// For traffic policy Local.
    pub(crate) local: Backends,
}

/// Whether an endpoint gets new connections and is named in DNS.
pub(crate) fn is_ready(service: &Service, endpoint: &SliceEndpoint) -> bool {
    endpoint.state.ready || service.publish_not_ready
}

/// Endpoints of one service port. Where nobody is ready, those that end but
/// still serve: better they than nobody. Cluster and Local fall back each for
/// itself (KEP-1669).
pub(crate) fn choose<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a EndpointSlice>,
    port: &ServicePort,
    ipv4: bool,
    here: Here<'_>,
) -> Choice {
    let mut ready = Vec::new();
    let mut draining = Vec::new();
    for (endpoint, target) in of_port(slices, port) {
        if endpoint.address.is_ipv4() != ipv4 {
            continue;
        }
        if is_ready(service, endpoint) {
            ready.push((endpoint, target));
        } else if endpoint.state.serving && endpoint.state.terminating {
            draining.push((endpoint, target));
        }
    }
    let is_local = |(endpoint, _): &(&SliceEndpoint, u16)| is_local(endpoint, here);
    let cluster = match ready.is_empty() {
        true => backends(draining.iter()),
        false => {
            let hints = Hints::of(&ready, here);
            backends(ready.iter().filter(|(endpoint, _)| hints.allow(endpoint)))
        }
    };
    let mut local = backends(ready.iter().filter(|e| is_local(e)));
    if local.is_empty() {
        local = backends(draining.iter().filter(|e| is_local(e)));
    }
    Choice { cluster, local }
}

pub(crate) fn is_local(endpoint: &SliceEndpoint, here: Here<'_>) -> bool {
    endpoint.node.as_deref() == Some(here.node)
}

/// Whose hints count. All ready endpoints must have a hint and one of them must
/// be for here, else none count: a part of the endpoints would get all traffic
/// while hints are being written (KEP-2433, KEP-3015).
#[derive(Clone, Copy, Debug)]
enum Hints<'a> {
    Ignored,
    Node(&'a str),
    Zone(&'a str),
}

impl<'a> Hints<'a> {
    fn of(ready: &[(&SliceEndpoint, u16)], here: Here<'a>) -> Self {
        let all = |hints: fn(&SliceEndpoint) -> &[String], wanted: &str| {
            let has = |hint: &String| hint == wanted;
            ready.iter().all(|(e, _)| !hints(e).is_empty())
                && ready.iter().any(|(e, _)| hints(e).iter().any(has))
        };
        match here.zone {
            _ if all(|e| &e.node_hints, here.node) => Self::Node(here.node),
            Some(zone) if all(|e| &e.zone_hints, zone) => Self::Zone(zone),
            _ => Self::Ignored,
        }
    }

    fn allow(self, endpoint: &SliceEndpoint) -> bool {
        match self {
            Self::Ignored => true,
            Self::Node(node) => endpoint.node_hints.iter().any(|hint| hint == node),
            Self::Zone(zone) => endpoint.zone_hints.iter().any(|hint| hint == zone),
        }
    }
}

fn backends<'a>(endpoints: impl Iterator<Item = &'a (&'a SliceEndpoint, u16)>) -> Backends {
    let backend = |(endpoint, port): &(&SliceEndpoint, u16)| Backend {
        address: endpoint.address,
        port: *port,
    };
    endpoints.map(backend).collect()
}

/// Endpoints of one service port with their own port number. A slice's ports
/// are the service's target ports, already resolved for the slice's pods, under
/// the service ports' names.
fn of_port<'a>(
    slices: impl Iterator<Item = &'a EndpointSlice>,
    port: &ServicePort,
) -> impl Iterator<Item = (&'a SliceEndpoint, u16)> {
    slices
        .filter_map(move |slice| {
            let target = slice
                .ports
                .iter()
                .find(|p| p.name == port.name && p.protocol == port.protocol)?;
            Some((slice, target.port))
        })
        .flat_map(|(slice, target)| slice.endpoints.iter().map(move |e| (e, target)))
}
