use ripstop_model::{EndpointState, ServiceKind, TrafficPolicy};
use serde_json::{Value, json};

use super::*;

fn read<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// The model of an object with which nothing is wrong.
fn clean<T>(converted: Converted<T>) -> T {
    assert_eq!(converted.problems, []);
    converted.model.expect("a model")
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
    let service = clean(service(&object));
    assert_eq!(service.key.to_string(), "default/frontend");
    assert_eq!(service.kind, ServiceKind::NodePort);
    assert_eq!(service.cluster_ips.len(), 2);
    assert!(!service.headless && !service.publish_not_ready);
    assert_eq!(service.ports[0].node_port, Some(30080));
    assert_eq!(service.ports[1].protocol, Protocol::Udp);
}

/// As who may write a status can leave it behind.
#[test]
fn a_service_with_a_condition_that_does_not_decode() {
    let object = read(json!({
        "metadata": {"name": "s", "namespace": "n"},
        "spec": {"type": "LoadBalancer", "clusterIPs": ["10.96.0.9"]},
        "status": {
            "conditions": [{"type": "A", "status": "True", "reason": "B", "message": "",
                "lastTransitionTime": null}],
            "loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]},
        },
    }));
    let service = clean(service(&object));
    assert_eq!(service.load_balancer_ips.len(), 1);
}

#[test]
fn labels_that_take_services_and_slices_from_the_proxies() {
    for (label, proxied) in [
        ("service.kubernetes.io/service-proxy-name", false),
        ("service.kubernetes.io/headless", false),
        ("service.kubernetes.io/other", true),
    ] {
        let meta = json!({"name": "a", "namespace": "n",
            "labels": {label: "", "kubernetes.io/service-name": "a"}});
        let object = read(json!({"metadata": meta, "spec": {"clusterIPs": ["10.96.0.9"]}}));
        assert_eq!(clean(service(&object)).proxied, proxied, "{label}");
        let object = read(json!({"metadata": meta, "addressType": "IPv4", "endpoints": []}));
        assert_eq!(clean(slice(&object)).proxied, proxied, "{label}");
    }
}

#[test]
fn services_without_an_address_of_their_own() {
    let spec = |spec: Value| {
        clean(service(&read(
            json!({"metadata": {"name": "s", "namespace": "n"}, "spec": spec}),
        )))
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
    let slice = clean(slice(&object));
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
        let converted = slice(&object);
        assert_eq!((converted.model, converted.problems.len()), (None, 0));
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
    let node = clean(node(&object));
    let text: Vec<_> = node.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(text, ["172.30.1.11", "fd00:30:1::11"]);
    let text: Vec<_> = node.pod_cidrs.iter().map(ToString::to_string).collect();
    assert_eq!(text, ["10.244.1.0/24", "fd00:244:0:1::/64"]);
}

#[test]
fn every_field_of_a_load_balancer() {
    let object = read(json!({
        "metadata": {"name": "lb", "namespace": "n"},
        "spec": {
            "type": "LoadBalancer", "clusterIPs": ["10.96.0.9"],
            "ports": [{"port": 80, "nodePort": 30080}],
            "externalIPs": ["192.0.2.7"],
            "loadBalancerSourceRanges": [" 198.51.100.7/24", "2001:db8::/32"],
            "internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Local",
            "healthCheckNodePort": 31000,
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
        },
        "status": {"loadBalancer": {"ingress": [
            {"ip": "203.0.113.1"}, {"ip": "203.0.113.2", "ipMode": "VIP"},
            {"ip": "203.0.113.3", "ipMode": "Proxy"}, {"hostname": "lb.example.org"},
        ]}},
    }));
    let service = clean(service(&object));
    let text = |list: &[IpAddr]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(text(&service.external_ips), ["192.0.2.7"]);
    assert_eq!(
        text(&service.load_balancer_ips),
        ["203.0.113.1", "203.0.113.2"]
    );
    let ranges = service.load_balancer_source_ranges.iter();
    let ranges: Vec<_> = ranges.map(ToString::to_string).collect();
    assert_eq!(ranges, ["198.51.100.0/24", "2001:db8::/32"]);
    assert_eq!(service.affinity, Some(60));
    assert_eq!(service.internal_policy, TrafficPolicy::Cluster);
    assert_eq!(service.external_policy, TrafficPolicy::Local);
    assert_eq!(service.health_check_node_port, Some(31000));
}

#[test]
fn a_load_balancer_that_became_a_cluster_ip_has_no_ingress() {
    let object = read(json!({
        "metadata": {"name": "s", "namespace": "n"},
        "spec": {"clusterIP": "10.96.0.9", "sessionAffinity": "ClientIP",
            "loadBalancerSourceRanges": ["10.0.0.0/8"]},
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}},
    }));
    let service = clean(service(&object));
    assert!(service.load_balancer_ips.is_empty());
    assert!(service.load_balancer_source_ranges.is_empty());
    assert_eq!(service.affinity, Some(10_800));
}

#[test]
fn hints_and_zones() {
    let object = read(json!({
        "metadata": {"name": "web-abc", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv6",
        "endpoints": [{"addresses": ["fd00:244::5"], "hints": {
            "forZones": [{"name": "a"}, {"name": "b"}], "forNodes": [{"name": "node1"}]}}],
    }));
    let slice = clean(slice(&object));
    assert_eq!(slice.endpoints[0].zone_hints, ["a", "b"]);
    assert_eq!(slice.endpoints[0].node_hints, ["node1"]);
    let object = read(json!({"metadata": {"name": "n1",
        "labels": {"topology.kubernetes.io/zone": "a"}}}));
    assert_eq!(clean(node(&object)).zone.as_deref(), Some("a"));
}

#[test]
fn service_ranges() {
    let object = read(json!({"metadata": {"name": "kubernetes"},
        "spec": {"cidrs": ["10.96.0.1/16", "fd00:96::/112"]}}));
    let ranges = clean(service_cidr(&object)).cidrs;
    let ranges: Vec<_> = ranges.iter().map(ToString::to_string).collect();
    assert_eq!(ranges, ["10.96.0.0/16", "fd00:96::/112"]);
}

#[test]
fn what_is_wrong_says_where_and_the_rest_is_there() {
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
            json!({"externalIPs": ["127.0.0.1"]}),
            "spec.externalIPs[0]: 127.0.0.1 is a loopback address; it must be one of the cluster",
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
            json!({"ports": [{"port": 81, "protocol": "tcp"}]}),
            "spec.ports[0].protocol: protocol \"tcp\" is none of TCP, UDP, SCTP",
        ),
        (
            json!({"sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}}),
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: 0 is not between 1 and 86400; \
             10800 is taken",
        ),
        (
            json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/33"]}),
            "spec.loadBalancerSourceRanges[0]: \"10.0.0.0/33\" is no address range \
             (like 10.244.1.0/24)",
        ),
        (
            json!({"externalTrafficPolicy": "Nowhere"}),
            "spec.externalTrafficPolicy: \"Nowhere\" is none of Cluster, Local",
        ),
    ];
    for (spec, expected) in cases {
        let object = json!({"metadata": {"name": "s", "namespace": "n"}, "spec": spec.clone()});
        let converted = service(&read(object));
        let problems: Vec<_> = converted.problems.iter().map(ToString::to_string).collect();
        assert_eq!(problems, [format!("Service n/s: {expected}")]);
        let service = converted.model.unwrap();
        if let Some(Value::Array(ports)) = spec.get("ports") {
            let good = ports.iter().filter(|port| port["port"] == 80).count();
            assert_eq!(service.ports.len(), good, "{spec}");
        }
        if spec.get("loadBalancerSourceRanges").is_some() {
            assert!(
                !service.load_balancer_source_ranges.is_empty(),
                "open to all"
            );
        }
    }
    let object = json!({"metadata": {"name": "s", "namespace": "n",
        "labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4",
        "ports": [{"port": 80}, {"port": 65536}],
        "endpoints": [{"addresses": ["10.244.0.1"]}, {"addresses": []},
            {"addresses": ["fd00::1"]}, {"addresses": ["169.254.0.1"]}]});
    let converted = slice(&read(object));
    let problems: Vec<_> = converted.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "EndpointSlice n/s: ports[1].port: 65536 is not between 1 and 65535",
            "EndpointSlice n/s: endpoints[1].addresses: at least one address is required",
            "EndpointSlice n/s: endpoints[2].addresses: fd00::1 is not of the slice's \
             addressType IPv4",
            "EndpointSlice n/s: endpoints[3].addresses: 169.254.0.1 is a link-local address; \
             it must be one of the cluster",
        ]
    );
    let slice = converted.model.unwrap();
    assert_eq!((slice.ports.len(), slice.endpoints.len()), (1, 1));
    let object = json!({"metadata": {"name": "n1"},
        "spec": {"podCIDRs": ["10.244.1.0", "fd00:244::/64"]}});
    let converted = node(&read(object));
    assert_eq!(
        converted.problems[0].to_string(),
        "Node n1: spec.podCIDRs[0]: \"10.244.1.0\" is no address range (like 10.244.1.0/24)"
    );
    assert_eq!(converted.model.unwrap().pod_cidrs.len(), 1);
}

#[test]
fn slices_say_when_endpoints_changed() {
    let slice = |annotations: Value| {
        let object = json!({"metadata": {"name": "s", "annotations": annotations},
            "addressType": "IPv4", "endpoints": []});
        endpoints_changed(&read(object)).map(|at| at.to_string())
    };
    let key = "endpoints.kubernetes.io/last-change-trigger-time";
    assert_eq!(
        slice(json!({key: "2026-11-21T08:30:00.123456789Z"})).unwrap(),
        "2026-11-21T08:30:00.123456789Z"
    );
    assert_eq!(slice(json!({key: "yesterday"})), None);
    assert_eq!(slice(json!({})), None);
}
