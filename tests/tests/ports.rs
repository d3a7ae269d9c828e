//! What pods can reach of Ripstop itself: each port that its processes listen on,
//! tried from a pod at every address that a node has for it.
//!
//! `cargo test -p ripstop-tests --test ports -- --nocapture` prints the table.

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ripstop_netlink::Netlink;
use ripstop_netlink::netns::Netns;
use ripstop_tests::{Lab, Leftovers, eventually, ripstop, write_manifest};

/// Load balancers ask a port of the service's own about it.
const MANIFEST: &str = "
apiVersion: v1
kind: Pod
metadata: {name: curious}
spec:
  nodeName: node1
  containers: [{name: main, image: busybox, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Service
metadata: {name: asked}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  healthCheckNodePort: 32123
  ports: [{port: 80, nodePort: 30080}]
";
const HEALTH_CHECK: u16 = 32123;
/// As kube-proxy's: load balancers ask it, and anybody may.
const HEALTHZ: u16 = 10256;
/// As kube-proxy's, at loopback unless it is set otherwise.
const METRICS: u16 = 10249;
const DNS: u16 = 53;
/// Of pods, as their routes name them.
const GATEWAYS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Transport {
    Tcp,
    Udp,
    /// The port is a protocol's number.
    Raw,
}

use Transport::{Raw, Tcp, Udp};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Listener {
    transport: Transport,
    address: SocketAddr,
}

/// Sockets of a process that take what anybody sends.
fn listeners(process: i32) -> BTreeSet<Listener> {
    let folder = format!("/proc/{process}/fd");
    let files = fs::read_dir(&folder).into_iter().flatten().flatten();
    let inodes: BTreeSet<String> = files
        .filter_map(|file| {
            let link = fs::read_link(file.path()).ok()?;
            let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(inode.to_owned())
        })
        .collect();
    let mut found = BTreeSet::new();
    // The state that means "may be sent to" (include/net/tcp_states.h): LISTEN, and
    // CLOSE, which a socket has that is connected to nobody.
    for (file, transport, state) in [
        ("tcp", Tcp, "0A"),
        ("tcp6", Tcp, "0A"),
        ("udp", Udp, "07"),
        ("udp6", Udp, "07"),
        ("udplite", Udp, "07"),
        ("udplite6", Udp, "07"),
        ("raw", Raw, "07"),
        ("raw6", Raw, "07"),
    ] {
        let text = fs::read_to_string(format!("/proc/{process}/net/{file}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if fields[3] == state && inodes.contains(fields[9]) {
                let address = parse(fields[1]);
                found.insert(Listener { transport, address });
            }
        }
    }
    found
}

/// `0100007F:2805`: words as they are in memory, and a number.
fn parse(text: &str) -> SocketAddr {
    let (address, port) = text.split_once(':').unwrap();
    let word = |at: usize| u32::from_str_radix(&address[at..at + 8], 16).unwrap();
    let bytes = |at| word(at).to_ne_bytes();
    let ip: IpAddr = match address.len() {
        8 => Ipv4Addr::from(bytes(0)).into(),
        _ => {
            let all = [bytes(0), bytes(8), bytes(16), bytes(24)].concat();
            Ipv6Addr::from(<[u8; 16]>::try_from(all).unwrap()).into()
        }
    };
    SocketAddr::new(ip, u16::from_str_radix(port, 16).unwrap())
}

/// Who answers there: `None` if nobody does.
fn answers(from: &Netns, transport: Transport, to: SocketAddr) -> Option<&'static str> {
    const PATIENCE: Duration = Duration::from_millis(500);
    let tried = from.run(|| match transport {
        Tcp => {
            let connected = TcpStream::connect_timeout(&to, PATIENCE);
            connected.ok().map(|mut stream| {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let _ = stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n");
                let mut said = Vec::new();
                let _ = stream.read_to_end(&mut said);
                let said = String::from_utf8_lossy(&said);
                match said.starts_with("HTTP/1.") {
                    true if said.contains("ripstop_") => "metrics",
                    true => "HTTP",
                    false => "connects",
                }
            })
        }
        Udp => {
            let any: IpAddr = match to.is_ipv4() {
                true => Ipv4Addr::UNSPECIFIED.into(),
                false => Ipv6Addr::UNSPECIFIED.into(),
            };
            let socket = UdpSocket::bind((any, 0)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.connect(to).ok()?;
            socket.send(QUESTION).ok()?;
            match socket.recv(&mut [0; 512]) {
                Ok(_) => Some("DNS"),
                // Somebody may have it, who does not answer this; where nobody knows
                // the neighbour, it is only lost.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    (!is_of_link(to.ip())).then_some("takes datagrams")
                }
                Err(_) => None,
            }
        }
        Raw => None,
    });
    tried.unwrap()
}

fn is_of_link(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// For the addresses of `kubernetes.default.svc.cluster.local`.
const QUESTION: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\
    \x0akubernetes\x07default\x03svc\x07cluster\x05local\0\0\x01\0\x01";

/// All addresses by which a pod could think of reaching a node: the node's own of
/// both families, those of its end of the pod's link, and its loopback's.
fn addresses(lab: &Lab, node: &str, pod: &Netns) -> Vec<SocketAddr> {
    let netns = Netns::open(format!("/run/netns/{}.{node}", lab.name())).unwrap();
    let all = Netlink::in_netns(&netns).unwrap().addresses().unwrap();
    let mut ips: BTreeSet<IpAddr> = all.iter().map(|one| one.address.addr()).collect();
    ips.extend(GATEWAYS);
    let link = pod.run(|| nix::net::if_::if_nametoindex("eth0").unwrap());
    let link = link.unwrap();
    let scoped = |ip| match ip {
        IpAddr::V6(ip) if ip.is_unicast_link_local() => SocketAddrV6::new(ip, 0, 0, link).into(),
        ip => SocketAddr::new(ip, 0),
    };
    // To the pod, loopback is its own.
    let ips = ips.into_iter().filter(|ip| !ip.is_loopback());
    ips.map(scoped).collect()
}

fn pods_reach_what_is_meant(engine: &str) {
    let file = write_manifest(MANIFEST);
    let path = file.path().to_str().unwrap();
    let lab = Lab::up(&[
        "--nodes=2",
        "--dual-stack",
        "--datapath",
        engine,
        "-f",
        path,
    ]);
    let ip = eventually("the pod has an address", || {
        let pod = lab.get(&["pod", "curious"]);
        pod["status"]["podIP"].as_str()?.parse().ok()
    });
    let pod = lab.pod_netns(ip);
    let service = lab.get(&["-n", "kube-system", "service", "kube-dns"]);
    let ips = service["spec"]["clusterIPs"].as_array().unwrap().iter();
    let dns: BTreeSet<IpAddr> = ips
        .map(|ip| ip.as_str().unwrap().parse().unwrap())
        .collect();
    assert_eq!(dns.len(), 2, "both families");
    let mut wrong = Vec::new();
    let mut meant = BTreeSet::new();
    for node in ["node1", "node2"] {
        let folder = format!("{}/nodes/{node}", lab.root().display());
        let ours = |command: &str| {
            let verb = command.contains(" agent ") || command.contains(" socket-holder ");
            verb && command.contains(&folder)
        };
        let processes = Leftovers::processes(ours);
        assert_eq!(
            processes.len(),
            2,
            "the agent and the holder of its sockets"
        );
        let all: BTreeSet<Listener> = processes.into_iter().flat_map(listeners).collect();
        println!("{engine}: {node} listens on");
        for Listener { transport, address } in &all {
            println!("    {transport:?} {address}");
        }
        let ports: BTreeSet<_> = all
            .iter()
            .map(|one| (one.transport, one.address.port()))
            .collect();
        // What is looked for is there to be found.
        for port in [(Tcp, DNS), (Udp, DNS), (Tcp, HEALTHZ), (Tcp, METRICS)] {
            assert!(ports.contains(&port), "{port:?} in {ports:?}");
        }
        for address in addresses(&lab, node, &pod) {
            for (transport, port) in &ports {
                let mut to = address;
                to.set_port(*port);
                let who = answers(&pod, *transport, to);
                println!(
                    "    from a pod of node1, {transport:?} {to}: {}",
                    who.unwrap_or("nobody")
                );
                let expected = match (*transport, *port) {
                    (Tcp, HEALTHZ | HEALTH_CHECK) => Some("HTTP"),
                    (Udp, DNS) if dns.contains(&to.ip()) => Some("DNS"),
                    (Tcp, DNS) if dns.contains(&to.ip()) => Some("connects"),
                    _ => None,
                };
                match who {
                    None => {}
                    Some(who) if expected == Some(who) => drop(meant.insert((*transport, *port))),
                    Some(who) => wrong.push(format!("{node}: {transport:?} {to}: {who}")),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "reached and not meant to be: {wrong:#?}");
    let all = [(Tcp, DNS), (Tcp, HEALTHZ), (Tcp, HEALTH_CHECK), (Udp, DNS)];
    assert_eq!(meant, BTreeSet::from(all), "meant to be reached, and was");
}

#[test]
fn pods_reach_what_is_meant_with_ebpf() {
    pods_reach_what_is_meant("ebpf");
}

#[test]
fn pods_reach_what_is_meant_with_nftables() {
    pods_reach_what_is_meant("nftables");
}

#[test]
fn a_controller_listens_nowhere() {
    let lab = Lab::up(&["--nodes=1"]);
    let config = lab.root().join("kubeconfig");
    let mut controller = Command::new(ripstop())
        .args(["controller", "--identity", "test", "--kubeconfig"])
        .arg(config)
        .args(["--cluster-cidr", "10.244.0.0/16,fd00:10:244::/48"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let process = i32::try_from(controller.id()).unwrap();
    let leads = std::panic::catch_unwind(|| {
        eventually("the controller leads", || {
            let lease = ["-n", "kube-system", "get", "lease", "ripstop-controller"];
            lab.try_kubectl(&lease).ok.then_some(())
        });
        listeners(process)
    });
    kill(Pid::from_raw(process), Signal::SIGTERM).unwrap();
    controller.wait().unwrap();
    assert_eq!(leads.unwrap(), BTreeSet::new());
}

/// Threads of an agent by their names, and what `/proc` says of each.
fn threads(agent: i32) -> Vec<(String, String)> {
    let tasks = fs::read_dir(format!("/proc/{agent}/task")).unwrap();
    let read = |task: fs::DirEntry| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        Some((name.trim().to_owned(), status))
    };
    tasks.flatten().filter_map(read).collect()
}

#[test]
fn who_reads_what_anybody_sends_may_nothing() {
    let lab = Lab::up(&["--nodes=1", "--dual-stack"]);
    let [agent] = lab.agents()[..] else {
        panic!("one agent")
    };
    let mut powerless = Vec::new();
    for (name, status) in threads(agent) {
        let said = |word: &str| {
            let mut lines = status.lines();
            let found = lines.find_map(|line| line.strip_prefix(word)?.strip_prefix(':'));
            found.unwrap().split_whitespace().collect::<Vec<_>>()
        };
        let nothing = ["0000000000000000"];
        if name == "api" {
            assert_eq!(said("CapEff"), nothing, "{name}");
            assert_eq!(said("CapPrm"), nothing, "{name}");
        }
        if !["dns", "health", "metrics", "starter"].contains(&name.as_str()) {
            continue;
        }
        for set in ["CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"] {
            assert_eq!(said(set), nothing, "{name}: {set}");
        }
        // Real, effective, saved, of files: nobody else's.
        for ids in ["Uid", "Gid"] {
            assert_eq!(said(ids), ["65529"; 4], "{name}: {ids}");
        }
        assert_eq!(said("Groups"), [""; 0], "{name}");
        assert_eq!(said("NoNewPrivs"), ["1"], "{name}");
        powerless.push(name);
    }
    powerless.sort();
    // Datagrams of each family, and streams with all that is asked elsewhere.
    let all = ["dns", "dns", "dns", "health", "metrics", "starter"];
    assert_eq!(powerless, all);
    // Whoever shares a thread's id could end the agent: the holder does not.
    let holders = Leftovers::processes(|command| {
        command.contains(" socket-holder ") && command.contains(&lab.root().display().to_string())
    });
    let status = fs::read_to_string(format!("/proc/{}/status", holders[0])).unwrap();
    assert!(status.contains("Uid:\t65534\t"), "{status}");
}
