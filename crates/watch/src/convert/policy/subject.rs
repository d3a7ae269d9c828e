//! Pods, namespaces and nodes as policies ask for them.

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use ripstop_model::{ContainerPort, Labels, Namespace, NodeIdentity, ObjectKind, ObjectRef, Pod};

use super::super::{Converted, Reader, key};
use crate::objects::{Container, PodObject};

fn labels(meta: &ObjectMeta) -> Labels {
    let labels = meta.labels.iter().flatten();
    labels
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect()
}

/// Annotation of the object that stands for a pod which a node has from a file.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Of such an object: what the runtime is told as the pod's uid.
const HASH: &str = "kubernetes.io/config.hash";

/// The uid that the node's container runtime knows.
fn uid(meta: &ObjectMeta) -> &str {
    let annotations = meta.annotations.as_ref();
    let of_file = annotations
        .filter(|all| all.contains_key(MIRROR))
        .and_then(|all| all.get(HASH));
    of_file.or(meta.uid.as_ref()).map_or("", String::as_str)
}

/// A pod of any node.
pub fn pod(object: &PodObject) -> Converted<Pod> {
    let key = key(&object.metadata);
    let mut read = Reader::new(ObjectRef::new(ObjectKind::Pod, key.clone()));
    let PodObject { spec, status, .. } = object;
    let listed = status.pod_ips.iter().flatten().map(|one| &one.ip);
    let mut addresses: Vec<IpAddr> = Vec::new();
    for (i, text) in listed.chain(&status.pod_ip).enumerate() {
        let address = read.address(|| format!("status.podIPs[{i}].ip"), text);
        addresses.extend(address.filter(|address| !addresses.contains(address)));
    }
    let mut ports = Vec::new();
    let lasting = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let containers = spec.containers.iter().flatten();
    let sidecars = spec.init_containers.iter().flatten().filter(lasting);
    let named = containers
        .chain(sidecars)
        .flat_map(|one| one.ports.iter().flatten());
    for port in named {
        let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) else {
            continue;
        };
        let at = |what| format!("port {name}: {what}");
        let protocol = read.protocol(|| at("protocol"), port.protocol.as_deref());
        let number = read.port(|| at("containerPort"), port.container_port);
        if let (Some(protocol), Some(port)) = (protocol, number) {
            let name = name.into();
            ports.push(ContainerPort {
                name,
                protocol,
                port,
            });
        }
    }
    read.give(Pod {
        key,
        uid: uid(&object.metadata).into(),
        labels: labels(&object.metadata),
        addresses: addresses.into(),
        node: spec.node_name.as_deref().map(Into::into),
        ports: ports.into(),
        host_network: spec.host_network.unwrap_or(false),
        ended: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
    })
}

/// A namespace.
pub fn namespace(object: &core::Namespace) -> Converted<Namespace> {
    let name = object.metadata.name.clone().unwrap_or_default();
    let read = Reader::new(ObjectRef::of_cluster(ObjectKind::Namespace, name.clone()));
    let labels = labels(&object.metadata);
    read.give(Namespace { name, labels })
}

/// A node as policies name it: its labels and all of its addresses. What of the
/// addresses makes no sense is said of the node itself.
pub fn node_identity(object: &core::Node) -> NodeIdentity {
    let status = object.status.as_ref();
    let addresses = status.and_then(|status| status.addresses.as_ref());
    let mut all: Vec<IpAddr> = addresses
        .into_iter()
        .flatten()
        .filter_map(|address| address.address.parse().ok())
        .collect();
    all.sort_unstable();
    all.dedup();
    NodeIdentity {
        name: object.metadata.name.clone().unwrap_or_default(),
        labels: labels(&object.metadata),
        addresses: all,
    }
}
