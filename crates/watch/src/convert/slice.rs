//! EndpointSlice.

use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::jiff::Timestamp;
use ripstop_model::{
    EndpointSlice, EndpointState, ObjectKind, ObjectRef, Reason, SliceEndpoint, SlicePort,
};

use super::{Converted, Reader, has_own_proxy, key};

/// Label with the name of the slice's service.
const SERVICE: &str = "kubernetes.io/service-name";
/// Annotation of the endpoint slice controller.
const CHANGED: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// No model for slices that are of no service, or whose addresses are names.
pub fn slice(object: &discovery::EndpointSlice) -> Converted<EndpointSlice> {
    let labels = object.metadata.labels.as_ref();
    let service = labels.and_then(|labels| labels.get(SERVICE));
    let (Some(service), true) = (service, object.address_type != "FQDN") else {
        return Converted {
            model: None,
            problems: Vec::new(),
        };
    };
    let key = key(&object.metadata);
    let mut read = Reader::new(ObjectRef::new(ObjectKind::EndpointSlice, key.clone()));
    let ports = object.ports.iter().flatten().enumerate();
    let ports = ports.filter_map(|(i, p)| port(&mut read, i, p)).collect();
    let endpoints = object.endpoints.iter().flatten().enumerate();
    let endpoints = endpoints
        .filter_map(|(i, e)| endpoint(&mut read, &object.address_type, i, e))
        .collect();
    read.give(EndpointSlice {
        key,
        service: service.clone(),
        ports,
        endpoints,
        proxied: !has_own_proxy(&object.metadata),
    })
}

/// When the pods changed that the slice was written for. Slices that nobody's
/// controller writes do not say it.
/// <https://github.com/kubernetes/community/blob/master/sig-scalability/slos/network_programming_latency.md>
pub(crate) fn endpoints_changed(object: &discovery::EndpointSlice) -> Option<Timestamp> {
    let annotations = object.metadata.annotations.as_ref()?;
    annotations.get(CHANGED)?.parse().ok()
}

fn port(read: &mut Reader, i: usize, p: &discovery::EndpointPort) -> Option<SlicePort> {
    // No number means all ports, which no Service can ask for.
    let number = p.port?;
    let at = |field: &str| format!("ports[{i}].{field}");
    Some(SlicePort {
        name: p.name.clone().unwrap_or_default(),
        protocol: read.protocol(|| at("protocol"), p.protocol.as_deref())?,
        port: read.port(|| at("port"), number)?,
    })
}

fn endpoint(
    read: &mut Reader,
    family: &str,
    i: usize,
    e: &discovery::Endpoint,
) -> Option<SliceEndpoint> {
    let at = || format!("endpoints[{i}].addresses");
    // More than one is allowed and fungible; consumers take the first.
    let Some(text) = e.addresses.first() else {
        read.note(
            Reason::InvalidField,
            &at(),
            "at least one address is required",
        );
        return None;
    };
    let address = read.address(at, text)?;
    if family != if address.is_ipv4() { "IPv4" } else { "IPv6" } {
        let problem = format!("{address} is not of the slice's addressType {family}");
        read.note(Reason::WrongFamily, &at(), &problem);
        return None;
    }
    let hints = e.hints.as_ref();
    let zones = hints.and_then(|hints| hints.for_zones.as_ref());
    let nodes = hints.and_then(|hints| hints.for_nodes.as_ref());
    Some(SliceEndpoint {
        state: state(e.conditions.as_ref()),
        node: e.node_name.clone(),
        zone: e.zone.clone(),
        hostname: e.hostname.clone().filter(|name| !name.is_empty()),
        pod: e
            .target_ref
            .as_ref()
            .filter(|target| target.kind.as_deref() == Some("Pod"))
            .and_then(|target| target.name.clone()),
        zone_hints: zones.map_or_else(Vec::new, |all| {
            all.iter().map(|hint| hint.name.clone()).collect()
        }),
        node_hints: nodes.map_or_else(Vec::new, |all| {
            all.iter().map(|hint| hint.name.clone()).collect()
        }),
        ..SliceEndpoint::new(address)
    })
}

/// Unknown means ready and serving, and not terminating.
fn state(conditions: Option<&discovery::EndpointConditions>) -> EndpointState {
    EndpointState {
        ready: conditions.and_then(|c| c.ready).unwrap_or(true),
        serving: conditions.and_then(|c| c.serving).unwrap_or(true),
        terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
    }
}
