//! The objects that every cluster has from its first moment.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::kinds::Part;
use crate::registry::{DeleteOptions, Registry, Update, WriteOptions};
use crate::{Reason, Status};

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
/// The API's own Service, in the namespace `default`.
const NAME: &str = "kubernetes";

/// Creates what is missing. Endpoints of the API follow the configuration;
/// everything else that survived an earlier run stays as it is.
pub(crate) fn run(registry: &Registry) {
    for name in NAMESPACES {
        put(
            registry,
            ("", "namespaces"),
            "",
            json!({ "metadata": { "name": name } }),
            false,
        );
    }
    put_service_ranges(registry);
    put(
        registry,
        ("", "services"),
        "default",
        service(registry),
        false,
    );
    let (v4, v6): (Vec<_>, Vec<_>) = registry
        .config
        .api_endpoints
        .iter()
        .copied()
        .partition(SocketAddr::is_ipv4);
    put(
        registry,
        ("", "endpoints"),
        "default",
        endpoints(&registry.config.api_endpoints),
        true,
    );
    for (family, addresses) in [("IPv4", v4), ("IPv6", v6)] {
        if !addresses.is_empty() {
            let slice = slice(family, &addresses);
            put(
                registry,
                ("discovery.k8s.io", "endpointslices"),
                "default",
                slice,
                true,
            );
        }
    }
}

/// The ranges that the cluster was made with, in place of those that an earlier
/// one was made with: ranges cannot be changed.
fn put_service_ranges(registry: &Registry) {
    const KIND: (&str, &str) = ("networking.k8s.io", "servicecidrs");
    let cidrs = json!(registry.config.service_cidrs);
    if let Some(resource) = registry.resource(KIND.0, "v1", KIND.1)
        && let Ok(before) = registry.get(&resource, "", NAME)
        && before.value["spec"]["cidrs"] != cidrs
        && let Err(status) = registry.delete(&resource, "", NAME, &DeleteOptions::default())
    {
        tracing::warn!(%status, "cannot forget the ranges of an earlier cluster");
    }
    let object = json!({ "metadata": { "name": NAME }, "spec": { "cidrs": cidrs } });
    put(registry, KIND, "", object, false);
}

fn service(registry: &Registry) -> Value {
    // The first address of the range, as in Kubernetes. An IPv6 range's hosts
    // begin with the address of its routers.
    let range = registry.config.service_cidrs.first();
    let address = range.and_then(|range| range.hosts().nth(usize::from(range.addr().is_ipv6())));
    json!({
        "metadata": {
            "name": NAME,
            "namespace": "default",
            "labels": { "component": "apiserver", "provider": "kubernetes" },
        },
        "spec": {
            "clusterIP": address,
            "ports": [{
                "name": "https", "port": 443, "protocol": "TCP",
                "targetPort": registry.config.api_endpoints.first().map_or(443, SocketAddr::port),
            }],
        },
    })
}

/// The older form; it has no family of its own.
fn endpoints(all: &[SocketAddr]) -> Value {
    let subsets: Vec<_> = all
        .iter()
        .map(|endpoint| {
            json!({
                "addresses": [{ "ip": endpoint.ip() }],
                "ports": [{ "name": "https", "port": endpoint.port(), "protocol": "TCP" }],
            })
        })
        .collect();
    json!({
        "metadata": {
            "name": NAME,
            "namespace": "default",
            // The slices below are complete.
            "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" },
        },
        "subsets": subsets,
    })
}

fn slice(family: &str, endpoints: &[SocketAddr]) -> Value {
    let addresses: Vec<_> = endpoints
        .iter()
        .map(|endpoint| {
            json!({
                "addresses": [endpoint.ip()],
                "conditions": { "ready": true, "serving": true, "terminating": false },
            })
        })
        .collect();
    let name = if family == "IPv4" {
        NAME.to_owned()
    } else {
        format!("{NAME}-ipv6")
    };
    json!({
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": { "kubernetes.io/service-name": NAME },
        },
        "addressType": family,
        "endpoints": addresses,
        "ports": [{
            "name": "https", "protocol": "TCP",
            "port": endpoints.first().map(SocketAddr::port),
        }],
    })
}

/// Creates an object; with `replace` an existing one is made equal.
fn put(
    registry: &Registry,
    (group, plural): (&str, &str),
    namespace: &str,
    object: Value,
    replace: bool,
) {
    let options = WriteOptions::default();
    let attempt = || -> Result<(), Status> {
        let resource = registry
            .resource(group, "v1", plural)
            .ok_or_else(Status::no_such_resource)?;
        match registry.create(&resource, namespace, object.clone(), &options) {
            Err(status) if status.reason == Reason::AlreadyExists && replace => {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let update = Update {
                    resource: &resource,
                    namespace,
                    name,
                    part: Part::Main,
                    or_create: false,
                    options: &options,
                };
                registry.update(&update, |_| Ok(object.clone())).map(drop)
            }
            Err(status) if status.reason == Reason::AlreadyExists => Ok(()),
            outcome => outcome.map(drop),
        }
    };
    if let Err(status) = attempt() {
        tracing::warn!(%status, plural, "cannot create an object of the cluster's own");
    }
}
