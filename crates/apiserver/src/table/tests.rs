use serde_json::json;

use super::*;
use crate::kinds;

/// Cells of an object that was made 65 seconds ago, priority 0 first.
fn row(kind: &str, mut object: Value) -> String {
    let spec = kinds::builtin()
        .iter()
        .find(|spec| spec.kind == kind)
        .unwrap();
    object["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
    let now = seconds(&json!("2026-01-01T00:01:05Z")).unwrap();
    let printer = Printer::of(spec);
    let Filler::BuiltIn(cells) = printer.cells else {
        panic!("built in")
    };
    let cells = cells(&object, now);
    assert_eq!(cells.len(), printer.columns.len(), "{kind}");
    let words: Vec<_> = cells
        .iter()
        .map(|cell| {
            cell.as_str()
                .map_or_else(|| cell.to_string(), str::to_owned)
        })
        .collect();
    words.join(" | ")
}

fn pod(status: Value) -> Value {
    json!({
        "metadata": {"name": "p"},
        "spec": {
            "nodeName": "node1",
            "containers": [{"name": "a"}, {"name": "b"}],
            "initContainers": [{"name": "i"}, {"name": "j"}],
        },
        "status": status,
    })
}

#[test]
fn pods_read_as_in_kubernetes() {
    let done =
        json!({"name": "i", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
    let running = json!({"name": "a", "ready": true, "state": {"running": {}}, "restartCount": 0});
    let crashed = json!({
        "name": "b",
        "restartCount": 3,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"finishedAt": "2026-01-01T00:00:55Z"}},
    });
    let cases = [
        (
            json!({"phase": "Pending"}),
            "p | 0/2 | Pending | 0 | 65s | <none> | node1",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [
                done, {"name": "j", "state": {"running": {}}}]}),
            "p | 0/2 | Init:1/2 | 0 | 65s | <none> | node1",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [
                {"name": "i", "restartCount": 2, "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}),
            "p | 0/2 | Init:Error | 2 | 65s | <none> | node1",
        ),
        (
            json!({
                "phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
                "containerStatuses": [running, crashed],
            }),
            "p | 1/2 | CrashLoopBackOff | 3 (10s ago) | 65s | 10.0.0.1 | node1",
        ),
        (
            json!({"phase": "Failed", "reason": "Evicted"}),
            "p | 0/2 | Evicted | 0 | 65s | <none> | node1",
        ),
        (
            json!({"phase": "Succeeded", "containerStatuses": [
                {"name": "a", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}},
                {"name": "b", "state": {"terminated": {"exitCode": 3}}}]}),
            "p | 0/2 | Completed | 0 | 65s | <none> | node1",
        ),
    ];
    for (status, expected) in cases {
        assert_eq!(
            row("Pod", pod(status)),
            format!("{expected} | <none> | <none>")
        );
    }
    let mut going = pod(json!({"phase": "Running"}));
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:30Z");
    assert!(row("Pod", going).contains("Terminating"));
}

#[test]
fn services_and_slices() {
    let service = json!({
        "metadata": {"name": "web"},
        "spec": {
            "type": "NodePort",
            "clusterIP": "10.96.0.7",
            "clusterIPs": ["10.96.0.7"],
            "selector": {"app": "web", "tier": "x"},
            "ports": [
                {"port": 80, "nodePort": 30080, "protocol": "TCP"},
                {"port": 53, "protocol": "UDP"},
            ],
        },
    });
    assert_eq!(
        row("Service", service),
        "web | NodePort | 10.96.0.7 | <none> | 80:30080/TCP,53/UDP | 65s | app=web,tier=x"
    );
    let balanced = json!({
        "metadata": {"name": "lb"},
        "spec": {"type": "LoadBalancer", "clusterIP": "None"},
    });
    assert_eq!(
        row("Service", balanced),
        "lb | LoadBalancer | None | <pending> | <none> | 65s | <none>"
    );
    let slice = json!({
        "metadata": {"name": "web-1"},
        "addressType": "IPv4",
        "ports": [{"port": 80}],
        "endpoints": [{"addresses": ["a"]}, {"addresses": ["b"]}, {"addresses": ["c"]}, {"addresses": ["d"]}],
    });
    assert_eq!(
        row("EndpointSlice", slice),
        "web-1 | IPv4 | 80 | a,b,c + 1 more... | 65s"
    );
}

#[test]
fn nodes_and_workloads() {
    let node = json!({
        "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/control-plane": ""}},
        "spec": {"unschedulable": true},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "InternalIP", "address": "10.0.0.2"}],
            "nodeInfo": {"kubeletVersion": "v1"},
        },
    });
    assert_eq!(
        row("Node", node),
        "n | Ready,SchedulingDisabled | control-plane | 65s | v1 | 10.0.0.2 | <none> | <unknown> | \
         <unknown> | <unknown>"
    );
    let deployment = json!({
        "metadata": {"name": "d"},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"a": "b"}, "matchExpressions": [
                {"key": "c", "operator": "In", "values": ["x", "y"]}]},
            "template": {"spec": {"containers": [{"name": "n", "image": "i"}]}},
        },
        "status": {"readyReplicas": 1, "updatedReplicas": 2},
    });
    assert_eq!(
        row("Deployment", deployment),
        "d | 1/3 | 2 | 0 | 65s | n | i | a=b,c in (x,y)"
    );
    let job = json!({
        "metadata": {"name": "j"},
        "spec": {"completions": 2},
        "status": {"succeeded": 1, "startTime": "2026-01-01T00:00:05Z"},
    });
    assert_eq!(
        row("Job", job),
        "j | Running | 1/2 | 60s | 65s |  |  | <none>"
    );
}

#[test]
fn every_kind_has_a_printer_that_survives_an_empty_object() {
    for spec in kinds::builtin() {
        row(&spec.kind, json!({"metadata": {"name": "x"}}));
    }
}
