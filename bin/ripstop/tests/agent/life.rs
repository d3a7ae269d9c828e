//! What happens to a node while its agent runs.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use ripstop_host::pod::is_host_end;
use ripstop_netlink::{Netlink, link};
use serde_json::json;

use crate::node::{Agent, TestNode, eventually, read};
use crate::pod::{TestPod, plugin, try_plugin};
use crate::talk::{PORT, Talk, serve};
use crate::{read_object, slice_at};

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

fn run(node: &TestNode, script: &str) {
    let (well, said) = node.run(Command::new("sh").args(["-ec", script]));
    assert!(well, "{script}: {said}");
}

fn start(node: &TestNode, engine: &str) -> Agent {
    let exe = Path::new(env!("CARGO_BIN_EXE_ripstop"));
    let agent = node.start_agent_of(exe, &["--datapath", engine]);
    agent.until("synced", |s| s["synced"] == true);
    agent
}

/// Sources that a machine outside of the cluster sees of a pod.
fn seen_outside(node: &TestNode, pod: &TestPod) -> Vec<IpAddr> {
    let seen = ["172.30.1.1", "fd00:30:1::1"].map(|outside| {
        let outside: IpAddr = outside.parse().unwrap();
        let at = |ip: IpAddr| move || UdpSocket::bind((ip, 0));
        let server = node.underlay().run(at(outside)).unwrap().unwrap();
        let own = pod
            .addresses
            .iter()
            .find(|own| own.is_ipv4() == outside.is_ipv4());
        let client = pod.netns.run(at(*own.unwrap())).unwrap().unwrap();
        let patience = Some(Duration::from_secs(5));
        server.set_read_timeout(patience).unwrap();
        client.set_read_timeout(patience).unwrap();
        client.send_to(b"?", server.local_addr().unwrap()).unwrap();
        let (_, from) = server.recv_from(&mut [0]).expect("a question");
        server.send_to(b"!", from).unwrap();
        client.recv_from(&mut [0]).expect("an answer");
        from.ip()
    });
    seen.into()
}

/// Where the node's tunnels begin.
fn tunnel_sources(node: &TestNode) -> Vec<IpAddr> {
    let links = node.netlink().links().unwrap().into_iter();
    let mut sources: Vec<IpAddr> = links.filter_map(|link| link.vxlan?.local).collect();
    sources.sort();
    sources
}

/// A node gets other addresses: whoever starts the agent starts it again, and all that
/// had the old ones has the new ones. Pods notice nothing.
fn other_addresses(engine: &str) {
    let node = TestNode::new(&format!("moves-{engine}"));
    node.create_node("node3", 200, &["10.244.3.0/24", "fd00:244:0:3::/64"]);
    node.move_node("node3", &["198.51.100.7", "2001:db8::7"]);
    run(
        &node,
        "ip route add default via 172.30.1.1; ip -6 route add default via fd00:30:1::1",
    );
    // At any address of the node.
    let backend = node.listen("0.0.0.0");
    let service: Service = read_object(json!({
        "metadata": {"name": "echo", "namespace": "default"},
        "spec": {"type": "NodePort", "clusterIP": "10.96.0.81",
            "ports": [{"port": 80, "targetPort": backend.port(), "nodePort": 30080}]},
    }));
    node.create(&service);
    let agent = start(&node, engine);
    let (one, two) = (
        TestPod::attached(&node, "one"),
        TestPod::attached(&node, "two"),
    );
    serve(&two.netns);
    let mut talks: Vec<Talk> = two
        .addresses
        .iter()
        .map(|to| Talk::open("pods", &one.netns, *to, PORT).unwrap())
        .collect();
    let own = |ips: [&str; 2]| ips.map(|ip| ip.parse::<IpAddr>().unwrap());
    let (old, new) = (
        own(["172.30.1.11", "fd00:30:1::b"]),
        own(["172.30.1.21", "fd00:30:1::15"]),
    );
    let backend_at = |ip: IpAddr| SocketAddr::new(ip, backend.port());
    node.create(&slice_at("echo", backend_at(old[0])));
    let port_of = |ip: IpAddr| SocketAddr::new(ip, 30080);
    let answers = |ip: IpAddr| node.connect(port_of(ip)).is_ok();
    eventually("the node port", || answers(old[0]));
    eventually("the tunnels", || tunnel_sources(&node) == old);
    assert_eq!(seen_outside(&node, &one), old);

    run(
        &node,
        "ip addr add 172.30.1.21/24 dev eth0; ip addr add fd00:30:1::15/64 dev eth0 nodad",
    );
    node.move_node("node1", &["172.30.1.21", "fd00:30:1::15"]);
    eventually("the agent begins anew", || {
        read(&agent.log).contains("node node1 had addresses [172.30.1.11, fd00:30:1::b]")
    });
    // The kernel takes an address of the same range with the first one.
    run(
        &node,
        "sysctl -qw net.ipv4.conf.eth0.promote_secondaries=1
        ip addr del 172.30.1.11/24 dev eth0; ip addr del fd00:30:1::b/64 dev eth0
        ip route replace default via 172.30.1.1; ip -6 route replace default via fd00:30:1::1",
    );
    node.delete::<EndpointSlice>("echo");
    node.create(&slice_at("echo", backend_at(new[0])));
    drop(agent);
    talks.iter_mut().for_each(Talk::goes_on);
    let _agent = start(&node, engine);
    eventually("the node port follows", || answers(new[0]));
    assert_eq!(tunnel_sources(&node), new);
    assert_eq!(seen_outside(&node, &one), new);
    talks.iter_mut().for_each(Talk::goes_on);
}

#[test]
fn a_node_changes_its_addresses_with_ebpf() {
    other_addresses("ebpf");
}

#[test]
fn a_node_changes_its_addresses_with_nftables() {
    other_addresses("nftables");
}

/// Who gets no address is told which range is used up, and so is who looks at the
/// status.
#[test]
fn a_used_up_range_is_named() {
    let node = TestNode::new("full");
    node.delete_cluster_object::<Node>("node1");
    node.create_node("node1", 11, &["10.244.1.0/30", "fd00:244:0:1::/64"]);
    let agent = start(&node, "nftables");
    let pod = TestPod::attached(&node, "first");
    let second = TestPod::new(&node, "second");
    let error = try_plugin(&node, "ADD", &second, json!({})).expect_err("no address");
    assert_eq!(error["code"], 100);
    let message = "no free address in pod range 10.244.1.0/30: all 1 are used";
    assert_eq!(error["msg"], message);
    let screen = agent.screen();
    let line = "1 of 1 addresses used: no other pod can start here";
    assert_eq!(screen.matches(line).count(), 1, "{screen}");
    plugin(&node, "DEL", &pod, json!({}));
    plugin(&node, "ADD", &second, json!({}));
}

/// What an agent remembers of pods is nothing after a boot: no pod is there any more.
#[test]
fn a_boot_frees_addresses() {
    let mut node = TestNode::new("boot");
    let agent = start(&node, "ebpf");
    for name in ["one", "two"] {
        TestPod::attached(&node, name);
    }
    agent.until("two pods", |s| s["podRanges"][0]["used"] == 2);
    drop(agent);
    let mut netlink = node.netlink();
    let links = netlink.links().unwrap().into_iter();
    let ends = links.filter(|link| is_host_end(&link.name));
    let gone: Vec<_> = ends
        .map(|end| link::delete(end.index).if_exists())
        .collect();
    Netlink::execute(&mut netlink, gone).unwrap();
    std::fs::remove_dir_all(node.folder().join("bpf/ripstop")).unwrap();
    assert_eq!(node.records(), 2, "the run directory is on a disk");
    // Also when nobody can say which pods there are.
    node.stop_api();
    let agent = node.start_agent();
    let status = agent.until("the agent", |s| s["api"] == "away");
    assert_eq!((&status["pods"], node.records()), (&json!(0), 0));
    let ranges = status["podRanges"].as_array().unwrap();
    assert!(ranges.iter().all(|range| range["used"] == 0), "{ranges:?}");
}
