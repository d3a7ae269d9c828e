//! Whether a definition can be served.

use serde_json::Value;

use super::validate::Schema;
use crate::Cause;
use crate::kinds;

/// What is wrong with a definition that has the right types. `current` is the
/// stored one.
pub(crate) fn check(definition: &Value, current: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let spec = &definition["spec"];
    check_names(definition, &mut causes);
    if !matches!(spec["scope"].as_str(), Some("Namespaced" | "Cluster")) {
        causes.push(choice(
            "spec.scope",
            &spec["scope"],
            &["Cluster", "Namespaced"],
        ));
    }
    check_versions(spec, &mut causes);
    if spec["conversion"]["strategy"] == "Webhook" {
        let detail = "webhooks are not called: only None is supported";
        causes.push(Cause::forbidden("spec.conversion.strategy", detail));
    }
    if let Some(current) = current {
        for field in ["group", "scope"] {
            keep(
                &current["spec"][field],
                &spec[field],
                &format!("spec.{field}"),
                &mut causes,
            );
        }
        for field in ["plural", "kind"] {
            let (old, new) = (&current["spec"]["names"][field], &spec["names"][field]);
            keep(old, new, &format!("spec.names.{field}"), &mut causes);
        }
    }
    causes
}

fn choice(field: &str, value: &Value, supported: &[&str]) -> Cause {
    match value.as_str() {
        None | Some("") => Cause::required(field, ""),
        Some(other) => Cause::not_supported(field, other, supported),
    }
}

fn keep(old: &Value, new: &Value, field: &str, causes: &mut Vec<Cause>) {
    if old != new {
        causes.push(Cause::invalid(field, new.clone(), "field is immutable"));
    }
}

fn check_names(definition: &Value, causes: &mut Vec<Cause>) {
    let spec = &definition["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (group, plural) = (text(&spec["group"]), text(&spec["names"]["plural"]));
    for (field, value) in [
        ("spec.group", &group),
        ("spec.names.plural", &plural),
        ("spec.names.kind", &text(&spec["names"]["kind"])),
    ] {
        if value.is_empty() {
            causes.push(Cause::required(field, ""));
        }
    }
    check_syntax(&spec["names"], causes);
    if !group.is_empty() && group.split('.').count() < 2 {
        let detail = "should be a domain with at least one dot";
        causes.push(Cause::invalid("spec.group", group.as_str(), detail));
    }
    if kinds::builtin().iter().any(|kind| kind.group == group) {
        let detail = "is a built-in group";
        causes.push(Cause::invalid("spec.group", group.as_str(), detail));
    }
    let name = text(&definition["metadata"]["name"]);
    if name != format!("{plural}.{group}") {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        causes.push(Cause::invalid("metadata.name", name, detail));
    }
}

/// Names are parts of paths and of host names.
fn check_syntax(names: &Value, causes: &mut Vec<Cause>) {
    let mut label = |field: &str, name: &str| {
        if !name.is_empty() {
            let wrong = kinds::dns_1035_label(&name.to_lowercase()).into_iter();
            causes.extend(wrong.map(|detail| Cause::invalid(field, name, &detail)));
        }
    };
    let text = |field: &str| names[field].as_str().unwrap_or_default();
    // Kinds may have capital letters, plurals may not.
    for field in ["kind", "listKind", "singular"] {
        label(&format!("spec.names.{field}"), text(field));
    }
    for field in ["shortNames", "categories"] {
        for (index, name) in names[field].as_array().into_iter().flatten().enumerate() {
            let name = name.as_str().unwrap_or_default();
            label(&format!("spec.names.{field}[{index}]"), name);
        }
    }
    let plural = text("plural");
    if !plural.is_empty() {
        let wrong = kinds::dns_1035_label(plural).into_iter();
        causes.extend(wrong.map(|detail| Cause::invalid("spec.names.plural", plural, &detail)));
    }
}

fn check_versions(spec: &Value, causes: &mut Vec<Cause>) {
    let versions = spec["versions"].as_array().map_or(&[][..], Vec::as_slice);
    if versions.is_empty() {
        causes.push(Cause::required(
            "spec.versions",
            "must have at least one version",
        ));
        return;
    }
    for (index, version) in versions.iter().enumerate() {
        let field = format!("spec.versions[{index}]");
        let name = version["name"].as_str().unwrap_or_default();
        if name.is_empty() {
            causes.push(Cause::required(format!("{field}.name"), ""));
        } else if versions[..index].iter().any(|it| it["name"] == name) {
            causes.push(Cause::duplicate(format!("{field}.name"), name));
        }
        let schema = &version["schema"]["openAPIV3Schema"];
        let path = format!("{field}.schema.openAPIV3Schema");
        if schema.is_object() {
            Schema::check(schema, &path, causes);
        } else {
            causes.push(Cause::required(path, "schemas are required"));
        }
    }
    if versions
        .iter()
        .filter(|version| version["storage"] == true)
        .count()
        != 1
    {
        let detail = "must have exactly one version marked as storage version";
        causes.push(Cause::invalid(
            "spec.versions",
            spec["versions"].clone(),
            detail,
        ));
    }
}
