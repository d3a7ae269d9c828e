//! Node.

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;
use ripstop_model::{Node, ObjectKind, ObjectRef};

use super::{Converted, Reader, listed};

/// Label of a node's failure zone.
const ZONE: &str = "topology.kubernetes.io/zone";

/// A node as its peers see it.
pub fn node(object: &core::Node) -> Converted<Node> {
    let name = object.metadata.name.clone().unwrap_or_default();
    let mut read = Reader::new(ObjectRef::of_cluster(ObjectKind::Node, name.clone()));
    let mut addresses: Vec<IpAddr> = Vec::new();
    let reported = object.status.iter().flat_map(|s| s.addresses.iter());
    for (i, a) in reported.flatten().enumerate() {
        if a.type_ == "InternalIP"
            && let Some(address) =
                read.address(|| format!("status.addresses[{i}].address"), &a.address)
            && !addresses.iter().any(|a| a.is_ipv4() == address.is_ipv4())
        {
            addresses.push(address);
        }
    }
    let spec = object.spec.as_ref();
    let ranges = listed(
        spec.and_then(|spec| spec.pod_cidrs.as_ref()),
        spec.and_then(|spec| spec.pod_cidr.as_ref()),
    );
    let pod_cidrs = ranges
        .iter()
        .enumerate()
        .filter_map(|(i, text)| read.range(|| format!("spec.podCIDRs[{i}]"), text))
        .collect();
    let labels = object.metadata.labels.as_ref();
    read.give(Node {
        name,
        addresses,
        pod_cidrs,
        zone: labels
            .and_then(|labels| labels.get(ZONE).cloned())
            .filter(|zone| !zone.is_empty()),
    })
}
