//! Domain names as peers: what a pod asks for it reaches with its first packet,
//! and no other way.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ripstop_tests::{Lab, eventually, write_manifest};
use serde_json::Value;

use crate::ENGINES;
use crate::probes::{Kind, Reach, Servers};
use crate::stage::{self, Place};

const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec: {nodeName: node1, containers: [{name: main, image: client, command: [sleep, infinity]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: other, labels: {app: client}}
spec: {nodeName: node2, containers: [{name: main, image: client, command: [sleep, infinity]}]}
";

/// Everything outside is denied but some names, on one port.
const POLICY: &str = "
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: names}
spec:
  tier: Admin
  priority: 10
  subject: {pods: {podSelector: {matchLabels: {app: client}}}}
  egress:
  - action: Accept
    to: [{domainNames: [www.shop.example, '*.cdn.example']}]
    protocols: [{tcp: {destinationPort: {number: 80}}}]
  - action: Deny
    to: [{networks: [172.31.0.0/24, 'fd00:31::/64']}]
";

/// For an answer that is to come.
const PATIENCE: Duration = Duration::from_secs(30);
/// Addresses of the machine outside, from this host number on.
const FIRST: u16 = 20;
const NAMES: u16 = 40;

/// Addresses of one host number.
fn outside(host: u16) -> [IpAddr; 2] {
    let v4 = Ipv4Addr::new(172, 31, 0, host as u8);
    [
        v4.into(),
        Ipv6Addr::new(0xfd00, 0x31, 0, 0, 0, 0, 0, host).into(),
    ]
}

/// A zone: the alias or the host number of each name.
#[derive(Clone)]
enum Data {
    Host(u16),
    Alias(&'static str),
}

/// An upstream server on the machine outside.
struct Upstream {
    names: Arc<Mutex<HashMap<String, Data>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Upstream {
    fn start(place: &Place, ttl: u32) -> Self {
        let names: Arc<Mutex<HashMap<String, Data>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let bound = place.netns.run(|| UdpSocket::bind("172.31.0.2:53"));
        let socket = bound.expect("the namespace").expect("port 53");
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let (table, ending) = (Arc::clone(&names), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut packet = [0; 1500];
            while !ending.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut packet) {
                    let reply = answer(&table.lock().unwrap(), &packet[..length], ttl);
                    let _ = socket.send_to(&reply, from);
                }
            }
        });
        Self {
            names,
            stop,
            threads: vec![thread],
        }
    }

    fn set(&self, name: &str, data: Data) {
        self.names.lock().unwrap().insert(name.to_owned(), data);
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn wire(name: &str) -> Vec<u8> {
    let labels = name.split('.').flat_map(|label| {
        let length = [label.len() as u8];
        [&length[..], label.as_bytes()].concat()
    });
    labels.chain([0]).collect()
}

/// The name of a question, and where the question ends.
fn asked(packet: &[u8]) -> (String, usize) {
    let (mut at, mut labels) = (12, Vec::new());
    while packet[at] != 0 {
        let end = at + 1 + usize::from(packet[at]);
        labels.push(String::from_utf8_lossy(&packet[at + 1..end]).to_lowercase());
        at = end;
    }
    (labels.join("."), at + 5)
}

fn answer(names: &HashMap<String, Data>, packet: &[u8], ttl: u32) -> Vec<u8> {
    let (name, end) = asked(packet);
    let kind = u16::from_be_bytes([packet[end - 4], packet[end - 3]]);
    let mut records = Vec::new();
    let mut count = 0_u16;
    let mut record = |owner: &str, kind: u16, data: &[u8]| {
        records.extend(wire(owner));
        records.extend(kind.to_be_bytes());
        records.extend([0, 1]);
        records.extend(ttl.to_be_bytes());
        records.extend((data.len() as u16).to_be_bytes());
        records.extend(data);
        count += 1;
    };
    let mut owner = name.as_str();
    let mut known = names.get(owner);
    while let Some(Data::Alias(target)) = known {
        record(owner, 5, &wire(target));
        owner = target;
        known = names.get(owner);
    }
    if let Some(Data::Host(host)) = known {
        match (kind, outside(*host)) {
            (1, [IpAddr::V4(v4), _]) => record(owner, 1, &v4.octets()),
            (28, [_, IpAddr::V6(v6)]) => record(owner, 28, &v6.octets()),
            _ => {}
        }
    }
    let rcode = if known.is_some() { 0x80 } else { 0x83 };
    let mut reply = packet[..end].to_vec();
    reply[2..4].copy_from_slice(&[0x85, rcode]);
    reply[4..6].copy_from_slice(&[0, 1]);
    reply[6..8].copy_from_slice(&count.to_be_bytes());
    reply[8..12].fill(0);
    reply.extend(records);
    reply
}

struct Town {
    engine: &'static str,
    lab: Lab,
    upstream: Upstream,
    client: Place,
    other: Place,
    _servers: Servers,
}

impl Town {
    fn new(engine: &'static str, ttl: u32) -> Self {
        let manifest = write_manifest(PODS);
        let file = manifest.path().to_str().unwrap();
        let args = ["--nodes", "2", "--dual-stack", "--datapath", engine];
        let dns = ["--upstream-dns", "172.31.0.2", "-f", file];
        let lab = Lab::up(&[&args[..], &dns].concat());
        let place = stage::outside(&lab);
        add_addresses(&lab);
        stage::know_cluster_policies(&lab);
        let town = Self {
            engine,
            upstream: Upstream::start(&place, ttl),
            client: stage::pod(&lab, "default", "client"),
            other: stage::pod(&lab, "default", "other"),
            _servers: Servers::start(&[&place], &[80, 81]),
            lab,
        };
        for number in 0..NAMES {
            let name = format!("n{number}.a.cdn.example");
            town.upstream.set(&name, Data::Host(FIRST + number));
        }
        town.upstream
            .set("www.shop.example", Data::Alias("edge.other.example"));
        town.upstream.set("edge.other.example", Data::Host(100));
        town.upstream.set("evil.example", Data::Host(101));
        town.upstream.set("cdn.example", Data::Host(102));
        town
    }

    fn kill_agents(&self) {
        let killed = self.lab.agents();
        for agent in &killed {
            kill(Pid::from_raw(*agent), Signal::SIGKILL).unwrap();
        }
        eventually("new agents follow the policies", || {
            let now = self.lab.agents();
            let others = now.len() == 2 && now.iter().all(|agent| !killed.contains(agent));
            others.then_some(())
        });
        stage::planned(&self.lab, (0, 1));
    }

    fn expect(&self, from: &Place, host: u16, port: u16, expected: Reach) {
        for address in outside(host) {
            let to = SocketAddr::new(address, port);
            let found = from.reach(Kind::Tcp, to, expected == Reach::Open);
            assert_eq!(found, expected, "{}: {} to {to}", self.engine, from.name);
        }
    }
}

/// More addresses for the machine outside: one of each family for each name.
fn add_addresses(lab: &Lab) {
    let link = "ip -o addr show to 172.31.0.2 | cut -d' ' -f2";
    let hosts = (FIRST..FIRST + NAMES).chain(100..104);
    let each = hosts.map(|host| {
        let [v4, v6] = outside(host);
        format!("ip addr add {v4}/24 dev $l; ip addr add {v6}/64 dev $l nodad\n")
    });
    let script = format!("l=$({link})\n{}", each.collect::<String>());
    lab.must("exec", &["--outside", "--", "sh", "-ec", &script]);
}

/// Asks the cluster's DNS server from a pod. None if there is no such name.
fn resolve(from: &Place, name: &str, server: &str, kind: u8) -> Vec<u8> {
    let any = if server.contains(':') {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    let bound = from.netns.run(|| UdpSocket::bind(any));
    let socket = bound.expect("the namespace").expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let question = [&head[..], &wire(name), &[0, kind, 0, 1]].concat();
    let server = SocketAddr::new(server.parse().unwrap(), 53);
    socket.send_to(&question, server).expect("a question");
    let mut reply = [0; 1500];
    let length = socket.recv(&mut reply).expect("an answer");
    reply[..length].to_vec()
}

/// Asks for both kinds of address.
fn ask(from: &Place, name: &str) {
    for (kind, server) in [(1, "10.96.0.10"), (28, "fd00:96::a")] {
        let reply = resolve(from, name, server, kind);
        assert!(reply[3] & 0xf == 0 && reply[7] > 0, "{name}: {reply:?}");
    }
}

fn connect(from: &Place, to: SocketAddr) -> std::io::Result<TcpStream> {
    let tried = from.netns.run(|| TcpStream::connect_timeout(&to, PATIENCE));
    let stream = tried.expect("the namespace")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn echoes(mut stream: &TcpStream) -> bool {
    stream.write_all(b"echo").is_ok() && stream.read_exact(&mut [0; 4]).is_ok()
}

#[test]
fn names_are_reached_with_the_first_packet() {
    for engine in ENGINES {
        let town = Town::new(engine, 60);
        // Asked for before anybody named it, and in use.
        ask(&town.client, "n0.a.cdn.example");
        let early = connect(&town.client, SocketAddr::new(outside(FIRST)[0], 80)).unwrap();
        stage::apply(&town.lab, POLICY, (0, 1));
        assert!(echoes(&early), "{engine}: the name was known already");
        town.expect(&town.client, FIRST + 1, 80, Reach::Silent);
        first_packets(&town);
        only_what_is_named(&town);
        the_next_agent_knows(&town, &early);
        people_are_told(&town);
    }
}

fn first_packets(town: &Town) {
    for number in 1..NAMES {
        let name = format!("n{number}.a.cdn.example");
        for (kind, server, address) in [
            (1, "10.96.0.10", outside(FIRST + number)[0]),
            (28, "fd00:96::a", outside(FIRST + number)[1]),
        ] {
            resolve(&town.client, &name, server, kind);
            let to = SocketAddr::new(address, 80);
            let connected = connect(&town.client, to);
            assert!(connected.is_ok(), "{}: {name}: {connected:?}", town.engine);
        }
    }
    // A first SYN that was dropped would have been sent again.
    let unnamed = outside(101);
    town.expect(&town.client, 101, 80, Reach::Silent);
    let stopped = eventually("what was stopped is said", || {
        let all = stopped(town);
        unnamed.iter().all(|one| all.contains(one)).then_some(all)
    });
    for address in (2..NAMES).flat_map(|number| outside(FIRST + number)) {
        assert!(
            !stopped.contains(&address),
            "{}: {address} was not reached with the first packet",
            town.engine
        );
    }
    // The other node has its own server, which nobody asked.
    town.expect(&town.other, FIRST + 1, 80, Reach::Silent);
    ask(&town.other, "n1.a.cdn.example");
    town.expect(&town.other, FIRST + 1, 80, Reach::Open);
}

/// Where the client has sent what was stopped.
fn stopped(town: &Town) -> Vec<IpAddr> {
    let printed = town.lab.agent("node1", &["policy", "drops", "-o", "json"]);
    let all: Value = serde_json::from_str(&printed.stdout).expect("JSON");
    let drops = all[0]["drops"].as_array().expect("drops").iter();
    let its = drops.filter(|one| one["pod"] == "default/client" && one["direction"] == "egress");
    its.filter_map(|one| stage::text(&one["other"]).parse().ok())
        .collect()
}

fn only_what_is_named(town: &Town) {
    for name in ["www.shop.example", "evil.example", "cdn.example"] {
        ask(&town.client, name);
    }
    // By an alias.
    town.expect(&town.client, 100, 80, Reach::Open);
    town.expect(&town.client, 100, 81, Reach::Silent);
    town.expect(&town.client, 101, 80, Reach::Silent);
    town.expect(&town.client, 102, 80, Reach::Silent);
}

/// Without being asked again.
fn the_next_agent_knows(town: &Town, early: &TcpStream) {
    let kept = connect(&town.client, SocketAddr::new(outside(100)[1], 80)).unwrap();
    for _ in 0..3 {
        town.kill_agents();
        for stream in [early, &kept] {
            assert!(echoes(stream), "{}: a connection ended", town.engine);
        }
        for number in [1, NAMES - 1] {
            town.expect(&town.client, FIRST + number, 80, Reach::Open);
        }
        town.expect(&town.client, 101, 80, Reach::Silent);
    }
}

fn people_are_told(town: &Town) {
    let shown = town
        .lab
        .agent("node1", &["policy", "show", "client", "-o", "json"]);
    let shown: Value = serde_json::from_str(&shown.stdout).expect("JSON");
    let names = shown["names"].as_array().expect("names");
    assert_eq!(names.len(), usize::from(NAMES) + 1, "{shown:#}");
    let shop = names.iter().find(|one| one["name"] == "www.shop.example");
    let addresses = shop.expect("the shop")["addresses"].as_array().unwrap();
    let addresses: Vec<_> = addresses
        .iter()
        .map(|one| stage::text(&one["address"]))
        .collect();
    assert_eq!(addresses, outside(100).map(|ip| ip.to_string()));
    let text = town
        .lab
        .agent("node1", &["policy", "show", "client"])
        .stdout;
    assert!(
        text.contains("name: www.shop.example is 172.31.0.100 ("),
        "{text}"
    );
}

/// After its time, an address is only for who uses it.
#[test]
fn an_address_ends_when_nobody_uses_it() {
    for engine in ENGINES {
        let town = Town::new(engine, 1);
        stage::apply(&town.lab, POLICY, (0, 1));
        let [used, unused] = [1, 2].map(|number| {
            ask(&town.client, &format!("n{number}.a.cdn.example"));
            FIRST + number
        });
        let to = SocketAddr::new(outside(used)[0], 80);
        let stream = connect(&town.client, to).unwrap();
        town.expect(&town.client, unused, 80, Reach::Open);
        // Who tries it uses it: one that is open when the agent looks, twice a minute,
        // makes it wait for the next look.
        let deadline = std::time::Instant::now() + Duration::from_secs(180);
        let ended = SocketAddr::new(outside(unused)[1], 80);
        while town.client.reach(Kind::Tcp, ended, false) == Reach::Open {
            assert!(
                std::time::Instant::now() < deadline,
                "{engine}: {ended} stays open"
            );
            assert!(echoes(&stream), "{engine}");
            std::thread::sleep(Duration::from_secs(1));
        }
        // The other address of the name that is used has ended as well.
        assert_eq!(
            town.client
                .reach(Kind::Tcp, SocketAddr::new(outside(used)[1], 80), false),
            Reach::Silent
        );
        assert!(echoes(&stream), "{engine}: the connection goes on");
        ask(&town.client, "n2.a.cdn.example");
        town.expect(&town.client, unused, 80, Reach::Open);
    }
}
