//! Which of the nodes that fit is best.

use k8s_openapi::api::core::v1::{Node, Pod};

use super::load::Load;
use super::{node_affinity, taints};
use crate::controllers::object::controller_of;

/// Lower is better, field by field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Score {
    unwelcome: usize,
    unpreferred: i32,
    /// Pods of the same owner on the node: replicas are apart if they can be.
    siblings: usize,
    pods: usize,
}

pub(crate) fn score(pod: &Pod, node: &Node, load: Option<&Load>) -> Score {
    let tolerations = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.tolerations.as_deref());
    let siblings = controller_of(&pod.metadata)
        .and_then(|owner| load?.by_owner.get(&owner.uid).copied())
        .unwrap_or_default();
    Score {
        unwelcome: taints::unwelcome(&taints::effective(node), tolerations.unwrap_or_default()),
        unpreferred: -node_affinity::preference(pod, node),
        siblings,
        pods: load.map_or(0, |load| load.pods.len()),
    }
}
