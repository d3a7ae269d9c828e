//! Links of other plugins, taken over, and left or put back as they were. Needs root.

mod common;

use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use common::TestNetns;
use ripstop_host::pod::{PodLink, derive_names, is_finished};
use ripstop_host::takeover::{Failure, Found, Unfit};
use ripstop_model::Mac;
use ripstop_netlink::Netlink;
use ripstop_netlink::netns::Netns;

/// A node with a bridge that has the pods' range, as plugin `bridge` makes it, and a
/// pod on it.
struct Scene {
    node: TestNetns,
    pod: TestNetns,
    netlink: Netlink,
    inside: Netlink,
}

fn sh(netns: &Netns, script: &str) -> String {
    let mut command = Command::new("sh");
    command.args(["-ec", script]);
    let output = netns.run(|| command.output()).unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

impl Scene {
    fn new(name: &str) -> Self {
        let node = TestNetns::new(&format!("{name}-node"));
        let pod = TestNetns::new(&format!("{name}-pod"));
        sh(
            &node,
            &format!(
                "sysctl -qw net.ipv6.conf.default.accept_dad=0
                ip link set lo up; ip link add cni0 type bridge; ip link set cni0 up
                ip addr add 10.9.0.1/24 dev cni0; ip addr add fd09::1/64 dev cni0 nodad
                ip link add veth0 type veth peer name eth0
                ip link set veth0 master cni0 up
                ip link set eth0 netns {}",
                pod.path().file_name().unwrap().to_str().unwrap()
            ),
        );
        sh(
            &pod,
            "ip link set lo up; ip link set eth0 up mtu 1400
            ip addr add 10.9.0.5/24 brd + dev eth0; ip addr add fd09::5/64 dev eth0 nodad
            ip route add default via 10.9.0.1; ip -6 route add default via fd09::1
            ip route add 10.7.0.0/16 via 10.9.0.1",
        );
        let netlink = Netlink::in_netns(&node).unwrap();
        let inside = Netlink::in_netns(&pod).unwrap();
        Self {
            node,
            pod,
            netlink,
            inside,
        }
    }

    fn look(&mut self) -> Result<Found, Unfit> {
        Found::look(&mut self.netlink, &mut self.inside, "eth0")
    }

    fn check(&mut self) -> Result<(), Unfit> {
        let found = self.look()?;
        found.check(&mut self.netlink, &mut self.inside, &addresses())
    }

    fn finish(&mut self, found: &Found, link: &PodLink) -> Result<(), Failure> {
        found.finish(link, &mut self.netlink, &self.pod)
    }

    /// Everything that a takeover changes, but for settings that go with the link.
    fn traces(&self) -> [Vec<String>; 2] {
        let script = "ip -o addr | sed 's/ valid_lft.*//'; ip route; ip -6 route; ip -o link; \
            ip route show table local";
        // A bridge without ports notices after a moment; addresses of a link's own come
        // into use after one.
        let passing = |word: &&str| !matches!(*word, "linkdown" | "tentative");
        [&self.node, &self.pod].map(|netns| {
            let all = sh(netns, script);
            let lines = all.lines().filter(|line| !line.contains(": cni0: "));
            let mut lines: Vec<String> = lines
                .map(|line| {
                    line.split(' ')
                        .filter(passing)
                        .collect::<Vec<_>>()
                        .join(" ")
                })
                .collect();
            lines.sort();
            lines
        })
    }

    /// A datagram from the node to the pod and back, by each family.
    fn reaches(&self) {
        for address in addresses() {
            let socket = |netns: &Netns, at: IpAddr| {
                let socket = netns.run(|| UdpSocket::bind((at, 0))).unwrap().unwrap();
                let patience = Some(Duration::from_secs(5));
                socket.set_read_timeout(patience).unwrap();
                socket
            };
            let own = if address.is_ipv4() {
                "10.9.0.1"
            } else {
                "fd09::1"
            };
            let server = socket(&self.pod, address);
            let client = socket(&self.node, own.parse().unwrap());
            client.send_to(b"?", server.local_addr().unwrap()).unwrap();
            let (_, peer) = server.recv_from(&mut [0]).expect("a question");
            server.send_to(b"!", peer).unwrap();
            client.recv_from(&mut [0]).expect("an answer");
        }
    }
}

fn addresses() -> [IpAddr; 2] {
    ["10.9.0.5".parse().unwrap(), "fd09::5".parse().unwrap()]
}

fn link_of(found: &Found) -> PodLink {
    PodLink {
        host_ifname: derive_names("3f", "eth0").0,
        pod_ifname: "eth0".to_owned(),
        mac: found.mac().unwrap(),
        addresses: addresses().into(),
        mtu: found.mtu(),
        remark: "shop/web".to_owned(),
    }
}

#[test]
fn a_bridged_pod_is_taken_over_step_by_step() {
    let mut scene = Scene::new("take");
    scene.reaches();
    scene.check().unwrap();
    let found = scene.look().unwrap();
    let link = link_of(&found);
    assert_eq!(link.mtu, 1400);
    found.begin(&link, &mut scene.netlink).unwrap();
    // From now on whoever comes goes on.
    let begun = scene.netlink.link(&link.host_ifname).unwrap();
    assert!(begun.is_some_and(|link| !is_finished(&link) && link.master.is_some()));
    scene.reaches();
    let found = scene.look().unwrap();
    scene.finish(&found, &link).unwrap();
    let done = scene.netlink.link(&link.host_ifname).unwrap().unwrap();
    assert!(is_finished(&done) && done.master.is_none(), "{done:?}");
    scene.reaches();
    // Once more changes nothing.
    let traces = scene.traces();
    let found = scene.look().unwrap();
    scene.finish(&found, &link).unwrap();
    assert_eq!(scene.traces(), traces);
    let pod = traces[1].join("\n");
    assert!(pod.contains("default via 169.254.1.1 dev eth0"), "{pod}");
    assert!(pod.contains("default via fe80::1 dev eth0"), "{pod}");
    for gone in ["10.9.0.0/24", "fd09::/64", "10.9.0.1", "10.7.0.0/16"] {
        assert!(!pod.contains(&format!("{gone} ")), "{gone}: {pod}");
    }
}

/// Cut short after the node's side.
#[test]
fn a_half_done_takeover_is_gone_on_with() {
    let mut scene = Scene::new("half");
    let found = scene.look().unwrap();
    let link = link_of(&found);
    found.begin(&link, &mut scene.netlink).unwrap();
    let name = &link.host_ifname;
    sh(
        &scene.node,
        &format!("ip link set {name} nomaster; ip link set {name} address ee:ee:ee:ee:ee:ee"),
    );
    let found = scene.look().unwrap();
    scene.finish(&found, &link).unwrap();
    scene.reaches();
}

#[test]
fn what_fails_is_put_back() {
    let mut scene = Scene::new("back");
    let before = scene.traces();
    let found = scene.look().unwrap();
    let link = PodLink {
        // No pod has it: what is made is not what was wanted.
        mac: Mac([2, 0, 0, 0, 0, 9]),
        ..link_of(&found)
    };
    found.begin(&link, &mut scene.netlink).unwrap();
    let failure = scene.finish(&found, &link).unwrap_err();
    assert!(matches!(failure, Failure::Differs(_)), "{failure}");
    found.unname(&mut scene.netlink).unwrap();
    assert_eq!(scene.traces(), before);
    scene.reaches();
}

#[test]
fn what_is_not_expected_is_left() {
    let cases = [
        ("pod", "ip link del eth0", "no interface eth0"),
        (
            "pod",
            "ip link del eth0; ip link add eth0 type bridge",
            "no end of a veth pair but bridge",
        ),
        ("pod", "ip link set eth0 down", "eth0 is down"),
        (
            "pod",
            "ip link add net1 type bridge; ip link set net1 up",
            "another interface that is up, net1",
        ),
        (
            "pod",
            "ip addr del fd09::5/64 dev eth0",
            "no address fd09::5",
        ),
        (
            "pod",
            "ip addr add 192.0.2.7/32 dev eth0",
            "another address, 192.0.2.7/32",
        ),
        (
            "node",
            "tc qdisc add dev veth0 clsact
             tc filter add dev veth0 egress bpf bytecode '1,6 0 0 0'",
            "veth0 has programs",
        ),
        ("node", "ip link set veth0 alias mine", "veth0 has a remark"),
    ];
    for (i, (place, script, words)) in cases.into_iter().enumerate() {
        let mut scene = Scene::new(&format!("unfit{i}"));
        scene.check().unwrap();
        let netns = if place == "pod" {
            &scene.pod
        } else {
            &scene.node
        };
        sh(netns, script);
        let said = scene.check().expect_err(words).to_string();
        assert!(said.contains(words), "{words}: {said}");
    }
}
