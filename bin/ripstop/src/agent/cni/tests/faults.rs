//! Killed plugins and killed servers leave nothing behind.

use std::collections::BTreeSet;
use std::process::Child;
use std::time::Duration;

use ripstop_netlink::link;
use serde_json::json;

use super::harness::{Node, Outcome, TestNetns, finish};

fn kill(child: &mut Child) {
    // It may have ended by itself.
    let _ = child.kill();
    child.wait().unwrap();
}

/// Moments within an ADD, which takes a few milliseconds in all.
fn moments(count: u64) -> impl Iterator<Item = Duration> {
    (0..count).map(move |i| Duration::from_micros(6000 * i / count))
}

#[test]
fn a_plugin_killed_in_add_leaves_nothing() {
    let node = Node::new("kill-plugin", "10.244.1.0/26");
    let netns = node.pod_netns("pod");
    for (round, moment) in moments(60).enumerate() {
        let id = format!("pod{round}");
        let mut plugin = node.plugin("ADD", &id, Some(netns.netns.path()), json!({}));
        std::thread::sleep(moment);
        kill(&mut plugin);
        if round % 2 == 0 {
            // As runtimes do after a failure.
            node.del(&id, &netns);
        } else if plugin.wait().unwrap().success() {
            node.del(&id, &netns);
        }
    }
    node.is_empty_soon();
    // No address is lost: all 61 can be had.
    let pods: Vec<TestNetns> = (0..61).map(|i| node.pod_netns(&i.to_string())).collect();
    let mut addresses = BTreeSet::new();
    for (i, netns) in pods.iter().enumerate() {
        addresses.extend(node.add(&format!("all{i}"), netns).addresses());
    }
    assert_eq!(addresses.len(), 61);
    for (i, netns) in pods.iter().enumerate() {
        node.del(&format!("all{i}"), netns);
    }
    node.is_empty_soon();
}

#[test]
fn a_server_killed_in_add_keeps_what_is_whole_and_undoes_the_rest() {
    const PODS: usize = 4;
    let node = Node::without_server("kill-server", "10.244.1.0/24,fd00:244::/64");
    let pods: Vec<TestNetns> = (0..PODS).map(|i| node.pod_netns(&i.to_string())).collect();
    let mut server = node.spawn_server();
    node.ready();
    let (mut whole, mut failed) = (0, 0);
    for (round, moment) in moments(30).enumerate() {
        let ids: Vec<String> = (0..PODS).map(|i| format!("pod{round}-{i}")).collect();
        let adds: Vec<Child> = ids
            .iter()
            .zip(&pods)
            .map(|(id, netns)| node.plugin("ADD", id, Some(netns.netns.path()), json!({})))
            .collect();
        std::thread::sleep(moment);
        kill(&mut server);
        let outcomes: Vec<Outcome> = adds.into_iter().map(finish).collect();
        server = node.spawn_server();
        node.ready();
        let mut addresses = BTreeSet::new();
        for ((id, netns), outcome) in ids.iter().zip(&pods).zip(outcomes) {
            if outcome.success {
                // What the runtime was told is still true.
                whole += 1;
                assert!(outcome.addresses().is_disjoint(&addresses));
                addresses.extend(outcome.addresses());
                let more = json!({"prevResult": outcome.printed});
                let check = node.run("CHECK", id, netns, more);
                assert!(check.success, "{}", check.printed);
            } else {
                failed += 1;
                // An error; or, if the server died after its answer, the result
                // alone: never both, which a runtime could not read.
                let printed = &outcome.printed;
                assert!(
                    printed["code"] == 11 || printed["ips"].is_array(),
                    "{printed}"
                );
            }
            node.del(id, netns);
        }
        node.is_empty_soon();
    }
    kill(&mut server);
    println!("{whole} were whole, {failed} failed");
}

#[test]
fn a_server_killed_in_del_forgets_all_the_same() {
    let node = Node::without_server("kill-del", "10.244.1.0/24");
    let netns = node.pod_netns("pod");
    let mut server = node.spawn_server();
    node.ready();
    for (round, moment) in moments(12).enumerate() {
        let id = format!("pod{round}");
        assert!(node.add(&id, &netns).success);
        let del = node.plugin("DEL", &id, Some(netns.netns.path()), json!({}));
        std::thread::sleep(moment);
        kill(&mut server);
        let outcome = finish(del);
        server = node.spawn_server();
        node.ready();
        if !outcome.success {
            node.del(&id, &netns);
        }
        // The link was perhaps not deleted yet: then the record is still there.
        node.del(&id, &netns);
        node.is_empty_soon();
    }
    kill(&mut server);
}

#[test]
fn a_restarted_server_adopts_and_collects() {
    let node = Node::without_server("adopt", "10.244.1.0/24");
    let pods = ["stays", "vanished"].map(|id| (id, node.pod_netns(id)));
    let mut server = node.spawn_server();
    node.ready();
    let mut addresses = BTreeSet::new();
    for (id, netns) in &pods {
        addresses.extend(node.add(id, netns).addresses());
    }
    kill(&mut server);
    // A pod changes its own interface, another one goes, a link loses its record.
    let [(stays, stays_netns), (vanished, vanished_netns)] = &pods;
    let eth0 = stays_netns.netlink().link("eth0").unwrap().unwrap();
    stays_netns
        .netlink()
        .execute([link::set_mtu(eth0.index, 1400)])
        .unwrap();
    let eth0 = vanished_netns.netlink().link("eth0").unwrap().unwrap();
    vanished_netns
        .netlink()
        .execute([link::delete(eth0.index)])
        .unwrap();
    let orphan = "rs0123456789abc";
    node.netns
        .netlink()
        .execute([link::create_bridge(orphan)])
        .unwrap();

    server = node.spawn_server();
    node.ready();
    assert_eq!(node.records(), [format!("{stays}-eth0.json")]);
    assert_eq!(node.host_ends().len(), 1);
    assert!(node.run("CHECK", stays, stays_netns, json!({})).success);
    assert!(
        !node
            .run("CHECK", vanished, vanished_netns, json!({}))
            .success
    );
    // The address of the pod that stayed is not given again.
    let other = node.pod_netns("other");
    let outcome = node.add("other", &other);
    assert!(
        outcome.addresses().contains(&"10.244.1.3".parse().unwrap()),
        "{}",
        outcome.printed
    );
    node.del("other", &other);
    node.del(stays, stays_netns);
    node.is_empty_soon();
    kill(&mut server);
}
