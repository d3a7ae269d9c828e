//! `ripstop status` while things are broken: what is degraded, and what to do.

use std::time::{Duration, Instant};

use ripstop_tests::{Lab, PAIR, write_manifest};

/// For a broken product, no measurement.
const LIMIT: Duration = Duration::from_secs(30);

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
}
