//! Checks a set of manifests as the API will, before anything is made.

use std::collections::HashMap;

use ripstop_apiserver::Status;
use ripstop_apiserver::kinds::{Context, FieldValidation, builtin, prepare_create};

use super::kinds::{Kinds, Resource, WORKLOADS};
use super::{ManifestError, Object, Source, object};

/// The objects of a set of manifests, in the order in which they are to be made.
#[derive(Clone, Debug)]
pub struct Manifests {
    pub objects: Vec<Object>,
    pub kinds: Kinds,
}

impl Manifests {
    /// What pods need, and the objects that make pods.
    pub fn split(&self) -> (&[Object], &[Object]) {
        let workloads = self
            .objects
            .partition_point(|object| object.rank() < WORKLOADS);
        self.objects.split_at(workloads)
    }
}

/// Reads all objects of `sources` and checks them: syntax, kinds, fields and
/// values, the same object twice. `more` are kinds that the API has beside the
/// built-in ones.
///
/// # Errors
/// Everything that is wrong, by file and line.
pub fn check(sources: &[Source], more: Vec<Resource>) -> Result<Manifests, Vec<ManifestError>> {
    let mut errors = Vec::new();
    let manifests = read(sources, more, &mut errors);
    errors.extend(manifests.objects.iter().flat_map(invalid));
    errors.extend(repeated(&manifests.objects));
    finish(manifests, errors)
}

/// As [`check`], but only which objects there are: enough to delete them.
///
/// # Errors
/// Syntax and unknown kinds.
pub fn identify(sources: &[Source], more: Vec<Resource>) -> Result<Manifests, Vec<ManifestError>> {
    let mut errors = Vec::new();
    let manifests = read(sources, more, &mut errors);
    finish(manifests, errors)
}

fn read(sources: &[Source], more: Vec<Resource>, errors: &mut Vec<ManifestError>) -> Manifests {
    let mut objects = Vec::new();
    for source in sources {
        let found = object::parse(source);
        objects.extend(found.objects);
        errors.extend(found.errors);
    }
    let kinds = Kinds::new(&objects, more);
    errors.extend(
        objects
            .iter()
            .filter_map(|object| kinds.resource(object).err()),
    );
    objects.sort_by_key(Object::rank);
    Manifests { objects, kinds }
}

fn finish(
    manifests: Manifests,
    errors: Vec<ManifestError>,
) -> Result<Manifests, Vec<ManifestError>> {
    if errors.is_empty() {
        Ok(manifests)
    } else {
        Err(errors)
    }
}

/// What the API would refuse about one object of a built-in kind.
fn invalid(object: &Object) -> Vec<ManifestError> {
    let Some(kind) = builtin()
        .iter()
        .find(|kind| kind.kind == object.kind && kind.api_version() == object.api_version)
    else {
        return Vec::new();
    };
    let mut value = object.value.clone();
    if kind.namespaced && object.namespace.is_none() {
        value["metadata"]["namespace"] = "default".into();
    }
    let mut context = Context {
        field_validation: FieldValidation::Strict,
        ..Context::default()
    };
    match prepare_create(kind, &mut value, &mut context) {
        Ok(()) => Vec::new(),
        Err(status) => explain(object, &status),
    }
}

/// A refusal of the API as errors with places: one for each cause.
pub fn explain(object: &Object, status: &Status) -> Vec<ManifestError> {
    let causes = status.causes().iter();
    let mut errors: Vec<_> = causes
        .map(|cause| {
            (
                cause.field.clone(),
                format!("{}: {}", cause.field, cause.message),
            )
        })
        .collect();
    if errors.is_empty() {
        errors = decoding(&status.message);
    }
    if errors.is_empty() {
        errors.push((String::new(), status.message.clone()));
    }
    errors
        .into_iter()
        .map(|(field, message)| object.error(&field, format!("{}: {message}", object.label())))
        .collect()
}

/// Fields and what is wrong with them, from the two messages of Kubernetes'
/// decoder that name a field only in their text.
fn decoding(message: &str) -> Vec<(String, String)> {
    if let Some((_, list)) = message.split_once("strict decoding error: ") {
        let unknown = list.split(", ").filter_map(|one| {
            let field = one.strip_prefix("unknown field \"")?.strip_suffix('"')?;
            Some((field.to_owned(), format!("{field}: there is no such field")))
        });
        return unknown.collect();
    }
    let wrong_type = || {
        let (_, rest) = message.split_once("json: cannot unmarshal ")?;
        let (found, rest) = rest.split_once(" into Go struct field ")?;
        let (field, wanted) = rest.split_once(" of type ")?;
        // The Go type that has the field comes first.
        let (_, field) = field.split_once('.')?;
        let text = format!("{field}: expected {}, found {found}", plain(wanted));
        Some((field.to_owned(), text))
    };
    wrong_type().into_iter().collect()
}

/// A Go type as people say it.
fn plain(go: &str) -> &str {
    match go {
        "string" => "a string",
        "bool" => "true or false",
        _ if go.starts_with("int") => "a whole number",
        _ if go.starts_with("[]") => "a list",
        _ if go.starts_with("map[") => "a mapping",
        _ if go.starts_with("v1.") => "a mapping",
        _ => go,
    }
}

fn repeated(objects: &[Object]) -> Vec<ManifestError> {
    let mut first = HashMap::new();
    let mut errors = Vec::new();
    for object in objects {
        let group = object
            .api_version
            .split_once('/')
            .map_or("", |(group, _)| group);
        let namespace = object.namespace.as_deref().unwrap_or("default");
        let key = (group, &object.kind, namespace, &object.name);
        if let Some(earlier) = first.insert(key, object) {
            let message = format!("{} is also defined at {}", object.label(), earlier.place());
            errors.push(object.error("metadata.name", message));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(text: &str) -> Vec<String> {
        let source = Source {
            name: "a.yaml".into(),
            text: text.into(),
        };
        match check(&[source], Vec::new()) {
            Ok(_) => Vec::new(),
            Err(errors) => errors.iter().map(ToString::to_string).collect(),
        }
    }

    const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n";

    #[test]
    fn mistakes_are_found_where_they_are() {
        let unknown_kind = messages("apiVersion: v1\nkind: Servce\nmetadata: {name: a}\n");
        assert!(
            unknown_kind[0].starts_with("a.yaml:2: unknown kind \"Servce\" (v1); expected one of"),
            "{unknown_kind:?}"
        );
        for (text, expect) in [
            (
                "apiVersion: v2\nkind: Pod\nmetadata: {name: a}\n".to_owned(),
                "a.yaml:1: Pod: apiVersion v2 is not known; expected v1",
            ),
            (
                format!("{SERVICE}spec:\n  portz: []\n  ports: [{{port: 80}}]\n"),
                "a.yaml:5: service/a: spec.portz: there is no such field",
            ),
            (
                format!("{SERVICE}spec:\n  ports:\n  - name: x\n    port: http\n"),
                "a.yaml:7: service/a: spec.ports[0].port: expected a whole number, found string",
            ),
            (
                format!("{SERVICE}spec:\n  ports:\n  - {{port: 99999, targetPort: 1}}\n"),
                "a.yaml:6: service/a: spec.ports[0].port: Invalid value: 99999: must be between 1 and 65535, inclusive",
            ),
            (
                format!(
                    "{SERVICE}spec: {{ports: [{{port: 1}}]}}\n---\n{SERVICE}spec: {{ports: [{{port: 1}}]}}\n"
                ),
                "a.yaml:8: service/a is also defined at a.yaml:1",
            ),
        ] {
            assert_eq!(messages(&text), [expect]);
        }
    }

    #[test]
    fn every_document_is_looked_at() {
        let text = "a: [\n---\napiVersion: v1\nkind: Servce\nmetadata: {name: a}\n";
        let found = messages(text);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[1].starts_with("a.yaml:4: unknown kind"), "{found:?}");
    }

    #[test]
    fn what_others_need_comes_first() {
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: i}]}\n\
            ---\n{SERVICE}---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n"
            .replace("{SERVICE}", &format!("{SERVICE}spec: {{ports: [{{port: 1}}]}}\n"));
        let source = Source {
            name: "a.yaml".into(),
            text,
        };
        let manifests = check(&[source], Vec::new()).unwrap();
        let labels: Vec<_> = manifests.objects.iter().map(Object::label).collect();
        assert_eq!(labels, ["namespace/shop", "service/a", "pod/p"]);
        let (needed, workloads) = manifests.split();
        assert_eq!((needed.len(), workloads.len()), (2, 1));
    }

    #[test]
    fn kinds_that_a_definition_among_them_makes() {
        let definition = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n\
            metadata: {name: things.example.com}\nspec:\n  group: example.com\n  scope: Namespaced\n  \
            names: {kind: Thing, plural: things}\n  versions:\n  - name: v1\n    served: true\n    \
            storage: true\n    schema: {openAPIV3Schema: {type: object}}\n";
        let thing = "---\napiVersion: example.com/v1\nkind: Thing\nmetadata: {name: t}\n";
        assert_eq!(messages(&format!("{thing}{definition}")).len(), 1);
        assert_eq!(messages(&format!("{thing}---\n{definition}")), [""; 0]);
    }
}
