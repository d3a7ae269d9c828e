//! One service with its slices: its rows.

use std::net::IpAddr;

use ripstop_model::{EndpointSlice, Service, ServicePort, SliceEndpoint};

use crate::{Backend, Frontend, FrontendRow};

/// Addresses and ports at which the service asks to be reached. Headless and
/// ExternalName services have no address, hence no row. `reserved` addresses
/// are answered by this node itself and get none either.
pub(crate) fn frontends(service: &Service, reserved: &[IpAddr]) -> Vec<Frontend> {
    let addresses = service
        .cluster_ips
        .iter()
        .filter(|ip| !reserved.contains(ip));
    let mut frontends: Vec<_> = addresses
        .flat_map(|&address| {
            service.ports.iter().map(move |port| Frontend {
                address,
                protocol: port.protocol,
                port: port.port,
            })
        })
        .collect();
    frontends.sort_unstable();
    frontends.dedup();
    frontends
}

/// Where one of the [`frontends`] leads. `None` if it is not the service's.
pub(crate) fn row<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a EndpointSlice>,
    frontend: Frontend,
) -> Option<FrontendRow> {
    // The API refuses two ports of one number and protocol; the first counts.
    let port = service
        .ports
        .iter()
        .find(|p| p.protocol == frontend.protocol && p.port == frontend.port)?;
    let mut ready = Vec::new();
    let mut draining = Vec::new();
    for (endpoint, target) in endpoints(slices, port) {
        if endpoint.address.is_ipv4() != frontend.address.is_ipv4() {
            continue;
        }
        let backend = Backend {
            address: endpoint.address,
            port: target,
        };
        if is_ready(service, endpoint) {
            ready.push(backend);
        } else if endpoint.state.serving && endpoint.state.terminating {
            draining.push(backend);
        }
    }
    // A rolling update may leave only pods that are about to end: better they
    // than nobody (KEP-1669).
    let mut backends = if ready.is_empty() { draining } else { ready };
    backends.sort_unstable();
    backends.dedup();
    Some(FrontendRow {
        backends,
        ..FrontendRow::new(service.key.clone())
    })
}

/// Whether an endpoint gets new connections and is named in DNS.
pub(crate) fn is_ready(service: &Service, endpoint: &SliceEndpoint) -> bool {
    endpoint.state.ready || service.publish_not_ready
}

/// Endpoints of one service port with their own port number. A slice's ports
/// are the service's target ports, already resolved for the slice's pods, under
/// the service ports' names.
fn endpoints<'a>(
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
