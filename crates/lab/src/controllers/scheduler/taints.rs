//! Taints, and what tolerates them.

use k8s_openapi::api::core::v1::{Node, Taint, Toleration};

pub(crate) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(crate) const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// The node's taints as they follow from its state now: the two that stand for
/// a condition come from the condition, so that nobody acts on one that is
/// still to be written or removed.
pub(crate) fn effective(node: &Node) -> Vec<Taint> {
    let spec = node.spec.as_ref();
    let own = spec
        .and_then(|spec| spec.taints.as_ref())
        .into_iter()
        .flatten();
    let mut taints: Vec<Taint> = own
        .filter(|taint| {
            !(is_no_schedule(taint) && [NOT_READY, UNSCHEDULABLE].contains(&&*taint.key))
        })
        .cloned()
        .collect();
    if !is_ready(node) {
        taints.push(no_schedule(NOT_READY));
    }
    if spec.is_some_and(|spec| spec.unschedulable == Some(true)) {
        taints.push(no_schedule(UNSCHEDULABLE));
    }
    taints
}

pub(crate) fn is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}

fn no_schedule(key: &str) -> Taint {
    Taint {
        key: key.to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    }
}

fn is_no_schedule(taint: &Taint) -> bool {
    taint.effect == "NoSchedule"
}

/// The first taint that keeps the pod away.
pub(crate) fn untolerated<'a>(
    taints: &'a [Taint],
    tolerations: &[Toleration],
) -> Option<&'a Taint> {
    taints
        .iter()
        .filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"))
        .find(|taint| {
            !tolerations
                .iter()
                .any(|toleration| tolerates(toleration, taint))
        })
}

/// How many taints would rather have the pod elsewhere.
pub(crate) fn unwelcome(taints: &[Taint], tolerations: &[Toleration]) -> usize {
    let soft = taints
        .iter()
        .filter(|taint| taint.effect == "PreferNoSchedule");
    soft.filter(|taint| !tolerations.iter().any(|one| tolerates(one, taint)))
        .count()
}

/// An empty key with `Exists` tolerates everything, an empty effect any effect.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let key = toleration.key.as_deref().unwrap_or_default();
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let value = toleration.value.as_deref().unwrap_or_default();
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => key.is_empty() || key == taint.key,
        "Equal" | "" => key == taint.key && value == taint.value.as_deref().unwrap_or_default(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerations_match_key_value_and_effect() {
        let taint: Taint =
            serde_saphyr::from_str("{key: gpu, value: a, effect: NoSchedule}").unwrap();
        for (yaml, expected) in [
            (
                "{key: gpu, operator: Equal, value: a, effect: NoSchedule}",
                true,
            ),
            ("{key: gpu, value: a}", true),
            ("{key: gpu, value: b}", false),
            ("{key: gpu, operator: Exists}", true),
            ("{key: gpu, operator: Exists, effect: NoExecute}", false),
            ("{operator: Exists}", true),
            ("{key: other, operator: Exists}", false),
        ] {
            let toleration = serde_saphyr::from_str(yaml).unwrap();
            assert_eq!(tolerates(&toleration, &taint), expected, "{yaml}");
        }
    }

    #[test]
    fn condition_taints_follow_the_condition_not_the_list() {
        let node: Node = serde_saphyr::from_str(
            "{spec: {taints: [{key: node.kubernetes.io/not-ready, effect: NoSchedule}]}, \
             status: {conditions: [{type: Ready, status: 'True'}]}}",
        )
        .unwrap();
        assert_eq!(effective(&node), []);
        let node: Node = serde_saphyr::from_str("{spec: {unschedulable: true}}").unwrap();
        let keys: Vec<String> = effective(&node)
            .into_iter()
            .map(|taint| taint.key)
            .collect();
        assert_eq!(keys, [NOT_READY, UNSCHEDULABLE]);
    }
}
