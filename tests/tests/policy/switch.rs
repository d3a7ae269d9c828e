//! From one engine to the other, and from one version to another, with policies in
//! force: nothing that is denied passes meanwhile, and nothing that is allowed fails.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ripstop_tests::load::StopAtEnd;
use ripstop_tests::{Program, eventually, next_version, ripstop};

use crate::leak::{count, sniffer};
use crate::stage::Place;
use crate::town::{Town, ingress};
use crate::{ENGINES, loads_the_machine};

/// In what is to be denied.
const FORBIDDEN: &[u8] = b"forbidden";
/// For what is allowed: also over a switch.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a forbidden attempt waits.
const BRIEF: Duration = Duration::from_millis(40);

#[derive(Default)]
struct Counts {
    /// Requests that were answered.
    answered: AtomicU64,
    /// Attempts that were to be stopped.
    attempts: AtomicU64,
    leaked: AtomicU64,
}

/// Somebody who asks, and whom.
struct Way<'a> {
    from: &'a Place,
    to: SocketAddr,
}

#[test]
fn a_switch_is_no_gap_in_policies() {
    let _alone = loads_the_machine();
    let town = Town::new("ebpf", &["--dual-stack"]);
    let engines = ["nftables", "ebpf", "nftables", "ebpf"];
    hold_over(&town, engines.len(), |step| {
        let output = Command::new(ripstop())
            .args(["datapath", "set", engines[step], "--all"])
            .args(["--lab", town.lab.name()])
            .output()
            .expect("run ripstop");
        assert!(
            output.status.success(),
            "{output:?}\n{}",
            town.lab.agent_logs()
        );
    });
}

/// Upgrades and downgrades: the next version has other kernel tables.
#[test]
fn another_version_is_no_gap_in_policies() {
    let Some(next) = next_version() else {
        return;
    };
    let _alone = loads_the_machine();
    for engine in ENGINES {
        let program = Program::this();
        let town = Town::new(engine, &["--dual-stack", "--agent", program.link()]);
        let versions = [next.clone(), ripstop(), next.clone(), ripstop()];
        hold_over(&town, versions.len(), |step| {
            program.install(&versions[step]);
            town.lab.restart_agents();
            if engine == "ebpf" {
                let logs = town.lab.agent_logs();
                let took_over = logs.matches("took over from the programs").count();
                assert_eq!(took_over, 2 * (step + 1), "{logs}");
            }
        });
    }
}

/// Makes `changes` while what is allowed and what is denied is tried.
fn hold_over(town: &Town, changes: usize, mut change: impl FnMut(usize)) {
    town.policy(&ingress(
        "{from: [{podSelector: {matchLabels: {app: client}}}], \
         ports: [{port: 80}, {port: 80, protocol: UDP}]}",
    ));
    let (stop, counts) = (AtomicBool::new(false), Counts::default());
    let ways = |from, to: &Place, port: u16| {
        let each = to.addresses.iter();
        let ways = each.map(move |ip: &IpAddr| Way {
            from,
            to: SocketAddr::new(*ip, port),
        });
        ways.collect::<Vec<_>>()
    };
    let allowed = [
        ways(&town.client, &town.near, 80),
        ways(&town.client, &town.far, 80),
        // The node of a pod reaches it.
        ways(&town.node1, &town.near, 80),
    ];
    let denied = [
        ways(&town.client, &town.near, 81),
        ways(&town.client, &town.far, 81),
        // Another pod's node does not.
        ways(&town.node1, &town.far, 80),
    ];
    let sniffers = [&town.near, &town.far].map(|server| sniffer(&server.netns));
    let sniffers = &sniffers;
    std::thread::scope(|scope| {
        let _stop = StopAtEnd(&stop);
        let (stop, counts) = (&stop, &counts);
        let mut loops = Vec::new();
        for way in allowed.iter().flatten() {
            loops.push(scope.spawn(move || new_connections(way, stop, counts)));
            loops.push(scope.spawn(move || new_datagrams(way, stop, counts)));
        }
        for way in denied.iter().flatten() {
            loops.push(scope.spawn(move || forbidden_connections(way, stop, counts)));
            loops.push(scope.spawn(move || forbidden_datagrams(way, stop, counts)));
        }
        loops.push(scope.spawn(move || watch(sniffers, stop, counts)));
        for step in 0..changes {
            // Connections of each time live through the next one's.
            for way in allowed.iter().flatten() {
                loops.push(scope.spawn(move || kept_connection(way, stop, counts)));
                loops.push(scope.spawn(move || kept_datagrams(way, stop, counts)));
            }
            goes_on(counts);
            change(step);
        }
        goes_on(counts);
        stop.store(true, Ordering::Relaxed);
        let ends = loops.into_iter().map(|one| one.join());
        let failed: Vec<_> = ends.filter_map(Result::err).collect();
        assert!(failed.is_empty(), "{} loops failed", failed.len());
    });
    let said = |count: &AtomicU64| count.load(Ordering::Relaxed);
    println!(
        "{}: {changes} changes, {} requests answered, {} forbidden attempts",
        town.engine,
        said(&counts.answered),
        said(&counts.attempts)
    );
    assert_eq!(said(&counts.leaked), 0);
}

/// Waits until enough has happened since.
fn goes_on(counts: &Counts) {
    let now = || {
        let answered = counts.answered.load(Ordering::Relaxed);
        (answered, counts.attempts.load(Ordering::Relaxed))
    };
    let before = now();
    eventually("requests and attempts go on", || {
        let now = now();
        (now.0 > before.0 + 500 && now.1 > before.1 + 100).then_some(())
    });
}

impl Way<'_> {
    fn connect(&self, patience: Duration) -> std::io::Result<TcpStream> {
        let connected = self
            .from
            .netns
            .run(|| TcpStream::connect_timeout(&self.to, patience));
        let stream = connected.expect("the namespace")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    fn socket(&self) -> UdpSocket {
        let any = match self.to.is_ipv4() {
            true => "0.0.0.0:0",
            false => "[::]:0",
        };
        let bound = self.from.netns.run(|| UdpSocket::bind(any));
        let socket = bound.expect("the namespace").expect("a socket");
        socket.connect(self.to).expect("a way");
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    fn ask(&self, mut stream: &TcpStream, what: &str) {
        let asked = stream.write_all(b"echo");
        let answered = asked.and_then(|()| stream.read_exact(&mut [0; 4]));
        assert!(answered.is_ok(), "{}: {what}: {answered:?}", self.name());
    }

    fn ask_datagram(&self, socket: &UdpSocket, what: &str) {
        let sent = socket.send(b"echo");
        let answered = sent.and_then(|_| socket.recv(&mut [0; 8]));
        assert!(answered.is_ok(), "{}: {what}: {answered:?}", self.name());
    }

    fn name(&self) -> String {
        format!("{} to {}", self.from.name, self.to)
    }
}

/// Until told to stop, with a pause that leaves others room.
fn again(stop: &AtomicBool, count: &AtomicU64, mut once: impl FnMut()) {
    while !stop.load(Ordering::Relaxed) {
        once();
        count.fetch_add(1, Ordering::Relaxed);
        // There are up to seventy of these loops, and agents are to switch beside them.
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn new_connections(way: &Way<'_>, stop: &AtomicBool, counts: &Counts) {
    again(stop, &counts.answered, || {
        let connected = way.connect(PATIENCE);
        let stream = connected.unwrap_or_else(|error| panic!("{}: {error}", way.name()));
        way.ask(&stream, "a new connection");
    });
}

fn kept_connection(way: &Way<'_>, stop: &AtomicBool, counts: &Counts) {
    let connected = way.connect(PATIENCE);
    let stream = connected.unwrap_or_else(|error| panic!("{}: {error}", way.name()));
    again(stop, &counts.answered, || {
        way.ask(&stream, "a kept connection")
    });
}

fn new_datagrams(way: &Way<'_>, stop: &AtomicBool, counts: &Counts) {
    again(stop, &counts.answered, || {
        way.ask_datagram(&way.socket(), "a new socket")
    });
}

fn kept_datagrams(way: &Way<'_>, stop: &AtomicBool, counts: &Counts) {
    let socket = way.socket();
    again(stop, &counts.answered, || {
        way.ask_datagram(&socket, "a kept socket")
    });
}

fn forbidden_connections(way: &Way<'_>, stop: &AtomicBool, counts: &Counts) {
    again(stop, &counts.attempts, || {
        if way.connect(BRIEF).is_ok() {
            eprintln!("{}: connected", way.name());
            counts.leaked.fetch_add(1, Ordering::Relaxed);
        }
    });
}

fn forbidden_datagrams(way: &Way<'_>, stop: &AtomicBool, counts: &Counts) {
    let socket = way.socket();
    again(stop, &counts.attempts, || {
        // An error of a packet before is none of this one.
        let _ = socket.send(FORBIDDEN);
    });
}

fn watch(sniffers: &[OwnedFd], stop: &AtomicBool, counts: &Counts) {
    while !stop.load(Ordering::Relaxed) {
        for sniffer in sniffers {
            counts
                .leaked
                .fetch_add(count(sniffer, FORBIDDEN), Ordering::Relaxed);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
