//! What has no ports: echoes and errors of ICMP, and all parts of a datagram but
//! the first.
//!
//! NetworkPolicy is defined for TCP, UDP and SCTP alone. Here, a rule without
//! ports means every protocol, and one with ports means those ports and nothing
//! else; an error is of the connection that it is about.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use ripstop_tests::eventually;
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

use crate::ENGINES;
use crate::leak::{count, sniffer};
use crate::probes::{Kind, Reach};
use crate::stage::Place;
use crate::town::{FROM_CLIENT, Town, ingress};

const PATIENCE: Duration = Duration::from_secs(30);
const BRIEF: Duration = Duration::from_millis(300);
/// More than a link carries at once, and nearly all that a datagram can be.
const SIZES: [usize; 2] = [4000, 60_000];
/// In every part of a datagram that is to be denied.
const FORBIDDEN: &[u8] = b"forbidden ";

#[test]
fn what_has_no_ports() {
    for engine in ENGINES {
        let town = Town::new(engine, &["--dual-stack"]);
        echoes(&town);
        errors(&town);
        datagrams_in_parts(&town);
        the_middle_of_nothing(&town);
    }
}

fn echoes(town: &Town) {
    let expect = |from: &Place, to: &Place, expected: bool| {
        for address in &to.addresses {
            for size in [56, SIZES[0]] {
                let patience = if expected { PATIENCE } else { BRIEF };
                assert_eq!(
                    ping(from, *address, size, patience),
                    expected,
                    "{}: {} pings {} ({address}) with {size} bytes",
                    town.engine,
                    from.name,
                    to.name
                );
            }
        }
    };
    let servers = [&town.near, &town.far];
    let all_expect = |expected| {
        for server in servers {
            expect(&town.client, server, expected);
        }
    };
    all_expect(true);
    town.policy(&ingress(FROM_CLIENT));
    all_expect(true);
    expect(&town.near, &town.far, false);
    town.policy(&ingress("{ports: [{port: 80}, {port: 80, protocol: UDP}]}"));
    all_expect(false);
    // Its own node's.
    expect(&town.node1, &town.near, true);
    town.no_policy();
    // Who may ask is answered, and is not asked.
    town.policy(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: asks}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Ingress, Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: web}}}]}]
",
    );
    for server in servers {
        expect(&town.client, server, true);
        expect(server, &town.client, false);
    }
    expect(&town.client, &town.outside, false);
    town.no_policy();
}

/// Nobody is at the port, and who asks is told so, although nothing may come in.
fn errors(town: &Town) {
    town.policy(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: asks}
spec: {podSelector: {matchLabels: {app: client}}}
",
    );
    for server in [&town.near, &town.far] {
        for address in &server.addresses {
            let to = SocketAddr::new(*address, 9999);
            let said = town.client.reach(Kind::Udp, to, true);
            assert_eq!(said, Reach::Refused, "{}: {to}", town.engine);
        }
    }
    town.no_policy();
}

/// The ports are in the first part alone: the others go its way.
fn datagrams_in_parts(town: &Town) {
    town.policy(&ingress("{ports: [{port: 80, protocol: UDP}]}"));
    for server in [&town.near, &town.far] {
        let sniffer = sniffer(&server.netns);
        for address in &server.addresses {
            for size in SIZES {
                for round in 0..5 {
                    // In turns: what is remembered of one is not the other's.
                    let denied = SocketAddr::new(*address, 81);
                    send(
                        &town.client,
                        denied,
                        &FORBIDDEN.repeat(size / FORBIDDEN.len()),
                    );
                    let to = SocketAddr::new(*address, 80);
                    let came = answered(&town.client, to, &vec![b'x'; size]);
                    let what = format!("{}: {size} bytes to {to}, round {round}", town.engine);
                    assert_eq!(came, Some(size), "{what}");
                }
            }
        }
        std::thread::sleep(BRIEF);
        let leaked = count(&sniffer, FORBIDDEN);
        assert_eq!(leaked, 0, "{}: parts that {} got", town.engine, server.name);
        // The same would have been seen.
        town.no_policy();
        let allowed = SocketAddr::new(server.addresses[0], 81);
        send(
            &town.client,
            allowed,
            &FORBIDDEN.repeat(SIZES[0] / FORBIDDEN.len()),
        );
        std::thread::sleep(BRIEF);
        assert!(count(&sniffer, FORBIDDEN) >= 3, "{}", town.engine);
        town.policy(&ingress("{ports: [{port: 80, protocol: UDP}]}"));
    }
    town.no_policy();
}

/// A segment of a connection that never began is stopped, and told of.
/// (Of a pod that is restricted one way alone it may be from before its policies,
/// and the pod's own.)
fn the_middle_of_nothing(town: &Town) {
    town.policy(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress, Egress]
  ingress: [{ports: [{port: 80}]}]
",
    );
    for (node, server) in [("node1", &town.near), ("node2", &town.far)] {
        for address in &server.addresses {
            let to = SocketAddr::new(*address, 81);
            let opened = town.client.netns.run(|| {
                let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
                // As if it were connected: no packet goes out, nor with the end of
                // the repair (TCP_REPAIR_OFF_NO_WP).
                setsockopt(&socket, sockopt::TcpRepair, &1)?;
                socket.connect(&to.into())?;
                setsockopt(&socket, sockopt::TcpRepair, &u32::MAX)?;
                Ok::<_, std::io::Error>(socket)
            });
            let socket = opened.expect("the namespace").expect("a socket in repair");
            socket.send(b"in the middle").expect("sent");
            let by = eventually("it is told of", || {
                let printed = town.lab.agent(node, &["policy", "drops", "-o", "json"]);
                let all: Value = serde_json::from_str(&printed.stdout).ok()?;
                let drops = all[0]["drops"].as_array()?.clone();
                let ours = drops.into_iter().find(|one| {
                    one["address"] == address.to_string()
                        && one["other"] == "default/client"
                        && one["protocol"] == "TCP"
                        && one["direction"] == "ingress"
                })?;
                ours["by"].as_str().map(str::to_owned)
            });
            let expected = match town.engine {
                "ebpf" => "no connection is known that it is of",
                // Connection tracking takes it for the beginning of one.
                _ => "isolated by default/web, allowed by none",
            };
            assert_eq!(by, expected, "{}: {to}", town.engine);
        }
    }
    town.no_policy();
}

fn socket(from: &Place, to: SocketAddr) -> UdpSocket {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let bound = from.netns.run(|| UdpSocket::bind(any));
    let socket = bound.expect("the namespace").expect("a socket");
    socket.connect(to).expect("a way");
    socket
}

fn send(from: &Place, to: SocketAddr, data: &[u8]) {
    socket(from, to).send(data).expect("sent");
}

/// How much comes back of a datagram. It is sent again: the first can be lost to a
/// neighbour that is asked for, as the kernel keeps but a few parts meanwhile.
fn answered(from: &Place, to: SocketAddr, data: &[u8]) -> Option<usize> {
    let socket = socket(from, to);
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let mut buffer = vec![0; 1 << 16];
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let sent = socket.send(data);
        if let Ok(length) = sent.and_then(|_| socket.recv(&mut buffer)) {
            return Some(length);
        }
    }
    None
}

/// Whether an echo request is answered.
fn ping(from: &Place, to: IpAddr, size: usize, patience: Duration) -> bool {
    const ID: [u8; 2] = [0x72, 0x73];
    let (domain, protocol, request, reply) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129),
    };
    let opened = from
        .netns
        .run(|| Socket::new(domain, Type::RAW, Some(protocol)));
    let socket = opened.expect("the namespace").expect("a raw socket");
    socket
        .connect(&SocketAddr::new(to, 0).into())
        .expect("a way");
    socket
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let mut buffer = vec![0; 1 << 16];
    let start = Instant::now();
    for sequence in 0_u16.. {
        if start.elapsed() >= patience {
            break;
        }
        let [high, low] = sequence.to_be_bytes();
        let mut packet = vec![request, 0, 0, 0, ID[0], ID[1], high, low];
        packet.resize(8 + size, b'e');
        if to.is_ipv4() {
            // The kernel does it for IPv6.
            let sum = checksum(&packet);
            packet[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        match socket.send(&packet) {
            Ok(_) => {}
            // What a node's own rules say no to.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => continue,
            Err(error) => panic!("ping {to}: {error}"),
        }
        while let Ok(length) = (&socket).read(&mut buffer) {
            let header = if to.is_ipv4() { 20 } else { 0 };
            let icmp = &buffer[header..length];
            if icmp[0] == reply && icmp[4..6] == ID && icmp.len() == 8 + size {
                return true;
            }
        }
    }
    false
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2);
    let sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}
