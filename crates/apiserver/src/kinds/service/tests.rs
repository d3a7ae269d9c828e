use serde_json::{Value, json};

use super::super::testing::{accepts, create, refuses, refuses_update, update, with};

fn good() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "s", "namespace": "default"},
        "spec": {"selector": {"app": "s"}, "ports": [{"port": 80}]},
    })
}

fn of_type(type_: &str) -> Value {
    with(&good(), "/spec/type", json!(type_))
}

/// What allocation would make of a created service.
fn allocated(mut service: Value) -> Value {
    service["spec"]["clusterIP"] = json!("10.96.0.7");
    service["spec"]["clusterIPs"] = json!(["10.96.0.7"]);
    service["spec"]["ipFamilies"] = json!(["IPv4"]);
    service["spec"]["ipFamilyPolicy"] = json!("SingleStack");
    if matches!(
        service["spec"]["type"].as_str(),
        Some("NodePort" | "LoadBalancer")
    ) {
        service["spec"]["ports"][0]["nodePort"] = json!(30001);
    }
    service
}

#[test]
fn defaults_by_type() {
    let spec = |service| create("Service", service).unwrap()["spec"].clone();
    assert_eq!(
        spec(good()),
        json!({
            "selector": {"app": "s"},
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
            "type": "ClusterIP",
            "sessionAffinity": "None",
            "internalTrafficPolicy": "Cluster",
        })
    );
    let balancer = spec(of_type("LoadBalancer"));
    assert_eq!(balancer["externalTrafficPolicy"], "Cluster");
    assert_eq!(balancer["allocateLoadBalancerNodePorts"], true);
    let sticky = spec(with(&good(), "/spec/sessionAffinity", json!("ClientIP")));
    assert_eq!(
        sticky["sessionAffinityConfig"],
        json!({"clientIP": {"timeoutSeconds": 10800}})
    );
    let headless = spec(with(&good(), "/spec/clusterIP", json!("None")));
    assert_eq!(headless["clusterIPs"], json!(["None"]));
    let external = spec(with(&good(), "/spec/externalIPs", json!(["192.0.2.1"])));
    assert_eq!(external["externalTrafficPolicy"], "Cluster");
}

#[test]
fn wrong_services() {
    refuses(
        "Service",
        &good(),
        &[
            (
                "/metadata/name",
                json!("a.b"),
                "metadata.name: Invalid value: \"a.b\": must not contain dots",
            ),
            ("/spec/ports", Value::Null, "spec.ports: Required value"),
            (
                "/spec/ports/0/port",
                json!(70000),
                "spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive\nspec.ports[0].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            ),
            (
                "/spec/ports/0",
                json!({"targetPort": 80}),
                "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ),
            (
                "/spec/ports/0/protocol",
                json!("QUIC"),
                "spec.ports[0].protocol: Unsupported value: \"QUIC\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            ),
            (
                "/spec/ports/0/targetPort",
                json!("Http"),
                "spec.ports[0].targetPort: Invalid value: \"Http\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
            ),
            (
                "/spec/ports/0/nodePort",
                json!(30000),
                "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
            ),
            (
                "/spec/ports",
                json!([{"port": 1}, {"port": 2}]),
                "spec.ports[0].name: Required value\nspec.ports[1].name: Required value",
            ),
            (
                "/spec/ports",
                json!([{"port": 1, "name": "a"}, {"port": 2, "name": "a"}]),
                "spec.ports[1].name: Duplicate value: \"a\"",
            ),
            (
                "/spec/ports",
                json!([{"port": 1, "name": "a"}, {"port": 1, "name": "b"}]),
                "spec.ports[1]: Duplicate value: {\"port\":1,\"protocol\":\"TCP\"}",
            ),
            (
                "/spec/type",
                json!("Magic"),
                "spec.type: Unsupported value: \"Magic\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
            ),
            (
                "/spec/type",
                json!("ExternalName"),
                "spec.externalName: Required value",
            ),
            (
                "/spec/sessionAffinity",
                json!("Cookie"),
                "spec.sessionAffinity: Unsupported value: \"Cookie\": supported values: \"ClientIP\", \"None\"",
            ),
            (
                "/spec/selector",
                json!({"a": "b c"}),
                "spec.selector: Invalid value: \"b c\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
            ),
            (
                "/spec/clusterIP",
                json!("10.0.0"),
                "spec.clusterIPs[0]: Invalid value: \"10.0.0\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ),
            (
                "/spec/externalIPs",
                json!(["127.0.0.1"]),
                "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            ),
            (
                "/spec/ipFamilies",
                json!(["IPv5"]),
                "spec.ipFamilies[0]: Unsupported value: \"IPv5\": supported values: \"IPv4\", \"IPv6\"",
            ),
            (
                "/spec/ipFamilies",
                json!(["IPv4", "IPv4"]),
                "spec.ipFamilies[1]: Duplicate value: \"IPv4\"",
            ),
            (
                "/spec/ipFamilyPolicy",
                json!("Both"),
                "spec.ipFamilyPolicy: Unsupported value: \"Both\": supported values: \"PreferDualStack\", \"RequireDualStack\", \"SingleStack\"",
            ),
            (
                "/spec/externalTrafficPolicy",
                json!("Local"),
                "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
            ),
            (
                "/spec/internalTrafficPolicy",
                json!("Near"),
                "spec.internalTrafficPolicy: Unsupported value: \"Near\": supported values: \"Cluster\", \"Local\"",
            ),
            (
                "/spec/healthCheckNodePort",
                json!(30000),
                "spec.healthCheckNodePort: Invalid value: 30000: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
            ),
            (
                "/spec/loadBalancerSourceRanges",
                json!(["10.0.0.0/8"]),
                "spec.loadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
            ),
            (
                "/spec/allocateLoadBalancerNodePorts",
                json!(false),
                "spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'",
            ),
            (
                "/spec/trafficDistribution",
                json!("Far"),
                "spec.trafficDistribution: Unsupported value: \"Far\": supported values: \"PreferClose\", \"PreferSameNode\", \"PreferSameZone\"",
            ),
        ],
    );
    refuses(
        "Service",
        &of_type("LoadBalancer"),
        &[
            (
                "/spec/clusterIP",
                json!("None"),
                "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for LoadBalancer services",
            ),
            (
                "/spec/loadBalancerSourceRanges",
                json!(["10.0.0.0"]),
                "spec.loadBalancerSourceRanges[0]: Invalid value: \"10.0.0.0\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ),
            (
                "/spec/externalTrafficPolicy",
                json!("Far"),
                "spec.externalTrafficPolicy: Unsupported value: \"Far\": supported values: \"Cluster\", \"Local\"",
            ),
        ],
    );
    refuses(
        "Service",
        &with(&good(), "/spec/sessionAffinity", json!("ClientIP")),
        &[(
            "/spec/sessionAffinityConfig",
            json!({"clientIP": {"timeoutSeconds": 86401}}),
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must be greater than 0 and less than 86400",
        )],
    );
}

#[test]
fn right_services() {
    accepts(
        "Service",
        &good(),
        &[
            ("/metadata/name", json!("0-begins-with-a-digit")),
            ("/spec/selector", Value::Null),
            ("/spec/clusterIPs", json!(["fd00::1", "10.0.0.1"])),
            (
                "/spec/ports",
                json!([{"name": "t", "port": 53}, {"name": "u", "port": 53, "protocol": "UDP"}]),
            ),
            ("/spec/ports/0/targetPort", json!("http")),
            ("/spec/ports/0/appProtocol", json!("kubernetes.io/h2c")),
            (
                "/spec/sessionAffinityConfig",
                json!({"clientIP": {"timeoutSeconds": 1}}),
            ),
            ("/spec/trafficDistribution", json!("PreferClose")),
        ],
    );
    let headless = with(&good(), "/spec/clusterIP", json!("None"));
    accepts("Service", &headless, &[("/spec/ports", Value::Null)]);
    let named = with(
        &of_type("ExternalName"),
        "/spec/externalName",
        json!("example.com."),
    );
    accepts("Service", &named, &[("/spec/ports", Value::Null)]);
    accepts(
        "Service",
        &of_type("NodePort"),
        &[
            ("/spec/ports/0/nodePort", json!(30007)),
            ("/spec/externalTrafficPolicy", json!("Local")),
        ],
    );
}

#[test]
fn addresses_do_not_change() {
    refuses_update(
        "Service",
        &allocated(good()),
        &[
            (
                "/spec/clusterIP",
                json!("10.96.0.8"),
                "spec.clusterIPs[0]: Invalid value: [\"10.96.0.8\"]: may not change once set",
            ),
            (
                "/spec/ipFamilies",
                json!(["IPv6"]),
                "spec.clusterIPs[0]: Invalid value: \"10.96.0.7\": expected an IPv6 value as indicated by `ipFamilies[0]`\nspec.ipFamilies[0]: Invalid value: [\"IPv6\"]: may not change once set",
            ),
        ],
    );
}

#[test]
fn a_file_without_addresses_keeps_them() {
    let old = allocated(create("Service", of_type("NodePort")).unwrap());
    let new = update("Service", of_type("NodePort"), &old).unwrap();
    assert_eq!(new, old);
    // Another port of the service is new, the first one is as it was.
    let two = with(
        &of_type("NodePort"),
        "/spec/ports",
        json!([{"name": "b", "port": 81}, {"name": "a", "port": 80}]),
    );
    let new = update("Service", two, &old).unwrap();
    assert_eq!(new["spec"]["ports"][0].get("nodePort"), None);
    assert_eq!(new["spec"]["ports"][1]["nodePort"], 30001);
}

#[test]
fn fields_go_with_their_type() {
    let old = allocated(create("Service", of_type("LoadBalancer")).unwrap());
    let new = update(
        "Service",
        with(&old, "/spec/type", json!("ClusterIP")),
        &old,
    )
    .unwrap();
    for field in ["externalTrafficPolicy", "allocateLoadBalancerNodePorts"] {
        assert_eq!(new["spec"].get(field), None, "{field}");
    }
    assert_eq!(new["spec"]["ports"][0].get("nodePort"), None);
    assert_eq!(new["spec"]["clusterIP"], "10.96.0.7");

    let named = with(&old, "/spec/type", json!("ExternalName"));
    let named = with(&named, "/spec/externalName", json!("example.com"));
    let new = update("Service", named, &old).unwrap();
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        assert_eq!(new["spec"].get(field), None, "{field}");
    }
}

#[test]
fn a_second_address_comes_and_goes() {
    let one = allocated(create("Service", good()).unwrap());
    let two = with(&one, "/spec/clusterIPs", json!(["10.96.0.7", "fd00::7"]));
    let two = with(&two, "/spec/ipFamilies", json!(["IPv4", "IPv6"]));
    let two = with(&two, "/spec/ipFamilyPolicy", json!("PreferDualStack"));
    let two = update("Service", two, &one).unwrap();
    let back = with(&two, "/spec/clusterIPs", json!(["10.96.0.7"]));
    let back = with(&back, "/spec/ipFamilies", json!(["IPv4"]));
    assert!(update("Service", back.clone(), &two).is_err());
    let back = with(&back, "/spec/ipFamilyPolicy", json!("SingleStack"));
    assert!(update("Service", back, &two).is_ok());
}
