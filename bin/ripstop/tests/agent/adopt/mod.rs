//! Pods that another plugin attached become ours, and notice nothing.

mod killed;
mod plugin;
mod refused;

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use ripstop_host::pod::is_host_end;
use ripstop_netlink::{Netlink, address};
use serde_json::{Value, json};

use crate::node::{Agent, TestNode, eventually};
use crate::pod::{TestPod, plugin};
use crate::talk::{PORT, Talk, reaches, serve};
use crate::{read_object, service, slice_of};
use plugin::{Other, there_are_others};

fn start(node: &TestNode, other: &Other<'_>, engine: &str) -> Agent {
    let flags = [
        "--adopt-pods",
        "--cni-cache-dir",
        other.cache(),
        "--datapath",
        engine,
    ];
    node.start_agent_of(Path::new(env!("CARGO_BIN_EXE_ripstop")), &flags)
}

/// Names of adopted pods.
fn adopted(status: &Value) -> Vec<String> {
    let all = status["adopted"].as_array().unwrap();
    let mut names: Vec<String> = all
        .iter()
        .map(|one| one["pod"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

fn used(status: &Value) -> u64 {
    status["podRanges"][0]["used"].as_u64().unwrap()
}

/// Another node with a pod, as the other plugin had them: in the network beside the
/// node, and the ways there.
fn another_node(node: &TestNode) -> [IpAddr; 2] {
    node.create_node("node2", 12, &["10.244.2.0/24", "fd00:244:0:2::/64"]);
    let mut netlink = Netlink::in_netns(node.underlay()).unwrap();
    let far = netlink.link("node1").unwrap().unwrap().index;
    let pod = ["10.244.2.2", "fd00:244:0:2::2"];
    let nets = ["172.30.1.12/24", "fd00:30:1::c/64"].map(|net| net.parse().unwrap());
    let own = pod.map(|ip| ip.parse::<IpAddr>().unwrap());
    netlink
        .execute(
            nets.map(|net| address::add(far, net))
                .into_iter()
                .chain(own.map(|ip| address::add(far, ip.into()))),
        )
        .unwrap();
    let there = "ip route add 10.244.1.0/24 via 172.30.1.11 src 10.244.2.2 && \
        ip -6 route add fd00:244:0:1::/64 via fd00:30:1::b src fd00:244:0:2::2";
    let here = "ip route add 10.244.2.0/24 via 172.30.1.12 && \
        ip -6 route add fd00:244:0:2::/64 via fd00:30:1::c && \
        sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1";
    for (netns, script) in [(node.underlay(), there), (node.netns(), here)] {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let status = netns.run(|| command.status()).unwrap().unwrap();
        assert!(status.success(), "{script}");
    }
    serve(node.underlay());
    own
}

/// Pods of two plugins, with connections of each sort; then an agent comes, is killed
/// and comes again.
fn a_takeover(engine: &str) {
    if !there_are_others() {
        return;
    }
    let node = TestNode::new(&format!("adopt-{engine}"));
    let other = Other::new(&node);
    let far = another_node(&node);
    let kinds = [("one", "bridge"), ("two", "bridge"), ("three", "ptp")];
    let pods = kinds.map(|(name, kind)| {
        let start = if kind == "ptp" { 100 } else { 20 };
        let pod = other.add(name, other.network(kind, start), json!({}));
        node.create(&pod.object(&json!({"app": name})));
        pod.tell(&node);
        serve(&pod.netns);
        pod
    });
    serve(node.netns());
    let [one, two, three] = &pods;
    let mut talks = Vec::new();
    let mut talk = |what: &str, from, to: &[IpAddr]| {
        for address in to {
            // An address of IPv6 may take a second to come into use.
            eventually(what, || Talk::open(what, from, *address, PORT).is_ok());
            talks.push(Talk::open(what, from, *address, PORT).unwrap());
        }
    };
    talk("on one bridge", &one.netns, &two.addresses);
    talk("from the node", node.netns(), &one.addresses);
    talk(
        "from the node to a routed one",
        node.netns(),
        &three.addresses,
    );
    talk("from another node", node.underlay(), &one.addresses);
    talk("to another node", &two.netns, &far);
    talk("to another node, routed", &three.netns, &far);
    let mut all_go_on = || talks.iter_mut().for_each(Talk::goes_on);
    all_go_on();

    let agent = start(&node, &other, engine);
    let names = ["default/one", "default/three", "default/two"];
    let status = agent.until("adopted", |s| adopted(s) == names);
    assert_eq!(status["datapath"]["mode"], engine);
    assert_eq!(status["ignored"], json!([]));
    assert_eq!((used(&status), &status["pods"]), (3, &json!(3)));
    assert_eq!(status["problem"], json!(null));
    all_go_on();
    let links = node.netlink().links().unwrap();
    let ours = links.iter().filter(|link| is_host_end(&link.name));
    assert_eq!(ours.clone().count(), 3, "{links:?}");
    assert!(ours.clone().all(|link| link.master.is_none()));
    for pod in &pods {
        // All is as an ADD would have made it.
        plugin(&node, "CHECK", pod, json!({}));
        assert!(!pod.traces().contains("/24"), "{}", pod.traces());
    }

    // Everybody reaches everybody, with new connections.
    let new = TestPod::attached(&node, "new");
    serve(&new.netns);
    for from in pods.iter().chain([&new]) {
        for to in pods.iter().chain([&new]) {
            let what = format!("{} to {}", from.name, to.name);
            reaches(&what, &from.netns, &to.addresses);
        }
        reaches(&from.name, &from.netns, &far);
        reaches("node", node.netns(), &from.addresses);
    }
    services_and_names(&node, &pods);
    policies(&node, &pods);
    all_go_on();

    drop(agent);
    all_go_on();
    let agent = start(&node, &other, engine);
    let status = agent.until("a second agent", |s| s["synced"] == true);
    assert_eq!(adopted(&status), names);
    assert_eq!(status["audits"]["repaired"], 0);
    all_go_on();

    they_end(&node, &other, &agent, &pods);
}

/// Adopted pods are clients and endpoints of services, and ask for names.
fn services_and_names(node: &TestNode, pods: &[TestPod]) {
    node.create(&service("two", "10.96.0.82"));
    let endpoints = json!([{"addresses": [pods[1].addresses[0]]}]);
    node.create(&slice_of("two", PORT, &endpoints));
    for pod in pods {
        eventually("the service", || {
            let talk = Talk::open("service", &pod.netns, [10, 96, 0, 82].into(), 80);
            talk.is_ok_and(|mut talk| {
                talk.goes_on();
                true
            })
        });
        let found = node.resolve_from(&pod.netns, "10.96.0.10", "two.default.svc.cluster.local");
        assert_eq!(found, Ok(vec!["10.96.0.82".parse().unwrap()]));
    }
}

/// A policy about an adopted pod is in force; the others are open.
fn policies(node: &TestNode, pods: &[TestPod]) {
    let [one, two, three] = pods else {
        unreachable!("three pods")
    };
    let policy: NetworkPolicy = read_object(json!({
        "metadata": {"name": "three", "namespace": "default"},
        "spec": {"podSelector": {"matchLabels": {"app": "three"}}, "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "one"}}}]}]},
    }));
    node.create(&policy);
    for address in &three.addresses {
        let from = |pod: &TestPod| Talk::open(&pod.name, &pod.netns, *address, PORT).is_ok();
        eventually("two is denied", || !from(two));
        assert!(from(one), "one is allowed");
    }
    reaches("from three", &three.netns, &two.addresses);
    node.delete::<NetworkPolicy>("three");
    for address in &three.addresses {
        eventually("two is allowed again", || {
            Talk::open("again", &two.netns, *address, PORT).is_ok()
        });
    }
}

/// One by our plugin, one by the other one, one without a word: nothing stays.
fn they_end(node: &TestNode, other: &Other<'_>, agent: &Agent, pods: &[TestPod]) {
    let [one, two, three] = pods else {
        unreachable!("three pods")
    };
    plugin(node, "DEL", one, json!({}));
    agent.until("one is gone", |s| {
        adopted(s) == ["default/three", "default/two"]
    });
    other.del(two);
    let eth0 = three.netlink().link("eth0").unwrap().unwrap().index;
    let gone = ripstop_netlink::link::delete(eth0);
    three.netlink().execute([gone]).unwrap();
    for pod in pods {
        node.delete::<Pod>(&pod.name);
    }
    // The runtime of our network has never known them.
    let valid = json!({"cni.dev/valid-attachments":
        [{"containerID": "new-container", "ifname": "eth0"}]});
    plugin(node, "GC", one, valid);
    let status = agent.until("all are gone", |s| s["pods"] == 1 && used(s) == 1);
    assert_eq!(adopted(&status), [""; 0]);
    assert_eq!(node.records(), 1, "the pod that was added");
    eventually("no link and no route is left", || {
        let mut netlink = node.netlink();
        let links = netlink.links().unwrap();
        let ends = links.iter().filter(|link| is_host_end(&link.name)).count();
        let routes = netlink.routes().unwrap();
        let to = |pod: &TestPod| {
            let its = |ip: &IpAddr| routes.iter().any(|r| r.destination == (*ip).into());
            pod.addresses.iter().any(its)
        };
        ends == 1 && !pods.iter().any(to)
    });
}

/// Policies are in force on adopted pods from the first moment on: on connections that
/// began before, too.
fn under_policies(engine: &str) {
    if !there_are_others() {
        return;
    }
    let node = TestNode::new(&format!("adopt-policies-{engine}"));
    let other = Other::new(&node);
    let pods = ["one", "two", "three"].map(|name| {
        let pod = other.add(name, other.network("bridge", 20), json!({}));
        node.create(&pod.object(&json!({"app": name})));
        pod.tell(&node);
        serve(&pod.netns);
        pod
    });
    let [one, two, three] = &pods;
    // Of these two, one may ask two; two may begin nothing.
    node.create(&read_object::<NetworkPolicy>(json!({
        "metadata": {"name": "two", "namespace": "default"},
        "spec": {"podSelector": {"matchLabels": {"app": "two"}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "one"}}}]}]},
    })));
    let talks = |from: &TestPod| {
        let open = |to: &IpAddr| {
            let open = || Talk::open(&from.name, &from.netns, *to, PORT);
            eventually("it answers", || open().is_ok());
            open().unwrap()
        };
        two.addresses.iter().map(open).collect::<Vec<_>>()
    };
    let (mut allowed, mut denied) = (talks(one), talks(three));
    allowed
        .iter_mut()
        .chain(&mut denied)
        .for_each(Talk::goes_on);
    let agent = start(&node, &other, engine);
    agent.until("adopted", |s| adopted(s).len() == pods.len());
    allowed.iter_mut().for_each(Talk::goes_on);
    denied.iter_mut().for_each(Talk::is_silent);
    allowed.iter_mut().for_each(Talk::goes_on);
}

#[test]
fn policies_are_in_force_on_what_began_before_with_ebpf() {
    under_policies("ebpf");
}

#[test]
fn policies_are_in_force_on_what_began_before_with_nftables() {
    under_policies("nftables");
}

#[test]
fn pods_of_other_plugins_are_adopted_with_ebpf() {
    a_takeover("ebpf");
}

#[test]
fn pods_of_other_plugins_are_adopted_with_nftables() {
    a_takeover("nftables");
}
