//! What breaks, and what must not notice.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ripstop_tests::load::{StopAtEnd, connect_again_and_again};
use ripstop_tests::{Lab, eventually, write_manifest};
use serde_json::Value;

#[test]
fn a_killed_agent_loses_no_connection() {
    let lab = Lab::pair();
    let stop = AtomicBool::new(false);
    let (kept, new) = (AtomicU32::new(0), AtomicU32::new(0));
    let near = format!("{}:80", pod_address(&lab, "near"));
    let far = format!("{}:80", pod_address(&lab, "far"));
    std::thread::scope(|scope| {
        // Also when an assertion fails: the scope waits for its threads.
        let _stop = StopAtEnd(&stop);
        let tests: Vec<_> = [near, far]
            .into_iter()
            .map(|server| {
                let (lab, stop, kept) = (&lab, &stop, &kept);
                scope.spawn(move || keep_asking(lab, &server, stop, kept))
            })
            .chain([scope.spawn(|| connect_again_and_again(&lab, &stop, &new))])
            .collect();
        for _ in 0..3 {
            let (kept_before, new_before) =
                (kept.load(Ordering::Relaxed), new.load(Ordering::Relaxed));
            let killed = lab.agents();
            assert_eq!(killed.len(), 2);
            for agent in &killed {
                kill(Pid::from_raw(*agent), Signal::SIGKILL).unwrap();
            }
            eventually("new agents run", || {
                let now = lab.agents();
                (now.len() == 2 && now.iter().all(|agent| !killed.contains(agent))).then_some(())
            });
            eventually("requests go on", || {
                (kept.load(Ordering::Relaxed) > kept_before + 20
                    && new.load(Ordering::Relaxed) > new_before + 20)
                    .then_some(())
            });
        }
        stop.store(true, Ordering::Relaxed);
        for test in tests {
            test.join().unwrap();
        }
    });
    // The next one found everything in place.
    for node in ["node1", "node2"] {
        let status = agent_status(&lab, node);
        assert_eq!(
            status.pointer("/datapath/adopted"),
            Some(&true.into()),
            "{status}"
        );
    }
    lab.must("probe", &[]);
}

/// A node that cannot reach the API serves what it knows; what changed meanwhile
/// counts as soon as it can again, and connections live through both.
#[test]
fn a_node_without_the_api_goes_on() {
    let lab = Lab::pair();
    let node = |words: &[&str]| lab.exec("node/node1", words);
    let stop = AtomicBool::new(false);
    let (kept, new) = (AtomicU32::new(0), AtomicU32::new(0));
    let far = format!("{}:80", pod_address(&lab, "far"));
    std::thread::scope(|scope| {
        let _stop = StopAtEnd(&stop);
        let asking = scope.spawn(|| keep_asking(&lab, &far, &stop, &kept));
        let connects = scope.spawn(|| connect_again_and_again(&lab, &stop, &new));
        let goes_on = |what: &str| {
            let before = (kept.load(Ordering::Relaxed), new.load(Ordering::Relaxed));
            eventually(what, || {
                let now = (kept.load(Ordering::Relaxed), new.load(Ordering::Relaxed));
                (now.0 > before.0 + 20 && now.1 > before.1 + 20).then_some(())
            });
        };
        node(&["nft", CUT]);
        eventually("the agent sees that the API is away", || {
            (agent_status(&lab, "node1")["api"] == "away").then_some(())
        });
        goes_on("requests go on without the API");
        // Added, changed more than once, taken away.
        lab.kubectl(&["create", "service", "clusterip", "late", "--tcp=80:80"]);
        lab.kubectl(&["set", "selector", "service/late", "app=nowhere"]);
        lab.kubectl(&["set", "selector", "service/late", "app=web"]);
        lab.kubectl(&["delete", "service", "nobody"]);
        goes_on("requests go on while objects change");
        assert_eq!(services(&lab, "node1"), ["nobody", "web"]);
        node(&["nft", "delete table inet cut"]);
        eventually("what changed counts", || {
            (services(&lab, "node1") == ["late", "web"]).then_some(())
        });
        goes_on("requests go on with the API back");
        stop.store(true, Ordering::Relaxed);
        asking.join().unwrap();
        connects.join().unwrap();
    });
    // Kinds come back one by one: the service may be there before its endpoints.
    let late = "wget -T 5 -t1 -qO- http://late/";
    eventually("the new service answers", || {
        let asked = lab.run("exec", &["client", "--", "sh", "-c", late]);
        asked.stdout.contains("\"pod\"").then_some(())
    });
    eventually("every watch goes on", || {
        (agent_status(&lab, "node1")["api"] == "up").then_some(())
    });
    let verified = lab.agent("node1", &["status", "--verify"]);
    assert!(verified.ok, "{}{}", verified.stdout, verified.stderr);
}

/// No way to the API's port.
const CUT: &str = "
add table inet cut
add chain inet cut output { type filter hook output priority 0; }
add rule inet cut output tcp dport 6443 reject with tcp reset
";

/// Names of the services in `default` that the agent's engine has, but for the
/// API's own.
fn services(lab: &Lab, node: &str) -> Vec<String> {
    let printed = lab.agent(node, &["service", "list", "-o", "json"]);
    assert!(printed.ok, "{}", printed.stderr);
    let list: Value = serde_json::from_str(&printed.stdout).unwrap();
    let mut names: Vec<String> = list
        .as_array()
        .unwrap()
        .iter()
        .filter(|service| service["namespace"] == "default" && service["name"] != "kubernetes")
        .map(|service| service["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_service_without_endpoints_refuses_at_once() {
    let lab = Lab::pair();
    let connect = "busybox nc -w 5 $NOBODY_SERVICE_HOST 80 < /dev/null";
    let refused = lab.run("exec", &["client", "--", "sh", "-c", connect]);
    assert!(!refused.ok);
    assert!(
        refused.stderr.contains("refused"),
        "{}{}",
        refused.stdout,
        refused.stderr
    );
}

#[test]
fn a_port_taken_twice_fails_the_second_container() {
    let lab = Lab::up(&["--nodes", "1"]);
    let twice = write_manifest(
        "
apiVersion: v1
kind: Pod
metadata: {name: twice}
spec:
  containers:
  - {name: first, image: web, ports: [{containerPort: 80}]}
  - {name: second, image: web, ports: [{containerPort: 80}]}
",
    );
    lab.must("apply", &["-f", twice.path().to_str().unwrap()]);
    let why = eventually("one of the containers fails", || {
        let pod = lab.get(&["pod", "twice"]);
        let statuses = pod
            .pointer("/status/containerStatuses")?
            .as_array()?
            .clone();
        statuses.iter().find_map(|status| {
            let ended = [
                status.pointer("/state/terminated"),
                status.pointer("/lastState/terminated"),
            ];
            ended
                .into_iter()
                .flatten()
                .next()
                .map(|ended| ended["message"].to_string())
        })
    });
    assert!(why.contains("80") && why.contains("in use"), "{why}");
}

#[test]
fn host_ports_lead_to_the_pod() {
    let manifest = write_manifest(
        "
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  nodeName: node2
  containers:
  - name: main
    image: web
    ports: [{containerPort: 80, hostPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: other}
spec:
  nodeName: node1
  containers: [{name: main, image: client}]
---
apiVersion: v1
kind: Pod
metadata: {name: neighbour}
spec:
  nodeName: node2
  containers: [{name: main, image: client}]
",
    );
    let lab = Lab::up(&["--nodes", "2", "-f", manifest.path().to_str().unwrap()]);
    let node = lab.get(&["node", "node2"]);
    let address = node
        .pointer("/status/addresses/0/address")
        .and_then(Value::as_str)
        .unwrap();
    for from in ["other", "neighbour", "node/node1", "node/node2"] {
        let url = format!("http://{address}:8080/");
        let answer = lab.exec(from, &["wget", "-T", "5", "-t1", "-qO-", &url]);
        assert!(answer.contains("\"web\""), "from {from}: {answer}");
    }
}

/// Requests over one connection that stays open, by HTTP/1.1.
fn keep_asking(lab: &Lab, server: &str, stop: &AtomicBool, done: &AtomicU32) {
    let mut connection = in_pod(lab, "client", || TcpStream::connect(server)).expect("connect");
    connection
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let mut buffer = [0; 8192];
    while !stop.load(Ordering::Relaxed) {
        connection
            .write_all(b"GET / HTTP/1.1\r\nHost: kept\r\n\r\n")
            .expect("connection kept");
        let read = connection
            .read(&mut buffer)
            .expect("an answer on the kept connection");
        assert!(
            buffer[..read].starts_with(b"HTTP/1.1 200"),
            "connection kept"
        );
        done.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn pod_address(lab: &Lab, pod: &str) -> String {
    let pod = lab.get(&["pod", pod]);
    pod.pointer("/status/podIP")
        .and_then(Value::as_str)
        .expect("an address")
        .to_owned()
}

/// Runs `f` in the pod's network namespace, which is found by its address.
fn in_pod<T>(lab: &Lab, pod: &str, f: impl FnOnce() -> T) -> T {
    let address = pod_address(lab, pod).parse().expect("an address");
    lab.pod_netns(address)
        .run(f)
        .expect("enter the pod's namespace")
}

/// `ripstop status` of a node's agent.
fn agent_status(lab: &Lab, node: &str) -> Value {
    let run_dir = lab.root().join("nodes").join(node).join("agent");
    eventually("the agent answers", || {
        let output = std::process::Command::new(ripstop_tests::ripstop())
            .args(["status", "--output", "json", "--run-dir"])
            .arg(&run_dir)
            .output()
            .expect("run ripstop status");
        serde_json::from_slice(&output.stdout)
            .ok()
            .filter(|_| output.status.success())
    })
}
