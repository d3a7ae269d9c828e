//! No pod sends or receives a packet that its policies deny, from its first
//! moment on: hundreds of them attached under load, while agents are killed and
//! labels change.
//!
//! The pods are network namespaces of this test, attached as a runtime does. Each
//! has a socket that sees every frame, and one that sends, from before there is a
//! link: a leak of a microsecond is counted.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, socket};
use nix::unistd::Pid;
use ripstop_netlink::netns::Netns;
use ripstop_tests::load::StopAtEnd;
use ripstop_tests::{Lab, eventually, ripstop, write_manifest};
use serde_json::json;

use crate::ENGINES;
use crate::stage::{self, Place};

/// As many as a node's /24 has addresses for, with room for the others.
const PODS: usize = 200;
/// What packets carry: from whom nothing may come, from whom it may, and what
/// closed pods send.
const ENEMY: &[u8] = b"ripstop-leak-enemy";
const FRIEND: &[u8] = b"ripstop-leak-friend";
const CROWD: &[u8] = b"ripstop-leak-crowd";
const PORT: u16 = 7777;
/// Before the test is over: agents killed, and label changes of all pods.
const KILLS: u64 = 6;
const CHANGES: u64 = 6;

/// Nothing passes but what comes from friends; the same for both labels, so that
/// a pod is closed whichever it has.
const POLICIES: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: crowd}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: crowd, name: even}
spec:
  podSelector: {matchLabels: {turn: even}}
  policyTypes: [Ingress, Egress]
  ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {role: friend}}}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: crowd, name: odd}
spec:
  podSelector: {matchLabels: {turn: odd}}
  policyTypes: [Ingress, Egress]
  ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {role: friend}}}]}]
";

const OTHERS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: enemy-near, labels: {role: enemy}}
spec: {nodeName: node1, containers: [{name: main, image: client, command: [sleep, infinity]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: enemy-far, labels: {role: enemy}}
spec: {nodeName: node2, containers: [{name: main, image: client, command: [sleep, infinity]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: friend-near, labels: {role: friend}}
spec: {nodeName: node1, containers: [{name: main, image: client, command: [sleep, infinity]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: friend-far, labels: {role: friend}}
spec: {nodeName: node2, containers: [{name: main, image: client, command: [sleep, infinity]}]}
";

#[test]
fn nothing_leaks() {
    for engine in ENGINES {
        let others = write_manifest(OTHERS);
        let manifest = others.path().to_str().unwrap();
        let lab = Lab::up(&["--nodes", "2", "--datapath", engine, "-f", manifest]);
        stage::apply(&lab, POLICIES, (2, 0));
        let others = ["enemy-near", "enemy-far", "friend-near", "friend-far"];
        let others = others.map(|name| stage::pod(&lab, "default", name));
        let crowd = Crowd::new(&lab);
        let seen = load(&lab, &crowd, &others);
        eprintln!(
            "{engine}: {PODS} pods, {} agents killed, {} label changes; sent {} to them and {} by \
             them, of these {} + {} leaked",
            seen.killed, seen.relabelled, seen.sent, seen.tried, seen.leaked_in, seen.leaked_out
        );
        assert_eq!(
            (seen.leaked_in, seen.leaked_out),
            (0, 0),
            "{engine}:\n{}",
            seen.diary.join("\n")
        );
        assert!(
            seen.killed >= 2 && seen.relabelled >= 4,
            "{engine}: too quiet a time"
        );
    }
}

#[derive(Debug, Default)]
struct Seen {
    leaked_in: u64,
    leaked_out: u64,
    sent: u64,
    tried: u64,
    killed: u64,
    relabelled: u64,
    diary: Vec<String>,
}

/// What happened when, for who looks for a leak.
struct Diary {
    begin: Instant,
    lines: Mutex<Vec<String>>,
}

impl Diary {
    fn new() -> Self {
        Self {
            begin: Instant::now(),
            lines: Mutex::default(),
        }
    }

    fn note(&self, times: u64, what: impl FnOnce() -> String) {
        if times > 0 {
            let line = format!("{:>9.3?} {}", self.begin.elapsed(), what());
            self.lines.lock().unwrap().push(line);
        }
    }
}

/// Attaches all pods while everybody sends to everybody.
fn load(lab: &Lab, crowd: &Crowd<'_>, others: &[Place; 4]) -> Seen {
    let stop = AtomicBool::new(false);
    let diary = Diary::new();
    let (sent, tried) = (AtomicU64::new(0), AtomicU64::new(0));
    let (relabelled, killed) = (AtomicU64::new(0), AtomicU64::new(0));
    let sniffers: Vec<_> = others.iter().map(|one| sniffer(&one.netns)).collect();
    let mut seen = std::thread::scope(|scope| {
        let _stop = StopAtEnd(&stop);
        for (place, word) in others.iter().zip([ENEMY, ENEMY, FRIEND, FRIEND]) {
            let (stop, sent) = (&stop, &sent);
            scope.spawn(move || flood(place, word, stop, sent));
        }
        scope.spawn(|| crowd.send(others, &stop, &tried));
        let inside = scope.spawn(|| crowd.watch(&stop, &diary));
        let outside = scope.spawn(|| watch(&sniffers, &stop, &diary));
        scope.spawn(|| crowd.relabel(&stop, &relabelled));
        scope.spawn(|| kill_agents(lab, &stop, &killed, &diary));
        crowd.attach(&crowd.members);
        // Those that may, can: or else nothing would leak from a broken network.
        eventually("friends reach every pod", || {
            (crowd.reached.load(Ordering::Relaxed) == PODS as u64).then_some(())
        });
        // Some go, and others get their addresses.
        let some = &crowd.members[..PODS / 4];
        for member in some {
            eventually("the pod is detached", || {
                crowd.plugin("DEL", member).then_some(())
            });
        }
        crowd.attach(some);
        eventually("agents were killed and labels changed", || {
            let enough = killed.load(Ordering::Relaxed) >= KILLS
                && relabelled.load(Ordering::Relaxed) >= CHANGES;
            enough.then_some(())
        });
        stop.store(true, Ordering::Relaxed);
        Seen {
            leaked_in: inside.join().unwrap(),
            leaked_out: outside.join().unwrap(),
            sent: sent.load(Ordering::Relaxed),
            tried: tried.load(Ordering::Relaxed),
            killed: killed.load(Ordering::Relaxed),
            relabelled: relabelled.load(Ordering::Relaxed),
            diary: Vec::new(),
        }
    });
    seen.diary = diary.lines.into_inner().unwrap();
    seen
}

/// Sends to every address of node1's pod range, again and again.
fn flood(place: &Place, word: &[u8], stop: &AtomicBool, sent: &AtomicU64) {
    let socket = place
        .netns
        .run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)));
    let socket = socket.unwrap().unwrap();
    socket.set_nonblocking(true).unwrap();
    while !stop.load(Ordering::Relaxed) {
        for host in 2..=254 {
            let to = (Ipv4Addr::new(10, 244, 1, host), PORT);
            // Where there is no pod yet, there is an error.
            if socket.send_to(word, to).is_ok() {
                sent.fetch_add(1, Ordering::Relaxed);
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Sees every frame of a namespace, on links that are still to come as well.
pub(crate) fn sniffer(netns: &Netns) -> OwnedFd {
    let open = || {
        socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
            SockProtocol::EthAll,
        )
    };
    netns
        .run(open)
        .expect("the namespace")
        .expect("a packet socket")
}

/// Frames with `word` that come by.
pub(crate) fn count(sniffer: &OwnedFd, word: &[u8]) -> u64 {
    let mut frame = [0; 256];
    let mut found = 0;
    while let Ok(length) = recv(sniffer.as_raw_fd(), &mut frame, MsgFlags::empty()) {
        let has = frame[..length].windows(word.len()).any(|part| part == word);
        found += u64::from(has);
    }
    found
}

fn watch(sniffers: &[OwnedFd], stop: &AtomicBool, diary: &Diary) -> u64 {
    let mut leaked = 0;
    while !stop.load(Ordering::Relaxed) {
        for (sniffer, at) in sniffers.iter().zip(["near", "far", "near", "far"]) {
            let came = count(sniffer, CROWD);
            leaked += came;
            diary.note(came, || format!("{came} came out, to a pod {at}"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    leaked
}

/// Kills the agents again and again, each time when new ones have the pods.
fn kill_agents(lab: &Lab, stop: &AtomicBool, killed: &AtomicU64, diary: &Diary) {
    while !stop.load(Ordering::Relaxed) {
        let ready = || {
            lab.agent("node1", &["status"])
                .stdout
                .contains("policies  ")
        };
        if !ready() {
            std::thread::sleep(Duration::from_millis(50));
            continue;
        }
        std::thread::sleep(Duration::from_millis(500));
        for agent in lab.agents() {
            // It may be gone already.
            if kill(Pid::from_raw(agent), Signal::SIGKILL).is_ok() {
                killed.fetch_add(1, Ordering::Relaxed);
                diary.note(1, || "an agent was killed".to_owned());
            }
        }
    }
}

/// Pods that are of this test, with their objects.
struct Crowd<'a> {
    lab: &'a Lab,
    members: Vec<Member>,
    reached: AtomicU64,
}

struct Member {
    name: String,
    netns: Netns,
    uid: String,
    sniffer: OwnedFd,
    sender: UdpSocket,
}

impl<'a> Crowd<'a> {
    /// Objects and namespaces; no pod is attached yet.
    fn new(lab: &'a Lab) -> Self {
        let mut yaml = String::new();
        for number in 0..PODS {
            // Writing to a string cannot fail. No kubelet has this node.
            let _ = writeln!(
                yaml,
                "apiVersion: v1\nkind: Pod\n\
                 metadata: {{namespace: crowd, name: p{number}, labels: {{turn: even}}}}\n\
                 spec: {{nodeName: nowhere, containers: [{{name: main, image: none}}]}}\n---"
            );
        }
        let file = write_manifest(&yaml);
        lab.kubectl(&["apply", "-f", file.path().to_str().unwrap()]);
        let list = lab.get(&["pods", "-n", "crowd"]);
        let objects = list["items"].as_array().unwrap().iter();
        let members = objects.map(|object| {
            let pod = stage::text(&object["metadata"]["name"]);
            let name = format!("{}.crowd-{pod}", lab.name());
            let netns = Netns::create(&name).unwrap();
            let sender = netns.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)));
            let sender = sender.unwrap().unwrap();
            sender.set_nonblocking(true).unwrap();
            Member {
                sniffer: sniffer(&netns),
                uid: stage::text(&object["metadata"]["uid"]).to_owned(),
                name: pod.to_owned(),
                netns,
                sender,
            }
        });
        let members = members.collect();
        Self {
            lab,
            members,
            reached: AtomicU64::new(0),
        }
    }

    /// ADD for each, some at once; again where the agent was killed.
    fn attach(&self, members: &[Member]) {
        const AT_ONCE: usize = 8;
        std::thread::scope(|scope| {
            for some in members.chunks(members.len().div_ceil(AT_ONCE)) {
                scope.spawn(move || {
                    for member in some {
                        eventually("the pod is attached", || {
                            if self.plugin("ADD", member) {
                                return Some(());
                            }
                            self.plugin("DEL", member);
                            None
                        });
                    }
                });
            }
        });
    }

    fn plugin(&self, command: &str, member: &Member) -> bool {
        let socket = self.lab.root().join("nodes/node1/agent/cni.sock");
        let config = json!({
            "cniVersion": "1.1.0", "name": "ripstop", "type": "ripstop-cni", "socket": socket,
        });
        let Member { name, uid, .. } = member;
        let mut plugin = Command::new(ripstop().with_file_name("ripstop-cni"))
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", name)
            .env("CNI_NETNS", member.netns.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/")
            .env(
                "CNI_ARGS",
                format!("K8S_POD_NAMESPACE=crowd;K8S_POD_NAME={name};K8S_POD_UID={uid}"),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // A plugin that cannot reach the agent may not read.
        let _ = plugin
            .stdin
            .take()
            .unwrap()
            .write_all(config.to_string().as_bytes());
        plugin.wait().unwrap().success()
    }

    /// Every pod sends to everybody, from before it has a link.
    fn send(&self, others: &[Place], stop: &AtomicBool, tried: &AtomicU64) {
        let to: Vec<IpAddr> = others
            .iter()
            .flat_map(|one| one.addresses.clone())
            .collect();
        while !stop.load(Ordering::Relaxed) {
            for member in &self.members {
                for address in &to {
                    if member.sender.send_to(CROWD, (*address, PORT)).is_ok() {
                        tried.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Counts what came in that must not, and notes who got what may.
    fn watch(&self, stop: &AtomicBool, diary: &Diary) -> u64 {
        let mut leaked = 0;
        let mut reached = BTreeSet::new();
        while !stop.load(Ordering::Relaxed) {
            for member in &self.members {
                let (bad, good) = self.frames(member);
                leaked += bad;
                diary.note(bad, || format!("{bad} came into {}", member.name));
                if good > 0 {
                    reached.insert(&member.name);
                }
            }
            self.reached.store(reached.len() as u64, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(1));
        }
        leaked
    }

    fn frames(&self, member: &Member) -> (u64, u64) {
        let mut frame = [0; 256];
        let (mut bad, mut good) = (0, 0);
        while let Ok(length) = recv(member.sniffer.as_raw_fd(), &mut frame, MsgFlags::empty()) {
            let has = |word: &[u8]| frame[..length].windows(word.len()).any(|part| part == word);
            bad += u64::from(has(ENEMY));
            good += u64::from(has(FRIEND));
        }
        (bad, good)
    }

    /// Turns the crowd's labels, and its namespace's.
    fn relabel(&self, stop: &AtomicBool, changes: &AtomicU64) {
        for turn in ["odd", "even"].iter().cycle() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let label = format!("turn={turn}");
            self.lab.kubectl(&[
                "label",
                "pods",
                "-n",
                "crowd",
                "--all",
                "--overwrite",
                &label,
            ]);
            self.lab
                .kubectl(&["label", "namespace", "crowd", "--overwrite", &label]);
            changes.fetch_add(2, Ordering::Relaxed);
        }
    }
}

impl Drop for Crowd<'_> {
    fn drop(&mut self) {
        for member in &self.members {
            self.plugin("DEL", member);
            let _ = Netns::remove(&format!("{}.crowd-{}", self.lab.name(), member.name));
        }
    }
}
