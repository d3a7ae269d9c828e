//! The objects that every cluster has from its first moment.

use serde_json::json;

use crate::registry::{Registry, WriteOptions};

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Creates what is missing; what survived an earlier run stays as it is.
pub(crate) fn run(registry: &Registry) {
    let Some(namespaces) = registry.resource("", "v1", "namespaces") else {
        return;
    };
    for name in NAMESPACES {
        let object = json!({ "metadata": { "name": name } });
        match registry.create(&namespaces, "", object, &WriteOptions::default()) {
            Ok(_) => {}
            Err(status) if status.reason == crate::Reason::AlreadyExists => {}
            Err(status) => tracing::warn!(%status, name, "cannot create namespace"),
        }
    }
}
