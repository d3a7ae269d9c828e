//! Which nodes a pod asks for by their labels.

use k8s_openapi::api::core::v1::{
    Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, PreferredSchedulingTerm,
};

use crate::controllers::selector;

/// `spec.nodeSelector` and the required node affinity, both of which must hold.
pub(crate) fn matches_node(pod: &Pod, node: &Node) -> bool {
    let Some(spec) = &pod.spec else { return true };
    let labels = node.metadata.labels.as_ref();
    if spec
        .node_selector
        .as_ref()
        .is_some_and(|wanted| !selector::contains(wanted, labels))
    {
        return false;
    }
    let required = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| {
            affinity
                .required_during_scheduling_ignored_during_execution
                .as_ref()
        });
    required.is_none_or(|required| {
        required
            .node_selector_terms
            .iter()
            .any(|term| holds(term, node))
    })
}

/// The sum of the weights of the preferences that the node satisfies.
pub(crate) fn preference(pod: &Pod, node: &Node) -> i32 {
    let preferred = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.affinity.as_ref())
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| {
            affinity
                .preferred_during_scheduling_ignored_during_execution
                .as_ref()
        });
    let satisfied = |term: &&PreferredSchedulingTerm| holds(&term.preference, node);
    preferred
        .into_iter()
        .flatten()
        .filter(satisfied)
        .map(|term| term.weight)
        .sum()
}

/// A term without requirements selects nothing.
fn holds(term: &NodeSelectorTerm, node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let label = |key: &str| {
        labels
            .and_then(|labels| labels.get(key))
            .map(String::as_str)
    };
    let field = |key: &str| match key {
        "metadata.name" => node.metadata.name.as_deref(),
        _ => None,
    };
    !(expressions.is_empty() && fields.is_empty())
        && expressions
            .iter()
            .all(|rule| satisfies(rule, label(&rule.key)))
        && fields.iter().all(|rule| satisfies(rule, field(&rule.key)))
}

fn satisfies(rule: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = rule.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|value| values.iter().any(|one| one == value));
    let numbers =
        || -> Option<(i64, i64)> { Some((value?.parse().ok()?, values.first()?.parse().ok()?)) };
    match rule.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(value, bound)| value > bound),
        "Lt" => numbers().is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selector_and_affinity() {
        let node: Node =
            serde_saphyr::from_str("{metadata: {name: n1, labels: {disk: ssd, cores: '8'}}}")
                .unwrap();
        let term = |term: &str| {
            format!(
                "{{affinity: {{nodeAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: \
                 {{nodeSelectorTerms: [{term}]}}}}}}, containers: []}}"
            )
        };
        for (spec, expected) in [
            ("{containers: []}".to_owned(), true),
            (
                "{nodeSelector: {disk: ssd}, containers: []}".to_owned(),
                true,
            ),
            (
                "{nodeSelector: {disk: hdd}, containers: []}".to_owned(),
                false,
            ),
            (term("{}"), false),
            (
                term("{matchExpressions: [{key: disk, operator: In, values: [ssd]}]}"),
                true,
            ),
            (
                term("{matchExpressions: [{key: cores, operator: Gt, values: ['4']}]}"),
                true,
            ),
            (
                term("{matchExpressions: [{key: cores, operator: Lt, values: ['4']}]}"),
                false,
            ),
            (
                term("{matchExpressions: [{key: gone, operator: DoesNotExist}]}"),
                true,
            ),
            (
                term("{matchFields: [{key: metadata.name, operator: In, values: [n1]}]}"),
                true,
            ),
            (
                term("{matchFields: [{key: metadata.name, operator: In, values: [n2]}]}"),
                false,
            ),
            (
                term(
                    "{matchExpressions: [{key: disk, operator: NotIn, values: [ssd]}]}, {matchExpressions: [{key: cores, operator: Exists}]}",
                ),
                true,
            ),
        ] {
            let pod: Pod = serde_saphyr::from_str(&format!("{{spec: {spec}}}")).unwrap();
            assert_eq!(matches_node(&pod, &node), expected, "{spec}");
        }
    }
}
