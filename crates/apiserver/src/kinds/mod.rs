//! The kinds that are served, and what is done to their objects on the way in.

use std::sync::{Arc, LazyLock};

use serde_json::Value;

use crate::Status;

/// Where the scale subresource of a kind finds its numbers. Paths are dotted,
/// without a leading dot: `spec.replicas`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    pub spec_replicas: String,
    pub status_replicas: String,
    /// A serialised selector (string) or a LabelSelector.
    pub selector: Option<String>,
}

/// A kind as discovery shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KindSpec {
    /// Empty for the core group.
    pub group: String,
    pub version: String,
    pub kind: String,
    pub plural: String,
    pub singular: String,
    pub short_names: Vec<String>,
    /// E.g. `all`.
    pub categories: Vec<String>,
    pub namespaced: bool,
    /// Whether there is a `/status` subresource.
    pub status: bool,
    pub scale: Option<ScalePaths>,
}

impl KindSpec {
    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }
}

/// What to do with fields that the kind does not have
/// (query parameter `fieldValidation`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them, with a warning each.
    #[default]
    Warn,
    /// Refuse the object with 400.
    Strict,
}

/// Which part of the object a write is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// Everything but the status.
    #[default]
    Main,
    /// `/status`: everything but status (and metadata that status may change)
    /// has already been taken from the stored object.
    Status,
}

/// What a preparation needs beside the object, and the warnings it leaves.
#[derive(Debug, Default)]
pub struct Context {
    pub field_validation: FieldValidation,
    pub part: Part,
    /// Sent to the client as `Warning` headers.
    pub warnings: Vec<String>,
}

/// Prunes unknown fields, checks types, sets defaults and validates (metadata
/// included: name, labels, annotations, finalizers, owner references).
///
/// `metadata.name`, `namespace`, `uid`, `creationTimestamp` and `generation`
/// have been set by the registry. Service addresses and ports are allocated
/// after this, so they may be missing. Errors: 400 for what cannot be decoded,
/// 422 with causes for wrong values.
pub fn prepare_create(
    spec: &KindSpec,
    object: &mut Value,
    context: &mut Context,
) -> Result<(), Status> {
    let _ = (spec, object, context);
    Ok(())
}

/// The same for a change of `current`; immutable fields are checked as well.
pub fn prepare_update(
    spec: &KindSpec,
    object: &mut Value,
    current: &Value,
    context: &mut Context,
) -> Result<(), Status> {
    let _ = (spec, object, current, context);
    Ok(())
}

/// All kinds that are built in.
pub fn builtin() -> &'static [Arc<KindSpec>] {
    static KINDS: LazyLock<Vec<Arc<KindSpec>>> = LazyLock::new(table);
    &KINDS
}

fn table() -> Vec<Arc<KindSpec>> {
    // (group, version, kind, plural, short names, categories, namespaced, status, scale)
    type Row = (
        &'static str,
        &'static str,
        &'static str,
        &'static str,
        &'static [&'static str],
        &'static [&'static str],
        bool,
        bool,
        bool,
    );
    const ROWS: &[Row] = &[
        (
            "",
            "v1",
            "Namespace",
            "namespaces",
            &["ns"],
            &[],
            false,
            true,
            false,
        ),
        ("", "v1", "Node", "nodes", &["no"], &[], false, true, false),
        (
            "",
            "v1",
            "Pod",
            "pods",
            &["po"],
            &["all"],
            true,
            true,
            false,
        ),
        (
            "",
            "v1",
            "Service",
            "services",
            &["svc"],
            &["all"],
            true,
            true,
            false,
        ),
        (
            "",
            "v1",
            "Endpoints",
            "endpoints",
            &["ep"],
            &[],
            true,
            false,
            false,
        ),
        (
            "",
            "v1",
            "ConfigMap",
            "configmaps",
            &["cm"],
            &[],
            true,
            false,
            false,
        ),
        ("", "v1", "Secret", "secrets", &[], &[], true, false, false),
        (
            "",
            "v1",
            "ServiceAccount",
            "serviceaccounts",
            &["sa"],
            &[],
            true,
            false,
            false,
        ),
        (
            "",
            "v1",
            "Event",
            "events",
            &["ev"],
            &[],
            true,
            false,
            false,
        ),
        (
            "apps",
            "v1",
            "Deployment",
            "deployments",
            &["deploy"],
            &["all"],
            true,
            true,
            true,
        ),
        (
            "apps",
            "v1",
            "ReplicaSet",
            "replicasets",
            &["rs"],
            &["all"],
            true,
            true,
            true,
        ),
        (
            "apps",
            "v1",
            "StatefulSet",
            "statefulsets",
            &["sts"],
            &["all"],
            true,
            true,
            true,
        ),
        (
            "apps",
            "v1",
            "DaemonSet",
            "daemonsets",
            &["ds"],
            &["all"],
            true,
            true,
            false,
        ),
        (
            "batch",
            "v1",
            "Job",
            "jobs",
            &[],
            &["all"],
            true,
            true,
            false,
        ),
        (
            "discovery.k8s.io",
            "v1",
            "EndpointSlice",
            "endpointslices",
            &[],
            &[],
            true,
            false,
            false,
        ),
        (
            "networking.k8s.io",
            "v1",
            "NetworkPolicy",
            "networkpolicies",
            &["netpol"],
            &[],
            true,
            false,
            false,
        ),
        (
            "networking.k8s.io",
            "v1",
            "Ingress",
            "ingresses",
            &["ing"],
            &[],
            true,
            true,
            false,
        ),
        (
            "networking.k8s.io",
            "v1",
            "IngressClass",
            "ingressclasses",
            &[],
            &[],
            false,
            false,
            false,
        ),
        (
            "coordination.k8s.io",
            "v1",
            "Lease",
            "leases",
            &[],
            &[],
            true,
            false,
            false,
        ),
        (
            "apiextensions.k8s.io",
            "v1",
            "CustomResourceDefinition",
            "customresourcedefinitions",
            &["crd", "crds"],
            &["api-extensions"],
            false,
            true,
            false,
        ),
    ];
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    ROWS.iter()
        .map(
            |&(group, version, kind, plural, short, categories, namespaced, status, scale)| {
                Arc::new(KindSpec {
                    group: group.to_owned(),
                    version: version.to_owned(),
                    kind: kind.to_owned(),
                    plural: plural.to_owned(),
                    singular: kind.to_lowercase(),
                    short_names: owned(short),
                    categories: owned(categories),
                    namespaced,
                    status,
                    scale: scale.then(|| ScalePaths {
                        spec_replicas: "spec.replicas".to_owned(),
                        status_replicas: "status.replicas".to_owned(),
                        selector: Some("spec.selector".to_owned()),
                    }),
                })
            },
        )
        .collect()
}
