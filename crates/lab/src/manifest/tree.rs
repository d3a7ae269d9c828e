//! YAML values that know on which line they stand.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::Spanned;

/// A value with its place in the file.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Line within the document, from 1.
    line: u64,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    Scalar(Value),
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
}

#[derive(Clone, Debug)]
struct Entry {
    key: String,
    /// Line of the key: a nested value begins on a later one.
    line: u64,
    value: Node,
}

impl Node {
    /// The value without places.
    pub(super) fn to_value(&self) -> Value {
        match &self.content {
            Content::Scalar(value) => value.clone(),
            Content::Sequence(items) => items.iter().map(Self::to_value).collect(),
            Content::Mapping(entries) => {
                let pairs = entries.iter().map(|e| (e.key.clone(), e.value.to_value()));
                Value::Object(pairs.collect::<Map<_, _>>())
            }
        }
    }

    /// An entry of a mapping; `None` for everything else.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The items of a sequence; `None` for everything else.
    pub(super) fn items(&self) -> Option<&[Node]> {
        match &self.content {
            Content::Sequence(items) => Some(items),
            _ => None,
        }
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar(value) => value.as_str(),
            _ => None,
        }
    }

    /// `{}` or nothing at all.
    pub(super) fn is_empty(&self) -> bool {
        match &self.content {
            Content::Scalar(value) => value.is_null(),
            Content::Sequence(_) => false,
            Content::Mapping(entries) => entries.is_empty(),
        }
    }

    /// What it is, as a message says it.
    pub(super) fn type_name(&self) -> &'static str {
        match &self.content {
            Content::Scalar(Value::Null) => "nothing",
            Content::Scalar(Value::Bool(_)) => "a boolean",
            Content::Scalar(Value::Number(_)) => "a number",
            Content::Scalar(_) => "a string",
            Content::Sequence(_) => "a list",
            Content::Mapping(_) => "a mapping",
        }
    }

    /// Line of the field that `path` names as the API does
    /// (`spec.ports[0].port`, `metadata.labels[app.kubernetes.io/name]`), or of
    /// the last part of the path that is there: a field that is missing is
    /// reported where it should be.
    pub(super) fn line_of(&self, path: &str) -> u64 {
        let mut line = self.line;
        let mut node = self;
        for step in steps(path) {
            let next = match &node.content {
                Content::Sequence(items) => {
                    let item = step.parse::<usize>().ok().and_then(|i| items.get(i));
                    item.map(|item| (item.line, item))
                }
                _ => node.entry(step).map(|entry| (entry.line, &entry.value)),
            };
            let Some((at, value)) = next else { break };
            (line, node) = (at, value);
        }
        line
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.content {
            Content::Mapping(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }
}

/// `a.b[0].c` as `a`, `b`, `0`, `c`. Brackets may hold dots.
fn steps(path: &str) -> impl Iterator<Item = &str> {
    let mut rest = path;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches('.');
        if rest.is_empty() {
            return None;
        }
        let (step, after) = match rest.strip_prefix('[') {
            Some(inner) => inner.split_once(']').unwrap_or((inner, "")),
            None => rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len())),
        };
        rest = after;
        Some(step)
    })
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Content>::deserialize(deserializer)?;
        Ok(Self {
            line: spanned.referenced.line(),
            content: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping, list, string, number, boolean or null")
    }
    fn visit_unit<E: de::Error>(self) -> Result<Content, E> {
        Ok(Content::Scalar(Value::Null))
    }
    fn visit_none<E: de::Error>(self) -> Result<Content, E> {
        Ok(Content::Scalar(Value::Null))
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        deserializer.deserialize_any(self)
    }
    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }
    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }
    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Content, E> {
        // JSON has no infinities; YAML's `.inf` has no meaning in an object.
        serde_json::Number::from_f64(value)
            .map(|number| Content::Scalar(Value::Number(number)))
            .ok_or_else(|| E::custom(format!("expected a finite number, found {value}")))
    }
    fn visit_str<E: de::Error>(self, value: &str) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }
    fn visit_string<E: de::Error>(self, value: String) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Content, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Content::Sequence(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Content, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = access.next_entry::<Spanned<String>, Node>()? {
            entries.push(Entry {
                line: key.referenced.line(),
                key: key.value,
                value,
            });
        }
        Ok(Content::Mapping(entries))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SERVICE: &str = "\
# a comment
kind: Service
metadata:
  labels:
    app.kubernetes.io/name: x
    n: \"1\"
spec:
  ports:
  - port: 80
    targetPort: http
  - {port: 81,
     targetPort: 8081}
  empty:
  flag: true
  text: |
    two
    lines
";

    #[test]
    fn values_are_kept() {
        let node: Node = serde_saphyr::from_str(SERVICE).unwrap();
        assert_eq!(
            node.to_value(),
            json!({
                "kind": "Service",
                "metadata": {"labels": {"app.kubernetes.io/name": "x", "n": "1"}},
                "spec": {
                    "ports": [
                        {"port": 80, "targetPort": "http"},
                        {"port": 81, "targetPort": 8081}
                    ],
                    "empty": null,
                    "flag": true,
                    "text": "two\nlines\n"
                }
            })
        );
    }

    #[test]
    fn fields_have_lines() {
        let node: Node = serde_saphyr::from_str(SERVICE).unwrap();
        for (path, line) in [
            ("kind", 2),
            ("metadata", 3),
            ("metadata.labels[app.kubernetes.io/name]", 5),
            ("metadata.labels.n", 6),
            ("spec.ports[0].port", 9),
            ("spec.ports[0].targetPort", 10),
            ("spec.ports[1].targetPort", 12),
            ("spec.ports[7].port", 8),
            ("spec.missing", 7),
            ("spec.empty", 13),
            ("", 2),
        ] {
            assert_eq!(node.line_of(path), line, "{path}");
        }
    }

    #[test]
    fn paths_split_into_steps() {
        let split = |path| steps(path).collect::<Vec<_>>();
        assert_eq!(split("a.b[0].c"), ["a", "b", "0", "c"]);
        assert_eq!(split("a[b.c/d]"), ["a", "b.c/d"]);
        assert_eq!(split(""), [""; 0]);
        assert_eq!(split("a[b"), ["a", "b"]);
    }
}
