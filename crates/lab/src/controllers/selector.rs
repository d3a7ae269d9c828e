//! Label selectors.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

type Labels = BTreeMap<String, String>;

/// Whether the labels satisfy every requirement. An empty selector selects
/// everything. (Objects whose selector may not be empty are rejected by the
/// API before they get here.)
pub(crate) fn matches(selector: &LabelSelector, labels: Option<&Labels>) -> bool {
    let exact = selector.match_labels.iter().flatten();
    exact
        .into_iter()
        .all(|(key, value)| value_of(labels, key) == Some(value))
        && selector
            .match_expressions
            .iter()
            .flatten()
            .all(|rule| satisfies(rule, labels))
}

/// Whether the labels contain all of the wanted ones, as a Service's selector
/// asks.
pub(crate) fn contains(wanted: &Labels, labels: Option<&Labels>) -> bool {
    wanted
        .iter()
        .all(|(key, value)| value_of(labels, key) == Some(value))
}

fn satisfies(rule: &LabelSelectorRequirement, labels: Option<&Labels>) -> bool {
    let value = value_of(labels, &rule.key);
    let listed = value.is_some_and(|value| rule.values.iter().flatten().any(|one| one == value));
    match rule.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

fn value_of<'a>(labels: Option<&'a Labels>, key: &str) -> Option<&'a String> {
    labels.and_then(|labels| labels.get(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(yaml: &str) -> LabelSelector {
        serde_saphyr::from_str(yaml).unwrap()
    }

    #[test]
    fn requirements_are_anded() {
        let labels = Labels::from([
            ("app".into(), "web".into()),
            ("tier".into(), "front".into()),
        ]);
        for (yaml, expected) in [
            ("{}", true),
            ("matchLabels: {app: web}", true),
            ("matchLabels: {app: web, tier: back}", false),
            (
                "matchExpressions: [{key: app, operator: In, values: [api, web]}]",
                true,
            ),
            (
                "matchExpressions: [{key: app, operator: NotIn, values: [web]}]",
                false,
            ),
            (
                "matchExpressions: [{key: gone, operator: NotIn, values: [web]}]",
                true,
            ),
            ("matchExpressions: [{key: gone, operator: Exists}]", false),
            (
                "matchExpressions: [{key: gone, operator: DoesNotExist}]",
                true,
            ),
            (
                "{matchLabels: {app: web}, matchExpressions: [{key: tier, operator: DoesNotExist}]}",
                false,
            ),
        ] {
            assert_eq!(matches(&selector(yaml), Some(&labels)), expected, "{yaml}");
        }
        assert!(matches(&selector("{}"), None));
    }
}
