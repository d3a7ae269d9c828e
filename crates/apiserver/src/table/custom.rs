//! Custom resources: the columns of their definition
//! (`additionalPrinterColumns`).

use serde_json::{Value, json};

use super::{Column, age, ago, name};
use crate::kinds::KindSpec;

/// Where the cells after the name come from.
#[derive(Debug)]
pub(super) struct Columns(Vec<(String, Path)>);

pub(super) fn columns(spec: &KindSpec) -> (Vec<Column>, Columns) {
    let column = |name: &str, kind: &str, format: &str, description: &str, priority| Column {
        name: name.to_owned(),
        kind: kind.to_owned(),
        format: format.to_owned(),
        description: description.to_owned(),
        priority,
    };
    let mut headers = vec![column("Name", "string", "name", "", 0)];
    let mut sources = Vec::new();
    for it in &spec.columns {
        headers.push(column(
            &it.name,
            &it.type_,
            &it.format,
            &it.description,
            it.priority,
        ));
        sources.push((it.type_.clone(), Path::parse(&it.json_path)));
    }
    if spec.columns.is_empty() {
        headers.push(column("Age", "date", "", "", 0));
        sources.push((
            "date".to_owned(),
            Path::parse(".metadata.creationTimestamp"),
        ));
    }
    (headers, Columns(sources))
}

impl Columns {
    pub(super) fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        let mut cells = vec![name(object)];
        for (kind, path) in &self.0 {
            let found = path.find(object);
            cells.push(match (kind.as_str(), found) {
                (_, None | Some(Value::Null)) => Value::Null,
                ("date", Some(time)) => {
                    if std::ptr::eq(time, &object["metadata"]["creationTimestamp"]) {
                        age(object, now)
                    } else {
                        json!(ago(time, now))
                    }
                }
                ("string", Some(Value::String(text))) => json!(text),
                ("string", Some(other)) => json!(other.to_string()),
                (_, Some(other)) => other.clone(),
            });
        }
        cells
    }
}

/// The part of JSONPath that definitions use: `.a.b`, `.a[0]`, `['a.b']`,
/// `.a[?(@.type=="Ready")].status`.
#[derive(Debug, PartialEq)]
struct Path(Vec<Step>);

#[derive(Debug, PartialEq)]
enum Step {
    Field(String),
    Index(usize),
    /// The first item of which a field equals a text.
    Where(Path, String),
}

impl Path {
    /// What is not understood finds nothing.
    fn parse(text: &str) -> Self {
        let mut steps = Vec::new();
        let mut rest = text.trim().trim_start_matches('{').trim_end_matches('}');
        rest = rest.strip_prefix('$').unwrap_or(rest);
        while !rest.is_empty() {
            let (step, after) = match rest.as_bytes()[0] {
                b'[' => bracket(&rest[1..]),
                b'.' => field(&rest[1..]),
                _ => field(rest),
            };
            steps.push(step);
            rest = after;
        }
        Self(steps)
    }

    fn find<'a>(&self, object: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(object, |value, step| match step {
            Step::Field(name) => value.get(name),
            Step::Index(index) => value.get(index),
            Step::Where(path, wanted) => value
                .as_array()?
                .iter()
                .find(|item| path.find(item).and_then(Value::as_str) == Some(wanted)),
        })
    }
}

/// A name up to the next dot or bracket; a backslash keeps a dot in it.
fn field(text: &str) -> (Step, &str) {
    let mut name = String::new();
    let mut escaped = false;
    for (index, character) in text.char_indices() {
        match character {
            '\\' if !escaped => {
                escaped = true;
                continue;
            }
            '.' | '[' if !escaped => return (Step::Field(name), &text[index..]),
            other => name.push(other),
        }
        escaped = false;
    }
    (Step::Field(name), "")
}

fn bracket(text: &str) -> (Step, &str) {
    let (inside, after) = text.split_once(']').unwrap_or((text, ""));
    let inside = inside.trim();
    if let Ok(index) = inside.parse() {
        return (Step::Index(index), after);
    }
    let unquoted = |text: &str| text.trim().trim_matches(['"', '\'']).to_owned();
    let condition = inside
        .strip_prefix("?(@")
        .and_then(|it| it.strip_suffix(')'));
    if let Some((path, wanted)) = condition.and_then(|it| it.split_once("==")) {
        return (Step::Where(Path::parse(path), unquoted(wanted)), after);
    }
    (Step::Field(unquoted(inside)), after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_find_what_definitions_mean() {
        let object = json!({
            "metadata": {"annotations": {"a.b/c": "x"}},
            "spec": {"replicas": 3, "list": ["p", "q"]},
            "status": {"conditions": [
                {"type": "Synced", "status": "False"},
                {"type": "Ready", "status": "True"},
            ]},
        });
        let cases = [
            (".spec.replicas", Some(json!(3))),
            ("$.spec.list[1]", Some(json!("q"))),
            (
                r#".status.conditions[?(@.type=="Ready")].status"#,
                Some(json!("True")),
            ),
            (r".metadata.annotations.a\.b/c", Some(json!("x"))),
            (".metadata.annotations['a.b/c']", Some(json!("x"))),
            (".spec.missing.deep", None),
            ("[", None),
        ];
        for (path, expected) in cases {
            assert_eq!(Path::parse(path).find(&object), expected.as_ref(), "{path}");
        }
    }
}
