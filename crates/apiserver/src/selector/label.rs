//! `app=web,tier!=cache,zone in (a,b),!legacy`
//! (`k8s.io/apimachinery/pkg/labels`).

use serde_json::Value;

/// All requirements have to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LabelSelector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Operator {
    Exists,
    Missing,
    In(Vec<String>),
    /// Also true when the label is missing.
    NotIn(Vec<String>),
}

impl LabelSelector {
    /// # Errors
    /// What cannot be parsed, in words.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let unable = |why: String| format!("unable to parse requirement: {why}");
        let mut requirements = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let (part, after) = split_requirement(rest);
            requirements.push(requirement(part.trim()).map_err(unable)?);
            rest = after.trim_start();
        }
        Ok(Self(requirements))
    }

    pub(super) fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// `labels` is an object of strings, or nothing.
    pub(crate) fn matches(&self, labels: &Value) -> bool {
        self.0.iter().all(|requirement| {
            let value = labels.get(&requirement.key).and_then(Value::as_str);
            match &requirement.operator {
                Operator::Exists => value.is_some(),
                Operator::Missing => value.is_none(),
                Operator::In(values) => {
                    value.is_some_and(|value| values.iter().any(|it| it == value))
                }
                Operator::NotIn(values) => {
                    value.is_none_or(|value| values.iter().all(|it| it != value))
                }
            }
        })
    }
}

/// Splits at the first comma that is not inside parentheses.
fn split_requirement(text: &str) -> (&str, &str) {
    let mut inside = false;
    for (index, character) in text.char_indices() {
        match character {
            '(' => inside = true,
            ')' => inside = false,
            ',' if !inside => return (&text[..index], &text[index + 1..]),
            _ => {}
        }
    }
    (text, "")
}

fn requirement(text: &str) -> Result<Requirement, String> {
    let make = |key: &str, operator| {
        let key = key.trim();
        let valid = !key.is_empty()
            && key
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/'));
        if valid {
            Ok(Requirement {
                key: key.to_owned(),
                operator,
            })
        } else {
            Err(format!(
                "found '{text}', expected a label key, then =, !=, in, notin or nothing"
            ))
        }
    };
    if let Some(key) = text.strip_prefix('!') {
        return make(key, Operator::Missing);
    }
    if let Some((key, value)) = text.split_once("!=") {
        return make(key, Operator::NotIn(vec![value.trim().to_owned()]));
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return make(key, Operator::In(vec![value.trim().to_owned()]));
    }
    if let Some((left, values)) = text.split_once('(') {
        let values = values
            .strip_suffix(')')
            .ok_or_else(|| format!("found '{text}', expected: ')'"))?
            .split(',')
            .map(|value| value.trim().to_owned())
            .collect();
        let mut words = left.split_whitespace();
        let (Some(key), Some(word), None) = (words.next(), words.next(), words.next()) else {
            return Err(format!("found '{text}', expected: in, notin"));
        };
        return match word {
            "in" => make(key, Operator::In(values)),
            "notin" => make(key, Operator::NotIn(values)),
            _ => Err(format!("found '{word}', expected: in, notin")),
        };
    }
    make(text, Operator::Exists)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn matches_as_kubernetes_does() {
        let labels = json!({"app": "web", "tier": "front", "empty": ""});
        let cases = [
            ("", true),
            ("app=web", true),
            ("app==web,tier=front", true),
            ("app = web , tier = back", false),
            ("app!=web", false),
            ("missing!=x", true),
            ("app in (api, web)", true),
            ("app notin (api,web)", false),
            ("missing notin (a)", true),
            ("app", true),
            ("!app", false),
            ("!missing,app in (web),empty=", true),
        ];
        for (text, expected) in cases {
            let selector = LabelSelector::parse(text).unwrap();
            assert_eq!(selector.matches(&labels), expected, "{text}");
        }
        assert!(
            LabelSelector::parse("app=web")
                .unwrap()
                .matches(&json!({"app": "web"}))
        );
        assert!(!LabelSelector::parse("app").unwrap().matches(&Value::Null));
    }

    #[test]
    fn refuses_nonsense() {
        for text in ["app in (a", "in (a)", "a b", "app on (a)", "=x", "&"] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }
}
