//! Names as pods see them: independent clients, the resolvers of two C
//! libraries, and agents that are killed while they are asked.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ripstop_tests::load::StopAtEnd;
use ripstop_tests::{Lab, eventually, ripstop, visible_folder, write_manifest};
use serde_json::Value;
use tempfile::TempDir;

const TABLE: &str = include_str!("../../crates/dns/tests/specification.txt");
const CLUSTER: &str = include_str!("../../crates/dns/tests/cluster.yaml");
const SERVERS: [&str; 2] = ["10.96.0.10", "fd00:96::a"];

/// Pods that ask: one in its own network, one in the node's.
const CLIENTS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop}
spec:
  nodeName: node1
  containers: [{name: main, image: client}]
---
apiVersion: v1
kind: Pod
metadata: {name: host, namespace: shop}
spec:
  nodeName: node2
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  containers: [{name: main, image: client}]
---
apiVersion: v1
kind: Pod
metadata: {name: own, namespace: shop}
spec:
  nodeName: node1
  dnsPolicy: None
  dnsConfig:
    nameservers: [10.96.0.10]
    searches: [other.svc.cluster.local]
    options: [{name: ndots, value: \"1\"}, {name: edns0}]
  containers: [{name: main, image: client}]
---
apiVersion: v1
kind: Pod
metadata: {name: node, namespace: shop}
spec:
  nodeName: node1
  dnsPolicy: Default
  containers: [{name: main, image: client}]
";

fn lab(args: &[&str]) -> Lab {
    let manifest = write_manifest(&format!("{CLUSTER}---\n{CLIENTS}"));
    let file = manifest.path().to_str().unwrap();
    let lab = Lab::up(&[&["--nodes", "2", "--dual-stack", "-f", file], args].concat());
    eventually("the names are served", || {
        lab.run(
            "exec",
            &["-n", "shop", "client", "--", "getent", "hosts", "web"],
        )
        .ok
        .then_some(())
    });
    lab
}

/// A command in a pod of the namespace `shop`.
fn sh(lab: &Lab, pod: &str, script: &str) -> String {
    let args = ["-n", "shop", pod, "--", "sh", "-c", script];
    let printed = lab.run("exec", &args);
    assert!(
        printed.ok,
        "{script}:\n{}{}",
        printed.stdout, printed.stderr
    );
    printed.stdout
}

/// Name, type, response code, answers.
type Line = (String, &'static str, &'static str, Vec<&'static str>);

fn table() -> Vec<Line> {
    TABLE
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let mut words = line.splitn(4, ' ');
            let mut word = || words.next();
            let name = word().unwrap();
            let name = match name.ends_with('.') {
                true => name.to_owned(),
                false => format!("{name}.cluster.local."),
            };
            let (kind, rcode) = (word().unwrap(), word().unwrap());
            let answers = word().map_or_else(Vec::new, |list| list.split(", ").collect());
            (name, kind, rcode, answers)
        })
        .collect()
}

/// Response codes and sorted answers as dig and kdig print them.
fn read(output: &str) -> Vec<(String, Vec<String>)> {
    let mut replies: Vec<(String, Vec<String>)> = Vec::new();
    for line in output.lines() {
        if let Some((_, status)) = line.split_once("status: ") {
            let rcode = status.split([',', ';']).next().unwrap_or_default();
            replies.push((rcode.to_owned(), Vec::new()));
        } else if !line.is_empty() && !line.starts_with(';') {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let (Some((_, answers)), [_, _, _, _, data @ ..]) = (replies.last_mut(), &words[..])
            {
                answers.push(data.join(" "));
            }
        }
    }
    for (_, answers) in &mut replies {
        answers.sort();
    }
    replies
}

#[test]
fn the_table_over_the_wire() {
    let table = table();
    let mut asked = 0;
    for engine in ["ebpf", "nftables"] {
        let lab = lab(&["--datapath", engine]);
        asked += ask_all(&lab, &table);
    }
    println!("{} questions, asked {asked} times", table.len());
}

/// Asks everything by every way that there is; how often that was.
fn ask_all(lab: &Lab, table: &[Line]) -> usize {
    let mut asked = 0;
    for (pod, server, transport) in [
        ("client", SERVERS[0], "+notcp"),
        ("client", SERVERS[0], "+tcp"),
        ("client", SERVERS[1], "+notcp"),
        ("client", SERVERS[1], "+tcp"),
        ("host", SERVERS[0], "+notcp"),
        ("host", SERVERS[1], "+tcp"),
    ] {
        for client in ["dig", "kdig"] {
            let mut script = String::new();
            match client {
                // Questions in a file, one in each line.
                "dig" => {
                    script.push_str("dig -f - <<'END'\n");
                    for (name, kind, ..) in table {
                        let options = "+noall +comments +answer +tries=1";
                        let _ = writeln!(script, "@{server} {transport} {options} {name} {kind}");
                    }
                    script.push_str("END\n");
                }
                _ => {
                    for chunk in table.chunks(20) {
                        let _ = write!(script, "kdig @{server} {transport} +noall +header +answer");
                        for (name, kind, ..) in chunk {
                            let _ = write!(script, " {name} {kind}");
                        }
                        script.push('\n');
                    }
                }
            }
            let output = sh(lab, pod, &script);
            let replies = read(&output);
            assert_eq!(
                replies.len(),
                table.len(),
                "{client} {server} {transport}:\n{output}"
            );
            for ((name, kind, rcode, answers), (status, found)) in table.iter().zip(&replies) {
                let mut expected: Vec<&str> = match *rcode {
                    "SERVFAIL" => Vec::new(),
                    _ => answers.clone(),
                };
                expected.sort_unstable();
                let what = format!("{client} {server} {transport} {name} {kind}");
                assert_eq!(status, rcode, "{what}");
                if *rcode != "SERVFAIL" {
                    assert_eq!(*found, expected, "{what}");
                }
                asked += 1;
            }
        }
    }
    asked
}

/// What pods have in their resolv.conf, by policy.
#[test]
fn resolv_conf_is_as_the_policy_says() {
    let lab = lab(&[]);
    let of = |pod: &str| sh(&lab, pod, "cat /etc/resolv.conf");
    let cluster = "search shop.svc.cluster.local svc.cluster.local cluster.local";
    let servers = "nameserver 10.96.0.10\nnameserver fd00:96::a\noptions ndots:5\n";
    for pod in ["client", "host"] {
        let text = of(pod);
        assert!(
            text.starts_with(cluster) && text.ends_with(servers),
            "{text}"
        );
    }
    assert_eq!(
        of("own"),
        "search other.svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:1 edns0\n"
    );
    let found = sh(&lab, "own", "getent ahostsv4 web");
    assert!(found.starts_with("10.96.7.3 "), "{found}");
    assert!(!of("node").contains("10.96.0.10"), "{}", of("node"));
}

/// A program that asks musl's resolver; dropped, it goes.
struct MuslResolver {
    program: PathBuf,
    _folder: TempDir,
}

impl MuslResolver {
    /// `None`, with the reason printed, where there is no compiler for musl.
    fn build() -> Option<Self> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/resolve.c");
        let folder = visible_folder();
        let program = folder.path().join("resolve");
        let built = Command::new("musl-gcc")
            .args(["-static", "-o"])
            .args([&program, &source])
            .status();
        match built {
            Ok(status) => {
                assert!(status.success());
                Some(Self {
                    program,
                    _folder: folder,
                })
            }
            Err(error) => {
                eprintln!("skipped: musl's resolver (musl-gcc of musl-tools: {error})");
                None
            }
        }
    }
}

/// `getent` asks glibc's resolver, a program of its own musl's.
#[test]
fn resolvers_walk_the_pods_search_list() {
    let musl = MuslResolver::build();
    for expand in [false, true] {
        let lab = match expand {
            true => lab(&["--dns-expand-search"]),
            false => lab(&[]),
        };
        for pod in ["client", "host"] {
            for (name, address) in [
                ("web", "10.96.7.1"),
                ("web.shop", "10.96.7.1"),
                ("web.other", "10.96.7.3"),
                ("web.other.svc", "10.96.7.3"),
                ("db-0.db", "10.244.200.10"),
                ("web.other.svc.cluster.local", "10.96.7.3"),
                ("web.other.svc.cluster.local.", "10.96.7.3"),
                ("inside", "10.96.7.1"),
            ] {
                let found = sh(&lab, pod, &format!("getent ahostsv4 {name}"));
                assert!(found.starts_with(&format!("{address} ")), "{name}: {found}");
                if let Some(MuslResolver { program, .. }) = &musl {
                    let found = sh(&lab, pod, &format!("{} 4 {name}", program.display()));
                    assert_eq!(found.trim(), address, "{name}");
                }
            }
            let found = sh(&lab, pod, "getent ahostsv6 web");
            assert!(found.starts_with("fd00:96::701 "), "{found}");
            if let Some(MuslResolver { program, .. }) = &musl {
                let ask = |name| format!("{} 6 {name} || echo none", program.display());
                assert_eq!(sh(&lab, pod, &ask("web")).trim(), "fd00:96::701");
                assert_eq!(sh(&lab, pod, &ask("nil.shop")).trim(), "none");
            }
            let missing = sh(&lab, pod, "getent hosts nil.shop || echo none");
            assert_eq!(missing.trim(), "none");
            // Meant as it is, whatever a walk of `web.other` would find.
            let meant = "web.other.shop.svc.cluster.local";
            let missing = sh(&lab, pod, &format!("getent hosts {meant} || echo none"));
            assert_eq!(missing.trim(), "none");
            // busybox's nslookup takes names as they are.
            let found = sh(&lab, pod, "busybox nslookup web.shop.svc.cluster.local");
            assert!(found.contains("10.96.7.1"), "{found}");
        }
        // With expansion, the first step of the walk leads to the end of it.
        let first = match expand {
            true => "web.other.shop.search.cluster.local",
            false => "web.other.shop.svc.cluster.local",
        };
        let answer = sh(
            &lab,
            "client",
            &format!("dig +noall +comments +answer {first}"),
        );
        match expand {
            true => {
                let answer: Vec<&str> = answer.split_whitespace().collect();
                let answer = answer.join(" ");
                assert!(
                    answer.contains("CNAME web.other.svc.cluster.local."),
                    "{answer}"
                );
                assert!(answer.contains("A 10.96.7.3"), "{answer}");
            }
            false => assert!(answer.contains("NXDOMAIN"), "{answer}"),
        }
    }
}

/// `ripstop dns` explains, and remembers who asked; tools find the service.
#[test]
fn people_see_what_pods_asked() {
    let lab = lab(&["--pod-names", "verified"]);
    let service = lab.get(&["service", "kube-dns", "--namespace", "kube-system"]);
    assert_eq!(service["spec"]["clusterIPs"], serde_json::json!(SERVERS));
    let dns = |args: &[&str]| -> Value {
        let output = std::process::Command::new(ripstop())
            .arg("dns")
            .args(args)
            .args(["--lab", lab.name(), "--node", "node1", "--output", "json"])
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{args:?}: {error}"))
    };
    let explained = dns(&["query", "web.other", "--from", "shop/client"]);
    let steps = explained["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 2, "{explained}");
    assert_eq!(steps[0]["rcode"], "NXDOMAIN");
    assert_eq!(steps[1]["name"], "web.other.svc.cluster.local.");
    assert!(
        steps[1]["from"]
            .as_str()
            .unwrap()
            .contains("Service other/web"),
        "{explained}"
    );
    assert_eq!(steps[1]["answers"][0][1], "10.96.7.3");

    sh(
        &lab,
        "client",
        "dig +short Seen.Shop.svc.cluster.local AAAA",
    );
    let log = dns(&["log", "--from", "shop/client"]);
    let last = log.as_array().unwrap().last().unwrap();
    assert_eq!(last["pod"], "shop/client", "{log}");
    assert_eq!(
        (&last["type"], &last["rcode"]),
        (&"AAAA".into(), &"NXDOMAIN".into())
    );
    assert_eq!(
        last["name"], "Seen.Shop.svc.cluster.local.",
        "as it was spelled"
    );

    // Verified names are those of pods that there are.
    let pod = lab.get(&["pod", "client", "--namespace", "shop"]);
    let ip = pod["status"]["podIP"].as_str().unwrap();
    let name = format!("{}.shop.pod.cluster.local", ip.replace('.', "-"));
    assert_eq!(sh(&lab, "client", &format!("dig +short {name}")).trim(), ip);
    let nobody = "10-244-1-250.shop.pod.cluster.local";
    assert_eq!(
        sh(&lab, "client", &format!("dig +short {nobody}")).trim(),
        ""
    );
}

/// Pods go on resolving while the agents end, again and again.
#[test]
fn killed_agents_lose_no_lookup() {
    let lab = lab(&[]);
    let stop = AtomicBool::new(false);
    let asked = AtomicU32::new(0);
    thread::scope(|scope| {
        let _stop = StopAtEnd(&stop);
        let loads: Vec<_> = ["client", "host"]
            .into_iter()
            .map(|pod| {
                let (lab, stop, asked) = (&lab, &stop, &asked);
                scope.spawn(move || {
                    let mut failed = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        // Each is a process of its own: what fails is seen by its status.
                        let script = "for i in $(seq 100); do \
                        getent ahostsv4 web >/dev/null || echo failed ours; \
                        getent ahosts nil.nil.nil >/dev/null; test $? = 2 || echo failed nil; done";
                        let output = sh(lab, pod, script);
                        failed.extend(output.lines().map(str::to_owned));
                        asked.fetch_add(200, Ordering::Relaxed);
                    }
                    failed
                })
            })
            .collect();
        // An upgrade ends them, a crash kills them.
        for round in 0..6 {
            let signal = match round % 2 {
                0 => Signal::SIGKILL,
                _ => Signal::SIGTERM,
            };
            let before = asked.load(Ordering::Relaxed);
            let killed = lab.agents();
            for agent in &killed {
                kill(Pid::from_raw(*agent), signal).unwrap();
            }
            eventually("new agents run", || {
                let now = lab.agents();
                (now.len() == 2 && now.iter().all(|agent| !killed.contains(agent))).then_some(())
            });
            let start = Instant::now();
            while asked.load(Ordering::Relaxed) < before + 400
                && start.elapsed() < Duration::from_secs(20)
            {
                thread::sleep(Duration::from_millis(50));
            }
        }
        stop.store(true, Ordering::Relaxed);
        for load in loads {
            assert_eq!(load.join().unwrap(), Vec::<String>::new());
        }
    });
    println!(
        "{} lookups over 6 ends of both agents, none failed",
        asked.load(Ordering::Relaxed)
    );
}
