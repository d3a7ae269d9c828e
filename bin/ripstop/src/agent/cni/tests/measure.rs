//! How long ADD and DEL take, beside the reference plugins. The benchmark does
//! the same with the whole agent; this is without an engine.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::harness::{Node, TestNetns, finish, plugin_path};

const PODS: usize = 200;
const REFERENCE: &str = "/usr/lib/cni";

#[test]
#[ignore = "a measurement: cargo test --release -p ripstop -- --ignored measure --nocapture"]
fn measure_add_and_del() {
    let ours = Node::new("measure", "10.244.0.0/22");
    let theirs = TestNetns::new("measure-bridge");
    let state = tempfile::tempdir().unwrap();
    let reference = json!({
        "cniVersion": "1.0.0", "name": "reference", "type": "bridge",
        "bridge": "cni0", "isGateway": true,
        "ipam": {"type": "host-local", "dataDir": state.path(),
                 "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]},
    });
    let compare = Path::new(REFERENCE).join("bridge").exists();
    let mut times: [Vec<Duration>; 5] = Default::default();
    plugin_path();
    for i in 0..PODS {
        let id = format!("pod{i}");
        let pods = [ours.pod_netns(&id), ours.pod_netns(&format!("ref{i}"))];
        let start = Instant::now();
        let outcome = finish(ours.plugin("VERSION", "", None, json!({})));
        times[4].push(start.elapsed());
        assert!(outcome.success, "{}", outcome.printed);
        for (at, command) in ["ADD", "DEL"].into_iter().enumerate() {
            let start = Instant::now();
            let outcome = finish(ours.plugin(command, &id, Some(pods[0].netns.path()), json!({})));
            times[at].push(start.elapsed());
            assert!(outcome.success, "{}", outcome.printed);
            if compare {
                let start = Instant::now();
                run_reference(&theirs, command, &id, &pods[1], &reference);
                times[2 + at].push(start.elapsed());
            }
        }
    }
    // VERSION does not ask the agent: it is the cost of starting a program.
    let names = ["ADD", "DEL", "reference ADD", "reference DEL", "VERSION"];
    for (times, what) in times.iter_mut().zip(names) {
        times.sort_unstable();
        if let [.., last] = times[..] {
            let at = |share: usize| times[times.len() * share / 100];
            println!("{what}: p50 {:?}, p99 {:?}, most {last:?}", at(50), at(99));
        }
    }
}

fn run_reference(node: &TestNetns, command: &str, id: &str, pod: &TestNetns, config: &Value) {
    let spawn = || {
        Command::new(Path::new(REFERENCE).join("bridge"))
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", id)
            .env("CNI_NETNS", pod.netns.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", REFERENCE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
    };
    let mut child = node.netns.run(spawn).unwrap().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(config.to_string().as_bytes())
        .unwrap();
    let outcome = finish(child);
    assert!(outcome.success, "{}", outcome.printed);
}
