//! Which pods try what: pure, from the cluster's objects.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::check::{Check, Expect, Protocol};
use crate::daemon::ANSWERED_BY_NODES;
use crate::enter::Place;
use crate::ready::{Cluster, is_ready};
use crate::target::place;

/// A pod that tries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub place: Place,
    pub namespace: String,
    pub addresses: Vec<IpAddr>,
}

/// Something that is tried, with all ways to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `pod shop/web-0`, `service shop/web`
    pub label: String,
    pub is_service: bool,
    /// Of a pod.
    pub node: Option<String>,
    pub checks: Vec<Check>,
}

/// Everything that a probe does: every source tries every target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub sources: Vec<Source>,
    pub targets: Vec<Target>,
    /// What is left out, and why.
    pub skipped: Vec<String>,
}

impl Plan {
    pub fn new(cluster: &Cluster) -> Self {
        let mut plan = Self::default();
        for ((namespace, name), pod) in &cluster.pods {
            let finished = phase(pod) == "Succeeded" || phase(pod) == "Failed";
            if finished || pod.metadata.deletion_timestamp.is_some() {
                continue;
            }
            if !is_ready(pod) {
                plan.skipped
                    .push(format!("pod {namespace}/{name}: not ready"));
                continue;
            }
            if let Ok(place) = place(pod, None) {
                plan.targets
                    .push(pod_target(namespace, name, &place.node, pod));
                plan.sources.push(Source {
                    place,
                    namespace: namespace.clone(),
                    addresses: addresses(pod),
                });
            }
        }
        for ((namespace, name), service) in &cluster.services {
            match service_target(cluster, namespace, name, service) {
                Ok(target) => plan.targets.push(target),
                Err(why) => plan
                    .skipped
                    .push(format!("service {namespace}/{name}: {why}")),
            }
        }
        plan
    }

    /// Number of attempts of all sources together.
    pub fn attempts(&self) -> usize {
        let each: usize = self.targets.iter().map(|target| target.checks.len()).sum();
        each * self.sources.len()
    }
}

fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|s| s.phase.as_deref())
        .unwrap_or_default()
}

fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let ips = pod.status.as_ref().and_then(|s| s.pod_ips.as_ref());
    ips.into_iter()
        .flatten()
        .filter_map(|ip| ip.ip.parse().ok())
        .collect()
}

/// TCP and UDP ports that the pod's containers declare.
fn ports(pod: &Pod) -> Vec<(u16, Protocol)> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut ports: Vec<_> = containers
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            let number = u16::try_from(port.container_port).ok()?;
            Some((number, protocol(port.protocol.as_deref())?))
        })
        .collect();
    ports.dedup();
    ports
}

/// `None` for SCTP, which no stand-in serves.
fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name.unwrap_or("TCP") {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        _ => None,
    }
}

fn pod_target(namespace: &str, name: &str, node: &str, pod: &Pod) -> Target {
    let mut ports = ports(pod);
    if ports.is_empty() {
        ports.push((0, Protocol::Icmp));
    }
    let expect = Expect::Answer(vec![format!("{namespace}/{name}")]);
    let checks = addresses(pod).into_iter().flat_map(|address| {
        ports
            .iter()
            .map(move |(port, protocol)| (address, *port, *protocol))
    });
    Target {
        label: format!("pod {namespace}/{name}"),
        is_service: false,
        node: Some(node.to_owned()),
        checks: checks
            .map(|(address, port, protocol)| Check {
                host: address.to_string(),
                port,
                protocol,
                expect: expect.clone(),
            })
            .collect(),
    }
}

/// A port number and the pods behind it, of a service or of its slices.
type Backends = BTreeMap<String, (u16, Vec<String>)>;

fn service_target(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    service: &Service,
) -> Result<Target, String> {
    let spec = service.spec.clone().unwrap_or_default();
    if spec.type_.as_deref() == Some("ExternalName") {
        return Err("a name outside the cluster".to_owned());
    }
    let is_ours = |slice: &&EndpointSlice| {
        let labels = slice.metadata.labels.as_ref();
        labels
            .and_then(|l| l.get("kubernetes.io/service-name"))
            .map(String::as_str)
            == Some(name)
            && slice.metadata.namespace.as_deref() == Some(namespace)
    };
    let backends = backends(cluster.slices.values().filter(is_ours));
    let cluster_ips = spec.cluster_ips.unwrap_or_default();
    let headless = cluster_ips.iter().any(|ip| ip == "None");
    let mut hosts: Vec<String> = match headless {
        true => Vec::new(),
        false => cluster_ips,
    };
    hosts.push(format!("{name}.{namespace}"));
    let mut checks = Vec::new();
    for port in spec.ports.unwrap_or_default() {
        let Some(protocol) = protocol(port.protocol.as_deref()) else {
            continue;
        };
        let backend = backends.get(port.name.as_deref().unwrap_or_default());
        let pods = match answered_by_nodes(service) {
            true => vec![String::new()],
            false => backend.map(|(_, pods)| pods.clone()).unwrap_or_default(),
        };
        let number = match (headless, backend) {
            // No one translates the port of a headless service.
            (true, Some((target, _))) => *target,
            (true, None) => continue,
            (false, _) => u16::try_from(port.port).unwrap_or_default(),
        };
        let expect = match pods.is_empty() {
            true => Expect::Refused,
            // Endpoints that are no pods, as those of `kubernetes`: whether a
            // connection is accepted is all that can be asked.
            false if pods.iter().any(String::is_empty) => match protocol {
                Protocol::Tcp => Expect::Connection,
                _ => continue,
            },
            false => Expect::Answer(pods),
        };
        checks.extend(hosts.iter().map(|host| Check {
            host: host.clone(),
            port: number,
            protocol,
            expect: expect.clone(),
        }));
    }
    if checks.is_empty() {
        return Err("it has no port that can be tried".to_owned());
    }
    Ok(Target {
        label: format!("service {namespace}/{name}"),
        is_service: true,
        node: None,
        checks,
    })
}

/// Nodes have the addresses of such a service themselves.
fn answered_by_nodes(service: &Service) -> bool {
    let annotations = service.metadata.annotations.as_ref();
    annotations.is_some_and(|all| all.contains_key(ANSWERED_BY_NODES))
}

/// Ready pods by port name, of all families together.
fn backends<'a>(slices: impl Iterator<Item = &'a EndpointSlice>) -> Backends {
    let mut all = Backends::new();
    for slice in slices {
        let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
        let ready = slice.endpoints.iter().flatten().filter(|endpoint| {
            let conditions = endpoint.conditions.as_ref();
            conditions.and_then(|c| c.ready).unwrap_or(true)
        });
        let pods: Vec<_> = ready
            .map(|endpoint| {
                let target = endpoint.target_ref.as_ref();
                let name = target.and_then(|target| target.name.as_deref());
                name.map(|name| format!("{namespace}/{name}"))
                    .unwrap_or_default()
            })
            .collect();
        for port in slice.ports.iter().flatten() {
            let number = port
                .port
                .and_then(|port| u16::try_from(port).ok())
                .unwrap_or_default();
            let name = port.name.clone().unwrap_or_default();
            let entry = all.entry(name).or_insert_with(|| (number, Vec::new()));
            entry.1.extend(pods.iter().cloned());
        }
    }
    for (_, pods) in all.values_mut() {
        pods.sort();
        pods.dedup();
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const PODS: usize = 1;
    const SERVICES: usize = 2;
    const SLICES: usize = 3;

    fn pod(name: &str, ips: &[&str], ports: Value, ready: &str) -> Value {
        let ips: Vec<_> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        json!({
            "metadata": {"name": name, "namespace": "shop", "uid": name},
            "spec": {"nodeName": "node1", "containers": [{"name": "c", "ports": ports}]},
            "status": {
                "phase": "Running", "podIPs": ips,
                "conditions": [{"type": "Ready", "status": ready}]
            }
        })
    }

    fn slice(pods: &[&str], port: u16) -> Value {
        let endpoints: Vec<_> = pods
            .iter()
            .map(|name| {
                json!({
                    "addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": name}
                })
            })
            .collect();
        json!({
            "metadata": {
                "name": "web-x", "namespace": "shop",
                "labels": {"kubernetes.io/service-name": "web"}
            },
            "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "", "port": port}]
        })
    }

    fn service(cluster_ips: &[&str], kind: &str) -> Value {
        json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"type": kind, "clusterIPs": cluster_ips, "ports": [{"port": 80}]}
        })
    }

    fn plan(objects: &[(usize, Value)]) -> Plan {
        let mut cluster = Cluster::default();
        for (collection, object) in objects {
            cluster.put(*collection, object.clone(), false);
        }
        Plan::new(&cluster)
    }

    /// `LABEL: WHAT -> WHO` of every check.
    fn lines(plan: &Plan) -> Vec<String> {
        let of = |target: &Target| {
            let label = target.label.clone();
            let line = move |check: &Check| match &check.expect {
                Expect::Answer(pods) => {
                    format!("{label}: {} -> {}", check.describe(), pods.join(" "))
                }
                Expect::Refused => format!("{label}: {} refused", check.describe()),
                Expect::Connection => format!("{label}: {} accepted", check.describe()),
            };
            target.checks.iter().map(line).collect::<Vec<_>>()
        };
        plan.targets.iter().flat_map(of).collect()
    }

    #[test]
    fn pods_are_tried_at_their_ports_or_pinged() {
        let ports = json!([
            {"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"},
            {"containerPort": 9, "protocol": "SCTP"}
        ]);
        let plan = plan(&[
            (PODS, pod("a", &["10.0.0.1", "fd00::1"], ports, "True")),
            (PODS, pod("b", &["10.0.0.2"], json!([]), "True")),
            (PODS, pod("c", &["10.0.0.3"], json!([]), "False")),
        ]);
        assert_eq!(
            lines(&plan),
            [
                "pod shop/a: 10.0.0.1:80/TCP -> shop/a",
                "pod shop/a: 10.0.0.1:53/UDP -> shop/a",
                "pod shop/a: [fd00::1]:80/TCP -> shop/a",
                "pod shop/a: [fd00::1]:53/UDP -> shop/a",
                "pod shop/b: 10.0.0.2 (ping) -> shop/b",
            ]
        );
        assert_eq!(plan.sources.len(), 2);
        assert_eq!(plan.attempts(), 10);
        assert_eq!(plan.skipped, ["pod shop/c: not ready"]);
    }

    #[test]
    fn services_are_tried_by_address_and_name() {
        let with = plan(&[
            (SERVICES, service(&["10.96.0.7", "fd00:96::7"], "ClusterIP")),
            (SLICES, slice(&["b", "a"], 8080)),
        ]);
        assert_eq!(
            lines(&with),
            [
                "service shop/web: 10.96.0.7:80/TCP -> shop/a shop/b",
                "service shop/web: [fd00:96::7]:80/TCP -> shop/a shop/b",
                "service shop/web: web.shop:80/TCP -> shop/a shop/b",
            ]
        );
        let headless = plan(&[
            (SERVICES, service(&["None"], "ClusterIP")),
            (SLICES, slice(&["a"], 8080)),
        ]);
        assert_eq!(
            lines(&headless),
            ["service shop/web: web.shop:8080/TCP -> shop/a"]
        );
        let empty = plan(&[(SERVICES, service(&["10.96.0.7"], "ClusterIP"))]);
        assert_eq!(
            lines(&empty),
            [
                "service shop/web: 10.96.0.7:80/TCP refused",
                "service shop/web: web.shop:80/TCP refused",
            ]
        );
        let external = plan(&[(SERVICES, service(&[], "ExternalName"))]);
        assert_eq!(
            external.skipped,
            ["service shop/web: a name outside the cluster"]
        );
    }
}
