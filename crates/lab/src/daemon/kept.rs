//! What to do about objects that an earlier run of the lab left.

use k8s_openapi::api::core::v1::{Node, Pod};
use ripstop_apiserver::Client;

use crate::plan::LabPlan;

/// Removes nodes that this lab does not have, or has with other ranges of pod
/// addresses, and the pods on them: nobody would ever end those. Their owners
/// make new ones.
pub(super) fn forget_other_nodes(client: &Client, plan: &LabPlan) {
    let same = |node: &Node| {
        let cidrs = node
            .spec
            .as_ref()
            .and_then(|spec| spec.pod_cidrs.clone())
            .unwrap_or_default();
        plan.nodes.iter().any(|ours| {
            let ranges = ours.pod_cidrs.iter().map(ToString::to_string);
            node.metadata.name.as_ref() == Some(&ours.name) && ranges.eq(cidrs.iter().cloned())
        })
    };
    let nodes = client.list_shared::<Node>(None);
    let is_ours = |name: &str| {
        nodes
            .iter()
            .any(|node| node.metadata.name.as_deref() == Some(name) && same(node))
    };
    for node in &nodes {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        if !same(node)
            && let Err(status) = client.delete::<Node>(None, name, Some(0))
        {
            tracing::warn!(name, %status, "cannot forget node");
        }
    }
    for pod in client.list_shared::<Pod>(None) {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        if node.is_none_or(is_ours) {
            continue;
        }
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let namespace = pod.metadata.namespace.as_deref();
        if let Err(status) = client.delete::<Pod>(namespace, name, Some(0)) {
            tracing::warn!(name, %status, "cannot forget pod");
        }
    }
}
