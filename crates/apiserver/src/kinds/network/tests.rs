use serde_json::{Value, json};

use super::super::testing::{accepts, create, refuses, refuses_update, with};

fn slice() -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "e", "namespace": "default"},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": false}}],
        "ports": [{"port": 80}],
    })
}

fn policy() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "n", "namespace": "default"},
        "spec": {
            "podSelector": {},
            "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}], "ports": [{"port": 80}]}],
        },
    })
}

fn ingress() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "i", "namespace": "default"},
        "spec": {"rules": [{"host": "a.example.com", "http": {"paths": [
            {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"number": 80}}}},
        ]}}]},
    })
}

#[test]
fn slices() {
    let created = create("EndpointSlice", slice()).unwrap();
    assert_eq!(
        created["ports"],
        json!([{"port": 80, "name": "", "protocol": "TCP"}])
    );
    assert_eq!(created["endpoints"][0]["conditions"]["ready"], false);
    refuses(
        "EndpointSlice",
        &slice(),
        &[
            ("/addressType", Value::Null, "addressType: Required value"),
            (
                "/addressType",
                json!("IPv5"),
                "addressType: Unsupported value: \"IPv5\": supported values: \"FQDN\", \"IPv4\", \"IPv6\"",
            ),
            (
                "/addressType",
                json!("IPv6"),
                "endpoints[0].addresses[0]: Invalid value: \"10.0.0.1\": must be a valid IPv6 address",
            ),
            (
                "/endpoints/0/addresses",
                json!([]),
                "endpoints[0].addresses: Required value: must contain at least 1 address",
            ),
            (
                "/endpoints/0/addresses/0",
                json!("127.0.0.1"),
                "endpoints[0].addresses[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            ),
            (
                "/endpoints/0/addresses",
                json!(vec!["10.0.0.1"; 101]),
                "endpoints[0].addresses: Too many: 101: must have at most 100 items",
            ),
            (
                "/endpoints/0/hostname",
                json!("a.b"),
                "endpoints[0].hostname: Invalid value: \"a.b\": must not contain dots",
            ),
            (
                "/ports/0/port",
                json!(0),
                "ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ),
            (
                "/ports/1",
                json!({"port": 81}),
                "ports[1].name: Duplicate value: \"\"",
            ),
        ],
    );
    refuses_update(
        "EndpointSlice",
        &with(&slice(), "/endpoints", json!([])),
        &[(
            "/addressType",
            json!("IPv6"),
            "addressType: Invalid value: \"IPv6\": field is immutable",
        )],
    );
    accepts(
        "EndpointSlice",
        &slice(),
        &[
            ("/endpoints", json!([])),
            ("/ports", json!([])),
            ("/ports/1", json!({"port": 81, "name": "b"})),
        ],
    );
}

#[test]
fn endpoints() {
    let good = json!({
        "apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "e", "namespace": "default"},
        "subsets": [{"addresses": [{"ip": "fd00::1"}], "ports": [{"port": 80}]}],
    });
    refuses(
        "Endpoints",
        &good,
        &[
            (
                "/subsets/0/addresses",
                json!([]),
                "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`",
            ),
            (
                "/subsets/0/addresses/0/ip",
                json!("x"),
                "subsets[0].addresses[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ),
            (
                "/subsets/0/ports/0/port",
                json!(0),
                "subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ),
        ],
    );
}

#[test]
fn policies() {
    let types = |policy| create("NetworkPolicy", policy).unwrap()["spec"]["policyTypes"].clone();
    assert_eq!(types(policy()), json!(["Ingress"]));
    assert_eq!(
        types(with(&policy(), "/spec/egress", json!([{}]))),
        json!(["Ingress", "Egress"])
    );
    assert_eq!(
        types(with(&policy(), "/spec/policyTypes", json!(["Egress"]))),
        json!(["Egress"])
    );
    let block = "/spec/ingress/0/from/0/ipBlock";
    let port = "/spec/ingress/0/ports/0";
    refuses(
        "NetworkPolicy",
        &policy(),
        &[
            (
                &format!("{block}/cidr"),
                json!("10.0.0.0/33"),
                "spec.ingress[0].from[0].ipBlock.cidr: Invalid value: \"10.0.0.0/33\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ),
            (
                &format!("{block}/cidr"),
                json!(""),
                "spec.ingress[0].from[0].ipBlock.cidr: Required value",
            ),
            (
                &format!("{block}/except/0"),
                json!("11.0.0.0/16"),
                "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
            ),
            (
                &format!("{block}/except/0"),
                json!("10.0.0.0/8"),
                "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`",
            ),
            (
                &format!("{block}/except/0"),
                json!("fd00::/16"),
                "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"fd00::/16\": must be a strict subset of `cidr`",
            ),
            (
                "/spec/ingress/0/from/0/podSelector",
                json!({}),
                "spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer",
            ),
            (
                "/spec/ingress/0/from/0",
                json!({}),
                "spec.ingress[0].from[0]: Required value: must specify a peer",
            ),
            (
                &format!("{port}/protocol"),
                json!("ICMP"),
                "spec.ingress[0].ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"TCP\", \"UDP\", \"SCTP\"",
            ),
            (
                &format!("{port}/endPort"),
                json!(79),
                "spec.ingress[0].ports[0].endPort: Invalid value: 79: must be greater than or equal to `port`",
            ),
            (
                port,
                json!({"endPort": 79}),
                "spec.ingress[0].ports[0].endPort: Invalid value: 79: may not be specified when `port` is not specified",
            ),
            (
                port,
                json!({"port": "http", "endPort": 79}),
                "spec.ingress[0].ports[0].endPort: Invalid value: 79: may not be specified when `port` is non-numeric",
            ),
            (
                &format!("{port}/port"),
                json!(0),
                "spec.ingress[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ),
            (
                "/spec/policyTypes",
                json!(["Both"]),
                "spec.policyTypes[0]: Unsupported value: \"Both\": supported values: \"Ingress\", \"Egress\"",
            ),
            (
                "/spec/podSelector",
                json!({"matchExpressions": [{"key": "a", "operator": "Is"}]}),
                "spec.podSelector.matchExpressions[0].operator: Invalid value: \"Is\": not a valid selector operator",
            ),
        ],
    );
}

#[test]
fn ingresses() {
    let path = "/spec/rules/0/http/paths/0";
    let backend = format!("{path}/backend");
    refuses(
        "Ingress",
        &ingress(),
        &[
            (
                "/spec",
                json!({}),
                "spec: Invalid value: []: either `defaultBackend` or `rules` must be specified",
            ),
            (
                "/spec/rules/0/host",
                json!("10.0.0.1"),
                "spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address",
            ),
            (
                "/spec/rules/0/http/paths",
                json!([]),
                "spec.rules[0].http.paths: Required value",
            ),
            (
                &format!("{path}/pathType"),
                Value::Null,
                "spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified",
            ),
            (
                &format!("{path}/pathType"),
                json!("Regex"),
                "spec.rules[0].http.paths[0].pathType: Unsupported value: \"Regex\": supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\"",
            ),
            (
                &format!("{path}/path"),
                json!("a"),
                "spec.rules[0].http.paths[0].path: Invalid value: \"a\": must be an absolute path",
            ),
            (
                &format!("{path}/path"),
                json!("/a//b"),
                "spec.rules[0].http.paths[0].path: Invalid value: \"/a//b\": must not contain '//'",
            ),
            (
                &backend,
                json!({}),
                "spec.rules[0].http.paths[0].backend: Invalid value: \"\": resource or service backend is required",
            ),
            (
                &backend,
                json!({"service": {"name": "s"}}),
                "spec.rules[0].http.paths[0].backend.service.port: Required value: port name or number is required",
            ),
            (
                &backend,
                json!({"service": {"name": "s", "port": {"name": "a", "number": 1}}}),
                "spec.rules[0].http.paths[0].backend.service.port: Invalid value: \"\": cannot set both port name & port number",
            ),
        ],
    );
    accepts(
        "Ingress",
        &ingress(),
        &[
            ("/spec/rules/0/host", json!("*.example.com")),
            ("/spec/rules/0/host", Value::Null),
            (
                "/spec",
                json!({"defaultBackend": {"service": {"name": "s", "port": {"name": "http"}}}}),
            ),
            (
                "/spec/tls",
                json!([{"hosts": ["a.example.com"], "secretName": "t"}]),
            ),
            ("/spec/ingressClassName", json!("ripstop")),
        ],
    );
    let class = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
        "metadata": {"name": "c"}, "spec": {"controller": "example.com/c"},
    });
    refuses(
        "IngressClass",
        &class,
        &[
            (
                "/spec/controller",
                json!("c"),
                "spec.controller: Invalid value: \"c\": must be a domain-prefixed path (such as \"acme.io/foo\")",
            ),
            (
                "/metadata/namespace",
                json!("default"),
                "metadata.namespace: Forbidden: not allowed on this type",
            ),
        ],
    );
}

#[test]
fn service_cidrs() {
    let good = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": "more"}, "spec": {"cidrs": ["10.97.0.0/16"]},
    });
    let both = json!(["10.97.0.0/16", "fd00:97::/112"]);
    accepts("ServiceCIDR", &good, &[("/spec/cidrs", both.clone())]);
    refuses(
        "ServiceCIDR",
        &good,
        &[
            (
                "/spec/cidrs",
                json!([]),
                "spec.cidrs: Required value: at least one CIDR required",
            ),
            (
                "/spec/cidrs",
                json!(["10.97.0.1/16"]),
                "spec.cidrs[0]: Invalid value: \"10.97.0.1/16\": must not have bits set beyond the prefix length",
            ),
            (
                "/spec/cidrs",
                json!(["10.97.0.0/16", "10.98.0.0/16"]),
                "spec.cidrs: Invalid value: [\"10.97.0.0/16\",\"10.98.0.0/16\"]: may specify no more than one IP for each IP family",
            ),
        ],
    );
    refuses_update(
        "ServiceCIDR",
        &good,
        &[(
            "/spec/cidrs",
            json!(["10.98.0.0/16"]),
            "spec.cidrs: Invalid value: [\"10.98.0.0/16\"]: field is immutable",
        )],
    );
}
