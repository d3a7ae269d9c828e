//! From the text of a manifest to its objects.

use std::fmt;

use serde_json::Value;

use super::tree::Node;
use super::{ManifestError, Source};

/// An object of a manifest, with its place.
#[derive(Clone, Debug)]
pub struct Object {
    pub file: String,
    /// Lines before the document that the object is in.
    offset: u64,
    tree: Node,
    pub api_version: String,
    pub kind: String,
    pub namespace: Option<String>,
    pub name: String,
    pub value: Value,
}

impl Object {
    /// FILE:LINE of the object's first line.
    pub fn place(&self) -> String {
        format!("{}:{}", self.file, self.line_of(""))
    }

    /// `deployment.apps/web`, as kubectl prints it.
    pub fn label(&self) -> String {
        let kind = self.kind.to_lowercase();
        match self.api_version.split_once('/') {
            Some((group, _)) => format!("{kind}.{group}/{}", self.name),
            None => format!("{kind}/{}", self.name),
        }
    }

    /// Objects of a lower rank are made first.
    pub fn rank(&self) -> u8 {
        super::kinds::rank(&self.kind)
    }

    /// An error about this object's field `path`, as the API names it.
    pub fn error(&self, path: &str, message: impl fmt::Display) -> ManifestError {
        ManifestError::new(&self.file, Some(self.line_of(path)), message)
    }

    fn line_of(&self, path: &str) -> u64 {
        self.offset + self.tree.line_of(path)
    }
}

/// The objects of a YAML stream or JSON document, a `List` giving its items, and
/// what is wrong with the other documents: text that is no YAML, or no object.
pub(super) fn parse(source: &Source) -> Found {
    let mut found = Found::default();
    for (offset, text) in documents(&source.text) {
        let document = Document { source, offset };
        match serde_saphyr::from_str_with_options::<Node>(text, options()) {
            Ok(node) if node.is_empty() => {}
            Ok(node) => document.collect(&node, &mut found),
            Err(error) => found.errors.push(document.syntax_error(&error)),
        }
    }
    found
}

/// Without a picture of the text: the message has the place, and is one line.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! { with_snippet: false }
}

/// The documents of a stream, with the number of lines before each. A line that
/// begins with `---` ends a document wherever it stands (YAML 1.2, `c-forbidden`).
fn documents(text: &str) -> impl Iterator<Item = (u64, &str)> {
    let is_marker = |line: &str| {
        line.strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
    };
    let mut starts = vec![(0, 0)];
    let mut at = 0;
    for (number, line) in (0_u64..).zip(text.split_inclusive('\n')) {
        if is_marker(line) && at > 0 {
            starts.push((number, at));
        }
        at += line.len();
    }
    let ends: Vec<_> = starts.iter().skip(1).map(|(_, at)| *at).collect();
    starts
        .into_iter()
        .zip(ends.into_iter().chain([text.len()]))
        .map(|((lines, start), end)| (lines, &text[start..end]))
        .filter(|(_, document)| has_content(document))
}

/// Whether there is anything but comments and markers.
fn has_content(document: &str) -> bool {
    document
        .lines()
        .map(str::trim)
        .any(|line| !line.is_empty() && !line.starts_with('#') && line != "---" && line != "...")
}

/// What the documents of one file have.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) objects: Vec<Object>,
    pub(super) errors: Vec<ManifestError>,
}

/// Where a document is.
struct Document<'a> {
    source: &'a Source,
    /// Lines before it.
    offset: u64,
}

impl Document<'_> {
    fn collect(&self, node: &Node, found: &mut Found) {
        let kind = node.get("kind").and_then(Node::as_str).unwrap_or_default();
        if kind.ends_with("List")
            && let Some(items) = node.get("items").and_then(Node::items)
        {
            for item in items {
                self.collect(item, found);
            }
            return;
        }
        match self.object(node) {
            Ok(object) => found.objects.push(object),
            Err(error) => found.errors.push(error),
        }
    }

    fn object(&self, node: &Node) -> Result<Object, ManifestError> {
        let has_namespace = node
            .get("metadata")
            .is_some_and(|metadata| metadata.get("namespace").is_some());
        Ok(Object {
            file: self.source.name.clone(),
            offset: self.offset,
            tree: node.clone(),
            api_version: self.text(node, &["apiVersion"], "apps/v1")?,
            kind: self.text(node, &["kind"], "Deployment")?,
            name: self.text(node, &["metadata", "name"], "web")?,
            namespace: has_namespace
                .then(|| self.text(node, &["metadata", "namespace"], "default"))
                .transpose()?,
            value: node.to_value(),
        })
    }

    /// The string at `path`, which every object has.
    fn text(&self, node: &Node, path: &[&str], example: &str) -> Result<String, ManifestError> {
        let dotted = path.join(".");
        let value = path.iter().try_fold(node, |node, key| node.get(key));
        let found = match value {
            Some(value) => match value.as_str() {
                Some(text) if !text.is_empty() => return Ok(text.to_owned()),
                Some(_) => "an empty one",
                None => value.type_name(),
            },
            None if node.type_name() == "a mapping" => "none",
            None => node.type_name(),
        };
        let line = self.offset + node.line_of(&dotted);
        let message = if value.is_some() {
            format!("{dotted}: expected a string such as {example}, found {found}")
        } else if found == "none" {
            format!("expected an object with {dotted}, such as {example}; it has none")
        } else {
            format!("expected an object (apiVersion, kind, metadata, ...), found {found}")
        };
        Err(ManifestError::new(&self.source.name, Some(line), message))
    }

    fn syntax_error(&self, error: &serde_saphyr::Error) -> ManifestError {
        let location = error.location();
        let line = location.map(|location| self.offset + location.line());
        let text = error.without_snippet().to_string();
        // The library appends the place within the document, which is not the
        // place in the file.
        let text = text.split(" at line ").next().unwrap_or(&text);
        let text = text.lines().next().unwrap_or_default();
        let message = match location {
            Some(location) => format!("column {}: {text}", location.column()),
            None => text.to_owned(),
        };
        ManifestError::new(&self.source.name, line, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(text: &str) -> Result<Vec<Object>, Vec<ManifestError>> {
        let found = parse(&Source {
            name: "a.yaml".into(),
            text: text.into(),
        });
        if found.errors.is_empty() {
            Ok(found.objects)
        } else {
            Err(found.errors)
        }
    }

    #[test]
    fn documents_and_lists_give_objects_with_their_lines() {
        let text = "\
# head
---
apiVersion: v1
kind: Service
metadata: {name: one, namespace: shop}
---
# nothing here
---
kind: List
apiVersion: v1
items:
- apiVersion: apps/v1
  kind: Deployment
  metadata:
    name: two
- {apiVersion: v1, kind: Pod, metadata: {name: three}}
...
--- # marker with a comment
apiVersion: v1
kind: ConfigMap
metadata: {name: four}
data:
  text: |
    ----
    not --- a marker
";
        let objects = objects(text).unwrap();
        let seen: Vec<_> = objects.iter().map(|o| (o.label(), o.place())).collect();
        let expect = [
            ("service/one", "a.yaml:3"),
            ("deployment.apps/two", "a.yaml:12"),
            ("pod/three", "a.yaml:16"),
            ("configmap/four", "a.yaml:19"),
        ];
        assert_eq!(seen, expect.map(|(a, b)| (a.to_owned(), b.to_owned())));
        assert_eq!(objects[0].namespace.as_deref(), Some("shop"));
        assert_eq!(objects[3].value["data"]["text"], "----\nnot --- a marker\n");
    }

    #[test]
    fn json_is_yaml() {
        let text = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}"#;
        assert_eq!(objects(text).unwrap()[0].label(), "pod/p");
    }

    #[test]
    fn nothing_is_no_object() {
        for text in [
            "",
            "---\n",
            "# only\n---\n# comments\n",
            "{}\n",
            "---\n...\n",
        ] {
            assert_eq!(objects(text).unwrap().len(), 0, "{text:?}");
        }
    }

    #[test]
    fn mistakes_have_place_and_expectation() {
        for (text, message) in [
            (
                "kind: Pod\nmetadata: {name: a}\n",
                "a.yaml:1: expected an object with apiVersion, such as apps/v1; it has none",
            ),
            (
                "apiVersion: v1\nkind: Pod\nmetadata:\n  labels: {}\n",
                "a.yaml:3: expected an object with metadata.name, such as web; it has none",
            ),
            (
                "apiVersion: v1\nkind: Pod\nmetadata:\n  name: 7\n",
                "a.yaml:4: metadata.name: expected a string such as web, found a number",
            ),
            (
                "apiVersion: v1\nkind:\n",
                "a.yaml:2: kind: expected a string such as Deployment, found nothing",
            ),
            (
                "---\nhello\n",
                "a.yaml:2: expected an object (apiVersion, kind, metadata, ...), found a string",
            ),
        ] {
            let errors = objects(text).unwrap_err();
            assert_eq!(errors[0].to_string(), message);
        }
    }

    #[test]
    fn broken_yaml_has_line_and_column_of_the_file() {
        let text = "kind: A\n---\napiVersion: v1\nkind: [Pod\nmetadata: x\n";
        let errors = objects(text).unwrap_err();
        let message = errors.last().unwrap().to_string();
        let good =
            message.starts_with("a.yaml:5: column ") || message.starts_with("a.yaml:4: column ");
        assert!(good, "{message}");
        assert!(!message.contains('\n'), "{message}");

        let tab = objects("a: 1\nb:\n\t- c\n").unwrap_err();
        assert!(
            tab[0].to_string().starts_with("a.yaml:3: column "),
            "{}",
            tab[0]
        );

        let twice = objects("kind: A\nkind: B\n").unwrap_err();
        assert!(
            twice[0].to_string().starts_with("a.yaml:2: column 1: "),
            "{}",
            twice[0]
        );
    }
}
