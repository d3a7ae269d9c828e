//! The plugin as a runtime executes it, against the server. Needs root.

mod faults;
mod harness;
mod measure;

use std::collections::BTreeSet;
use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use ripstop_cni_types::Version;
use ripstop_host::pod::HOST_MAC;
use ripstop_netlink::address;
use serde_json::{Value, json};

use harness::{Node, TestNetns, finish};

#[test]
#[ignore = "a process of other tests"]
fn server_process() {
    harness::serve_if_asked();
}

/// Sends a datagram from one namespace to an address of another and back.
fn reaches(from: &TestNetns, to: &TestNetns, address: IpAddr) {
    let server = to
        .netns
        .run(|| UdpSocket::bind((address, 0)))
        .unwrap()
        .unwrap();
    let any: IpAddr = if address.is_ipv4() {
        [0; 4].into()
    } else {
        [0u16; 8].into()
    };
    let client = from
        .netns
        .run(|| UdpSocket::bind((any, 0)))
        .unwrap()
        .unwrap();
    for socket in [&server, &client] {
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
    }
    client.send_to(b"?", server.local_addr().unwrap()).unwrap();
    let mut buffer = [0; 9];
    let (_, peer) = server
        .recv_from(&mut buffer)
        .unwrap_or_else(|e| panic!("no question to {address} from {from:?}: {e}"));
    server.send_to(b"!", peer).unwrap();
    client
        .recv_from(&mut buffer)
        .unwrap_or_else(|e| panic!("no answer from {address} to {from:?}: {e}"));
}

#[test]
fn a_pod_is_attached_checked_and_detached() {
    let node = Node::new("life", "10.244.1.0/24,fd00:244:1::/64");
    let (one, two) = (node.pod_netns("one"), node.pod_netns("two"));
    let outcome = node.add("one", &one);
    let addresses = outcome.addresses();
    let result = outcome.result();
    let expected: [IpAddr; 2] = [
        "10.244.1.2".parse().unwrap(),
        "fd00:244:1::2".parse().unwrap(),
    ];
    assert_eq!(addresses, expected.into());
    let pod_link = one.netlink().link("eth0").unwrap().expect("eth0");
    assert_eq!(result["interfaces"][0]["mac"], HOST_MAC.to_string());
    assert_eq!(
        result["interfaces"][1],
        json!({"name": "eth0", "mac": pod_link.mac.unwrap().to_string(), "mtu": 1500,
               "sandbox": one.netns.path()})
    );
    assert_eq!(
        result["routes"][0],
        json!({"dst": "0.0.0.0/0", "gw": "169.254.1.1"})
    );
    assert_eq!(result["ips"][1]["gateway"], "fe80::1");

    let host_name = result["interfaces"][0]["name"].as_str().unwrap();
    let host_link = node
        .netns
        .netlink()
        .link(host_name)
        .unwrap()
        .expect("the host end");
    assert_eq!(host_link.alias, "shop/one");
    {
        let engine = node.engine.lock().unwrap();
        let pod = &engine.pods["one"];
        assert_eq!(
            (pod.host_ifindex, pod.mac),
            (host_link.index, pod_link.mac.unwrap())
        );
        assert_eq!(
            BTreeSet::from_iter(pod.addresses.iter().copied()),
            addresses
        );
    }

    // Without an engine the host's stack forwards.
    for address in node.add("two", &two).addresses() {
        reaches(&one, &two, address);
        reaches(&node.netns, &two, address);
    }

    let check = |more: Value| node.run("CHECK", "one", &one, more);
    assert!(check(json!({"prevResult": result})).result().is_null());
    let other = json!({"ips": [{"address": "10.244.1.77/32"}]});
    assert_eq!(check(json!({"prevResult": other})).error().0, 103);
    let gone = "10.244.1.2/32".parse().unwrap();
    one.netlink()
        .execute([address::delete(pod_link.index, gone)])
        .unwrap();
    let (code, message) = check(json!({"prevResult": result})).error();
    assert_eq!(
        (code, message.as_str()),
        (
            103,
            "pod shop/one: the pod's interface has no address 10.244.1.2"
        )
    );

    // The datapath is looked at as well.
    two_is_checked(&node, &two);

    node.del("one", &one);
    node.del("one", &one);
    let (code, _) = check(json!({})).error();
    assert_eq!(code, 3, "unknown container");
    // The runtime may have destroyed the namespace before.
    let path = two.netns.path().to_owned();
    drop(two);
    assert!(finish(node.plugin("DEL", "two", Some(&path), json!({}))).success);
    assert!(finish(node.plugin("DEL", "two", None, json!({}))).success);
    node.is_empty_soon();
    assert_eq!(one.netlink().link("eth0").unwrap(), None);
    // The same container may come back.
    assert!(node.add("one", &one).success);
    node.del("one", &one);
    node.is_empty_soon();
}

fn two_is_checked(node: &Node, two: &TestNetns) {
    assert!(node.run("CHECK", "two", two, json!({})).success);
    let forgotten = node.engine.lock().unwrap().pods.remove("two").expect("two");
    let (code, message) = node.run("CHECK", "two", two, json!({})).error();
    assert_eq!(
        (code, message.as_str()),
        (103, "pod shop/two: the datapath does not know it")
    );
    node.engine
        .lock()
        .unwrap()
        .pods
        .insert("two".to_owned(), forgotten);
}

#[test]
fn every_version_gets_its_own_result() {
    let node = Node::new("versions", "10.244.1.0/24");
    let netns = node.pod_netns("pod");
    for version in Version::ALL {
        let more = json!({"cniVersion": version.as_str()});
        let result = node.run("ADD", "pod", &netns, more.clone()).result();
        assert_eq!(result["cniVersion"], version.as_str());
        assert_eq!(
            result["ips"][0].get("version").is_some(),
            version < Version::V1_0_0
        );
        let check = node.run("CHECK", "pod", &netns, more.clone());
        assert_eq!(
            check.success,
            version >= Version::V0_4_0,
            "{}",
            check.printed
        );
        let status = node.run("STATUS", "", &netns, more.clone());
        assert_eq!(
            status.success,
            version >= Version::V1_1_0,
            "{}",
            status.printed
        );
        assert!(node.run("DEL", "pod", &netns, more).success);
        let asked = node
            .run("VERSION", "", &netns, json!({"cniVersion": "1.0.0"}))
            .result();
        assert_eq!(
            asked["supportedVersions"],
            json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
        );
    }
    let (code, message) = node
        .run("ADD", "pod", &netns, json!({"cniVersion": "2.0.0"}))
        .error();
    assert_eq!(code, 1);
    assert!(message.contains("\"2.0.0\""), "{message}");
    node.is_empty_soon();
}

#[test]
fn bad_requests_get_the_codes_of_the_specification_and_change_nothing() {
    let node = Node::new("bad", "10.244.1.0/24");
    let netns = node.pod_netns("pod");
    let path = netns.netns.path();
    let nowhere = std::path::Path::new("/run/netns/ripstop-no-such");
    let file = std::path::Path::new("/proc/self/status");
    let cases = [
        (
            "ADD",
            "",
            Some(path),
            json!({}),
            4,
            "CNI_CONTAINERID is not set",
        ),
        (
            "ADD",
            "a/b",
            Some(path),
            json!({}),
            4,
            "CNI_CONTAINERID \"a/b\"",
        ),
        ("ADD", "a", None, json!({}), 4, "CNI_NETNS is not set"),
        (
            "ADD",
            "a",
            Some(nowhere),
            json!({}),
            4,
            "CNI_NETNS /run/netns/ripstop-no-such: No such file",
        ),
        (
            "ADD",
            "a",
            Some(node.netns.netns.path()),
            json!({}),
            4,
            "the node's own namespace",
        ),
        ("ADD", "a", Some(file), json!({}), 104, "pod shop/a"),
        ("ADD", "a", Some(path), json!({"name": ""}), 7, "no name"),
        (
            "ADD",
            "a",
            Some(path),
            json!({"cniVersion": 1}),
            7,
            "cniVersion",
        ),
        (
            "ADD",
            "a",
            Some(path),
            json!({"runtimeConfig": {"bandwidth": {"ingressRate": 1}}}),
            2,
            "bandwidth",
        ),
        (
            "ADD",
            "a",
            Some(path),
            json!({"runtimeConfig": {"portMappings": [{"hostPort": 1, "containerPort": 1, "protocol": "icmp"}]}}),
            7,
            "host port 1: protocol \"icmp\"",
        ),
        (
            "CHECK",
            "a",
            Some(path),
            json!({}),
            3,
            "container a has no interface eth0",
        ),
        ("GC", "", None, json!({}), 7, "cni.dev/valid-attachments"),
        (
            "EXPLODE",
            "a",
            Some(path),
            json!({}),
            4,
            "CNI_COMMAND \"EXPLODE\"",
        ),
    ];
    for (command, id, netns, more, code, words) in cases {
        let outcome = finish(node.plugin(command, id, netns, more));
        assert_eq!(
            outcome.printed["cniVersion"].as_str().unwrap_or("1.1.0"),
            "1.1.0"
        );
        let (found, message) = outcome.error();
        assert_eq!(found, code, "{command}: {message}");
        assert!(message.contains(words), "{command}: {message}");
    }
    assert_eq!(netns.netlink().links().unwrap().len(), 1, "only loopback");
    node.is_empty_soon();

    // A name that the pod has already, and an engine that refuses.
    assert!(node.add("a", &netns).success);
    let (code, message) = node.add("a", &netns).error();
    assert_eq!(code, 101, "{message}");
    let (code, message) = node.add("b", &netns).error();
    assert_eq!(code, 101, "{message}");
    node.engine.lock().unwrap().refuses = true;
    let other = node.pod_netns("other");
    let outcome = node.add("c", &other);
    assert!(
        outcome.printed["details"]
            .as_str()
            .unwrap()
            .contains("table endpoints is full")
    );
    assert_eq!(outcome.error().0, 104);
    node.del("a", &netns);
    node.is_empty_soon();
    assert_eq!(other.netlink().links().unwrap().len(), 1, "only loopback");
}

#[test]
fn without_an_agent_status_and_add_say_so() {
    let node = Node::without_server("absent", "10.244.1.0/24");
    let netns = node.pod_netns("pod");
    assert_eq!(node.status().error().0, 50);
    let (code, message) = node.add("pod", &netns).error();
    assert_eq!(code, 11);
    assert!(message.contains("does not answer at"), "{message}");
    assert!(
        node.run("VERSION", "", &netns, json!({})).success,
        "needs no agent"
    );
}

#[test]
fn only_root_may_use_the_socket() {
    let node = Node::new("root", "10.244.1.0/24");
    let mode = std::fs::metadata(node.socket())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_used_up_range_says_so_and_freed_addresses_come_last() {
    let node = Node::new("full", "fd00:244::/64,10.244.1.0/29");
    let pods: Vec<TestNetns> = (0..6).map(|i| node.pod_netns(&i.to_string())).collect();
    let mut seen = BTreeSet::new();
    for (i, netns) in pods.iter().take(5).enumerate() {
        let outcome = node.add(&format!("pod{i}"), netns);
        assert!(outcome.addresses().is_disjoint(&seen));
        seen.extend(outcome.addresses());
    }
    let (code, message) = node.add("pod5", &pods[5]).error();
    assert_eq!(code, 100);
    assert_eq!(
        message,
        "no free address in pod range 10.244.1.0/29: all 5 are used"
    );

    // ADD waits for the link that had the address.
    node.del("pod0", &pods[0]);
    let outcome = node.add("pod5", &pods[5]);
    assert!(
        outcome.addresses().contains(&"10.244.1.2".parse().unwrap()),
        "{}",
        outcome.printed
    );
    for (i, netns) in pods.iter().enumerate().skip(1) {
        node.del(&format!("pod{i}"), netns);
    }
    node.is_empty_soon();
}

#[test]
fn fifty_pods_at_once() {
    let node = Node::new("fifty", "10.244.1.0/24,fd00:244::/64");
    let pods: Vec<(String, TestNetns)> = (0..50)
        .map(|i| (format!("pod{i}"), node.pod_netns(&i.to_string())))
        .collect();
    for _ in 0..2 {
        let outcomes = std::thread::scope(|scope| {
            let running: Vec<_> = pods
                .iter()
                .map(|(id, netns)| scope.spawn(|| node.add(id, netns)))
                .collect();
            running
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect::<Vec<_>>()
        });
        let addresses: Vec<IpAddr> = outcomes
            .iter()
            .flat_map(harness::Outcome::addresses)
            .collect();
        assert_eq!(addresses.len(), 100);
        assert_eq!(BTreeSet::from_iter(&addresses).len(), 100, "none twice");
        assert_eq!(node.engine.lock().unwrap().pods.len(), 50);
        std::thread::scope(|scope| {
            for (id, netns) in &pods {
                assert!(node.run("CHECK", id, netns, json!({})).success);
                scope.spawn(|| node.del(id, netns));
            }
        });
        node.is_empty_soon();
    }
}

#[test]
fn gc_collects_what_the_runtime_does_not_know() {
    let node = Node::new("gc", "10.244.1.0/24");
    let pods = ["keep", "lost", "foreign"].map(|id| (id, node.pod_netns(id)));
    for (id, netns) in &pods {
        let network = if *id == "foreign" {
            "another"
        } else {
            "ripstop"
        };
        assert!(node.run("ADD", id, netns, json!({"name": network})).success);
    }
    let valid = json!({"cni.dev/valid-attachments": [{"containerID": "keep", "ifname": "eth0"}]});
    assert!(finish(node.plugin("GC", "", None, valid)).success);
    let left: Vec<String> = node.engine.lock().unwrap().pods.keys().cloned().collect();
    assert_eq!(left, ["foreign", "keep"]);
    for (id, netns) in &pods {
        node.del(id, netns);
    }
    node.is_empty_soon();
}

#[test]
fn a_host_port_belongs_to_one_pod() {
    let node = Node::new("ports", "10.244.1.0/24");
    let (one, two) = (node.pod_netns("one"), node.pod_netns("two"));
    let port = |ip: &str, protocol: &str| {
        json!({"runtimeConfig": {"portMappings":
            [{"hostPort": 8080, "containerPort": 80, "protocol": protocol, "hostIP": ip}]}})
    };
    assert!(
        node.run("ADD", "one", &one, port("192.0.2.1", "tcp"))
            .success
    );
    let ports = node.engine.lock().unwrap().pods["one"].host_ports.clone();
    assert_eq!(
        (ports.len(), ports[0].host_port, ports[0].container_port),
        (1, 8080, 80)
    );
    let (code, message) = node.run("ADD", "two", &two, port("", "TCP")).error();
    assert_eq!(
        (code, message.as_str()),
        (102, "host port 8080/TCP is used by pod shop/one")
    );
    assert!(
        node.run("ADD", "two", &two, port("192.0.2.2", "tcp"))
            .success
    );
    node.del("two", &two);
    assert!(
        node.run("ADD", "two", &two, port("192.0.2.1", "udp"))
            .success
    );
    node.del("two", &two);
    node.del("one", &one);
    node.is_empty_soon();
}
