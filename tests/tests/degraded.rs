//! `ripstop status` while things are broken: what is degraded, and what to do.

use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use ripstop_netlink::{Netlink, address};
use ripstop_tests::{Lab, PAIR, eventually, write_manifest};
use serde_json::Value;

/// For a broken product, no measurement.
const LIMIT: Duration = Duration::from_secs(120);

/// Nobody answers there.
const UPSTREAM: &str = "172.31.0.2:5399";

/// No way to the API's port; no answer to echoes.
const CUT: &str = "
add table inet cut
add chain inet cut output { type filter hook output priority 0; }
add rule inet cut output tcp dport 6443 reject with tcp reset
";
const DEAF: &str = "
add table inet deaf
add chain inet deaf input { type filter hook input priority 0; }
add rule inet deaf input icmp type echo-request drop
";

/// What the agent of the first node says.
fn status(lab: &Lab) -> Value {
    let said = lab.agent("node1", &["status", "-o", "json"]).stdout;
    serde_json::from_str(&said).unwrap()
}

/// What is degraded, by id.
fn degraded(lab: &Lab) -> BTreeMap<String, Value> {
    let reasons = status(lab)["degraded"].as_array().unwrap().clone();
    let by_id = |reason: Value| (reason["id"].as_str().unwrap().to_owned(), reason);
    reasons.into_iter().map(by_id).collect()
}

/// What metrics say of it: each reason that there is, and whether it is one now.
fn measured(lab: &Lab) -> BTreeMap<String, bool> {
    let url = "http://127.0.0.1:10249/metrics";
    let page = lab.exec("node/node1", &["curl", "-s", "-m", "5", url]);
    let samples = page.lines().filter_map(|line| {
        let sample = line.strip_prefix("ripstop_degraded_reason{reason=\"")?;
        let (reason, value) = sample.split_once("\"} ")?;
        Some((reason.to_owned(), value == "1"))
    });
    samples.collect()
}

#[test]
fn each_fault_is_said_with_what_to_do() {
    let file = write_manifest(PAIR);
    let path = file.path().to_str().unwrap();
    let flags = [
        "--nodes=2",
        "--datapath=nftables",
        "--upstream-dns",
        UPSTREAM,
    ];
    let lab = Lab::up(&[&flags[..], &["-f", path]].concat());
    let screen = || lab.agent("node1", &["status"]).stdout;
    let until = |what: &str, words: &[&str]| {
        let started = Instant::now();
        loop {
            let screen = screen();
            if words.iter().all(|word| screen.contains(word)) {
                println!("{what}:\n{screen}");
                return;
            }
            assert!(started.elapsed() < LIMIT, "not {what}:\n{screen}");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    until("all is well", &["nothing is degraded"]);

    let asked = lab.run("exec", &["client", "--", "getent", "hosts", "example.org"]);
    assert!(!asked.ok);
    until(
        "the upstream server is dead",
        &[
            "DEGRADED     no upstream DNS server answers",
            UPSTREAM,
            "-> ask one from this node",
        ],
    );

    lab.exec("node/node2", &["nft", DEAF]);
    until(
        "a node is silent",
        &[
            "DEGRADED     node node2 (172.30.1.12) does not answer: its pods (10.244.",
            "UDP 4789",
        ],
    );

    lab.exec("node/node1", &["nft", CUT]);
    until(
        "the API is away",
        &[
            "DEGRADED     the API server is away: pods, services and names work as they were",
            "-> look whether this node reaches it",
            // All of them at once.
            "no upstream DNS server answers",
            "node node2",
        ],
    );
    let reasons = degraded(&lab);
    let ids: Vec<&str> = reasons.keys().map(String::as_str).collect();
    assert_eq!(ids, ["api_away", "nodes_silent", "upstream_dns_dead"]);
    for words in ["text", "whatToDo"] {
        assert!(reasons["api_away"][words].is_string(), "{reasons:?}");
    }
    // For metrics nobody asks the other nodes.
    let gauges = measured(&lab);
    let now = gauges.iter().filter(|(_, is)| **is).map(|(id, _)| id);
    assert_eq!(now.collect::<Vec<_>>(), ["api_away", "upstream_dns_dead"]);
    assert!(!gauges["repaired"], "{gauges:?}");

    lab.exec("node/node1", &["nft", "flush map inet ripstop services4"]);
    let verified = lab.agent("node1", &["status", "--verify"]);
    println!("somebody has changed rules:\n{}", verified.stdout);
    assert!(!verified.ok);
    for words in ["differs ", "-> the agent repairs this within a minute"] {
        assert!(verified.stdout.contains(words), "{words}");
    }
    lab.exec("node/node1", &["nft", "delete table inet ripstop"]);
    let verified = lab.agent("node1", &["status", "--verify"]);
    println!("somebody has removed them:\n{}", verified.stderr);
    assert!(!verified.ok);
    let words = "the agent puts it back with its next audit";
    assert!(verified.stderr.contains(words), "{}", verified.stderr);
    lab.exec("node/node1", &["nft", "delete table inet cut"]);
    lab.exec("node/node2", &["nft", "delete table inet deaf"]);
    // A kind that the server had not is asked for once a minute.
    let started = Instant::now();
    loop {
        let screen = screen();
        if !screen.contains("API server is away") && !screen.contains("node node2") {
            break;
        }
        assert!(started.elapsed() < 3 * LIMIT, "still said:\n{screen}");
        std::thread::sleep(Duration::from_millis(100));
    }
    // Audits come once a minute.
    let started = Instant::now();
    while !degraded(&lab).contains_key("repaired") {
        assert!(started.elapsed() < 3 * LIMIT, "not said:\n{}", screen());
        std::thread::sleep(Duration::from_millis(100));
    }
    until(
        "it was repaired",
        &["repaired within the last ten minutes", "-> find who else"],
    );
    assert!(measured(&lab)["repaired"]);
}

/// Counters of the kernel outlive agents, and what they count is said while it is
/// news.
#[test]
fn what_was_counted_before_is_not_said() {
    let file = write_manifest(PAIR);
    let path = file.path().to_str().unwrap();
    let lab = Lab::up(&["--nodes=2", "--dual-stack", "-f", path]);
    let all_is_well = || degraded(&lab).is_empty().then_some(());
    eventually("nothing is degraded", all_is_well);
    let addresses = |pod: &str| -> Vec<IpAddr> {
        let pod = lab.get(&["pod", pod]);
        let all = pod["status"]["podIPs"].as_array().unwrap().clone();
        let parse = |ip: &Value| ip["ip"].as_str().unwrap().parse().unwrap();
        all.iter().map(parse).collect()
    };
    let (client, near) = (addresses("client"), addresses("near"));
    let others: [IpNet; 2] = ["10.9.9.9/32", "fd09::9/128"].map(|ip| ip.parse().unwrap());
    let send = || {
        let mut netlink = Netlink::new().unwrap();
        let links = netlink.links().unwrap();
        let eth0 = links.iter().find(|link| link.name == "eth0").unwrap().index;
        for (other, to) in others.into_iter().zip(&near) {
            netlink.execute([address::add(eth0, other)]).unwrap();
            let socket = UdpSocket::bind((other.addr(), 0)).unwrap();
            socket.send_to(b"spoofed", (*to, 80)).unwrap();
        }
    };
    lab.pod_netns(client[0]).run(send).unwrap();
    let counted = || {
        status(&lab)["datapath"]["drops"]["spoofed"]
            .as_u64()
            .unwrap()
    };
    // Of IPv6 the neighbour is asked for first.
    let before = eventually("one of each family is dropped", || {
        Some(counted()).filter(|count| *count >= 2)
    });
    let reasons = degraded(&lab);
    let text = reasons["spoofed"]["text"].as_str().unwrap();
    let words = "packets were dropped within the last ten minutes";
    assert!(text.contains(words), "{text}");
    assert!(measured(&lab)["spoofed"]);

    lab.restart_agents();
    eventually("what it was before is not said", all_is_well);
    assert!(counted() >= before);
    assert!(!measured(&lab)["spoofed"]);
}
