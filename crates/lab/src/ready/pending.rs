//! What a cluster still waits for, and why: pure, from its objects.

use std::collections::BTreeMap;

use k8s_openapi::Metadata;
use k8s_openapi::api::core::v1::{ContainerStatus, Node, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::cluster::{Cluster, Table};

/// Something that is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// `pod shop/web-0`.
    pub what: String,
    pub why: String,
}

impl Pending {
    fn new(kind: &str, (namespace, name): &(String, String), why: String) -> Self {
        let slash = if namespace.is_empty() { "" } else { "/" };
        Self {
            what: format!("{kind} {namespace}{slash}{name}"),
            why,
        }
    }
}

/// The nodes that do not take pods yet.
pub(super) fn nodes(cluster: &Cluster) -> Vec<Pending> {
    let waits = |node: &Node| {
        let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
        let mut conditions = conditions.into_iter().flatten();
        match conditions.find(|condition| condition.type_ == "Ready") {
            Some(ready) if ready.status == "True" => None,
            Some(ready) => Some(ready.message.clone().unwrap_or_default()),
            None => Some("its agent is not ready".to_owned()),
        }
    };
    let nodes = cluster.nodes.iter();
    nodes
        .filter_map(|(key, node)| Some(Pending::new("node", key, waits(node)?)))
        .collect()
}

/// Everything that is not ready: nodes, workloads without all their pods, pods,
/// Services of which the endpoints do not follow their ready pods yet.
pub fn pending(cluster: &Cluster) -> Vec<Pending> {
    let mut all = nodes(cluster);
    let mut note = |kind: &str, key, why| all.push(Pending::new(kind, key, why));
    for (kind, key, progress) in workloads(cluster) {
        if let Some(why) = progress.why() {
            note(kind, key, why);
        }
    }
    for (key, pod) in &cluster.pods {
        if let Some(why) = pod_waits(pod) {
            note("pod", key, why);
        }
    }
    for (key, service) in &cluster.services {
        let (have, want) = (endpoints(cluster, key), ready_pods(cluster, key, service));
        if have < want {
            note("service", key, format!("{have} of {want} endpoints"));
        }
    }
    all
}

/// Names of Services that select no pod: no mistake to the API, one to most people.
pub fn services_without_pods(cluster: &Cluster) -> Vec<String> {
    cluster
        .services
        .iter()
        .filter(|(key, service)| {
            let mut pods = cluster.pods.iter();
            selector(service).is_some_and(|selector| {
                !pods.any(|((namespace, _), pod)| *namespace == key.0 && selects(selector, pod))
            })
        })
        .map(|((namespace, name), _)| format!("{namespace}/{name}"))
        .collect()
}

/// How far a controller is with an object.
struct Progress {
    /// The controller has seen the object's newest version.
    observed: bool,
    ready: i32,
    wanted: i32,
}

impl Progress {
    fn why(&self) -> Option<String> {
        if !self.observed {
            Some("not looked at yet".to_owned())
        } else if self.ready < self.wanted {
            Some(format!("{} of {} pods ready", self.ready, self.wanted))
        } else {
            None
        }
    }
}

fn workloads(cluster: &Cluster) -> Vec<(&'static str, &(String, String), Progress)> {
    let mut all = Vec::new();
    for (key, object) in &cluster.deployments {
        let status = object.status.as_ref();
        let ready = status.and_then(|s| s.ready_replicas);
        let wanted = object.spec.replicas;
        let observed = status.and_then(|s| s.observed_generation);
        all.push((
            "deployment",
            key,
            progress(object, observed, ready, wanted.or(Some(1))),
        ));
    }
    for (key, object) in &cluster.stateful_sets {
        let status = object.status.as_ref();
        let ready = status.and_then(|s| s.ready_replicas);
        let wanted = object.spec.replicas;
        let observed = status.and_then(|s| s.observed_generation);
        all.push((
            "statefulset",
            key,
            progress(object, observed, ready, wanted.or(Some(1))),
        ));
    }
    for (key, object) in &cluster.daemon_sets {
        let status = object.status.as_ref();
        let ready = status.map(|s| s.number_ready);
        let wanted = status.map(|s| s.desired_number_scheduled);
        let observed = status.and_then(|s| s.observed_generation);
        all.push(("daemonset", key, progress(object, observed, ready, wanted)));
    }
    for (key, object) in unowned(&cluster.replica_sets) {
        let status = object.status.as_ref();
        let ready = status.and_then(|s| s.ready_replicas);
        let wanted = object.spec.replicas;
        let observed = status.and_then(|s| s.observed_generation);
        all.push((
            "replicaset",
            key,
            progress(object, observed, ready, wanted.or(Some(1))),
        ));
    }
    for (key, object) in unowned(&cluster.jobs) {
        // A job is under way when it has pods; the pods speak for themselves.
        let status = object.status.as_ref();
        let pods = status.map_or(0, |s| {
            s.active.unwrap_or(0) + s.succeeded.unwrap_or(0) + s.failed.unwrap_or(0)
        });
        let suspended = object.spec.as_ref().and_then(|s| s.suspend) == Some(true);
        let wanted = i32::from(!suspended);
        all.push((
            "job",
            key,
            Progress {
                observed: true,
                ready: pods,
                wanted,
            },
        ));
    }
    all
}

/// Objects that no controller made: the others are their owners' business.
fn unowned<K: Metadata<Ty = ObjectMeta>>(
    table: &Table<K>,
) -> impl Iterator<Item = (&(String, String), &K)> {
    table.iter().filter(|(_, object)| {
        let owners = object.metadata().owner_references.as_ref();
        owners.is_none_or(Vec::is_empty)
    })
}

fn progress(
    object: &impl Metadata<Ty = ObjectMeta>,
    observed: Option<i64>,
    ready: Option<i32>,
    wanted: Option<i32>,
) -> Progress {
    Progress {
        observed: observed.unwrap_or(0) >= object.metadata().generation.unwrap_or(0),
        ready: ready.unwrap_or(0),
        wanted: wanted.unwrap_or(0),
    }
}

/// Why a pod is neither Ready nor Completed.
fn pod_waits(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref();
    let phase = status.and_then(|s| s.phase.as_deref()).unwrap_or("Pending");
    // One that is on its way out is not waited for.
    if phase == "Succeeded" || pod.metadata.deletion_timestamp.is_some() || is_ready(pod) {
        return None;
    }
    let init = status.and_then(|s| s.init_container_statuses.as_ref());
    let main = status.and_then(|s| s.container_statuses.as_ref());
    let containers = init.into_iter().flatten().chain(main.into_iter().flatten());
    let reasons: Vec<_> = containers.filter_map(container_waits).collect();
    // "PodInitializing" of the others says less than what the first waits for.
    if let Some(reason) = reasons
        .iter()
        .find(|reason| !reason.ends_with("PodInitializing"))
    {
        return Some(reason.clone());
    }
    let conditions = status.and_then(|s| s.conditions.as_ref());
    let condition = conditions
        .into_iter()
        .flatten()
        .filter(|condition| condition.status != "True")
        .find_map(|condition| condition.message.clone().filter(|m| !m.is_empty()));
    let message = status.and_then(|s| s.message.clone());
    Some(message.or(condition).unwrap_or_else(|| phase.to_owned()))
}

fn container_waits(container: &ContainerStatus) -> Option<String> {
    let state = container.state.as_ref()?;
    let told = |reason: &Option<String>, message: &Option<String>| {
        let parts = [reason.clone(), message.clone()];
        let text = parts.into_iter().flatten().collect::<Vec<_>>().join(": ");
        format!("container {}: {text}", container.name)
    };
    if let Some(waiting) = &state.waiting {
        return Some(told(&waiting.reason, &waiting.message));
    }
    if let Some(ended) = &state.terminated
        && ended.exit_code != 0
    {
        let text = told(&ended.reason, &ended.message);
        return Some(format!("{text} (exit status {})", ended.exit_code));
    }
    if state.running.is_some() && !container.ready {
        return Some(format!(
            "container {} runs and is not ready",
            container.name
        ));
    }
    None
}

/// Whether the pod takes traffic.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    let selector = spec
        .selector
        .as_ref()
        .filter(|selector| !selector.is_empty())?;
    (spec.type_.as_deref() != Some("ExternalName")).then_some(selector)
}

fn selects(selector: &BTreeMap<String, String>, pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    selector
        .iter()
        .all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

fn ready_pods(cluster: &Cluster, (namespace, _): &(String, String), service: &Service) -> usize {
    let Some(selector) = selector(service) else {
        return 0;
    };
    let pods = cluster.pods.iter().filter(|((of, _), _)| of == namespace);
    pods.filter(|(_, pod)| pod.metadata.deletion_timestamp.is_none())
        .filter(|(_, pod)| selects(selector, pod) && is_ready(pod))
        .count()
}

/// Ready endpoints of a service, of the family that has the most: each pod has
/// one in each.
fn endpoints(cluster: &Cluster, (namespace, name): &(String, String)) -> usize {
    let mut families = BTreeMap::<&str, usize>::new();
    for ((of, _), slice) in &cluster.slices {
        let labels = slice.metadata.labels.as_ref();
        let service = labels.and_then(|l| l.get("kubernetes.io/service-name"));
        if of != namespace || service != Some(name) {
            continue;
        }
        let ready = slice.endpoints.iter().flatten().filter(|endpoint| {
            let conditions = endpoint.conditions.as_ref();
            conditions.and_then(|c| c.ready).unwrap_or(true)
        });
        *families.entry(&slice.address_type).or_default() += ready.count();
    }
    families.into_values().max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A cluster of these objects, by collection number.
    fn cluster(objects: &[(usize, Value)]) -> Cluster {
        let mut cluster = Cluster::default();
        for (collection, object) in objects {
            cluster.put(*collection, object.clone(), false);
        }
        cluster
    }

    fn pod(name: &str, ready: bool) -> Value {
        json!({
            "metadata": {"name": name, "namespace": "shop", "labels": {"app": "web"}},
            "status": {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
                "containerStatuses": [{
                    "name": "c", "ready": ready, "image": "", "imageID": "", "restartCount": 0,
                    "state": {"running": {}}
                }]
            }
        })
    }

    fn service() -> Value {
        json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"selector": {"app": "web"}}
        })
    }

    fn slice(ready: &[bool]) -> Value {
        let endpoints: Vec<_> = ready
            .iter()
            .map(|ready| json!({"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}))
            .collect();
        json!({
            "addressType": "IPv4", "endpoints": endpoints,
            "metadata": {
                "name": "web-x", "namespace": "shop",
                "labels": {"kubernetes.io/service-name": "web"}
            }
        })
    }

    fn deployment(generation: i64, ready: i32) -> Value {
        json!({
            "metadata": {"name": "web", "namespace": "shop", "generation": generation},
            "spec": {"replicas": 2, "selector": {}, "template": {}},
            "status": {"observedGeneration": 1, "readyReplicas": ready}
        })
    }

    #[test]
    fn what_is_waited_for() {
        let waiting = |state: Value| {
            let mut pod = pod("a", false);
            pod["status"]["containerStatuses"][0]["state"] = state;
            pod
        };
        let mut leaving = pod("a", false);
        leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let unscheduled = json!({
            "metadata": {"name": "a", "namespace": "shop"},
            "status": {"conditions": [
                {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}
            ]}
        });
        let node = |status: &str| {
            json!({"metadata": {"name": "node1"}, "status": {"conditions": [
                {"type": "Ready", "status": status, "message": "no CNI"}
            ]}})
        };
        check(&[], &[]);
        check(&[(1, pod("a", true))], &[]);
        check(
            &[(1, pod("a", false))],
            &["pod shop/a: container c runs and is not ready"],
        );
        check(&[(1, leaving)], &[]);
        check(
            &[(1, unscheduled)],
            &["pod shop/a: 0/3 nodes are available"],
        );
        check(
            &[(
                1,
                waiting(
                    json!({"waiting": {"reason": "CrashLoopBackOff", "message": "again in 10s"}}),
                ),
            )],
            &["pod shop/a: container c: CrashLoopBackOff: again in 10s"],
        );
        check(
            &[(
                1,
                waiting(json!({"terminated": {"exitCode": 2, "reason": "Error"}})),
            )],
            &["pod shop/a: container c: Error (exit status 2)"],
        );
        check(&[(0, node("True"))], &[]);
        check(&[(0, node("False"))], &["node node1: no CNI"]);
        check(&[(4, deployment(1, 2))], &[]);
        check(
            &[(4, deployment(1, 1))],
            &["deployment shop/web: 1 of 2 pods ready"],
        );
        check(
            &[(4, deployment(2, 2))],
            &["deployment shop/web: not looked at yet"],
        );
        check(
            &[(1, pod("a", true)), (2, service()), (3, slice(&[false]))],
            &["service shop/web: 0 of 1 endpoints"],
        );
        check(
            &[(1, pod("a", true)), (2, service()), (3, slice(&[true]))],
            &[],
        );
    }

    fn check(objects: &[(usize, Value)], expect: &[&str]) {
        let seen: Vec<_> = pending(&cluster(objects))
            .into_iter()
            .map(|pending| format!("{}: {}", pending.what, pending.why))
            .collect();
        assert_eq!(seen, expect);
    }

    #[test]
    fn a_selector_that_matches_nothing_is_named() {
        let alone = cluster(&[(2, service())]);
        assert_eq!(services_without_pods(&alone), ["shop/web"]);
        let with = cluster(&[(2, service()), (1, pod("a", false))]);
        assert_eq!(services_without_pods(&with), [""; 0]);
    }
}
