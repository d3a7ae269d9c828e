//! Whether a pod can run on a node.

use k8s_openapi::api::core::v1::{Node, Pod, Taint};

use super::load::{Load, host_ports};
use super::{node_affinity, taints};

/// Why a node does not do; texts are kube-scheduler's.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum Misfit {
    #[error("node(s) were unschedulable")]
    Unschedulable,
    #[error("node(s) had untolerated taint {{{}: {}}}", .0.key, .0.value.as_deref().unwrap_or_default())]
    Taint(Taint),
    #[error("node(s) didn't match Pod's node affinity/selector")]
    NodeAffinity,
    #[error("node(s) didn't have free ports for the requested pod ports")]
    HostPorts,
    #[error("Too many pods")]
    TooManyPods,
    #[error("node(s) didn't match pod affinity rules")]
    PodAffinity,
    #[error("node(s) didn't match pod anti-affinity rules")]
    PodAntiAffinity,
    #[error("node(s) didn't satisfy existing pods anti-affinity rules")]
    ExistingAntiAffinity,
}

/// In kube-scheduler's order, so that the first reason is the same.
pub(crate) fn fits(pod: &Pod, node: &Node, load: Option<&Load>) -> Result<(), Misfit> {
    let tolerations = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.tolerations.as_deref());
    let taints = taints::effective(node);
    if let Some(taint) = taints::untolerated(&taints, tolerations.unwrap_or_default()) {
        return Err(match taint.key.as_str() {
            taints::UNSCHEDULABLE => Misfit::Unschedulable,
            _ => Misfit::Taint(taint.clone()),
        });
    }
    if !node_affinity::matches_node(pod, node) {
        return Err(Misfit::NodeAffinity);
    }
    let Some(load) = load else { return Ok(()) };
    let taken = |port| {
        load.host_ports
            .iter()
            .any(|(_, held)| held.conflicts(&port))
    };
    if host_ports(pod).any(taken) {
        return Err(Misfit::HostPorts);
    }
    if capacity(node).is_some_and(|most| load.pods.len() >= most) {
        return Err(Misfit::TooManyPods);
    }
    Ok(())
}

/// `status.allocatable.pods`, if the node says.
fn capacity(node: &Node) -> Option<usize> {
    node.status
        .as_ref()?
        .allocatable
        .as_ref()?
        .get("pods")?
        .0
        .parse()
        .ok()
}
