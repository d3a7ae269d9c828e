//! Links, addresses, routes and neighbours as the kernel makes them. Needs root.

mod common;

use std::os::fd::AsFd;

use common::TestNetns;
use ripstop_host::sysctl;
use ripstop_model::Mac;
use ripstop_netlink::link::{self, NewVxlan, VethEnd};
use ripstop_netlink::neighbour::Neighbour;
use ripstop_netlink::route::{PROTOCOL, Route};
use ripstop_netlink::{Netlink, address};

const MAC: Mac = Mac([0x02, 0, 0, 0, 0, 1]);

#[test]
fn a_veth_pair_is_made_with_both_ends_in_their_namespaces() {
    let (node, pod) = (TestNetns::new("veth-a"), TestNetns::new("veth-b"));
    let mut netlink = Netlink::in_netns(&node).unwrap();
    let one = VethEnd {
        name: "one",
        mac: Some(MAC),
        netns: None,
    };
    let other = VethEnd {
        name: "eth0",
        mac: None,
        netns: Some(pod.as_fd()),
    };
    let (index, peer) = netlink.create_veth(&one, &other, 1400).unwrap();

    let made = netlink.link("one").unwrap().expect("the link");
    assert_eq!(
        (made.index, made.mtu, made.mac, made.up),
        (index, 1400, Some(MAC), true)
    );
    assert_eq!((made.kind.as_str(), made.peer), ("veth", Some(peer)));
    let mut inside = Netlink::in_netns(&pod).unwrap();
    let made = inside.link_by_index(peer).unwrap().expect("the peer");
    assert_eq!(
        (made.name.as_str(), made.mtu, made.up),
        ("eth0", 1400, false)
    );

    let error = netlink.create_veth(&one, &other, 1400).unwrap_err();
    assert!(error.is_exists(), "{error}");
    assert!(
        error
            .to_string()
            .starts_with("create veth pair one and eth0: "),
        "{error}"
    );

    netlink.execute([link::delete(index)]).unwrap();
    assert_eq!(inside.link("eth0").unwrap(), None);
    assert!(
        netlink
            .execute([link::delete(index)])
            .unwrap_err()
            .is_not_found()
    );
    netlink
        .execute([
            link::delete(index).if_exists(),
            link::delete_named("one").if_exists(),
        ])
        .unwrap();
}

#[test]
fn both_ends_can_be_made_from_a_third_namespace() {
    let (here, left, right) = (
        TestNetns::new("third"),
        TestNetns::new("third-l"),
        TestNetns::new("third-r"),
    );
    let mut netlink = Netlink::in_netns(&here).unwrap();
    netlink
        .execute([link::create_veth(
            &VethEnd {
                name: "eth0",
                mac: None,
                netns: Some(left.as_fd()),
            },
            &VethEnd {
                name: "port1",
                mac: None,
                netns: Some(right.as_fd()),
            },
            1500,
        )])
        .unwrap();
    let mut left = Netlink::in_netns(&left).unwrap();
    let mut right = Netlink::in_netns(&right).unwrap();
    let eth0 = left.link("eth0").unwrap().expect("eth0");
    let port = right.link("port1").unwrap().expect("port1");
    assert_eq!(netlink.links().unwrap().len(), 1, "only loopback");

    right.execute([link::create_bridge("br0")]).unwrap();
    let bridge = right.link("br0").unwrap().expect("br0");
    right
        .execute([
            link::set_master(port.index, bridge.index),
            link::set_mtu(bridge.index, 1300),
            link::set_mac(bridge.index, MAC),
            link::rename(port.index, "node1"),
            link::up(port.index),
            link::up(bridge.index),
        ])
        .unwrap();
    left.execute([link::up(eth0.index)]).unwrap();
    let port = right.link("node1").unwrap().expect("renamed");
    assert_eq!((port.master, port.up), (Some(bridge.index), true));
    let bridge = right.link("br0").unwrap().expect("br0");
    assert_eq!(
        (bridge.mtu, bridge.mac, bridge.kind.as_str()),
        (1300, Some(MAC), "bridge")
    );
}

#[test]
fn addresses_routes_and_neighbours_of_both_families() {
    let node = TestNetns::new("routes");
    let mut netlink = Netlink::in_netns(&node).unwrap();
    let ends = ["a", "b"].map(|name| VethEnd {
        name,
        mac: None,
        netns: None,
    });
    let (index, other) = netlink.create_veth(&ends[0], &ends[1], 1500).unwrap();
    let addresses = ["10.1.0.1/24", "fd00:1::1/64"].map(|text| text.parse().unwrap());
    let neighbours = ["10.1.0.9", "fd00:1::9"].map(|text| Neighbour {
        index,
        address: text.parse().unwrap(),
        mac: MAC,
    });
    let route = |prefix: &str| Route::new(prefix.parse().unwrap(), index);
    let routes = [
        route("10.2.0.0/24").via("10.1.0.9".parse().unwrap()),
        route("10.3.0.0/24")
            .via("192.0.2.1".parse().unwrap())
            .onlink()
            .mtu(1450),
        route("10.4.0.1/32"),
        route("0.0.0.0/0").via("10.1.0.9".parse().unwrap()),
        route("10.5.0.0/24")
            .via("fd00:1::9".parse().unwrap())
            .onlink(),
        route("fd00:2::/64").via("fd00:1::9".parse().unwrap()),
        route("fd00:4::1/128"),
    ];
    netlink
        .execute(
            [link::up(index), link::up(other)]
                .into_iter()
                .chain(addresses.map(|net| address::add(index, net)))
                .chain(neighbours.iter().map(Neighbour::replace))
                .chain(routes.iter().map(Route::add)),
        )
        .unwrap();

    let shown: Vec<_> = netlink.addresses().unwrap();
    for net in addresses {
        assert!(
            shown
                .iter()
                .any(|a| a.address == net && a.index == index && a.global),
            "{net}"
        );
    }
    assert_eq!(netlink.neighbours(index).unwrap(), neighbours);
    let shown: Vec<_> = netlink.routes().unwrap();
    for mut route in routes {
        // The kernel gives IPv6 routes a metric of their own.
        if route.destination.addr().is_ipv6() {
            route.metric = Some(1024);
        }
        assert!(shown.contains(&route), "{route:?} not in {shown:#?}");
    }
    assert!(
        shown.iter().any(|route| route.protocol != PROTOCOL),
        "the kernel's own"
    );

    let taken = netlink.execute([routes[0].add()]).unwrap_err();
    assert!(taken.is_exists(), "{taken}");
    netlink
        .execute([routes[0].add().unless_exists(), routes[0].replace()])
        .unwrap();
    netlink
        .execute(
            routes
                .iter()
                .map(Route::delete)
                .chain(neighbours.iter().map(Neighbour::delete))
                .chain(addresses.map(|net| address::delete(index, net))),
        )
        .unwrap();
    assert_eq!(netlink.neighbours(index).unwrap(), []);
    assert!(
        netlink
            .routes()
            .unwrap()
            .iter()
            .all(|route| route.protocol != PROTOCOL)
    );
    assert!(
        netlink
            .execute([routes[0].delete()])
            .unwrap_err()
            .is_not_found()
    );
}

#[test]
fn an_error_names_the_request_and_the_others_are_done() {
    let node = TestNetns::new("error");
    let mut netlink = Netlink::in_netns(&node).unwrap();
    let error = netlink
        .execute([
            link::create_bridge("br0"),
            link::create_bridge("a-name-that-is-too-long"),
            link::create_bridge("br1"),
        ])
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("create bridge a-name-that-is-too-long: "),
        "{error}"
    );
    assert!(netlink.link("br0").unwrap().is_some() && netlink.link("br1").unwrap().is_some());
}

#[test]
fn many_failing_requests_do_not_overrun_the_socket() {
    let node = TestNetns::new("many");
    let mut netlink = Netlink::in_netns(&node).unwrap();
    netlink
        .execute((100..2100).map(|index| link::delete(index).if_exists()))
        .unwrap();
}

#[test]
fn a_vxlan_device_with_its_entries() {
    let node = TestNetns::new("vxlan");
    let mut netlink = Netlink::in_netns(&node).unwrap();
    for (name, id, local) in [("vx4", 1, "192.0.2.1"), ("vx6", 2, "2001:db8::1")] {
        let new = NewVxlan {
            name,
            mac: MAC,
            mtu: 1400,
            id,
            port: 4789,
            local: local.parse().unwrap(),
        };
        netlink.execute([link::create_vxlan(&new)]).unwrap();
        let made = netlink.link(name).unwrap().expect("the device");
        let vxlan = made.vxlan.expect("its data");
        assert_eq!(
            (vxlan.id, vxlan.port, vxlan.local),
            (id, 4789, Some(new.local))
        );
        assert_eq!((made.mtu, made.mac), (1400, Some(MAC)));
        let entry = Neighbour {
            index: made.index,
            address: new.local,
            mac: Mac([2, 0, 0, 0, 0, 9]),
        };
        netlink
            .execute([entry.replace_fdb(), link::up(made.index)])
            .unwrap();
        assert_eq!(netlink.fdb(made.index).unwrap(), [entry]);
        netlink.execute([entry.delete_fdb()]).unwrap();
        assert_eq!(netlink.fdb(made.index).unwrap(), []);
    }
}

#[test]
fn settings_are_those_of_the_namespace() {
    let node = TestNetns::new("sysctl");
    let name = "net/ipv4/ip_forward";
    let outside = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    sysctl::set_in(&node, &[(name, "1")]).unwrap();
    let inside = node
        .run(|| std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward"))
        .unwrap();
    assert_eq!(inside.unwrap(), "1\n");
    assert_eq!(
        std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(),
        outside
    );
    let error = sysctl::set_in(&node, &[("net/ipv4/no_such", "1")])
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("sysctl net/ipv4/no_such: "), "{error}");
}
