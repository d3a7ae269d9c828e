//! Which pod people mean: `web-0`, `deploy/web`, `node/node1`.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

use crate::api::{Api, ApiError};
use crate::enter::Place;
use crate::ready::is_ready;

/// kubectl's choice where several containers are equal.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error("{0:?}: expected POD, deploy/NAME, sts/NAME, ds/NAME, rs/NAME, job/NAME or node/NAME")]
    Syntax(String),
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("{target} in namespace {namespace} has no pod")]
    NoPod { target: String, namespace: String },
    #[error("pod {pod} is not on a node yet")]
    Unscheduled { pod: String },
    #[error("pod {pod} has no container {container:?}; it has {}", there.join(", "))]
    NoContainer {
        pod: String,
        container: String,
        there: Vec<String>,
    },
}

/// What was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Pod(String),
    Node(String),
    /// A workload: group and version, plural, name.
    Workload {
        api: &'static str,
        plural: &'static str,
        name: String,
    },
}

impl Target {
    /// # Errors
    /// [`TargetError::Syntax`]
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        let bad = || TargetError::Syntax(text.to_owned());
        let Some((kind, name)) = text.split_once('/') else {
            return match text.is_empty() {
                true => Err(bad()),
                false => Ok(Self::Pod(text.to_owned())),
            };
        };
        let name = match name {
            "" => return Err(bad()),
            name if name.contains('/') => return Err(bad()),
            name => name.to_owned(),
        };
        let (api, plural) = match kind {
            "pod" | "pods" | "po" => return Ok(Self::Pod(name)),
            "node" | "nodes" | "no" => return Ok(Self::Node(name)),
            "deploy" | "deployment" | "deployments" => ("apps/v1", "deployments"),
            "sts" | "statefulset" | "statefulsets" => ("apps/v1", "statefulsets"),
            "ds" | "daemonset" | "daemonsets" => ("apps/v1", "daemonsets"),
            "rs" | "replicaset" | "replicasets" => ("apps/v1", "replicasets"),
            "job" | "jobs" => ("batch/v1", "jobs"),
            _ => return Err(bad()),
        };
        Ok(Self::Workload { api, plural, name })
    }
}

/// The pod that is meant; of a workload a ready one, if there is any.
///
/// # Errors
/// If there is none.
pub async fn pod(api: &Api, namespace: &str, target: &Target) -> Result<Pod, TargetError> {
    let of = |value| {
        serde_json::from_value::<Pod>(value).map_err(|source| {
            TargetError::Api(ApiError::Content {
                path: "pod".to_owned(),
                source,
            })
        })
    };
    match target {
        Target::Pod(name) | Target::Node(name) => of(api
            .get(&format!("/api/v1/namespaces/{namespace}/pods/{name}"))
            .await?),
        Target::Workload {
            api: group,
            plural,
            name,
        } => {
            let path = format!("/apis/{group}/namespaces/{namespace}/{plural}/{name}");
            let workload = api.get(&path).await?;
            let pods = api
                .list(&format!("/api/v1/namespaces/{namespace}/pods"))
                .await?;
            let pods: Vec<Pod> = pods.into_iter().map(of).collect::<Result<_, _>>()?;
            choose(&workload, pods).ok_or_else(|| TargetError::NoPod {
                target: format!("{plural}/{name}"),
                namespace: namespace.to_owned(),
            })
        }
    }
}

/// The workload's first pod, ready ones before others.
fn choose(workload: &Value, pods: Vec<Pod>) -> Option<Pod> {
    let selector: LabelSelector =
        serde_json::from_value(workload["spec"]["selector"].clone()).ok()?;
    let wanted = selector.match_labels?;
    let mut pods: Vec<_> = pods
        .into_iter()
        .filter(|pod| {
            let labels = pod.metadata.labels.clone().unwrap_or_default();
            wanted
                .iter()
                .all(|(key, value)| labels.get(key) == Some(value))
        })
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .collect();
    pods.sort_by_key(|pod| !is_ready(pod));
    pods.into_iter().next()
}

/// Where a container of `pod` is: the named one, else the one that kubectl
/// takes, else the first.
///
/// # Errors
/// If the pod has no such container, or no node.
pub fn place(pod: &Pod, container: Option<&str>) -> Result<Place, TargetError> {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let spec = pod.spec.clone().unwrap_or_default();
    let init = spec.init_containers.unwrap_or_default();
    let names: Vec<String> = spec
        .containers
        .iter()
        .chain(&init)
        .map(|container| container.name.clone())
        .collect();
    let annotations = pod.metadata.annotations.as_ref();
    let preferred = annotations.and_then(|annotations| annotations.get(DEFAULT_CONTAINER));
    let wanted = container.or(preferred.map(String::as_str));
    let container = match wanted {
        Some(wanted) if !names.iter().any(|name| name == wanted) => {
            return Err(TargetError::NoContainer {
                pod: name,
                container: wanted.to_owned(),
                there: names,
            });
        }
        Some(wanted) => wanted.to_owned(),
        None => names.first().cloned().unwrap_or_default(),
    };
    Ok(Place {
        node: spec
            .node_name
            .ok_or_else(|| TargetError::Unscheduled { pod: name.clone() })?,
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        pod: name,
        container,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(value: Value) -> Pod {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_people_type() {
        let workload = |api, plural| Target::Workload {
            api,
            plural,
            name: "web".into(),
        };
        for (text, target) in [
            ("web-0", Target::Pod("web-0".into())),
            ("pod/web-0", Target::Pod("web-0".into())),
            ("node/node1", Target::Node("node1".into())),
            ("deploy/web", workload("apps/v1", "deployments")),
            ("statefulset/web", workload("apps/v1", "statefulsets")),
            ("job/web", workload("batch/v1", "jobs")),
        ] {
            assert_eq!(Target::parse(text).unwrap(), target, "{text}");
        }
        for bad in ["", "deploy/", "svc/web", "deploy/a/b", "/a"] {
            let message = Target::parse(bad).unwrap_err().to_string();
            assert!(message.contains("expected POD, deploy/NAME"), "{message}");
        }
    }

    #[test]
    fn a_ready_pod_of_the_workload() {
        let of = |name: &str, app: &str, ready: &str| {
            pod(json!({
                "metadata": {"name": name, "labels": {"app": app}},
                "status": {"conditions": [{"type": "Ready", "status": ready}]}
            }))
        };
        let workload = json!({"spec": {"selector": {"matchLabels": {"app": "web"}}}});
        let pods = vec![
            of("a", "db", "True"),
            of("b", "web", "False"),
            of("c", "web", "True"),
        ];
        assert_eq!(
            choose(&workload, pods).unwrap().metadata.name.as_deref(),
            Some("c")
        );
        assert_eq!(choose(&workload, vec![of("a", "db", "True")]), None);
    }

    #[test]
    fn which_container() {
        let of = |annotation: Value| {
            pod(json!({
                "metadata": {"name": "p", "uid": "u", "annotations": annotation},
                "spec": {"nodeName": "node1", "containers": [{"name": "a"}, {"name": "b"}]}
            }))
        };
        let plain = of(json!({}));
        assert_eq!(place(&plain, None).unwrap().container, "a");
        assert_eq!(place(&plain, Some("b")).unwrap().container, "b");
        assert_eq!(
            place(&plain, Some("c")).unwrap_err().to_string(),
            "pod p has no container \"c\"; it has a, b"
        );
        let annotated = of(json!({DEFAULT_CONTAINER: "b"}));
        assert_eq!(place(&annotated, None).unwrap().container, "b");
        let nowhere =
            pod(json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}}));
        assert!(matches!(
            place(&nowhere, None),
            Err(TargetError::Unscheduled { .. })
        ));
    }
}
