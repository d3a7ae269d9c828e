//! A pod that begins connections until there is no room, and the others.

use std::time::Duration;

use ripstop_datapath::nftables::{self, NftEngine};
use ripstop_datapath::{Datapath, EngineStatus};
use ripstop_model::ObjectKey;
use ripstop_netlink::conntrack::Conntrack;
use ripstop_netlink::nftables::{Batch, Element, Nftables};
use ripstop_plan::Tables;

use crate::common::process::Process;
use crate::common::{Node, Pod, unrestricted};
use crate::policies::serving;
use crate::services::{node, ranges, says};

/// So that half of them are begun soon.
const CONNECTIONS: u64 = 2048;

fn with_room_for(test: &str, connections: u64) -> Node<NftEngine> {
    let mut node = node::<NftEngine>(test);
    node.engine = None;
    let config = nftables::Config {
        node_addresses: node.addresses.into(),
        connections: Some(connections),
    };
    let opened = node.inside(|| NftEngine::open(config));
    node.engine = Some(opened.unwrap());
    audit(&mut node, &[]);
    node
}

/// As an agent has it in force for the pod.
fn press(node: &Node<NftEngine>, set: &str, pod: &Pod) {
    let link = Element {
        timeout_ms: 60_000,
        ..Element::key(pod.local.host_ifindex.to_ne_bytes().into())
    };
    let mut batch = Batch::new(nftables::TABLE);
    batch.add_elements(set, [&link]);
    node.inside(|| Nftables::new().unwrap().commit(&batch).unwrap());
}

/// What another thread does takes a moment.
fn eventually(mut is_so: impl FnMut() -> bool) -> bool {
    (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        is_so()
    })
}

fn dropped(status: &EngineStatus) -> u64 {
    let mut drops = status.drops.iter();
    let found = drops.find(|(reason, _)| *reason == "connection_share");
    found.unwrap().1
}

fn crowding(status: &EngineStatus) -> Vec<&ObjectKey> {
    status.crowding.iter().map(|(pod, _)| pod).collect()
}

fn status(node: &mut Node<NftEngine>) -> EngineStatus {
    node.run(|engine| engine.status())
}

/// What an audit found that is not as it should be.
fn audit(node: &mut Node<NftEngine>, pods: &[&Pod]) -> Vec<String> {
    let pods: Vec<_> = pods.iter().map(|pod| pod.local.clone()).collect();
    let mut desired = Tables::default();
    desired.apply(&ranges());
    desired.apply(&unrestricted(&pods));
    let drift = node.run(|engine| engine.audit(&desired, &pods));
    drift.unwrap().repaired
}

/// What the pod has begun ends.
fn forget(node: &Node<NftEngine>, pod: &Pod) {
    node.inside(|| {
        let mut conntrack = Conntrack::new().unwrap();
        let of_pod = conntrack.list(|one| pod.addresses.contains(&one.original.source.ip()));
        conntrack.delete(&of_pod.unwrap()).unwrap();
    });
}

#[test]
fn who_has_more_than_its_share_begins_no_more_until_it_has_less() {
    for family in 0..2 {
        let mut node = with_room_for(&format!("share{family}"), CONNECTIONS);
        let [flooder, other, asked] = [(); 3].map(|()| node.add_pod());
        let _server = serving(&asked);
        let (mut flooding, mut process) = (flooder.process(), other.process());
        let to = asked.at(8080)[family];
        assert_eq!(flooding.hold(to), to.to_string());
        assert_eq!(dropped(&status(&mut node)), 0);
        flooding.flood(to.ip(), 1100);
        let is_held = |process: &mut Process| process.is_silent(to);
        assert!(eventually(|| is_held(&mut flooding)));
        // Whatever it asks, in whatever family.
        assert!(flooding.is_silent(asked.at(8080)[1 - family]));
        assert!(flooding.is_dropped(to));
        assert_eq!(flooding.held(), "still there");
        for (family, to) in asked.at(8080).into_iter().enumerate() {
            let says = says(&asked, &other, family);
            assert_eq!(process.tcp(to), format!("{says} peer {to}"));
            assert_eq!(process.udp(to), format!("{says} from {to}"));
        }
        let told = status(&mut node);
        assert!(dropped(&told) > 0);
        assert_eq!(crowding(&told), [&flooder.local.pod]);
        assert_eq!(audit(&mut node, &[&flooder, &other, &asked]), [""; 0]);

        forget(&node, &flooder);
        assert!(eventually(|| !is_held(&mut flooding)));
        let before = dropped(&status(&mut node));
        assert!(!flooding.tcp(to).starts_with("error"));
        assert_eq!(dropped(&status(&mut node)), before);
    }
}

/// As it is from the moment when there are many until it is known whose they are.
#[test]
fn until_it_is_counted_nobody_begins_many_at_once() {
    let mut node = node::<NftEngine>("slowly");
    let [flooder, other, asked] = [(); 3].map(|()| node.add_pod());
    let _server = serving(&asked);
    let (mut flooding, mut process) = (flooder.process(), other.process());
    for pod in [&flooder, &other] {
        press(&node, "pressed", pod);
    }
    for to in asked.addresses {
        flooding.flood(to, 60_000);
    }
    let told = status(&mut node);
    assert!(dropped(&told) > 0);
    assert_eq!(crowding(&told), [&flooder.local.pod]);
    for (family, to) in asked.at(8080).into_iter().enumerate() {
        let says = says(&asked, &other, family);
        assert_eq!(process.tcp(to), format!("{says} peer {to}"));
    }
    let listed = node.nft("list ruleset");
    assert!(listed.contains("limit rate over 2048/second"), "{listed}");
    assert_eq!(audit(&mut node, &[&flooder, &other, &asked]), [""; 0]);
}

#[test]
fn what_an_agent_left_in_force_is_taken_back_by_the_next() {
    let mut node = node::<NftEngine>("left");
    let [held, asked] = [(); 2].map(|()| node.add_pod());
    let _server = serving(&asked);
    let mut process = held.process();
    node.engine = None;
    for set in ["pressed", "held"] {
        press(&node, set, &held);
    }
    let to = asked.at(8080)[0];
    assert!(process.is_silent(to));
    node.open();
    assert!(eventually(|| !process.is_silent(to)));
}
