//! Addresses and ports of one pod, as a Service sees them.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Node, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::controllers::object::{label, reference};
use crate::controllers::pod;

const ZONE: &str = "topology.kubernetes.io/zone";

/// `addressType` of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// In `addressType` and in a Service's `ipFamilies`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    pub(crate) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            Self::V4
        } else {
            Self::V6
        }
    }

    /// The families of a service, the first one first.
    pub(crate) fn of_service(service: &Service) -> Vec<Self> {
        let spec = service.spec.as_ref();
        let listed = spec
            .and_then(|spec| spec.ip_families.as_ref())
            .into_iter()
            .flatten();
        let listed: Vec<Self> = listed
            .filter_map(|name| {
                [Self::V4, Self::V6]
                    .into_iter()
                    .find(|one| one.name() == name)
            })
            .collect();
        if listed.is_empty() {
            vec![Self::V4]
        } else {
            listed
        }
    }
}

/// The pod's address of this family.
pub(crate) fn address(pod: &Pod, family: Family) -> Option<IpAddr> {
    let status = pod.status.as_ref()?;
    let all = status
        .pod_ips
        .iter()
        .flatten()
        .map(|ip| &ip.ip)
        .chain(&status.pod_ip);
    all.filter_map(|ip| ip.parse().ok())
        .find(|ip| Family::of(*ip) == family)
}

/// Pods that have ended, or have no address yet, are behind no service.
pub(crate) fn can_serve(pod: &Pod) -> bool {
    !pod::is_terminal(pod)
        && [Family::V4, Family::V6]
            .into_iter()
            .any(|family| address(pod, family).is_some())
}

/// The port of the pod that a service's port leads to; `None` if it is named
/// and no container has that name.
pub(crate) fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        // 0 is what an absent number looks like in some clients.
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let protocol = protocol(port.protocol.as_deref());
            let spec = pod.spec.as_ref()?;
            let sidecars = spec
                .init_containers
                .iter()
                .flatten()
                .filter(|container| container.restart_policy.as_deref() == Some("Always"));
            named_port(spec.containers.iter().chain(sidecars), name, protocol)
        }
    }
}

fn named_port<'a>(
    containers: impl Iterator<Item = &'a Container>,
    name: &str,
    wanted: &str,
) -> Option<i32> {
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .find(|port| {
            port.name.as_deref() == Some(name) && protocol(port.protocol.as_deref()) == wanted
        })
        .map(|port| port.container_port)
}

pub(crate) fn protocol(protocol: Option<&str>) -> &str {
    protocol.unwrap_or("TCP")
}

/// The pod's own name within the service's domain, if it asks for one there.
pub(crate) fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let here = spec.subdomain.is_some() && spec.subdomain == service.metadata.name;
    spec.hostname
        .clone()
        .filter(|name| here && !name.is_empty())
}

pub(crate) fn zone(node: &Node) -> Option<&str> {
    label(&node.metadata, ZONE)
}

pub(crate) fn target_ref(pod: &Pod) -> ObjectReference {
    ObjectReference {
        api_version: None,
        resource_version: None,
        ..reference(pod)
    }
}
