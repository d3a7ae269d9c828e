//! `status.phase!=Failed,spec.nodeName=node1`
//! (`k8s.io/apimachinery/pkg/fields`). Each kind allows a few fields only.

use serde_json::Value;

use crate::kinds::KindSpec;

/// All terms have to hold.
#[derive(Clone, Debug, Default)]
pub(super) struct FieldSelector(Vec<Term>);

#[derive(Clone, Debug)]
struct Term {
    /// JSON pointer.
    pointer: String,
    value: String,
    equal: bool,
}

/// Fields of a kind beside its name and namespace; a second name is the path
/// where it differs.
fn fields_of(group: &str, kind: &str) -> &'static [(&'static str, &'static str)] {
    match (group, kind) {
        ("", "Pod") => &[
            ("spec.nodeName", ""),
            ("spec.restartPolicy", ""),
            ("spec.schedulerName", ""),
            ("spec.serviceAccountName", ""),
            ("spec.hostNetwork", ""),
            ("status.phase", ""),
            ("status.podIP", ""),
            ("status.nominatedNodeName", ""),
        ],
        ("", "Event") => &[
            ("involvedObject.kind", ""),
            ("involvedObject.namespace", ""),
            ("involvedObject.name", ""),
            ("involvedObject.uid", ""),
            ("involvedObject.apiVersion", ""),
            ("involvedObject.resourceVersion", ""),
            ("involvedObject.fieldPath", ""),
            ("reason", ""),
            ("reportingComponent", ""),
            ("source", "source.component"),
            ("type", ""),
        ],
        ("", "Secret") => &[("type", "")],
        ("", "Namespace") => &[("status.phase", "")],
        ("", "Node") => &[("spec.unschedulable", "")],
        ("", "Service") => &[("spec.clusterIP", ""), ("spec.type", "")],
        ("apps", "ReplicaSet") => &[("status.replicas", "")],
        ("batch", "Job") => &[("status.successful", "status.succeeded")],
        _ => &[],
    }
}

impl FieldSelector {
    /// # Errors
    /// What cannot be parsed or is not supported, in words.
    pub(super) fn parse(spec: &KindSpec, text: &str) -> Result<Self, String> {
        split_terms(text)
            .into_iter()
            .map(|term| parse_term(spec, &term))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub(super) fn push_name(&mut self, name: &str) {
        let pointer = "/metadata/name".to_owned();
        self.0.push(Term {
            pointer,
            value: name.to_owned(),
            equal: true,
        });
    }

    pub(super) fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|term| {
            let equal = match object.pointer(&term.pointer) {
                Some(Value::String(text)) => *text == term.value,
                Some(Value::Null) | None => absent_equals(&term.value),
                // Numbers and booleans compare as they are written.
                Some(other) => {
                    let written = other.to_string();
                    written == term.value
                }
            };
            equal == term.equal
        })
    }
}

/// A field that is not set has its type's zero value.
fn absent_equals(value: &str) -> bool {
    matches!(value, "" | "false" | "0")
}

fn parse_term(spec: &KindSpec, term: &str) -> Result<Term, String> {
    let (field, value, equal) = if let Some((field, value)) = term.split_once("!=") {
        (field, value, false)
    } else if let Some((field, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        (field, value, true)
    } else {
        return Err(format!(
            "invalid selector: '{term}'; can't understand '{term}'"
        ));
    };
    let field = field.trim();
    let path = match field {
        "metadata.name" => field,
        "metadata.namespace" if spec.namespaced => field,
        _ => fields_of(&spec.group, &spec.kind)
            .iter()
            .find(|(name, _)| *name == field)
            .map(|(name, path)| if path.is_empty() { *name } else { *path })
            .ok_or_else(|| format!("field label not supported: {field}"))?,
    };
    let pointer = format!("/{}", path.replace('.', "/"));
    Ok(Term {
        pointer,
        value: value.trim().to_owned(),
        equal,
    })
}

/// Splits at commas; a backslash takes the next character as it is.
fn split_terms(text: &str) -> Vec<String> {
    let mut terms = vec![String::new()];
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            ',' => terms.push(String::new()),
            '\\' => terms
                .last_mut()
                .expect("never empty")
                .extend(characters.next()),
            other => terms.last_mut().expect("never empty").push(other),
        }
    }
    terms.retain(|term| !term.trim().is_empty());
    terms
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds;

    fn spec(kind: &str) -> &'static KindSpec {
        kinds::builtin()
            .iter()
            .find(|spec| spec.kind == kind)
            .unwrap()
    }

    #[test]
    fn matches_pods_by_node_and_phase() {
        let pod = json!({
            "metadata": {"name": "a", "namespace": "b"},
            "spec": {"nodeName": "n1"},
            "status": {"phase": "Running"},
        });
        let cases = [
            ("", true),
            ("metadata.name=a,metadata.namespace=b", true),
            (
                "spec.nodeName=n1,status.phase!=Succeeded,status.phase!=Failed",
                true,
            ),
            ("spec.nodeName==n2", false),
            ("spec.nodeName!=n1", false),
            ("spec.hostNetwork=false", true),
            ("status.podIP=", true),
        ];
        for (text, expected) in cases {
            let selector = FieldSelector::parse(spec("Pod"), text).unwrap();
            assert_eq!(selector.matches(&pod), expected, "{text}");
        }
    }

    #[test]
    fn refuses_other_fields() {
        let error = FieldSelector::parse(spec("Pod"), "spec.color=red").unwrap_err();
        assert_eq!(error, "field label not supported: spec.color");
        assert!(FieldSelector::parse(spec("Node"), "metadata.namespace=x").is_err());
        assert!(FieldSelector::parse(spec("Pod"), "nonsense").is_err());
    }
}
