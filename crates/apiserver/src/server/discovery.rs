//! What is served: the documents by which clients map `deploy` to
//! `/apis/apps/v1/.../deployments`.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};

use super::negotiate::Form;
use super::respond::{self, Response};
use super::reviews;
use crate::Status;
use crate::kinds::KindSpec;
use crate::registry::{Registry, Resource};

/// The Kubernetes release whose API this is.
const MINOR: u32 = 33;

const VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
const CHANGE: [&str; 3] = ["get", "patch", "update"];

pub(super) fn version() -> Response {
    let version = json!({
        "major": "1",
        "minor": MINOR.to_string(),
        "gitVersion": format!("v1.{MINOR}.0+ripstop.{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, go_arch()),
    });
    respond::json(StatusCode::OK, &version)
}

fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A subresource that is served.
struct Sub {
    name: &'static str,
    group_version_kind: (&'static str, &'static str, String),
    verbs: &'static [&'static str],
}

fn subresources(spec: &KindSpec) -> Vec<Sub> {
    let mut all = Vec::new();
    let mut add = |name, group, version, kind: &str, verbs| {
        all.push(Sub {
            name,
            group_version_kind: (group, version, kind.to_owned()),
            verbs,
        });
    };
    if (&*spec.group, &*spec.kind) == ("", "Pod") {
        add("binding", "", "v1", "Binding", &["create"]);
        add("eviction", "policy", "v1", "Eviction", &["create"]);
        add("exec", "", "v1", "PodExecOptions", &["create", "get"]);
        add("log", "", "v1", "Pod", &["get"]);
    }
    if spec.scale.is_some() {
        add("scale", "autoscaling", "v1", "Scale", &CHANGE);
    }
    if spec.status {
        add("status", "", "", &spec.kind, &CHANGE);
    }
    all
}

/// `/api`
pub(super) fn core(registry: &Registry, form: Form) -> Result<Response, Status> {
    if let Form::Discovery(version) = form {
        return Ok(aggregated(registry, version, |group| group.is_empty()));
    }
    let versions = json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [],
    });
    Ok(respond::json(StatusCode::OK, &versions))
}

/// `/apis`
pub(super) fn groups(registry: &Registry, form: Form) -> Result<Response, Status> {
    if let Form::Discovery(version) = form {
        return Ok(aggregated(registry, version, |group| !group.is_empty()));
    }
    let groups: Vec<_> = by_group(registry)
        .into_iter()
        .filter(|(group, _)| !group.is_empty())
        .map(|(group, versions)| group_object(&group, &versions))
        .collect();
    let list = json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups });
    Ok(respond::json(StatusCode::OK, &list))
}

/// `/apis/<group>`
pub(super) fn group(registry: &Registry, group: &str) -> Result<Response, Status> {
    let groups = by_group(registry);
    let versions = groups.get(group).filter(|_| !group.is_empty());
    let mut object = group_object(group, versions.ok_or_else(Status::no_such_resource)?);
    object["kind"] = json!("APIGroup");
    object["apiVersion"] = json!("v1");
    Ok(respond::json(StatusCode::OK, &object))
}

fn group_object(group: &str, versions: &Versions) -> Value {
    let versions: Vec<_> = versions
        .iter()
        .map(|(version, _)| {
            json!({ "groupVersion": group_version(group, version), "version": version })
        })
        .collect();
    json!({ "name": group, "versions": versions, "preferredVersion": versions.first() })
}

/// `/api/v1`, `/apis/<group>/<version>`
pub(super) fn version_of(
    registry: &Registry,
    group: &str,
    version: &str,
) -> Result<Response, Status> {
    let groups = by_group(registry);
    let (_, resources) = groups
        .get(group)
        .and_then(|versions| versions.iter().find(|(it, _)| it == version))
        .ok_or_else(Status::no_such_resource)?;
    let mut list = Vec::new();
    for resource in resources {
        let spec = &resource.spec;
        let mut entry = json!({
            "name": spec.plural,
            "singularName": spec.singular,
            "namespaced": spec.namespaced,
            "kind": spec.kind,
            "verbs": VERBS,
        });
        if !spec.short_names.is_empty() {
            entry["shortNames"] = json!(spec.short_names);
        }
        if !spec.categories.is_empty() {
            entry["categories"] = json!(spec.categories);
        }
        list.push(entry);
        for sub in subresources(spec) {
            let (group, version, kind) = &sub.group_version_kind;
            let mut entry = json!({
                "name": format!("{}/{}", spec.plural, sub.name),
                "singularName": "",
                "namespaced": spec.namespaced,
                "kind": kind,
                "verbs": sub.verbs,
            });
            if !group.is_empty() {
                entry["group"] = json!(group);
                entry["version"] = json!(version);
            }
            list.push(entry);
        }
    }
    for (plural, kind) in reviews::served(group, version) {
        list.push(json!({
            "name": plural, "singularName": kind.to_lowercase(), "namespaced": false,
            "kind": kind, "verbs": ["create"],
        }));
    }
    let answer = json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version(group, version),
        "resources": list,
    });
    Ok(respond::json(StatusCode::OK, &answer))
}

/// The versions of a group, the preferred one first.
type Versions = Vec<(String, Vec<Arc<Resource>>)>;

fn by_group(registry: &Registry) -> BTreeMap<String, Versions> {
    let mut groups: BTreeMap<String, Versions> = BTreeMap::new();
    for (group, version) in reviews::GROUPS {
        groups.insert(group.to_owned(), vec![(version.to_owned(), Vec::new())]);
    }
    for resource in registry.resources() {
        let versions = groups.entry(resource.spec.group.clone()).or_default();
        let version = &resource.spec.version;
        match versions.iter_mut().find(|(it, _)| it == version) {
            Some((_, resources)) => resources.push(resource),
            None => versions.push((version.clone(), vec![resource])),
        }
    }
    for versions in groups.values_mut() {
        versions.sort_by_key(|(version, _)| std::cmp::Reverse(priority(version)));
    }
    groups
}

/// `v2` before `v1` before `v1beta2` before `v1alpha1` before anything else
/// (`k8s.io/apimachinery/pkg/version`).
fn priority(version: &str) -> (u8, u32, u32) {
    let none = (0, 0, 0);
    let Some(rest) = version.strip_prefix('v') else {
        return none;
    };
    let digits = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let Ok(major) = rest[..digits].parse() else {
        return none;
    };
    let minor = |text: &str| text.parse().unwrap_or(0);
    match &rest[digits..] {
        "" => (3, major, 0),
        stage => match (stage.strip_prefix("beta"), stage.strip_prefix("alpha")) {
            (Some(number), _) => (2, major, minor(number)),
            (_, Some(number)) => (1, major, minor(number)),
            _ => none,
        },
    }
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

/// Everything in one document; kubectl asks for this first.
fn aggregated(registry: &Registry, version: &'static str, wanted: fn(&str) -> bool) -> Response {
    let items: Vec<_> = by_group(registry)
        .into_iter()
        .filter(|(group, _)| wanted(group))
        .map(|(group, versions)| {
            let versions: Vec<_> = versions
                .iter()
                .map(|(version, resources)| aggregated_version(&group, version, resources))
                .collect();
            let metadata = if group.is_empty() {
                json!({})
            } else {
                json!({ "name": group })
            };
            json!({ "metadata": metadata, "versions": versions })
        })
        .collect();
    let list = json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    });
    let kind = match version {
        "v2" => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        _ => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
    };
    respond::content(StatusCode::OK, kind, list.to_string())
}

fn aggregated_version(group: &str, version: &str, resources: &[Arc<Resource>]) -> Value {
    let kind = |group: &str, version: &str, kind: &str| json!({ "group": group, "version": version, "kind": kind });
    let scope = |namespaced| if namespaced { "Namespaced" } else { "Cluster" };
    let mut all: Vec<_> = resources
        .iter()
        .map(|resource| {
            let spec = &resource.spec;
            let subresources: Vec<_> = subresources(spec)
                .into_iter()
                .map(|sub| {
                    let (sub_group, sub_version, sub_kind) = &sub.group_version_kind;
                    let response = if sub_version.is_empty() {
                        kind(group, version, sub_kind)
                    } else {
                        kind(sub_group, sub_version, sub_kind)
                    };
                    json!({ "subresource": sub.name, "responseKind": response, "verbs": sub.verbs })
                })
                .collect();
            json!({
                "resource": spec.plural,
                "responseKind": kind(group, version, &spec.kind),
                "scope": scope(spec.namespaced),
                "singularResource": spec.singular,
                "verbs": VERBS,
                "shortNames": spec.short_names,
                "categories": spec.categories,
                "subresources": subresources,
            })
        })
        .collect();
    for (plural, name) in reviews::served(group, version) {
        all.push(json!({
            "resource": plural, "responseKind": kind(group, version, name), "scope": "Cluster",
            "singularResource": name.to_lowercase(), "verbs": ["create"],
        }));
    }
    json!({ "version": version, "resources": all, "freshness": "Current" })
}

#[cfg(test)]
mod tests {
    use super::priority;

    #[test]
    fn versions_by_preference() {
        let mut versions = ["v1alpha1", "foo", "v1", "v2beta1", "v2", "v1beta2", "v10"];
        versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
        assert_eq!(
            versions,
            ["v10", "v2", "v1", "v2beta1", "v1beta2", "v1alpha1", "foo"]
        );
    }
}
