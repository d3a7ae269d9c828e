//! Which nodes a daemon belongs on.

use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodTemplateSpec,
    Toleration,
};

use crate::controllers::scheduler::{matches_node, taints};

/// Taints that no daemon minds (`AddOrUpdateDaemonPodTolerations`).
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The node gets a pod if it has none.
    pub(crate) should_run: bool,
    /// A pod that is there may stay.
    pub(crate) may_stay: bool,
}

impl Wanted {
    pub(crate) const NO: Self = Self {
        should_run: false,
        may_stay: false,
    };
}

/// A pod of the template, for asking nodes.
pub(crate) fn sample(template: &PodTemplateSpec) -> Pod {
    let mut pod = Pod {
        spec: template.spec.clone(),
        ..Pod::default()
    };
    tolerate(&mut pod);
    pod
}

pub(crate) fn wanted(sample: &Pod, node: &Node) -> Wanted {
    let preset = sample
        .spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref());
    let other = preset.is_some_and(|name| Some(name) != node.metadata.name.as_deref());
    if other || !matches_node(sample, node) {
        return Wanted::NO;
    }
    let tolerations = sample
        .spec
        .as_ref()
        .and_then(|spec| spec.tolerations.as_deref());
    let tolerations = tolerations.unwrap_or_default();
    let taints = taints::effective(node);
    let evicting: Vec<_> = taints
        .iter()
        .filter(|taint| taint.effect == "NoExecute")
        .cloned()
        .collect();
    Wanted {
        should_run: taints::untolerated(&taints, tolerations).is_none(),
        may_stay: taints::untolerated(&evicting, tolerations).is_none(),
    }
}

fn tolerate(pod: &mut Pod) {
    let spec = pod.spec.get_or_insert_default();
    let network = ("node.kubernetes.io/network-unavailable", "NoSchedule");
    let host_network = (spec.host_network == Some(true)).then_some(network);
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in TOLERATED.into_iter().chain(host_network) {
        let toleration = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
}

/// Lets the scheduler give the pod this node and no other.
pub(crate) fn pin(pod: &mut Pod, node: &str) {
    tolerate(pod);
    let spec = pod.spec.get_or_insert_default();
    let rule = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let affinity = spec.affinity.get_or_insert_with(Affinity::default);
    let node_affinity = affinity.node_affinity.get_or_insert_default();
    let required = node_affinity
        .required_during_scheduling_ignored_during_execution
        .get_or_insert_with(NodeSelector::default);
    if required.node_selector_terms.is_empty() {
        required
            .node_selector_terms
            .push(NodeSelectorTerm::default());
    }
    // Terms are alternatives: each has to name the node. (Whether the node meets
    // their expressions was asked before.)
    for term in &mut required.node_selector_terms {
        term.match_fields = Some(vec![rule.clone()]);
    }
}

/// The node that the pod has, or is to get.
pub(crate) fn target(pod: &Pod) -> Option<&str> {
    let pinned = || {
        let affinity = pod
            .spec
            .as_ref()?
            .affinity
            .as_ref()?
            .node_affinity
            .as_ref()?;
        let required = affinity
            .required_during_scheduling_ignored_during_execution
            .as_ref()?;
        let field = required
            .node_selector_terms
            .first()?
            .match_fields
            .as_ref()?
            .first()?;
        field.values.as_ref()?.first().map(String::as_str)
    };
    crate::controllers::pod::node_name(pod).or_else(pinned)
}
