//! What an agent weighs when everything is listed again.
//!
//! `cargo test -p ripstop --test agent relist -- --nocapture` prints it.

use std::fs;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;

use crate::node::{Agent, TestNode, eventually};
use crate::{read_object, service};

const SERVICES: usize = 10_000;
const SLICES: usize = 2 * SERVICES;
const PODS: usize = 10_000;
/// Changes after which a server has forgotten where a watch was.
const FORGOTTEN: usize = 2100;

/// Kibibytes that `/proc` says of the agent.
fn memory(agent: &Agent, what: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.unwrap().parse().unwrap()
}

/// The least of some seconds: what is free goes back to the kernel with time.
fn settled(agent: &Agent) -> u64 {
    let now = || {
        std::thread::sleep(Duration::from_secs(1));
        memory(agent, "VmRSS")
    };
    (0..5).map(|_| now()).min().unwrap()
}

fn ip(number: usize) -> String {
    format!("10.96.{}.{}", 1 + number / 250, 1 + number % 250)
}

fn slice(number: usize) -> EndpointSlice {
    let service = number / 2;
    let address = format!("10.244.{}.{}", 2 + number / 200, 1 + number % 200);
    read_object(json!({
        "metadata": {
            "name": format!("web-{service}-{number}"),
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": format!("web-{service}")},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{
            "addresses": [address],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": "node2",
            "targetRef": {"kind": "Pod", "name": format!("web-{number}"), "namespace": "default"},
        }],
    }))
}

fn pod(number: usize) -> Pod {
    let env: Vec<_> = (0..20)
        .map(|n| json!({"name": format!("SETTING_{n}"), "value": "of no interest to a network"}))
        .collect();
    read_object(json!({
        "metadata": {
            "name": format!("web-{number}"), "namespace": "default",
            "labels": {"app": format!("web-{}", number / 2), "tier": "web"},
        },
        "spec": {
            "nodeName": "node2",
            "containers": [{"name": "main", "image": "web", "env": env}],
        },
    }))
}

#[test]
fn a_relist_does_not_double_memory() {
    let mut node = TestNode::new("relist");
    for number in 0..SERVICES {
        node.create(&service(&format!("web-{number}"), &ip(number)));
    }
    (0..SLICES).for_each(|number| node.create(&slice(number)));
    (0..PODS).for_each(|number| node.create(&pod(number)));
    let agent = node.start_agent();
    agent.until("synced", |s| s["synced"] == true);
    agent.until("all names", |s| s["names"].as_u64() > Some(SERVICES as u64));
    let started = memory(&agent, "VmHWM");
    let before = settled(&agent);

    node.stop_api();
    agent.until("away", |s| s["api"] == "away");
    node.delete::<Service>("web-1");
    let client = node.client();
    for change in 0..FORGOTTEN {
        let label = |labels: &mut Option<std::collections::BTreeMap<String, String>>| {
            let labels = labels.get_or_insert_default();
            labels.insert("change".into(), change.to_string());
        };
        let of = Some("default");
        client
            .modify(of, "web-0", |service: &mut Service| {
                label(&mut service.metadata.labels);
            })
            .unwrap();
        client
            .modify(of, "web-0-0", |slice: &mut EndpointSlice| {
                label(&mut slice.metadata.labels);
            })
            .unwrap();
        client
            .modify(of, "web-0", |pod: &mut Pod| label(&mut pod.metadata.labels))
            .unwrap();
    }
    node.create(&service("late", "10.96.200.1"));
    // From here on the most that it ever was is counted anew (proc_pid_clear_refs(5)).
    fs::write(format!("/proc/{}/clear_refs", agent.id()), "5").unwrap();
    node.start_api();
    eventually("what is new is known", || {
        node.resolve("10.96.0.10", "late.default.svc.cluster.local")
            .is_ok()
    });
    // No watch tells of this any more, and no list before its end.
    eventually("what is gone is forgotten", || {
        node.resolve("10.96.0.10", "web-1.default.svc.cluster.local") == Err(3)
    });
    agent.until("every kind", |s| s["api"] == "up");
    let after = settled(&agent);
    let most = memory(&agent, "VmHWM");
    println!(
        "{SERVICES} services, {SLICES} slices, {PODS} pods: {} MiB, {} at most since the start; \
         when all were listed again {} at most, then {}",
        before / 1024,
        started / 1024,
        most / 1024,
        after / 1024
    );
    assert!(
        most < before + before / 2,
        "{before} KiB became {most} KiB while all was listed again"
    );
}
