//! A lab with one pod that may write what it likes, and those that hear it.

use std::net::{IpAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, send, socket};
use ripstop_netlink::Netlink;
use ripstop_netlink::conntrack::Conntrack;
use ripstop_netlink::netns::Netns;
use ripstop_netlink::sysctl;
use ripstop_tests::{Lab, eventually, write_manifest};
use serde_json::Value;

use crate::frames::{self, BROADCAST, Datagram, Extra, FOREIGN_MAC, Link};

const PORT: u16 = 9999;
const VXLAN: u16 = 4789;
const VNI: u8 = 1;
/// Of ff02::1 (RFC 2464, section 7).
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

const OTHERS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: near, labels: {app: ear}}
spec:
  nodeName: node1
  containers: [{name: main, image: busybox, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Pod
metadata: {name: far, labels: {app: ear}}
spec:
  nodeName: node2
  containers: [{name: main, image: busybox, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Service
metadata: {name: ears}
spec:
  selector: {app: ear}
  ipFamilyPolicy: RequireDualStack
  ports: [{port: 9999, protocol: UDP}]
";

const ATTACKER: &str = "
apiVersion: v1
kind: Pod
metadata: {name: attacker}
spec:
  nodeName: node1
  containers: [{name: main, image: busybox, command: [sleep, infinity]}]
";

/// A place with a network of its own, and an ear in it.
pub(crate) struct Place {
    netns: Netns,
    /// One of each family, IPv4 first.
    pub(crate) addresses: [IpAddr; 2],
    ear: UdpSocket,
}

/// What became of packets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    /// To a place each, or frames.
    pub(crate) sent: usize,
    pub(crate) delivered: usize,
    /// By the node's agent, for whatever reason.
    pub(crate) counted: u64,
}

pub(crate) struct Scene {
    lab: Lab,
    pub(crate) attacker: Place,
    pub(crate) near: Place,
    pub(crate) far: Place,
    pub(crate) nodes: [Place; 2],
    pub(crate) service: [IpAddr; 2],
    pub(crate) dns: [IpAddr; 2],
    pub(crate) gateway: [IpAddr; 2],
    link: Link,
    writer: OwnedFd,
}

impl Place {
    fn new(netns: Netns, addresses: [IpAddr; 2]) -> Self {
        let ear = netns.run(|| UdpSocket::bind(("::", PORT)));
        let ear = ear.unwrap().unwrap();
        ear.set_nonblocking(true).unwrap();
        Self {
            netns,
            addresses,
            ear,
        }
    }

    /// How often each of two words came in since last time.
    fn heard(&self, words: [&[u8]; 2]) -> [usize; 2] {
        let mut buffer = [0; 2048];
        let mut counts = [0; 2];
        while let Ok(length) = self.ear.recv(&mut buffer) {
            for (count, word) in counts.iter_mut().zip(words) {
                *count += usize::from(buffer[..length].starts_with(word));
            }
        }
        counts
    }
}

fn pair(value: &Value, ip: impl Fn(&Value) -> &str) -> [IpAddr; 2] {
    let list = value.as_array().unwrap().iter();
    let mut list: Vec<IpAddr> = list.map(|v| ip(v).parse().unwrap()).collect();
    list.sort_by_key(IpAddr::is_ipv6);
    [list[0], list[1]]
}

fn pod(lab: &Lab, name: &str) -> Place {
    let object = eventually("the pod is ready", || {
        let object = lab.get(&["pod", name]);
        let conditions = object["status"]["conditions"].as_array()?.iter();
        let ready = conditions
            .clone()
            .any(|c| c["type"] == "Ready" && c["status"] == "True");
        ready.then_some(object)
    });
    let addresses = pair(&object["status"]["podIPs"], |v| v["ip"].as_str().unwrap());
    Place::new(lab.pod_netns(addresses[0]), addresses)
}

fn node(lab: &Lab, name: &str) -> Place {
    let object = lab.get(&["node", name]);
    let addresses = object["status"]["addresses"].as_array().unwrap().iter();
    let internal = addresses.filter(|a| a["type"] == "InternalIP");
    let internal = Value::Array(internal.cloned().collect());
    let path = Path::new("/run/netns").join(format!("{}.{name}", lab.name()));
    let addresses = pair(&internal, |v| v["address"].as_str().unwrap());
    Place::new(Netns::open(path).unwrap(), addresses)
}

impl Scene {
    pub(crate) fn new(engine: &str) -> Self {
        let file = write_manifest(OTHERS);
        let lab = Lab::up(&[
            "--nodes=2",
            "--subnets=2",
            "--dual-stack",
            "--datapath",
            engine,
            "-f",
            file.path().to_str().unwrap(),
        ]);
        let nodes = ["node1", "node2"].map(|name| node(&lab, name));
        // A node whose links believe routers although it is one, as some make theirs.
        let believes = [("net/ipv6/conf/default/accept_ra", "2")];
        sysctl::set_in(&nodes[0].netns, &believes).unwrap();
        let file = write_manifest(ATTACKER);
        lab.must("apply", &["-f", file.path().to_str().unwrap()]);
        let attacker = pod(&lab, "attacker");
        let (near, far) = (pod(&lab, "near"), pod(&lab, "far"));
        let cluster_ips = |words: &[&str]| {
            let service = lab.get(&[&["service"], words].concat());
            service["spec"]["clusterIPs"].clone()
        };
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        let two = |value: Value| -> [IpAddr; 2] {
            let list = value.as_array().unwrap().iter().map(text);
            let mut list: Vec<IpAddr> = list.map(|ip| ip.parse().unwrap()).collect();
            list.sort_by_key(IpAddr::is_ipv6);
            [list[0], list[1]]
        };
        let service = two(cluster_ips(&["ears"]));
        let dns = two(cluster_ips(&["kube-dns", "-n", "kube-system"]));
        let mut inside = Netlink::in_netns(&attacker.netns).unwrap();
        let eth0 = inside.link("eth0").unwrap().unwrap();
        let neighbours = inside.neighbours(eth0.index).unwrap();
        let at = |v6: bool| {
            let mut all = neighbours.iter().filter(|n| n.address.is_ipv6() == v6);
            all.next().unwrap()
        };
        let writer = attacker.netns.run(|| {
            let kind = (AddressFamily::Packet, SockType::Raw, SockFlag::empty());
            let writer = socket(kind.0, kind.1, kind.2, SockProtocol::EthAll).unwrap();
            bind(&writer, eth0.index);
            writer
        });
        Self {
            link: Link {
                own: eth0.mac.unwrap().0,
                node: at(false).mac.0,
            },
            gateway: [at(false).address, at(true).address],
            writer: writer.unwrap(),
            attacker,
            near,
            far,
            nodes,
            service,
            dns,
            lab,
        }
    }

    fn ears(&self) -> [&Place; 4] {
        [&self.near, &self.far, &self.nodes[0], &self.nodes[1]]
    }

    fn write(&self, frame: &[u8]) {
        send(self.writer.as_raw_fd(), frame, MsgFlags::empty()).unwrap();
    }

    /// All that the agent of its node has counted as dropped.
    fn dropped(&self) -> u64 {
        let told = self.lab.agent("node1", &["status", "-o", "json"]).stdout;
        let told: Value = serde_json::from_str(&told).unwrap();
        let drops = told["datapath"]["drops"].as_object().unwrap();
        drops.values().map(|count| count.as_u64().unwrap()).sum()
    }

    /// Writes as `source` to everybody, and to the service.
    pub(crate) fn send(&self, family: usize, source: IpAddr, extra: Extra) -> Outcome {
        let everybody = self.ears().map(|ear| ear.addresses[family]);
        let mut to: Vec<IpAddr> = everybody.to_vec();
        to.push(self.service[family]);
        // Nobody hears himself by a link.
        to.retain(|address| *address != source);
        let write = |word: &[u8]| {
            for destination in &to {
                let datagram = Datagram {
                    source,
                    destination: *destination,
                };
                let udp = datagram.udp(PORT, word);
                for frame in datagram.frames(self.link, &udp, extra) {
                    self.write(&frame);
                }
            }
        };
        self.outcome(family, to.len(), write)
    }

    /// Writes a datagram of `inner`, as another node would, to a node.
    pub(crate) fn tunnel(&self, node: usize, inner: &Datagram) -> Outcome {
        let mut its = Netlink::in_netns(&self.nodes[node].netns).unwrap();
        let links = its.links().unwrap();
        let tunnels = links.iter().filter(|link| link.kind == "vxlan");
        let macs: Vec<[u8; 6]> = tunnels.map(|link| link.mac.unwrap().0).collect();
        assert!(!macs.is_empty(), "no tunnel");
        let write = |word: &[u8]| {
            for mac in &macs {
                let link = Link {
                    own: FOREIGN_MAC,
                    node: *mac,
                };
                let udp = inner.udp(PORT, word);
                let frame = inner.frames(link, &udp, Extra::None).remove(0);
                for family in [0, 1] {
                    let outer = Datagram {
                        source: self.attacker.addresses[family],
                        destination: self.nodes[node].addresses[family],
                    };
                    let vxlan = [&[8, 0, 0, 0, 0, 0, VNI, 0], &frame[..]].concat();
                    let udp = outer.udp(VXLAN, &vxlan);
                    for frame in outer.frames(self.link, &udp, Extra::None) {
                        self.write(&frame);
                    }
                }
            }
        };
        self.outcome(0, 2 * macs.len(), write)
    }

    pub(crate) fn raw(&self, frames: &[Vec<u8>]) -> Outcome {
        self.outcome(0, frames.len(), |_| {
            for frame in frames {
                self.write(frame);
            }
        })
    }

    /// What came of what `write` wrote, once what was said honestly after it has
    /// come to everybody.
    fn outcome(&self, family: usize, sent: usize, write: impl Fn(&[u8])) -> Outcome {
        let (forged, honest) = (b"forged..".as_slice(), b"honest..".as_slice());
        let before = self.dropped();
        write(&forged.repeat(4));
        // Another way may be a slower one.
        std::thread::sleep(Duration::from_millis(20));
        for ear in self.ears() {
            let datagram = Datagram {
                source: self.attacker.addresses[family],
                destination: ear.addresses[family],
            };
            let udp = datagram.udp(PORT, honest);
            for frame in datagram.frames(self.link, &udp, Extra::None) {
                self.write(&frame);
            }
        }
        let mut delivered = 0;
        for ear in self.ears() {
            let mut done = false;
            eventually("what is honest comes in", || {
                let [bad, good] = ear.heard([forged, honest]);
                delivered += bad;
                done |= good > 0;
                done.then_some(())
            });
        }
        Outcome {
            sent,
            delivered,
            counted: self.dropped() - before,
        }
    }

    /// Connections that the attacker's node knows, of somebody on a link.
    pub(crate) fn tracked_of_links(&self) -> usize {
        let list = || {
            let mut conntrack = Conntrack::new().unwrap();
            let of_link = conntrack.list(|one| match one.original.source.ip() {
                IpAddr::V4(_) => false,
                IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_unspecified(),
            });
            of_link.unwrap().len()
        };
        self.nodes[0].netns.run(list).unwrap()
    }

    /// Where node and pods send, and whom they believe to be at a MAC that is
    /// nobody's. What the node notes of the pod's own link leads nowhere.
    pub(crate) fn ways(&self) -> String {
        let own = |node: &Place| {
            let links = Netlink::in_netns(&node.netns).unwrap().links().unwrap();
            let inside = Netlink::in_netns(&self.attacker.netns)
                .unwrap()
                .link("eth0");
            let host = inside.unwrap().unwrap().peer;
            let its = links.into_iter().find(|link| Some(link.index) == host);
            its.map(|link| link.name).unwrap_or_default()
        };
        let mac = FOREIGN_MAC.map(|byte| format!("{byte:02x}")).join(":");
        let script = format!(
            "ip -4 route; ip -6 route | sed 's/expires.*//'; ip -6 addr show | grep inet6; \
             ip neigh | grep -i {mac} | grep -v ' dev {} '",
            own(&self.nodes[0])
        );
        let of = |place: &str| {
            self.lab
                .run("exec", &[place, "--", "sh", "-c", &script])
                .stdout
        };
        ["node/node1", "node/node2", "near"].map(of).join("--\n")
    }

    /// What is told, and the frames of it.
    pub(crate) fn neighbours(&self) -> Vec<(&'static str, Vec<Vec<u8>>)> {
        let node = self.link.node;
        let [near4, near6] = self.near.addresses;
        let [node4, node6] = self.nodes[0].addresses;
        let [other4, other6] = self.nodes[1].addresses;
        let arp = |sender: IpAddr| {
            let both = [(1, node4), (2, node4), (1, sender), (2, near4)];
            let to = [BROADCAST, node];
            let all = both.iter().flat_map(|(operation, target)| {
                to.map(|to| frames::arp(to, *operation, sender, *target))
            });
            all.collect::<Vec<_>>()
        };
        let all_nodes: IpAddr = "ff02::1".parse().unwrap();
        let link_local: IpAddr = "fe80::7".parse().unwrap();
        let ndp = |target: IpAddr| {
            let mut all = Vec::new();
            for source in [target, link_local, self.attacker.addresses[1]] {
                for (mac, destination) in [(ALL_NODES_MAC, all_nodes), (node, node6)] {
                    let datagram = Datagram {
                        source,
                        destination,
                    };
                    all.push(datagram.advertises(mac, target));
                    all.push(datagram.solicits(mac, node6));
                }
            }
            all
        };
        let router = |source: IpAddr| {
            let prefix = "fd00:bad::".parse().unwrap();
            let datagram = Datagram {
                source,
                destination: all_nodes,
            };
            datagram.is_router(ALL_NODES_MAC, prefix)
        };
        vec![
            ("ARP: it is the gateway", arp(self.gateway[0])),
            ("ARP: it is a pod of its node", arp(near4)),
            ("ARP: it is another node", arp(other4)),
            ("NDP: it is the gateway", ndp(self.gateway[1])),
            ("NDP: it is a pod of its node", ndp(near6)),
            ("NDP: it is another node", ndp(other6)),
            (
                "NDP: it is a router",
                vec![router(link_local), router(self.gateway[1])],
            ),
        ]
    }
}

/// Frames go out by this interface.
fn bind(socket: &OwnedFd, index: u32) {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: index as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = size_of_val(&address) as u32;
    // SAFETY: the address lives until bind(2) has read it.
    let done = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}
