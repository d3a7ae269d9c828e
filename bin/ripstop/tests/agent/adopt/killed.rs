//! An agent that is killed while it adopts: the pod has what it had, or the next agent
//! goes on.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use ripstop_host::pod::{is_finished, is_host_end};
use serde_json::json;

use super::plugin::{Other, there_are_others};
use super::{adopted, start};
use crate::node::{TestNode, eventually, read};
use crate::pod::plugin;
use crate::talk::{PORT, Talk, serve};

/// Moments after the record of the pod was written, microseconds: an adoption takes
/// some milliseconds.
const MOMENTS: [u64; 12] = [
    0, 200, 400, 600, 800, 1000, 1300, 1700, 2500, 4000, 8000, 20_000,
];

fn a_killed_agent(engine: &str) {
    if !there_are_others() {
        return;
    }
    let node = TestNode::new(&format!("adopt-killed-{engine}"));
    let other = Other::new(&node);
    let records = node.run_dir().join("pods");
    let (mut untouched, mut half, mut whole) = (0, 0, 0);
    for moment in MOMENTS {
        let name = format!("pod{moment}");
        let pod = other.add(&name, other.network("bridge", 20), json!({}));
        node.create(&pod.object(&json!({})));
        pod.tell(&node);
        serve(&pod.netns);
        let mut talks: Vec<Talk> = Vec::new();
        for address in &pod.addresses {
            let open = || Talk::open(&name, node.netns(), *address, PORT);
            eventually("the pod answers", || open().is_ok());
            talks.push(open().unwrap());
        }
        talks.iter_mut().for_each(Talk::goes_on);

        let agent = start(&node, &other, engine);
        let record = records.join(format!("{name}-container-eth0.json"));
        let deadline = Instant::now() + Duration::from_secs(60);
        while !record.exists() {
            assert!(Instant::now() < deadline, "no record of {name}");
            std::thread::sleep(Duration::from_micros(100));
        }
        std::thread::sleep(Duration::from_micros(moment));
        drop(agent);
        let links = node.netlink().links().unwrap();
        match links.iter().find(|link| is_host_end(&link.name)) {
            Some(link) if is_finished(link) => whole += 1,
            Some(_) => half += 1,
            None => {
                // As if there had been no agent, but for a record.
                untouched += 1;
                talks.iter_mut().for_each(Talk::goes_on);
            }
        }

        let agent = start(&node, &other, engine);
        let key = format!("default/{name}");
        agent.until("adopted", |s| adopted(s) == [key.as_str()]);
        talks.iter_mut().for_each(Talk::goes_on);
        plugin(&node, "CHECK", &pod, json!({}));
        plugin(&node, "DEL", &pod, json!({}));
        node.delete::<Pod>(&name);
        agent.until("gone", |s| s["pods"] == 0 && s["podRanges"][0]["used"] == 0);
        assert!(!record.exists(), "{}", read(&record));
    }
    println!("{engine}: {untouched} untouched, {half} half done, {whole} whole");
}

#[test]
fn a_killed_agent_leaves_pods_that_work_with_ebpf() {
    a_killed_agent("ebpf");
}

#[test]
fn a_killed_agent_leaves_pods_that_work_with_nftables() {
    a_killed_agent("nftables");
}
