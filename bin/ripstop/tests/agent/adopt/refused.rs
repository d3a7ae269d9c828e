//! Pods of other plugins that stay as they are, each with the reason.

use std::fs;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Event, Pod};
use ripstop_host::pod::is_host_end;
use serde_json::{Value, json};

use super::plugin::{Other, there_are_others};
use super::{adopted, start};
use crate::node::{TestNode, eventually};
use crate::pod::TestPod;
use crate::talk::{reaches, serve};

/// A bridge of a pod's own, or of some.
fn on(other: &Other<'_>, bridge: &str, start: u8) -> Value {
    let mut network = other.network("bridge", start);
    network["bridge"] = json!(bridge);
    network["name"] = json!(format!("old-{bridge}"));
    // Bridges of one range would each have the node's end of it.
    network["isGateway"] = json!(false);
    network["ipam"]["routes"] = json!([]);
    network
}

/// As libcni remembers a network list.
fn remembered(config: &Value) -> Value {
    let bytes = serde_json::to_vec(config).unwrap();
    serde_json::to_value(ByteString(bytes)).unwrap()
}

#[test]
fn what_is_not_expected_stays_and_is_named() {
    if !there_are_others() {
        return;
    }
    let node = TestNode::new("adopt-refused");
    let other = Other::new(&node);
    let mut masquerades = on(&other, "br-masq", 20);
    masquerades["ipMasq"] = json!(true);
    let ports = json!({"capabilityArgs":
        {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}});
    let macvlan = other.network("macvlan", 60);
    let mut far = on(&other, "br-far", 70);
    far["ipam"]["ranges"] = json!([[{"subnet": "10.88.0.0/24"}]]);
    let pods: [(TestPod, &str); 7] = [
        (
            other.add(
                "masq",
                on(&other, "br-masq", 20),
                json!({"config": remembered(&masquerades)}),
            ),
            "(ipMasq)",
        ),
        (
            other.add("ports", on(&other, "br-ports", 30), ports),
            "portMappings",
        ),
        (
            other.add("beside", on(&other, "br-ports", 30), json!({})),
            "its link shares bridge br-ports with ",
        ),
        (
            other.add("forgotten", on(&other, "br-none", 50), json!({})),
            "its runtime remembers nothing of it in ",
        ),
        (
            other.add("macvlan", macvlan.clone(), json!({})),
            "plugin macvlan of its network is not known here",
        ),
        (
            // Whatever was remembered: there is no veth pair.
            other.add(
                "odd",
                macvlan,
                json!({"config": remembered(&on(&other, "x", 60))}),
            ),
            "no end of a veth pair but macvlan",
        ),
        (
            other.add("far", far, json!({})),
            "10.88.0.2 is in no pod range of this node",
        ),
    ];
    let forgotten = &pods[3].0;
    fs::remove_file(other.file(forgotten, &on(&other, "br-none", 50))).unwrap();
    for (pod, _) in &pods {
        node.create(&pod.object(&json!({})));
        pod.tell(&node);
    }
    let traces = || pods.iter().map(|(pod, _)| pod.traces()).collect::<Vec<_>>();
    let before = traces();

    let agent = start(&node, &other, "nftables");
    let status = agent.until("all are named", |s| {
        s["ignored"].as_array().unwrap().len() == pods.len()
    });
    for (pod, words) in &pods {
        let object = format!("Pod default/{}", pod.name);
        let ignored = status["ignored"].as_array().unwrap();
        let its = ignored.iter().find(|one| one["object"] == object.as_str());
        let message = its.expect(&object)["message"].as_str().unwrap();
        assert!(message.contains(words), "{words}: {message}");
        assert!(message.contains("Delete the pod"), "{message}");
    }
    assert_eq!(adopted(&status), [""; 0]);
    assert_eq!(traces(), before);
    let links = node.netlink().links().unwrap();
    assert!(!links.iter().any(|link| is_host_end(&link.name)));
    eventually("each has an Event", || {
        let events = node.client().list::<Event>(Some("default"));
        let of_pod = |event: &&Event| event.reason.as_deref() == Some("NotAttached");
        events.iter().filter(of_pod).count() == pods.len()
    });

    // Who was in the way goes: the next start adopts the other one.
    drop(agent);
    let (ports, beside) = (&pods[1].0, &pods[2].0);
    other.del(ports);
    node.delete::<Pod>("ports");
    let agent = start(&node, &other, "nftables");
    agent.until("adopted", |s| adopted(s) == ["default/beside"]);
    serve(&beside.netns);
    reaches("beside", node.netns(), &beside.addresses);
}
