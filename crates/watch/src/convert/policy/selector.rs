//! Label selectors.

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use ripstop_model::{LabelMatch, LabelSelector, Requirement};

use super::super::Reader;

/// `None` if it cannot be read.
pub(super) fn selector(
    read: &mut Reader,
    field: &str,
    selector: &meta::LabelSelector,
) -> Option<LabelSelector> {
    let labels = selector.match_labels.iter().flatten();
    let mut requirements: Vec<_> = labels
        .map(|(key, value)| Requirement {
            key: key.clone(),
            is: LabelMatch::In(vec![value.clone()]),
        })
        .collect();
    let expressions = selector.match_expressions.iter().flatten();
    for (i, expression) in expressions.enumerate() {
        let values = expression.values.clone().unwrap_or_default();
        let wanted = match expression.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => Err(format!(
                "operator {} needs at least one value",
                expression.operator
            )),
            "In" => Ok(LabelMatch::In(values)),
            "NotIn" => Ok(LabelMatch::NotIn(values)),
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                Err(format!("operator {} takes no values", expression.operator))
            }
            "Exists" => Ok(LabelMatch::Exists),
            "DoesNotExist" => Ok(LabelMatch::DoesNotExist),
            other => Err(format!(
                "operator {other:?} is none of In, NotIn, Exists, DoesNotExist"
            )),
        };
        let is = read.take(|| format!("{field}.matchExpressions[{i}]"), wanted)?;
        let key = expression.key.clone();
        requirements.push(Requirement { key, is });
    }
    Some(LabelSelector::new(requirements))
}
