//! Datagrams longer than any link is wide, between nodes whose way is narrower than
//! pods' links, while somebody else has connection tracking in use there: it puts
//! together what comes in parts, and waits for each of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use ripstop_netlink::netns::Netns;
use ripstop_tests::{Lab, write_manifest};
use serde_json::Value;

const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  nodeName: node1
  containers: [{name: main, image: busybox, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Pod
metadata: {name: far, labels: {app: echo}}
spec:
  nodeName: node2
  containers: [{name: main, image: busybox, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Service
metadata: {name: echo}
spec:
  type: NodePort
  ipFamilyPolicy: RequireDualStack
  selector: {app: echo}
  ports: [{port: 7000, nodePort: 30070, protocol: UDP}]
";

/// Rules as anybody's firewall has them.
const FOREIGN: &str = "table inet foreign {
    chain forward {
        type filter hook forward priority 0; policy accept;
        ct state established,related accept
        ct state invalid drop
    }
}";

const PORT: u16 = 7000;
/// The largest first: from the smallest the sender learns how wide the way is, and
/// cuts all others so that each part fits.
const SIZES: [usize; 5] = [60_000, 30_000, 8000, 3000, 1472];

fn socket(netns: &Netns, v4: bool, port: u16) -> UdpSocket {
    let any: IpAddr = match v4 {
        true => Ipv4Addr::UNSPECIFIED.into(),
        false => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = netns.run(|| UdpSocket::bind((any, port)));
    socket.unwrap().unwrap()
}

/// Sends each datagram back, of either family, until the process ends.
fn echo(netns: &Netns) {
    let socket = socket(netns, false, PORT);
    std::thread::spawn(move || {
        let mut datagram = vec![0; 65_536];
        loop {
            // Errors are about earlier answers.
            if let Ok((length, from)) = socket.recv_from(&mut datagram) {
                let _ = socket.send_to(&datagram[..length], from);
            }
        }
    });
}

/// How often it had to be sent until it came back as it was: who learns how wide a
/// way is learns it from what is lost.
fn came_back(socket: &UdpSocket, datagram: &[u8]) -> Option<usize> {
    let mut answer = vec![0; 65_536];
    (1..=6).find(|_| {
        // It is an error that an earlier one was too long.
        let sent = || socket.send(datagram);
        let _ = sent().or_else(|_| sent());
        // What comes late is an answer, too: to an earlier one.
        while let Ok(length) = socket.recv(&mut answer) {
            if answer[..length] == *datagram {
                return true;
            }
        }
        false
    })
}

fn addresses(of: &Value) -> Vec<IpAddr> {
    let all = of.as_array().unwrap().iter();
    let text = |one: &Value| one["ip"].as_str().or(one.as_str()).unwrap().to_owned();
    all.map(|one| text(one).parse().unwrap()).collect()
}

fn all_arrive(engine: &str) {
    let manifest = write_manifest(PODS);
    let lab = Lab::up(&[
        "--nodes=2",
        "--subnets=2",
        "--dual-stack",
        "--datapath",
        engine,
        "-f",
        manifest.path().to_str().unwrap(),
    ]);
    for node in ["node/node1", "node/node2"] {
        lab.exec(node, &["nft", FOREIGN]);
    }
    let pod = |name| addresses(&lab.get(&["pod", name])["status"]["podIPs"]);
    let (client, far) = (lab.pod_netns(pod("client")[0]), pod("far"));
    let outside = Netns::open(format!("/run/netns/{}.outside", lab.name())).unwrap();
    echo(&lab.pod_netns(far[0]));
    echo(&outside);
    let service = addresses(&lab.get(&["service", "echo"])["spec"]["clusterIPs"]);
    let node = lab.get(&["node", "node1"])["status"]["addresses"].take();
    let node = node.as_array().unwrap().iter();
    let node = node.filter(|one| one["type"] == "InternalIP");
    let node: Vec<IpAddr> = node
        .map(|one| one["address"].as_str().unwrap().parse().unwrap())
        .collect();
    let machine: Vec<IpAddr> = ["172.31.0.2", "fd00:31::2"]
        .map(|address| address.parse().unwrap())
        .into();
    let mut failed = Vec::new();
    for (what, from, to, port) in [
        ("a pod to a pod of another node", &client, &far, PORT),
        ("a pod to a service", &client, &service, PORT),
        ("a pod to outside", &client, &machine, PORT),
        ("from outside to a node's port", &outside, &node, 30_070),
    ] {
        assert_eq!(to.len(), 2, "{what}: {to:?}");
        for address in to {
            let socket = socket(from, address.is_ipv4(), 0);
            socket.connect(SocketAddr::new(*address, port)).unwrap();
            let patience = Duration::from_secs(2);
            socket.set_read_timeout(Some(patience)).unwrap();
            for size in SIZES {
                let datagram: Vec<u8> = (0..size).map(|at| (at * 7 + size) as u8).collect();
                match came_back(&socket, &datagram) {
                    Some(times) => println!("{what}, {address}: {size} bytes at attempt {times}"),
                    None => failed.push(format!("{what}, {address}: {size} bytes")),
                }
            }
        }
    }
    assert!(failed.is_empty(), "{engine}: {failed:#?}");
}

#[test]
fn all_arrive_with_ebpf() {
    all_arrive("ebpf");
}

#[test]
fn all_arrive_with_nftables() {
    all_arrive("nftables");
}
