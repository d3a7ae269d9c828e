use serde_json::{Value, json};

use super::super::testing::{accepts, create, refuses, refuses_update, update, with};

fn good() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {
            "containers": [{"name": "c", "image": "nginx", "ports": [{"containerPort": 80, "name": "http"}]}],
            "volumes": [{"name": "v"}],
        },
    })
}

#[test]
fn defaults_are_those_of_kubernetes() {
    let pod = create("Pod", good()).unwrap();
    let spec = &pod["spec"];
    assert_eq!(
        spec["containers"][0],
        json!({
            "name": "c", "image": "nginx", "imagePullPolicy": "Always", "resources": {},
            "ports": [{"containerPort": 80, "name": "http", "protocol": "TCP"}],
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
        })
    );
    for (pointer, value) in [
        ("/restartPolicy", json!("Always")),
        ("/dnsPolicy", json!("ClusterFirst")),
        ("/terminationGracePeriodSeconds", json!(30)),
        ("/schedulerName", json!("default-scheduler")),
        ("/securityContext", json!({})),
        ("/enableServiceLinks", json!(true)),
        ("/serviceAccountName", json!("default")),
        ("/serviceAccount", json!("default")),
        ("/volumes/0", json!({"name": "v", "emptyDir": {}})),
        ("/tolerations/0/key", json!("node.kubernetes.io/not-ready")),
        ("/tolerations/1/tolerationSeconds", json!(300)),
    ] {
        assert_eq!(spec.pointer(pointer), Some(&value), "{pointer}");
    }
    assert_eq!(
        pod["status"],
        json!({"phase": "Pending", "qosClass": "BestEffort"})
    );
}

#[test]
fn defaults_depend_on_other_fields() {
    let container = "/spec/containers/0";
    for (pointer, value, result, expected) in [
        (
            "/image",
            json!("nginx:1.29"),
            "/imagePullPolicy",
            json!("IfNotPresent"),
        ),
        (
            "/image",
            json!("nginx:latest"),
            "/imagePullPolicy",
            json!("Always"),
        ),
        (
            "/image",
            json!("host:5000/nginx"),
            "/imagePullPolicy",
            json!("Always"),
        ),
        (
            "/image",
            json!("nginx@sha256:00"),
            "/imagePullPolicy",
            json!("IfNotPresent"),
        ),
        (
            "/readinessProbe",
            json!({"httpGet": {"port": 80}}),
            "/readinessProbe",
            json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}),
        ),
        (
            "/livenessProbe",
            json!({"grpc": {"port": 80}, "periodSeconds": 0}),
            "/livenessProbe",
            json!({"grpc": {"port": 80, "service": ""}, "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}),
        ),
        (
            "/env",
            json!([{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
            "/env/0/valueFrom/fieldRef/apiVersion",
            json!("v1"),
        ),
        (
            "/resources",
            json!({"limits": {"cpu": 1, "memory": "1Gi"}}),
            "/resources/requests",
            json!({"cpu": "1", "memory": "1Gi"}),
        ),
    ] {
        let pod = with(&good(), &format!("{container}{pointer}"), value);
        let pod = create("Pod", pod).unwrap();
        let found = pod.pointer(&format!("{container}{result}"));
        assert_eq!(found, Some(&expected), "{pointer}");
    }
    let host = create("Pod", with(&good(), "/spec/hostNetwork", json!(true))).unwrap();
    assert_eq!(host["spec"]["containers"][0]["ports"][0]["hostPort"], 80);
}

#[test]
fn quality_of_service() {
    for (resources, class) in [
        (json!({}), "BestEffort"),
        (json!({"requests": {"cpu": "100m"}}), "Burstable"),
        (
            json!({"limits": {"cpu": "1", "memory": "1Gi"}}),
            "Guaranteed",
        ),
        (
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m"}}),
            "Guaranteed",
        ),
        (json!({"limits": {"memory": "1Gi"}}), "Burstable"),
    ] {
        let pod = with(&good(), "/spec/containers/0/resources", resources.clone());
        assert_eq!(
            create("Pod", pod).unwrap()["status"]["qosClass"],
            class,
            "{resources}"
        );
    }
}

#[test]
fn wrong_pods() {
    let c = json!({"name": "c", "image": "i"});
    refuses(
        "Pod",
        &good(),
        &[
            (
                "/metadata/name",
                json!("P"),
                "metadata.name: Invalid value: \"P\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            ),
            (
                "/metadata/labels",
                json!({"a b": "c"}),
                "metadata.labels: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            ),
            (
                "/spec/containers",
                json!([]),
                "spec.containers: Required value",
            ),
            (
                "/spec/containers",
                Value::Null,
                "spec.containers: Required value",
            ),
            (
                "/spec/containers/1",
                c.clone(),
                "spec.containers[1].name: Duplicate value: \"c\"",
            ),
            (
                "/spec/initContainers",
                json!([c]),
                "spec.initContainers[0].name: Duplicate value: \"c\"",
            ),
            (
                "/spec/containers/0/name",
                Value::Null,
                "spec.containers[0].name: Required value",
            ),
            (
                "/spec/containers/0/image",
                Value::Null,
                "spec.containers[0].image: Required value",
            ),
            (
                "/spec/containers/0/image",
                json!(" nginx"),
                "spec.containers[0].image: Invalid value: \" nginx\": must not have leading or trailing whitespace",
            ),
            (
                "/spec/containers/0/ports/0/containerPort",
                json!(70000),
                "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            ),
            (
                "/spec/containers/0/ports/0/containerPort",
                Value::Null,
                "spec.containers[0].ports[0].containerPort: Required value",
            ),
            (
                "/spec/containers/0/ports/0/name",
                json!("a-name-too-long-for-a-port"),
                "spec.containers[0].ports[0].name: Invalid value: \"a-name-too-long-for-a-port\": must be no more than 15 characters",
            ),
            (
                "/spec/containers/0/ports/0/protocol",
                json!("tcp"),
                "spec.containers[0].ports[0].protocol: Unsupported value: \"tcp\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            ),
            (
                "/spec/containers/0/ports/1",
                json!({"containerPort": 81, "name": "http"}),
                "spec.containers[0].ports[1].name: Duplicate value: \"http\"",
            ),
            (
                "/spec/containers/0/ports",
                json!([{"containerPort": 1, "hostPort": 9}, {"containerPort": 2, "hostPort": 9}]),
                "spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//9\"",
            ),
            (
                "/spec/containers/0/env",
                json!([{"name": "a=b"}]),
                "spec.containers[0].env[0].name: Invalid value: \"a=b\": a valid environment variable name must consist only of printable ASCII characters other than '='",
            ),
            (
                "/spec/containers/0/env",
                json!([{"value": "b"}]),
                "spec.containers[0].env[0].name: Required value",
            ),
            (
                "/spec/containers/0/env",
                json!([{"name": "A", "value": "b", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
                "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
            ),
            (
                "/spec/containers/0/env",
                json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]),
                "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"spec.x\": supported values: \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\"",
            ),
            (
                "/spec/containers/0/readinessProbe",
                json!({"periodSeconds": 1}),
                "spec.containers[0].readinessProbe: Required value: must specify a handler type",
            ),
            (
                "/spec/containers/0/readinessProbe",
                json!({"exec": {"command": ["x"]}, "grpc": {"port": 1}}),
                "spec.containers[0].readinessProbe.grpc: Forbidden: may not specify more than 1 handler type",
            ),
            (
                "/spec/containers/0/readinessProbe",
                json!({"exec": {}}),
                "spec.containers[0].readinessProbe.exec.command: Required value",
            ),
            (
                "/spec/containers/0/readinessProbe",
                json!({"tcpSocket": {"port": 0}}),
                "spec.containers[0].readinessProbe.tcpSocket.port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ),
            (
                "/spec/containers/0/readinessProbe",
                json!({"tcpSocket": {"port": 1}, "periodSeconds": -1}),
                "spec.containers[0].readinessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                "/spec/containers/0/livenessProbe",
                json!({"tcpSocket": {"port": 1}, "successThreshold": 2}),
                "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
            ),
            (
                "/spec/containers/0/volumeMounts",
                json!([{"name": "w", "mountPath": "/w"}]),
                "spec.containers[0].volumeMounts[0].name: Not found: \"w\"",
            ),
            (
                "/spec/containers/0/volumeMounts",
                json!([{"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/v"}]),
                "spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/v\": must be unique",
            ),
            (
                "/spec/containers/0/resources",
                json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
                "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
            ),
            (
                "/spec/volumes/1",
                json!({"name": "v"}),
                "spec.volumes[1].name: Duplicate value: \"v\"",
            ),
            (
                "/spec/volumes/0",
                json!({"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}),
                "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
            ),
            (
                "/spec/restartPolicy",
                json!("Sometimes"),
                "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
            ),
            (
                "/spec/dnsPolicy",
                json!("X"),
                "spec.dnsPolicy: Unsupported value: \"X\": supported values: \"ClusterFirstWithHostNet\", \"ClusterFirst\", \"Default\", \"None\"",
            ),
            (
                "/spec/dnsPolicy",
                json!("None"),
                "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
            ),
            (
                "/spec/dnsConfig",
                json!({"nameservers": ["x"]}),
                "spec.dnsConfig.nameservers[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ),
            (
                "/spec/hostAliases",
                json!([{"ip": "1.2.3", "hostnames": ["a"]}]),
                "spec.hostAliases[0].ip: Invalid value: \"1.2.3\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ),
            (
                "/spec/hostname",
                json!("a.b"),
                "spec.hostname: Invalid value: \"a.b\": must not contain dots",
            ),
            (
                "/spec/activeDeadlineSeconds",
                json!(0),
                "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
            ),
            (
                "/spec/terminationGracePeriodSeconds",
                json!(-1),
                "spec.terminationGracePeriodSeconds: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                "/spec/tolerations",
                json!([{"key": "a", "operator": "Is"}]),
                "spec.tolerations[0].operator: Unsupported value: \"Is\": supported values: \"Equal\", \"Exists\"",
            ),
        ],
    );
}

#[test]
fn wrong_types_and_unknown_fields() {
    refuses(
        "Pod",
        &good(),
        &[
            (
                "/spec/containers/0/ports/0/containerPort",
                json!("80"),
                "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal string into Go struct field ContainerPort.spec.containers[0].ports[0].containerPort of type int32",
            ),
            (
                "/spec/containers",
                json!({}),
                "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
            ),
            (
                "/metadata/labels",
                json!({"a": 1}),
                "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal number 1 into Go struct field ObjectMeta.metadata.labels.a of type string",
            ),
            (
                "/spec/hostNetwork",
                json!("yes"),
                "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal string into Go struct field PodSpec.spec.hostNetwork of type bool",
            ),
            (
                "/spec/containers/0/resources",
                json!({"limits": {"cpu": "much"}}),
                "Pod in version \"v1\" cannot be handled as a Pod: spec.containers[0].resources.limits.cpu: Invalid value: \"much\": quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            ),
            (
                "/spec/container",
                json!([]),
                "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \"spec.container\"",
            ),
            (
                "/apiVersion",
                json!("v2"),
                "the API version in the data (v2) does not match the expected API version (v1)",
            ),
        ],
    );
}

#[test]
fn right_pods() {
    accepts(
        "Pod",
        &good(),
        &[
            ("/metadata/name", json!("0.a-b")),
            ("/spec/terminationGracePeriodSeconds", json!(0)),
            ("/spec/containers/0/args", json!(["--x"])),
            (
                "/spec/containers/0/livenessProbe",
                json!({"httpGet": {"port": "http"}}),
            ),
            (
                "/spec/containers/0/lifecycle",
                json!({"preStop": {"sleep": {"seconds": 5}}}),
            ),
            ("/spec/initContainers", json!([{"name": "i", "image": "i"}])),
            (
                "/spec/initContainers",
                json!([{"name": "i", "image": "i", "restartPolicy": "Always", "readinessProbe": {"tcpSocket": {"port": 1}}}]),
            ),
            (
                "/spec/dnsConfig",
                json!({"searches": ["a_b.example."], "options": [{"name": "ndots", "value": "2"}]}),
            ),
            ("/spec/tolerations", json!([{"operator": "Exists"}])),
            (
                "/metadata/annotations",
                json!({"X.example.com/Y": "anything at all"}),
            ),
        ],
    );
}

#[test]
fn most_of_a_pod_is_immutable() {
    refuses_update(
        "Pod",
        &good(),
        &[
            (
                "/spec/containers/0/command",
                json!(["x"]),
                "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\nchanged: spec.containers",
            ),
            (
                "/spec/containers/1",
                json!({"name": "d", "image": "i"}),
                "spec.containers: Forbidden: pod updates may not add or remove containers",
            ),
            (
                "/spec/hostname",
                json!("h"),
                "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\nchanged: spec.hostname",
            ),
            (
                "/metadata/uid",
                json!("u"),
                "metadata.uid: Invalid value: \"u\": field is immutable",
            ),
        ],
    );
    let old = create("Pod", good()).unwrap();
    for (pointer, value) in [
        ("/spec/containers/0/image", json!("nginx:2")),
        ("/spec/nodeName", json!("node1")),
        ("/spec/activeDeadlineSeconds", json!(5)),
        ("/metadata/labels", json!({"a": "b"})),
        ("/spec/serviceAccountName", Value::Null),
        ("/spec/tolerations", json!([])),
    ] {
        let new = with(&old, pointer, value);
        let expected = new.clone();
        let new = update("Pod", new, &old);
        assert!(new.is_ok(), "{pointer}: {new:?} of {expected}");
    }
}
