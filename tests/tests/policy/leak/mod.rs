//! No pod sends or receives a packet that its policies deny, from its first
//! moment on: hundreds of them attached under load, while agents are killed and
//! labels change.
//!
//! The pods are network namespaces of this test, attached as a runtime does. Each
//! has a socket that sees every frame, and one that sends, from before there is a
//! link: a leak of a microsecond is counted.

mod crowd;
mod reboot;

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt,
};
use nix::unistd::Pid;
use ripstop_netlink::netns::Netns;
use ripstop_tests::load::StopAtEnd;
use ripstop_tests::{Lab, Program, eventually, next_version, ripstop, write_manifest};

use crate::stage::{self, Place};
use crate::{ENGINES, loads_the_machine};
use crowd::Crowd;

/// As many as a node's /24 has addresses for, with room for the others.
const PODS: usize = 200;
/// What packets carry: from whom nothing may come, from whom it may, and what
/// closed pods send.
const ENEMY: &[u8] = b"ripstop-leak-enemy";
const FRIEND: &[u8] = b"ripstop-leak-friend";
const CROWD: &[u8] = b"ripstop-leak-crowd";
const PORT: u16 = 7777;
/// Between two rounds of who sends to everybody, and of who looks what came.
const PAUSE: Duration = Duration::from_millis(8);
/// Before the test is over: agents killed, and label changes of all pods.
const KILLS: u64 = 6;
const CHANGES: u64 = 6;

/// Nothing passes but what comes from friends; the same for both labels, so that
/// a pod is closed whichever it has.
fn policies() -> String {
    let policy = |turn: &str| {
        format!(
            "
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{namespace: crowd, name: {turn}}}
spec:
  podSelector: {{matchLabels: {{turn: {turn}}}}}
  policyTypes: [Ingress, Egress]
  ingress: [{{from: [{{namespaceSelector: {{}}, podSelector: {{matchLabels: {{role: friend}}}}}}]}}]"
        )
    };
    let namespace = "
apiVersion: v1
kind: Namespace
metadata: {name: crowd}";
    [namespace, &policy("even"), &policy("odd")].concat()
}

/// Pods beside the crowd: an enemy and a friend, as `enemy-far`, in each of these
/// places.
fn others(places: &[(&str, &str)]) -> String {
    let pod = |role: &str, (place, node): (&str, &str)| {
        format!(
            "
---
apiVersion: v1
kind: Pod
metadata: {{name: {role}-{place}, labels: {{role: {role}}}}}
spec: {{nodeName: {node}, containers: [{{name: main, image: client, command: [sleep, infinity]}}]}}"
        )
    };
    let both = places
        .iter()
        .flat_map(|place| ["enemy", "friend"].map(|role| pod(role, *place)));
    both.collect()
}

/// On the crowd's node, and on the other.
const NEAR: (&str, &str) = ("near", "node1");
const FAR: (&str, &str) = ("far", "node2");

#[test]
fn nothing_leaks() {
    let _alone = loads_the_machine();
    for engine in ENGINES {
        nothing_leaks_from(engine, &[ripstop()]);
    }
}

/// Those that are killed are of one version and of another by turns: some are
/// killed while they carry the other's tables over.
#[test]
fn nothing_leaks_between_versions() {
    let Some(next) = next_version() else {
        return;
    };
    let _alone = loads_the_machine();
    for engine in ENGINES {
        nothing_leaks_from(engine, &[next.clone(), ripstop()]);
    }
}

/// `versions` are what the agents are, one after the other.
fn nothing_leaks_from(engine: &str, versions: &[PathBuf]) {
    let program = Program::this();
    let file = write_manifest(&others(&[NEAR, FAR]));
    let manifest = file.path().to_str().unwrap();
    let args = ["--nodes", "2", "--datapath", engine, "-f", manifest];
    let lab = Lab::up(&[&args[..], &["--agent", program.link()]].concat());
    stage::apply(&lab, &policies(), (2, 0));
    let others = ["enemy-near", "enemy-far", "friend-near", "friend-far"];
    let others = others.map(|name| stage::pod(&lab, "default", name));
    let crowd = Crowd::new(&lab, PODS);
    let restarts = Restarts {
        lab: &lab,
        program: &program,
        versions,
    };
    let seen = load(&restarts, &crowd, &others);
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
    if engine == "ebpf" && versions.len() > 1 {
        let logs = lab.agent_logs();
        assert!(
            logs.contains("took over from the programs"),
            "no agent was of the other version"
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

/// Does it again and again until told to stop, with a quarter of a core at most: what
/// is tested needs them as well.
fn again(stop: &AtomicBool, mut once: impl FnMut()) {
    while !stop.load(Ordering::Relaxed) {
        let begin = Instant::now();
        once();
        std::thread::sleep(PAUSE.max(3 * begin.elapsed()));
    }
}

/// Attaches all pods while everybody sends to everybody.
fn load(restarts: &Restarts<'_>, crowd: &Crowd<'_>, others: &[Place; 4]) -> Seen {
    let (relabelled, killed) = (AtomicU64::new(0), AtomicU64::new(0));
    let sniffers = others.each_ref().map(|one| sniffer(&one.netns));
    let to = others.iter().flat_map(|one| one.addresses.clone());
    let to: Vec<IpAddr> = to.collect();
    let places = others.each_ref().map(|one| &one.netns);
    let attach = |diary: &Diary| {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _stop = StopAtEnd(&stop);
            scope.spawn(|| crowd.relabel(&stop, &relabelled));
            scope.spawn(|| restarts.kill(&stop, &killed, diary));
            crowd.attach(&crowd.members);
            friends_reach(crowd);
            // Some go, and others get their addresses.
            let some = &crowd.members[..PODS / 4];
            for member in some {
                eventually("the pod is detached", || {
                    crowd.plugin("DEL", member).then_some(())
                });
            }
            crowd.attach(some);
            eventually("agents were killed and labels changed", || {
                let kills = KILLS * restarts.versions.len() as u64;
                let enough = killed.load(Ordering::Relaxed) >= kills
                    && relabelled.load(Ordering::Relaxed) >= CHANGES;
                enough.then_some(())
            });
        });
    };
    let seen = seen_while(crowd, places, sniffers.each_ref(), &to, attach);
    Seen {
        killed: killed.into_inner(),
        relabelled: relabelled.into_inner(),
        ..seen
    }
}

/// What is seen of packets to and from the crowd during `meanwhile`. All that time
/// enemies and friends, near and far each, send from `places` to every address of
/// the crowd's node, and look for what comes out; the crowd sends to `to`.
fn seen_while(
    crowd: &Crowd<'_>,
    places: [&Netns; 4],
    sniffers: [&OwnedFd; 4],
    to: &[IpAddr],
    meanwhile: impl FnOnce(&Diary),
) -> Seen {
    let (stop, diary) = (AtomicBool::new(false), Diary::new());
    let (sent, tried) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut seen = std::thread::scope(|scope| {
        let _stop = StopAtEnd(&stop);
        for (netns, word) in places.into_iter().zip([ENEMY, ENEMY, FRIEND, FRIEND]) {
            let (stop, sent) = (&stop, &sent);
            scope.spawn(move || flood(netns, word, stop, sent));
        }
        scope.spawn(|| crowd.send(to, &stop, &tried));
        let inside = scope.spawn(|| crowd.watch(&stop, &diary));
        let outside = scope.spawn(|| watch(&sniffers, &stop, &diary));
        meanwhile(&diary);
        stop.store(true, Ordering::Relaxed);
        Seen {
            leaked_in: inside.join().unwrap(),
            leaked_out: outside.join().unwrap(),
            ..Seen::default()
        }
    });
    seen.sent = sent.into_inner();
    seen.tried = tried.into_inner();
    seen.diary = diary.lines.into_inner().unwrap();
    seen
}

/// Those that may, can: or else nothing would leak from a broken network.
fn friends_reach(crowd: &Crowd<'_>) {
    eventually("friends reach every pod", || {
        (crowd.reached.load(Ordering::Relaxed) == crowd.members.len() as u64).then_some(())
    });
}

/// Sends to every address of node1's pod range, again and again.
fn flood(netns: &Netns, word: &[u8], stop: &AtomicBool, sent: &AtomicU64) {
    let socket = netns.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)));
    let socket = socket.unwrap().unwrap();
    socket.set_nonblocking(true).unwrap();
    again(stop, || {
        for host in 2..=254 {
            let to = (Ipv4Addr::new(10, 244, 1, host), PORT);
            // Where there is no pod yet, there is an error.
            if socket.send_to(word, to).is_ok() {
                sent.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
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
    let socket = netns.run(open).expect("the namespace");
    let socket = socket.expect("a packet socket");
    // Also of a flood nothing is lost between two looks.
    setsockopt(&socket, sockopt::RcvBufForce, &(4 << 20)).expect("a large buffer");
    socket
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

fn watch(sniffers: &[&OwnedFd], stop: &AtomicBool, diary: &Diary) -> u64 {
    let mut leaked = 0;
    again(stop, || {
        for (sniffer, at) in sniffers.iter().zip(["near", "far", "near", "far"]) {
            let came = count(sniffer, CROWD);
            leaked += came;
            diary.note(came, || format!("{came} came out, to a pod {at}"));
        }
    });
    leaked
}

/// How agents end and begin.
struct Restarts<'a> {
    lab: &'a Lab,
    program: &'a Program,
    versions: &'a [PathBuf],
}

impl Restarts<'_> {
    /// Kills the agents again and again: when new ones have the pods, and where
    /// they are of another version by turns also while they begin.
    fn kill(&self, stop: &AtomicBool, killed: &AtomicU64, diary: &Diary) {
        let mut times = 0;
        while !stop.load(Ordering::Relaxed) {
            let early = self.versions.len() > 1 && times % 3 == 2;
            if early {
                // The next one is started after 200 ms; at another moment of its
                // first 400 ms each time.
                std::thread::sleep(Duration::from_millis(200 + times * 37 % 400));
            } else if self.is_ready() {
                std::thread::sleep(Duration::from_millis(500));
            } else {
                std::thread::sleep(Duration::from_millis(50));
                continue;
            }
            let version = &self.versions[times as usize % self.versions.len()];
            self.program.install(version);
            times += 1;
            for agent in self.lab.agents() {
                // It may be gone already.
                if kill(Pid::from_raw(agent), Signal::SIGKILL).is_ok() {
                    killed.fetch_add(1, Ordering::Relaxed);
                    diary.note(1, || "an agent was killed".to_owned());
                }
            }
        }
    }

    fn is_ready(&self) -> bool {
        let status = self.lab.agent("node1", &["status"]);
        status.stdout.contains("policies  ")
    }
}
