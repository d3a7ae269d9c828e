//! What a pod may be told about itself: the fields of the downward API.
//! <https://kubernetes.io/docs/concepts/workloads/pods/downward-api/>

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, ObjectFieldSelector, Pod, ResourceFieldSelector, Secret,
};

use super::quantity;

/// Where variables and volumes come from besides the pod.
pub(super) trait Sources {
    fn config_map(&self, namespace: &str, name: &str) -> Option<ConfigMap>;
    fn secret(&self, namespace: &str, name: &str) -> Option<Secret>;
}

/// Why a container's variables or a volume cannot be made; the words are
/// kubelet's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ConfigError {
    #[error("{kind} {name:?} not found")]
    NoObject { kind: &'static str, name: String },
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey {
        kind: &'static str,
        namespace: String,
        name: String,
        key: String,
    },
    #[error("unsupported fieldPath: {0}")]
    Field(String),
    #[error("container {0:?} not found")]
    NoContainer(String),
    #[error("unsupported container resource: {0}")]
    Resource(String),
}

/// A pod and what is known of it once it has a network.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    pub(super) pod: &'a Pod,
    pub(super) node: &'a str,
    pub(super) pod_ips: &'a [IpAddr],
    pub(super) host_ips: &'a [IpAddr],
    /// What a container without a limit may use: the node's capacity.
    pub(super) allocatable: &'a BTreeMap<String, String>,
}

impl Facts<'_> {
    pub(super) fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or("default")
    }

    /// # Errors
    /// [`ConfigError::Field`] for a path that Kubernetes does not have.
    pub(super) fn field(&self, selector: &ObjectFieldSelector) -> Result<String, ConfigError> {
        let meta = &self.pod.metadata;
        let join = |ips: &[IpAddr]| {
            ips.iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(",")
        };
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let first = |ips: &[IpAddr]| ips.first().map(ToString::to_string).unwrap_or_default();
        let path = selector.field_path.as_str();
        if let Some((map, key)) = subscript(path) {
            let map = match map {
                "metadata.labels" => meta.labels.as_ref(),
                "metadata.annotations" => meta.annotations.as_ref(),
                _ => return Err(ConfigError::Field(path.to_owned())),
            };
            return Ok(map
                .and_then(|map| map.get(key))
                .cloned()
                .unwrap_or_default());
        }
        Ok(match path {
            "metadata.name" => text(&meta.name),
            "metadata.namespace" => self.namespace().to_owned(),
            "metadata.uid" => text(&meta.uid),
            "metadata.labels" => lines(meta.labels.as_ref()),
            "metadata.annotations" => lines(meta.annotations.as_ref()),
            "spec.nodeName" => self.node.to_owned(),
            "spec.serviceAccountName" => {
                let account = self
                    .pod
                    .spec
                    .as_ref()
                    .and_then(|s| s.service_account_name.clone());
                account.unwrap_or_else(|| "default".to_owned())
            }
            "status.hostIP" => first(self.host_ips),
            "status.hostIPs" => join(self.host_ips),
            "status.podIP" => first(self.pod_ips),
            "status.podIPs" => join(self.pod_ips),
            _ => return Err(ConfigError::Field(path.to_owned())),
        })
    }

    /// A container's request or limit; `container` is the one that asks.
    ///
    /// # Errors
    /// If the resource or the container named does not exist.
    pub(super) fn resource(
        &self,
        selector: &ResourceFieldSelector,
        container: Option<&Container>,
    ) -> Result<String, ConfigError> {
        let unsupported = || ConfigError::Resource(selector.resource.clone());
        let named = selector
            .container_name
            .as_deref()
            .filter(|name| !name.is_empty());
        let container = match (named, container) {
            (Some(name), _) => self
                .containers()
                .find(|c| c.name == name)
                .ok_or_else(|| ConfigError::NoContainer(name.to_owned()))?,
            (None, Some(container)) => container,
            (None, None) => return Err(ConfigError::NoContainer(String::new())),
        };
        let (what, resource) = selector.resource.split_once('.').ok_or_else(unsupported)?;
        let resources = container.resources.as_ref();
        let limit = resources.and_then(|r| r.limits.as_ref()?.get(resource));
        let request = resources.and_then(|r| r.requests.as_ref()?.get(resource));
        let amount = match what {
            "limits" => limit
                .map(|q| q.0.as_str())
                .or(self.allocatable.get(resource).map(|q| &**q)),
            // Without a request, the limit is the request.
            "requests" => request.or(limit).map(|q| q.0.as_str()),
            _ => return Err(unsupported()),
        };
        let divisor = selector.divisor.as_ref().map_or("1", |q| q.0.as_str());
        let value = quantity::divide(amount.unwrap_or("0"), divisor).ok_or_else(unsupported)?;
        Ok(value.to_string())
    }

    fn containers(&self) -> impl Iterator<Item = &Container> {
        let spec = self.pod.spec.as_ref();
        spec.into_iter()
            .flat_map(|s| s.init_containers.iter().flatten().chain(&s.containers))
    }
}

/// `metadata.labels['app']` as the map and the key.
fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['")
}

/// A map as kubelet writes it to a file: sorted, values quoted as Go does.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_resources() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "u1",
                         "labels": {"app": "x", "b/c": "q\"r"}},
            "spec": {"serviceAccountName": "sa", "containers": [
                {"name": "a", "resources": {"limits": {"cpu": "250m", "memory": "64Mi"}}},
                {"name": "b"},
            ]},
        }))
        .unwrap();
        let allocatable = BTreeMap::from([("cpu".to_owned(), "4".to_owned())]);
        let facts = Facts {
            pod: &pod,
            node: "node1",
            pod_ips: &["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            host_ips: &["192.0.2.1".parse().unwrap()],
            allocatable: &allocatable,
        };
        let field = |path: &str| {
            facts.field(&ObjectFieldSelector {
                field_path: path.to_owned(),
                api_version: None,
            })
        };
        for (path, expected) in [
            ("metadata.name", "web"),
            ("metadata.namespace", "shop"),
            ("metadata.uid", "u1"),
            ("metadata.labels['app']", "x"),
            ("metadata.labels['none']", ""),
            ("metadata.labels", "app=\"x\"\nb/c=\"q\\\"r\""),
            ("spec.nodeName", "node1"),
            ("spec.serviceAccountName", "sa"),
            ("status.podIP", "10.0.0.1"),
            ("status.podIPs", "10.0.0.1,fd00::1"),
            ("status.hostIP", "192.0.2.1"),
        ] {
            assert_eq!(field(path).as_deref(), Ok(expected), "{path}");
        }
        assert_eq!(
            field("spec.nope"),
            Err(ConfigError::Field("spec.nope".to_owned()))
        );

        let containers = &pod.spec.as_ref().unwrap().containers;
        let resource = |of: usize, json: serde_json::Value| {
            facts.resource(
                &serde_json::from_value(json).unwrap(),
                Some(&containers[of]),
            )
        };
        let limit = serde_json::json!({"resource": "limits.cpu"});
        assert_eq!(resource(0, limit.clone()).unwrap(), "1");
        assert_eq!(resource(1, limit).unwrap(), "4");
        let of_other = serde_json::json!({"resource": "requests.memory", "divisor": "1Mi", "containerName": "a"});
        assert_eq!(resource(1, of_other).unwrap(), "64");
    }
}
