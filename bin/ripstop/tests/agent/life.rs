//! What happens to a node while its agent runs.

use std::process::Command;

use k8s_openapi::api::core::v1::{Event, Pod};
use serde_json::json;

use crate::node::{TestNode, eventually, read};
use crate::read_object;

fn running(name: &str, node: &str, address: &str) -> Pod {
    read_object(json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "web"}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    }))
}

/// After a takeover from another plugin: pods that it attached are named, and their
/// addresses are given to nobody.
#[test]
fn pods_of_another_plugin_are_named() {
    let node = TestNode::new("strangers");
    for (name, of, address) in [
        ("other", "node1", "10.244.1.2"),
        ("far", "node2", "10.244.2.2"),
    ] {
        let pod = running(name, of, address);
        node.create(&pod);
        let status = |stored: &mut Pod| stored.status = pod.status.clone();
        let client = node.client();
        client.modify_status(Some("default"), name, status).unwrap();
    }
    let agent = node.start_agent();
    let status = agent.until("named", |s| !s["ignored"].as_array().unwrap().is_empty());
    let ignored = status["ignored"].as_array().unwrap();
    assert_eq!(ignored.len(), 1, "{ignored:?}");
    assert_eq!(ignored[0]["object"], "Pod default/other");
    assert_eq!(ignored[0]["reason"], "NotAttached");
    let message = ignored[0]["message"].as_str().unwrap();
    assert!(message.contains("10.244.1.2"), "{message}");
    assert!(message.contains("Delete the pod"), "{message}");
    assert_eq!(status["podRanges"][0]["used"], 1);
    eventually("the pod has an Event", || {
        let events = node.client().list::<Event>(Some("default"));
        let of_pod = |event: &Event| event.reason.as_deref() == Some("NotAttached");
        events.iter().any(of_pod)
    });
}

/// Another interface with a default route: whoever starts the agent starts it again,
/// and the next one leads packets out by both.
#[test]
fn another_uplink_is_used() {
    let node = TestNode::new("uplinks");
    let agent = node.start_agent();
    agent.until("synced", |s| s["synced"] == true);
    let other = "ip link add eth1 type veth peer name far && ip link set far up && \
        ip link set eth1 up && \
        ip addr add 172.30.9.11/24 dev eth1 && ip route add default via 172.30.9.1 dev eth1";
    let (well, said) = node.run(Command::new("sh").args(["-c", other]));
    assert!(well, "{said}");
    eventually("the agent begins anew", || {
        read(&agent.log).contains("this node reached others by eth0 (mtu 1500), now by")
    });
    drop(agent);
    let agent = node.start_agent();
    agent.until("synced", |s| s["synced"] == true);
    let (_, filters) = node.run(Command::new("sh").args(["-c", "tc filter show dev eth1 egress"]));
    assert!(filters.contains("to_outside"), "{filters}");
}
