//! Kubernetes objects as the model has them.
//!
//! An object that the API server should never have accepted gives an
//! [`Invalid`] that names object, field and what would be right; the caller
//! ignores the object and goes on.

use std::fmt::Display;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use ripstop_model::{
    EndpointSlice, EndpointState, Node, ObjectKey, Protocol, Service, ServiceKind, ServicePort,
    SliceEndpoint, SlicePort,
};

/// An object that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {object}: {field}: {problem}")]
pub struct Invalid {
    pub kind: &'static str,
    /// Namespace and name.
    pub object: String,
    /// Path as `kubectl explain` has it, with indexes.
    pub field: String,
    pub problem: String,
}

/// What is wrong with which field; the object is added where it is known.
type Problem = (String, String);

pub(crate) fn key(meta: &ObjectMeta) -> ObjectKey {
    ObjectKey::new(
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

fn invalid(kind: &'static str, object: impl Display) -> impl FnOnce(Problem) -> Invalid {
    move |(field, problem)| Invalid {
        kind,
        object: object.to_string(),
        field,
        problem,
    }
}

/// # Errors
/// If a field has a value that the API does not allow.
pub fn service(object: &core::Service) -> Result<Service, Invalid> {
    let key = key(&object.metadata);
    let spec = object.spec.clone().unwrap_or_default();
    service_spec(key.clone(), &spec).map_err(invalid("Service", key))
}

fn service_spec(key: ObjectKey, spec: &core::ServiceSpec) -> Result<Service, Problem> {
    let kind = match spec.type_.as_deref() {
        None | Some("ClusterIP") => ServiceKind::ClusterIp,
        Some("NodePort") => ServiceKind::NodePort,
        Some("LoadBalancer") => ServiceKind::LoadBalancer,
        Some("ExternalName") => {
            ServiceKind::ExternalName(spec.external_name.clone().unwrap_or_default())
        }
        Some(other) => {
            let problem =
                format!("{other:?} is none of ClusterIP, NodePort, LoadBalancer, ExternalName");
            return Err(("spec.type".to_owned(), problem));
        }
    };
    // clusterIPs came with dual stack; clusterIP is its first entry.
    let addresses: &[String] = match (&spec.cluster_ips, &spec.cluster_ip) {
        (Some(list), _) if !list.is_empty() => list,
        (_, Some(one)) if !one.is_empty() => std::slice::from_ref(one),
        _ => &[],
    };
    let external = matches!(kind, ServiceKind::ExternalName(_));
    let headless = !external && addresses.first().is_some_and(|a| a == "None");
    let mut cluster_ips = Vec::new();
    if !headless && !external {
        for (i, text) in addresses.iter().enumerate() {
            cluster_ips.push(ip(text, || format!("spec.clusterIPs[{i}]"))?);
        }
    }
    let mut ports = Vec::new();
    for (i, p) in spec.ports.iter().flatten().enumerate() {
        let at = |field: &str| format!("spec.ports[{i}].{field}");
        ports.push(ServicePort {
            name: p.name.clone().unwrap_or_default(),
            protocol: protocol(p.protocol.as_deref(), || at("protocol"))?,
            port: port(p.port, || at("port"))?,
            // Zero while none has been allocated.
            node_port: match p.node_port {
                None | Some(0) => None,
                Some(number) => Some(port(number, || at("nodePort"))?),
            },
            app_protocol: p.app_protocol.clone(),
        });
    }
    Ok(Service {
        kind,
        cluster_ips,
        headless,
        ports,
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
        ..Service::new(key)
    })
}

/// `None` for slices that are of no service, or whose addresses are names.
///
/// # Errors
/// If a field has a value that the API does not allow.
pub fn slice(object: &discovery::EndpointSlice) -> Result<Option<EndpointSlice>, Invalid> {
    let key = key(&object.metadata);
    let labels = object.metadata.labels.as_ref();
    let Some(service) = labels.and_then(|l| l.get("kubernetes.io/service-name")) else {
        return Ok(None);
    };
    if object.address_type == "FQDN" {
        return Ok(None);
    }
    slice_of(key.clone(), service, object)
        .map(Some)
        .map_err(invalid("EndpointSlice", key))
}

fn slice_of(
    key: ObjectKey,
    service: &str,
    object: &discovery::EndpointSlice,
) -> Result<EndpointSlice, Problem> {
    let mut ports = Vec::new();
    for (i, p) in object.ports.iter().flatten().enumerate() {
        // No number means all ports, which no Service can ask for.
        let Some(number) = p.port else { continue };
        let at = |field: &str| format!("ports[{i}].{field}");
        ports.push(SlicePort {
            name: p.name.clone().unwrap_or_default(),
            protocol: protocol(p.protocol.as_deref(), || at("protocol"))?,
            port: port(number, || at("port"))?,
        });
    }
    let mut endpoints = Vec::new();
    for (i, e) in object.endpoints.iter().flatten().enumerate() {
        let at = || format!("endpoints[{i}].addresses");
        // More than one is allowed and fungible; consumers take the first.
        let Some(address) = e.addresses.first() else {
            return Err((at(), "at least one address is required".to_owned()));
        };
        endpoints.push(SliceEndpoint {
            state: state(e.conditions.as_ref()),
            node: e.node_name.clone(),
            zone: e.zone.clone(),
            hostname: e.hostname.clone().filter(|name| !name.is_empty()),
            pod: e
                .target_ref
                .as_ref()
                .filter(|target| target.kind.as_deref() == Some("Pod"))
                .and_then(|target| target.name.clone()),
            ..SliceEndpoint::new(ip(address, at)?)
        });
    }
    Ok(EndpointSlice {
        key,
        service: service.to_owned(),
        ports,
        endpoints,
    })
}

/// Unknown means ready and serving, and not terminating.
fn state(conditions: Option<&discovery::EndpointConditions>) -> EndpointState {
    EndpointState {
        ready: conditions.and_then(|c| c.ready).unwrap_or(true),
        serving: conditions.and_then(|c| c.serving).unwrap_or(true),
        terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
    }
}

/// # Errors
/// If a field has a value that the API does not allow.
pub fn node(object: &core::Node) -> Result<Node, Invalid> {
    let name = object.metadata.name.clone().unwrap_or_default();
    node_of(name.clone(), object).map_err(invalid("Node", name))
}

fn node_of(name: String, object: &core::Node) -> Result<Node, Problem> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    let reported = object.status.iter().flat_map(|s| s.addresses.iter());
    for (i, a) in reported.flatten().enumerate() {
        if a.type_ == "InternalIP" {
            let address = ip(&a.address, || format!("status.addresses[{i}].address"))?;
            if !addresses.iter().any(|a| a.is_ipv4() == address.is_ipv4()) {
                addresses.push(address);
            }
        }
    }
    let spec = object.spec.clone().unwrap_or_default();
    let ranges: &[String] = match (&spec.pod_cidrs, &spec.pod_cidr) {
        (Some(list), _) if !list.is_empty() => list,
        (_, Some(one)) if !one.is_empty() => std::slice::from_ref(one),
        _ => &[],
    };
    let mut pod_cidrs = Vec::new();
    for (i, text) in ranges.iter().enumerate() {
        let range: IpNet = text.parse().map_err(|_| {
            let problem = format!("{text:?} is no address range (like 10.244.1.0/24)");
            (format!("spec.podCIDRs[{i}]"), problem)
        })?;
        pod_cidrs.push(range.trunc());
    }
    Ok(Node {
        name,
        addresses,
        pod_cidrs,
        zone: object
            .metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get("topology.kubernetes.io/zone").cloned()),
    })
}

fn ip(text: &str, field: impl FnOnce() -> String) -> Result<IpAddr, Problem> {
    text.parse()
        .map_err(|_| (field(), format!("{text:?} is no IP address")))
}

fn port(number: i32, field: impl FnOnce() -> String) -> Result<u16, Problem> {
    match u16::try_from(number) {
        Ok(port) if port != 0 => Ok(port),
        _ => Err((field(), format!("{number} is not between 1 and 65535"))),
    }
}

fn protocol(text: Option<&str>, field: impl FnOnce() -> String) -> Result<Protocol, Problem> {
    text.unwrap_or("TCP")
        .parse()
        .map_err(|problem| (field(), problem))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read<K: serde::de::DeserializeOwned>(value: Value) -> K {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_service_as_the_api_returns_it() {
        let object = read(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "frontend", "namespace": "default", "resourceVersion": "311"},
            "spec": {
                "type": "NodePort", "clusterIP": "10.96.0.9",
                "clusterIPs": ["10.96.0.9", "fd00:96::9"],
                "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack",
                "ports": [
                    {"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP",
                     "nodePort": 30080, "appProtocol": "kubernetes.io/h2c"},
                    {"name": "dns", "port": 53, "protocol": "UDP"},
                ],
                "selector": {"app": "frontend"}, "sessionAffinity": "None",
            },
            "status": {"loadBalancer": {}},
        }));
        let service = service(&object).unwrap();
        assert_eq!(service.key.to_string(), "default/frontend");
        assert_eq!(service.kind, ServiceKind::NodePort);
        assert_eq!(service.cluster_ips.len(), 2);
        assert!(!service.headless && !service.publish_not_ready);
        assert_eq!(service.ports[0].node_port, Some(30080));
        assert_eq!(service.ports[1].protocol, Protocol::Udp);
    }

    #[test]
    fn services_without_an_address_of_their_own() {
        let spec = |spec: Value| {
            service(&read(
                json!({"metadata": {"name": "s", "namespace": "n"}, "spec": spec}),
            ))
            .unwrap()
        };
        let headless = spec(json!({"clusterIP": "None", "clusterIPs": ["None"],
            "publishNotReadyAddresses": true}));
        assert!(headless.headless && headless.publish_not_ready);
        assert!(headless.cluster_ips.is_empty());
        let alias = spec(json!({"type": "ExternalName", "externalName": "db.example.org"}));
        assert_eq!(
            alias.kind,
            ServiceKind::ExternalName("db.example.org".to_owned())
        );
        assert!(!alias.headless);
        let unallocated = spec(json!({"ports": [{"port": 80}]}));
        assert!(!unallocated.headless && unallocated.cluster_ips.is_empty());
        let old = spec(json!({"clusterIP": "10.96.0.3"}));
        assert_eq!(old.cluster_ips.len(), 1);
    }

    #[test]
    fn a_slice_as_the_controller_writes_it() {
        let object = read(json!({
            "metadata": {"name": "web-abc", "namespace": "default",
                "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": [
                {"name": "http", "port": 8080, "protocol": "TCP"},
                {"name": "any"},
            ],
            "endpoints": [
                {"addresses": ["10.244.1.5"], "conditions": {"ready": true, "serving": true,
                    "terminating": false}, "nodeName": "node1", "zone": "a", "hostname": "web-0",
                    "targetRef": {"kind": "Pod", "name": "web-0", "namespace": "default"}},
                {"addresses": ["10.244.1.6"], "conditions": {"ready": false, "serving": true,
                    "terminating": true}},
                {"addresses": ["10.244.1.7"]},
            ],
        }));
        let slice = slice(&object).unwrap().unwrap();
        assert_eq!(slice.service, "web");
        assert_eq!(slice.ports.len(), 1);
        let [first, draining, unknown] = slice.endpoints.as_slice() else {
            panic!("three endpoints expected");
        };
        assert_eq!(first.pod.as_deref(), Some("web-0"));
        assert_eq!(first.hostname.as_deref(), Some("web-0"));
        let expected = EndpointState {
            ready: false,
            serving: true,
            terminating: true,
        };
        assert_eq!(draining.state, expected);
        assert_eq!(unknown.state, EndpointState::READY);
    }

    #[test]
    fn slices_that_do_not_concern_services() {
        let labels = json!({"kubernetes.io/service-name": "web"});
        for (labels, address_type) in [(json!({}), "IPv4"), (labels, "FQDN")] {
            let object = read(
                json!({"metadata": {"name": "s", "namespace": "n", "labels": labels},
                "addressType": address_type,
                "endpoints": [{"addresses": ["pods.example.org"]}]}),
            );
            assert_eq!(slice(&object).unwrap(), None);
        }
    }

    #[test]
    fn a_node_has_one_address_and_one_range_per_family() {
        let object = read(json!({
            "metadata": {"name": "node1"},
            "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.7/24", "fd00:244:0:1::/64"]},
            "status": {"addresses": [
                {"type": "Hostname", "address": "node1"},
                {"type": "ExternalIP", "address": "192.0.2.1"},
                {"type": "InternalIP", "address": "172.30.1.11"},
                {"type": "InternalIP", "address": "172.30.9.99"},
                {"type": "InternalIP", "address": "fd00:30:1::11"},
            ]},
        }));
        let node = node(&object).unwrap();
        let text: Vec<_> = node.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["172.30.1.11", "fd00:30:1::11"]);
        let text: Vec<_> = node.pod_cidrs.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["10.244.1.0/24", "fd00:244:0:1::/64"]);
    }

    #[test]
    fn what_is_wrong_says_where() {
        let svc = |spec: Value| {
            let object = json!({"metadata": {"name": "s", "namespace": "n"}, "spec": spec});
            service(&read(object)).unwrap_err().to_string()
        };
        let cases = [
            (
                json!({"type": "Cluster"}),
                "spec.type: \"Cluster\" is none of ClusterIP, NodePort, LoadBalancer, ExternalName",
            ),
            (
                json!({"clusterIPs": ["10.96.0.1", "10.96.0"]}),
                "spec.clusterIPs[1]: \"10.96.0\" is no IP address",
            ),
            (
                json!({"ports": [{"port": 80}, {"port": 0}]}),
                "spec.ports[1].port: 0 is not between 1 and 65535",
            ),
            (
                json!({"ports": [{"port": 80, "nodePort": 70000}]}),
                "spec.ports[0].nodePort: 70000 is not between 1 and 65535",
            ),
            (
                json!({"ports": [{"port": 80, "protocol": "tcp"}]}),
                "spec.ports[0].protocol: protocol \"tcp\" is none of TCP, UDP, SCTP",
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(svc(spec), format!("Service n/s: {expected}"));
        }
        let object = json!({"metadata": {"name": "s", "namespace": "n",
            "labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.244.0.1"]}, {"addresses": []}]});
        assert_eq!(
            slice(&read(object)).unwrap_err().to_string(),
            "EndpointSlice n/s: endpoints[1].addresses: at least one address is required"
        );
        let object = json!({"metadata": {"name": "n1"}, "spec": {"podCIDRs": ["10.244.1.0"]}});
        assert_eq!(
            node(&read(object)).unwrap_err().to_string(),
            "Node n1: spec.podCIDRs[0]: \"10.244.1.0\" is no address range (like 10.244.1.0/24)"
        );
    }
}
