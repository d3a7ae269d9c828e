//! Which kinds there are: those that the API has built in, and those that
//! CustomResourceDefinitions among the manifests define.

use ripstop_apiserver::kinds::builtin;
use serde_json::Value;

use super::{ManifestError, Object};

/// How the API calls a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub api_version: String,
    pub kind: String,
    /// As in its URL.
    pub plural: String,
    pub namespaced: bool,
}

impl Resource {
    /// The URL's path of one object of this kind.
    pub fn path(&self, namespace: Option<&str>, name: &str) -> String {
        let root = if self.api_version.contains('/') {
            "apis"
        } else {
            "api"
        };
        let Self {
            api_version,
            plural,
            ..
        } = self;
        if self.namespaced {
            let namespace = namespace.unwrap_or("default");
            format!("/{root}/{api_version}/namespaces/{namespace}/{plural}/{name}")
        } else {
            format!("/{root}/{api_version}/{plural}/{name}")
        }
    }
}

/// All kinds that a set of manifests may use.
#[derive(Clone, Debug)]
pub struct Kinds(Vec<Resource>);

impl Kinds {
    /// The built-in kinds, those that `objects` define, and `more`.
    pub fn new(objects: &[Object], more: Vec<Resource>) -> Self {
        let builtin = builtin().iter().map(|kind| Resource {
            api_version: kind.api_version(),
            kind: kind.kind.clone(),
            plural: kind.plural.clone(),
            namespaced: kind.namespaced,
        });
        let defined = objects
            .iter()
            .filter(|object| object.kind == "CustomResourceDefinition")
            .flat_map(|object| defined_by(&object.value));
        Self(builtin.chain(defined).chain(more).collect())
    }

    /// # Errors
    /// Names the object's kind, and what is there instead.
    pub fn resource(&self, object: &Object) -> Result<&Resource, ManifestError> {
        let of_kind = || self.0.iter().filter(|r| r.kind == object.kind);
        if let Some(found) = of_kind().find(|r| r.api_version == object.api_version) {
            return Ok(found);
        }
        let versions: Vec<_> = of_kind().map(|r| r.api_version.as_str()).collect();
        if !versions.is_empty() {
            let message = format!(
                "{}: apiVersion {} is not known; expected {}",
                object.kind,
                object.api_version,
                versions.join(" or ")
            );
            return Err(object.error("apiVersion", message));
        }
        let mut known: Vec<_> = self.0.iter().map(|r| r.kind.as_str()).collect();
        known.sort_unstable();
        let message = format!(
            "unknown kind {:?} ({}); expected one of {}, or a kind that a CustomResourceDefinition defines",
            object.kind,
            object.api_version,
            known.join(", ")
        );
        Err(object.error("kind", message))
    }
}

/// The resources of a CustomResourceDefinition, one for each served version.
pub fn defined_by(definition: &Value) -> Vec<Resource> {
    let spec = &definition["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let versions = spec["versions"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    versions
        .iter()
        .filter(|version| version["served"] == true)
        .map(|version| Resource {
            api_version: format!("{}/{}", text(&spec["group"]), text(&version["name"])),
            kind: text(&spec["names"]["kind"]),
            plural: text(&spec["names"]["plural"]),
            namespaced: spec["scope"] == "Namespaced",
        })
        .collect()
}

/// Rank of the kinds that make pods.
pub(super) const WORKLOADS: u8 = 6;

/// The order in which kinds are made: what others refer to comes first, so that
/// no pod waits for its ServiceAccount or starts before a Service whose
/// variables it is to have.
pub(super) fn rank(kind: &str) -> u8 {
    match kind {
        "CustomResourceDefinition" => 0,
        // Services may want addresses of its ranges.
        "Namespace" | "ServiceCIDR" => 1,
        "ServiceAccount" | "ConfigMap" | "Secret" | "IngressClass" => 2,
        "NetworkPolicy" => 3,
        "Service" | "Endpoints" | "EndpointSlice" => 4,
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" | "Job" | "Pod" => WORKLOADS,
        _ => 5,
    }
}
