//! What a pod cannot say: that it is somebody else. A pod with raw sockets writes
//! whatever it likes on its link, and nobody may believe it.
//!
//! `cargo test -p ripstop-tests --test spoofing -- --nocapture` prints the table.

mod frames;
mod scene;

use std::net::IpAddr;

use frames::{Datagram, Extra};
use scene::{Outcome, Scene};

/// An address that is outside of every cluster.
const OUTSIDE: [&str; 2] = ["198.51.100.7", "2001:db8::7"];
/// In the node's range of pods, and nobody's.
const FREE: [&str; 2] = ["10.244.1.200", "fd00:244:0:1::c8"];
const LINK: [&str; 2] = ["169.254.7.7", "fe80::7"];
const LOOPBACK: [&str; 2] = ["127.0.0.1", "::1"];
const NOBODY: [&str; 2] = ["0.0.0.0", "::"];
const GROUP: [&str; 2] = ["224.0.0.9", "ff02::9"];

fn nobody_is_believed(engine: &str) {
    let scene = Scene::new(engine);
    let mut table = vec![format!(
        "{:<44} {:>4} {:>9} {:>8}  {engine}",
        "a pod says that it is", "sent", "delivered", "counted"
    )];
    let mut failed = Vec::new();
    let mut tell = |what: &str, outcome: Outcome, good: bool| {
        table.push(format!(
            "{what:<44} {:>4} {:>9} {:>8}",
            outcome.sent, outcome.delivered, outcome.counted
        ));
        if !good {
            failed.push(what.to_owned());
        }
    };
    for family in [0, 1] {
        let version = ["IPv4", "IPv6"][family];
        let ip = |text: [&str; 2]| text[family].parse::<IpAddr>().unwrap();
        let own = scene.attacker.addresses[family];
        // Who can be reached at all; this shows that the rest is not silence.
        let outcome = scene.send(family, own, Extra::None);
        let all = outcome.delivered == outcome.sent && outcome.counted == 0;
        tell(&format!("{version} itself"), outcome, all);
        let forged = [
            ("a pod of its node", scene.near.addresses[family]),
            ("a pod of another node", scene.far.addresses[family]),
            ("its node", scene.nodes[0].addresses[family]),
            ("another node", scene.nodes[1].addresses[family]),
            ("a service", scene.service[family]),
            ("the cluster's DNS", scene.dns[family]),
            ("the gateway of pods", scene.gateway[family]),
            ("a pod that is not there", ip(FREE)),
            ("somebody outside", ip(OUTSIDE)),
            ("somebody on its link", ip(LINK)),
            ("loopback", ip(LOOPBACK)),
            ("nobody", ip(NOBODY)),
            ("a group", ip(GROUP)),
        ];
        for (who, source) in forged {
            let outcome = scene.send(family, source, Extra::None);
            // Who is on one link with the node may speak with it from an address of
            // links, and with nobody else; what the kernel has dropped before us is
            // not ours to count.
            let of_link = source == ip(LINK) || source == scene.gateway[family];
            let good = match (of_link, who) {
                (true, _) => outcome.delivered <= 1,
                (_, "loopback" | "a group") => outcome.delivered == 0,
                _ => outcome.delivered == 0 && outcome.counted > 0,
            };
            tell(&format!("{version} {who}"), outcome, good);
        }
        let near = scene.near.addresses[family];
        for (how, extra) in [
            ("with options", Extra::Options),
            ("with its last hop", Extra::LastHop),
            ("in fragments", Extra::Fragments),
            ("with a priority tag", Extra::PriorityTags(1)),
            ("with two of them", Extra::PriorityTags(2)),
            ("from another MAC", Extra::OtherMac),
            ("to everybody's MAC", Extra::ToEverybody),
        ] {
            let outcome = scene.send(family, near, extra);
            let good = outcome.delivered == 0 && outcome.counted > 0;
            tell(
                &format!("{version} a pod of its node, {how}"),
                outcome,
                good,
            );
        }
    }
    // Inside of what nodes send each other: a pod writes the tunnel's header.
    for family in [0, 1] {
        let (near, far) = (scene.near.addresses[family], scene.far.addresses[family]);
        let version = ["IPv4", "IPv6"][family];
        for (node, from, to) in [(0, far, near), (1, near, far)] {
            let inner = Datagram {
                source: from,
                destination: to,
            };
            let outcome = scene.tunnel(node, &inner);
            let whose = ["its", "another"][node];
            let what = format!("{version} another pod, by VXLAN to {whose} node");
            tell(&what, outcome, outcome.delivered == 0);
        }
    }
    // What neighbours tell each other about links: nothing of it changes where the
    // node and its pods send.
    for (what, frames) in scene.neighbours() {
        let before = scene.ways();
        let outcome = scene.raw(&frames);
        let after = scene.ways();
        let same = before == after;
        if !same {
            eprintln!("{what}: before\n{before}\nafter\n{after}");
        }
        let reached = scene.send(0, scene.attacker.addresses[0], Extra::None);
        tell(what, outcome, same && reached.delivered == reached.sent);
    }
    // Nobody is counted for those: they would be without end.
    let tracked = scene.tracked_of_links();
    if engine == "nftables" && tracked != 0 {
        failed.push(format!("{tracked} connections of somebody on a link"));
    }
    println!("{}", table.join("\n"));
    assert!(failed.is_empty(), "{failed:#?}\n{}", table.join("\n"));
}

#[test]
fn nobody_is_believed_with_ebpf() {
    nobody_is_believed("ebpf");
}

#[test]
fn nobody_is_believed_with_nftables() {
    nobody_is_believed("nftables");
}
