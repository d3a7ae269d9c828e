//! From one engine to the other under load.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use ripstop_tests::load::{
    From, KEPT, KEPT_UDP, Loop, NEW_TCP, NEW_UDP, StopAtEnd, connect_again_and_again,
};
use ripstop_tests::{Lab, eventually, ripstop};

fn switch(lab: &Lab, engine: &str) -> String {
    let output = Command::new(ripstop())
        .args(["datapath", "set", engine, "--all", "--lab", lab.name()])
        .output()
        .expect("run ripstop datapath");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{engine}: {text}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What the engines dropped so far, for who looks at a loop that failed: the counts
/// of one that is gone are gone with it.
fn show_drops(lab: &Lab) {
    for node in ["node1", "node2"] {
        let told = lab.agent(node, &["status", "-o", "json"]).stdout;
        let told: serde_json::Value = serde_json::from_str(&told).unwrap_or_default();
        let dropped = told["datapath"]["drops"].as_object().into_iter().flatten();
        let dropped: Vec<_> = dropped.filter(|(_, count)| **count != 0).collect();
        println!("{node} dropped {dropped:?}");
    }
}

fn ask_once(lab: &Lab) {
    let ask = "wget -T 5 -t1 -qO- http://$WEB_SERVICE_HOST/";
    let answer = lab.exec("client", &["sh", "-c", ask]);
    assert!(answer.contains("\"pod\""), "{answer}");
}

#[test]
fn new_connections_do_not_notice_a_switch() {
    switch_under_load(Kept::None);
}

/// Those of nftables' time are led on by the flow table of the eBPF engine.
#[test]
fn kept_connections_do_not_notice_a_switch() {
    switch_under_load(Kept::OfEachEngine);
}

/// Connections that stay open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    None,
    OfEachEngine,
}

fn switch_under_load(kept: Kept) {
    let lab = Lab::pair();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let node = text(&lab.get(&["node", "node1"])["status"]["addresses"][0]["address"]);
    let service = text(&lab.get(&["service", "web"])["spec"]["clusterIP"]);
    let far = text(&lab.get(&["pod", "far"])["status"]["podIP"]);
    let from = [
        From {
            what: "a pod's",
            place: &["client"],
            to: "$WEB_SERVICE_HOST/80".into(),
        },
        From {
            what: "from outside,",
            place: &["--outside"],
            to: format!("{node}/30080"),
        },
        From {
            what: "the node's own,",
            place: &["node/node1"],
            to: format!("{far}/80"),
        },
        From {
            what: "the node's own to a service,",
            place: &["node/node1"],
            to: format!("{service}/80"),
        },
    ];
    let stop = AtomicBool::new(false);
    let new = AtomicU32::new(0);
    let mut answered = 0;
    std::thread::scope(|scope| {
        let _stop = StopAtEnd(&stop);
        let connects = scope.spawn(|| connect_again_and_again(&lab, &stop, &new));
        // Connections of each engine's time live through the next one's.
        let mut loops = Vec::new();
        if kept == Kept::None {
            for from in &from {
                loops.push(Loop::start(&lab, from, "datagrams", NEW_UDP));
            }
            for from in &from[1..] {
                loops.push(Loop::start(&lab, from, "connections", NEW_TCP));
            }
        }
        for engine in ["nftables", "ebpf", "nftables", "ebpf"] {
            if kept == Kept::OfEachEngine {
                for from in &from {
                    loops.push(Loop::start(&lab, from, "kept connection", KEPT));
                    loops.push(Loop::start(&lab, from, "kept datagram socket", KEPT_UDP));
                }
            }
            let before = new.load(Ordering::Relaxed);
            eventually("new connections go on", || {
                (new.load(Ordering::Relaxed) > before + 25).then_some(())
            });
            show_drops(&lab);
            let said = switch(&lab, engine);
            assert!(said.contains(&format!("-> {engine} in")), "{said}");
            println!("{said}");
        }
        let before = new.load(Ordering::Relaxed);
        eventually("new connections go on", || {
            (new.load(Ordering::Relaxed) > before + 50).then_some(())
        });
        show_drops(&lab);
        stop.store(true, Ordering::Relaxed);
        connects.join().unwrap();
        for running in loops {
            let what = running.what.clone();
            let count = running.end();
            assert!(count > 20, "{what}: only {count} requests");
            println!("{what}: {count} answers");
            answered += count;
        }
    });
    let new = new.load(Ordering::Relaxed);
    println!("{answered} answers to loops, {new} new connections of a pod, no error");
    ask_once(&lab);
    // Nothing of the other engine is left, on either node, once what the node
    // itself asked services has ended.
    for node in ["node/node1", "node/node2"] {
        eventually("nothing of nftables is left", || {
            let tables = lab.exec(node, &["nft", "list", "tables"]);
            (!tables.contains("ripstop")).then_some(())
        });
    }
    switch(&lab, "nftables");
    ask_once(&lab);
    for node in ["node/node1", "node/node2"] {
        let filters = "for i in $(ls /proc/sys/net/ipv4/conf); do tc filter show dev $i ingress 2>/dev/null; done";
        let filters = lab.exec(node, &["sh", "-c", filters]);
        assert!(!filters.contains("ripstop"), "{filters}");
    }
    // And so it is after every start.
    let killed = lab.agents();
    for agent in &killed {
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(*agent),
            nix::sys::signal::Signal::SIGKILL,
        )
        .unwrap();
    }
    eventually("the next agents have nftables", || {
        let status = lab.must("status", &[]);
        let now = lab.agents();
        let others = now.len() == 2 && now.iter().all(|agent| !killed.contains(agent));
        (others && status.matches("nftables").count() == 2).then_some(())
    });
    ask_once(&lab);
}
