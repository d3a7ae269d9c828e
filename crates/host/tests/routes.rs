//! Routes to other nodes: plain on a shared link, by VXLAN across a router.
//! Needs root.

mod common;

use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use common::TestNetns;
use ipnet::IpNet;
use ripstop_host::routes::NodeRoutes;
use ripstop_host::{sysctl, uplink};
use ripstop_netlink::link::{self, VethEnd};
use ripstop_netlink::netns::Netns;
use ripstop_netlink::route::Route;
use ripstop_netlink::{Netlink, address};

/// Underlay addresses of one node.
struct Node {
    netns: TestNetns,
    addresses: Vec<IpAddr>,
}

/// Nodes a and b on one subnet, node c behind the router on another.
struct Underlay {
    a: Node,
    b: Node,
    c: Node,
    _router: TestNetns,
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

impl Underlay {
    fn new(name: &str, families: &[&str]) -> Self {
        let router = TestNetns::new(&format!("{name}-router"));
        without_detection(&router);
        sysctl::set_in(
            &router,
            &[
                ("net/ipv4/ip_forward", "1"),
                ("net/ipv6/conf/all/forwarding", "1"),
            ],
        )
        .unwrap();
        let mut inside = Netlink::in_netns(&router).unwrap();
        for subnet in [1, 2] {
            let bridge = format!("br{subnet}");
            inside.execute([link::create_bridge(&bridge)]).unwrap();
            let index = inside.link(&bridge).unwrap().unwrap().index;
            inside.execute([link::up(index)]).unwrap();
            for family in families {
                let gateway = address_in(family, subnet, 1);
                inside.execute([address::add(index, gateway)]).unwrap();
            }
        }
        let node = |letter: &str, subnet, host| {
            let netns = TestNetns::new(&format!("{name}-{letter}"));
            without_detection(&netns);
            let addresses = connect(&router, &netns, letter, subnet, families, host);
            Node { netns, addresses }
        };
        let (a, b, c) = (node("a", 1, 11), node("b", 1, 12), node("c", 2, 11));
        Self {
            a,
            b,
            c,
            _router: router,
        }
    }
}

/// A router asks for no neighbour while its link-local address is tentative, and
/// that takes up to two seconds.
fn without_detection(netns: &Netns) {
    let names = ["all", "default"].map(|of| format!("net/ipv6/conf/{of}/accept_dad"));
    let settings = names.each_ref().map(|name| (name.as_str(), "0"));
    sysctl::set_in(netns, &settings).unwrap();
}

/// `family` is 4 or 6.
fn address_in(family: &str, subnet: u8, host: u8) -> IpNet {
    match family {
        "4" => net(&format!("172.30.{subnet}.{host}/24")),
        _ => net(&format!("fd00:30:{subnet}::{host}/64")),
    }
}

fn connect(
    router: &Netns,
    netns: &Netns,
    letter: &str,
    subnet: u8,
    families: &[&str],
    host: u8,
) -> Vec<IpAddr> {
    let mut outside = Netlink::in_netns(router).unwrap();
    let bridge = outside.link(&format!("br{subnet}")).unwrap().unwrap().index;
    let port = format!("port-{letter}");
    let ends = [
        VethEnd {
            name: &port,
            mac: None,
            netns: None,
        },
        VethEnd {
            name: "eth0",
            mac: None,
            netns: Some(netns.as_fd()),
        },
    ];
    let (port, index) = outside.create_veth(&ends[0], &ends[1], 1500).unwrap();
    outside.execute([link::set_master(port, bridge)]).unwrap();
    let mut inside = Netlink::in_netns(netns).unwrap();
    inside.execute([link::up(1), link::up(index)]).unwrap();
    let mut addresses = Vec::new();
    for family in families {
        let own = address_in(family, subnet, host);
        let gateway = address_in(family, subnet, 1).addr();
        let everything = ripstop_host::pod::everything(gateway);
        inside
            .execute([
                address::add(index, own),
                Route {
                    protocol: 4,
                    ..Route::new(everything, index).via(gateway)
                }
                .add(),
            ])
            .unwrap();
        addresses.push(own.addr());
    }
    inside.settle(&addresses).unwrap();
    inside.execute([link::settle(index)]).unwrap();
    outside
        .execute([link::settle(port), link::settle(bridge)])
        .unwrap();
    let uplinks = uplink::find(&mut inside, &addresses).unwrap();
    netns
        .run(|| uplink::prepare_node(&uplinks))
        .unwrap()
        .unwrap();
    addresses
}

impl Node {
    fn netlink(&self) -> Netlink {
        Netlink::in_netns(&self.netns).unwrap()
    }

    fn routes(&self) -> NodeRoutes {
        NodeRoutes::new(self.netlink(), self.addresses.clone())
    }

    /// Stands for a pod: an address that is not the underlay's.
    fn pod(&self, address: &str) {
        let address = net(address);
        let mut netlink = self.netlink();
        netlink.execute([address::add(1, address)]).unwrap();
        assert!(netlink.settle(&[address.addr()]).unwrap());
    }

    /// Sends a datagram from this node to `pod` on `other` and back.
    fn reaches(&self, other: &Node, pod: &str, bytes: usize) -> IpAddr {
        let target = ip(pod);
        let server = other
            .netns
            .run(|| UdpSocket::bind((target, 7000)))
            .unwrap()
            .unwrap();
        let any: IpAddr = if target.is_ipv4() {
            ip("0.0.0.0")
        } else {
            ip("::")
        };
        let client = self
            .netns
            .run(|| UdpSocket::bind((any, 0)))
            .unwrap()
            .unwrap();
        for socket in [&server, &client] {
            socket
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
        }
        client.send_to(&vec![7; bytes], (target, 7000)).unwrap();
        let mut buffer = vec![0; 65536];
        let (size, from) = server.recv_from(&mut buffer).expect("the question");
        assert_eq!(size, bytes);
        server.send_to(b"yes", from).unwrap();
        let (size, _) = client.recv_from(&mut buffer).expect("the answer");
        assert_eq!(&buffer[..size], b"yes");
        from.ip()
    }
}

#[test]
fn on_a_shared_link_routes_are_plain_and_across_the_router_tunnelled() {
    let underlay = Underlay::new("both", &["4", "6"]);
    let (a, b, c) = (&underlay.a, &underlay.b, &underlay.c);
    let pods = [
        (
            a,
            ["10.244.1.0/24", "fd00:244:1::/64"],
            ["10.244.1.2/32", "fd00:244:1::2/128"],
        ),
        (
            b,
            ["10.244.2.0/24", "fd00:244:2::/64"],
            ["10.244.2.2/32", "fd00:244:2::2/128"],
        ),
        (
            c,
            ["10.244.3.0/24", "fd00:244:3::/64"],
            ["10.244.3.2/32", "fd00:244:3::2/128"],
        ),
    ];
    let mut tables = [a.routes(), b.routes(), c.routes()];
    for (at, (node, _, addresses)) in pods.iter().enumerate() {
        addresses.iter().for_each(|address| node.pod(address));
        for (_, (other, ranges, _)) in pods.iter().enumerate().filter(|(other, _)| *other != at) {
            let vias = other.addresses.iter().map(|&via| Some(via));
            tables[at]
                .apply(ranges.map(net).into_iter().zip(vias))
                .unwrap();
        }
    }
    // What a was told of b and c.
    let eth0 = a.netlink().link("eth0").unwrap().unwrap();
    let to_b = tables[0]
        .apply([(net("10.244.2.0/24"), Some(b.addresses[0]))])
        .unwrap();
    let next_hop = to_b[0].next_hop.unwrap();
    assert_eq!(
        (next_hop.ifindex, next_hop.gateway, next_hop.mtu),
        (eth0.index, b.addresses[0], 1500)
    );
    for (family, device, mtu) in [(0, "ripstop.vx", 1450), (1, "ripstop.vx6", 1430)] {
        let tunnel = a.netlink().link(device).unwrap().expect(device);
        let to_c = tables[0]
            .apply([(net(pods[2].1[family]), Some(c.addresses[family]))])
            .unwrap();
        let next_hop = to_c[0].next_hop.unwrap();
        assert_eq!(
            (next_hop.ifindex, next_hop.gateway, next_hop.mtu),
            (tunnel.index, c.addresses[family], mtu)
        );
    }
    assert_eq!(tables[0].tunnels().len(), 2);

    for pod in ["10.244.2.2", "fd00:244:2::2"] {
        a.reaches(b, pod, 1400);
    }
    for (family, pod) in ["10.244.3.2", "fd00:244:3::2"].iter().enumerate() {
        // The node is seen under its own address, and what is longer than the
        // tunnel's MTU arrives in fragments.
        assert_eq!(a.reaches(c, pod, 4000), a.addresses[family]);
    }

    // Without a tunnelled node there is no device.
    tables[0]
        .apply(pods[2].1.map(|range| (net(range), None)))
        .unwrap();
    let links = a.netlink().links().unwrap();
    assert!(!links.iter().any(|link| link.kind == "vxlan"), "{links:#?}");
    assert!(tables[0].tunnels().is_empty());
    a.reaches(b, "10.244.2.2", 1400);
}

#[test]
fn ipv6_pods_are_carried_over_an_ipv4_underlay() {
    let underlay = Underlay::new("six4", &["4"]);
    let (a, b, c) = (&underlay.a, &underlay.b, &underlay.c);
    // Also on a shared link: the kernel has no IPv6 route with an IPv4 gateway.
    let nodes = [
        (a, "fd00:244:1::"),
        (b, "fd00:244:2::"),
        (c, "fd00:244:3::"),
    ];
    for (node, own) in nodes {
        node.pod(&format!("{own}2/128"));
        let others = nodes.iter().filter(|(_, other)| *other != own);
        let changes =
            others.map(|(other, range)| (net(&format!("{range}/64")), Some(other.addresses[0])));
        let resolved = node.routes().apply(changes).unwrap();
        let tunnel = node.netlink().link("ripstop.vx").unwrap().unwrap();
        for route in resolved {
            let next_hop = route.next_hop.unwrap();
            assert_eq!((next_hop.ifindex, next_hop.mtu), (tunnel.index, 1450));
            assert!(next_hop.gateway.is_ipv6());
        }
    }
    for (other, pod) in [(b, "fd00:244:2::2"), (c, "fd00:244:3::2")] {
        assert_eq!(a.reaches(other, pod, 1000), ip("fd00:244:1::2"));
    }
}

#[test]
fn a_restart_adopts_and_an_audit_repairs() {
    let underlay = Underlay::new("restart", &["4"]);
    let (a, b, c) = (&underlay.a, &underlay.b, &underlay.c);
    let desired: BTreeMap<IpNet, IpAddr> = [
        (net("10.244.2.0/24"), b.addresses[0]),
        (net("10.244.3.0/24"), c.addresses[0]),
        (net("fd00:244:3::/64"), c.addresses[0]),
    ]
    .into();
    a.routes()
        .apply(desired.iter().map(|(&prefix, &via)| (prefix, Some(via))))
        .unwrap();
    let mut netlink = a.netlink();
    let eth0 = netlink.link("eth0").unwrap().unwrap().index;
    let foreign = Route {
        protocol: 4,
        ..Route::new(net("10.99.0.0/24"), eth0).via(ip("172.30.1.1"))
    };
    let pod_route = Route::new(net("10.244.1.2/32"), eth0);
    netlink.execute([foreign.add(), pod_route.add()]).unwrap();
    let before = snapshot(a);

    // A node of a family that we are not of holds nobody up.
    let strange = (net("10.244.8.0/24"), Some(ip("2001:db8::8")));
    let b_again = (net("10.244.2.0/24"), Some(b.addresses[0]));
    let resolved = a.routes().apply([strange, b_again]).unwrap();
    assert_eq!(resolved[0].next_hop, None);
    assert!(resolved[1].next_hop.is_some());
    assert_eq!(snapshot(a), before);

    // Everything is right: nothing is touched.
    let mut routes = a.routes();
    let audit = routes.audit(&desired).unwrap();
    assert_eq!(audit.repaired, [""; 0]);
    assert_eq!(audit.routes.len(), 3);
    assert_eq!(snapshot(a), before);

    // A change before the first audit leaves what it does not name.
    let mut routes = a.routes();
    routes
        .apply([(net("10.244.2.0/24"), Some(b.addresses[0]))])
        .unwrap();
    assert_eq!(snapshot(a), before);

    // A stale route, a lost one and a lost neighbour.
    let stale = Route::new(net("10.244.9.0/24"), eth0)
        .via(b.addresses[0])
        .onlink();
    let tunnel = netlink.link("ripstop.vx").unwrap().unwrap().index;
    let lost = netlink.neighbours(tunnel).unwrap()[0];
    let route = Route::new(net("10.244.2.0/24"), eth0)
        .via(b.addresses[0])
        .onlink();
    netlink
        .execute([stale.add(), lost.delete(), route.delete()])
        .unwrap();
    let audit = routes.audit(&desired).unwrap();
    assert_eq!(audit.repaired.len(), 3, "{:#?}", audit.repaired);
    assert!(
        audit
            .routes
            .iter()
            .any(|r| r.prefix == stale.destination && r.next_hop.is_none())
    );
    assert_eq!(snapshot(a), before);

    // A tunnel device that somebody deleted comes back.
    netlink.execute([link::delete(tunnel)]).unwrap();
    routes.audit(&desired).unwrap();
    c.routes()
        .apply([(net("10.244.1.0/24"), Some(a.addresses[0]))])
        .unwrap();
    c.pod("10.244.3.2/32");
    a.reaches(c, "10.244.3.2", 100);

    // All gone, but not what is not ours.
    let audit = routes.audit(&BTreeMap::new()).unwrap();
    assert_eq!(audit.routes.len(), 3);
    let (left, links, _) = snapshot(a);
    assert!(
        left.contains(&foreign) && left.contains(&pod_route),
        "{left:#?}"
    );
    assert!(
        left.iter()
            .all(|route| !desired.contains_key(&route.destination)),
        "{left:#?}"
    );
    assert_eq!(links, ["eth0", "lo"]);
}

/// Routes, interface names, and entries of the tunnel.
fn snapshot(node: &Node) -> (Vec<Route>, Vec<String>, usize) {
    let mut netlink = node.netlink();
    let mut routes = netlink.routes().unwrap();
    routes.sort_by_key(|route| (route.destination, route.index));
    let mut entries = 0;
    if let Some(tunnel) = netlink.link("ripstop.vx").unwrap() {
        entries = netlink.fdb(tunnel.index).unwrap().len()
            + netlink.neighbours(tunnel.index).unwrap().len();
    }
    let mut names: Vec<String> = netlink
        .links()
        .unwrap()
        .into_iter()
        .map(|link| link.name)
        .collect();
    names.sort();
    (routes, names, entries)
}

#[test]
fn uplinks_are_found_by_address_and_default_route() {
    let underlay = Underlay::new("uplink", &["4", "6"]);
    let mut netlink = underlay.a.netlink();
    for addresses in [underlay.a.addresses.clone(), Vec::new()] {
        let found = uplink::find(&mut netlink, &addresses).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].name.as_str(), found[0].mtu), ("eth0", 1500));
        assert_eq!(
            found[0].addresses,
            [net("172.30.1.11/24"), net("fd00:30:1::11/64")]
        );
    }
    let forwarding = underlay
        .a
        .netns
        .run(|| sysctl::get("net/ipv4/conf/eth0/forwarding"));
    assert_eq!(forwarding.unwrap().unwrap(), "1");
}
