//! A pod that begins more connections than there is room for, while others have
//! theirs and begin new ones.
//!
//! `cargo test -p ripstop-tests --test flood -- --nocapture` prints what became of
//! whom.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};

use ripstop_netlink::netns::Netns;
use ripstop_tests::load::{From, KEPT, Loop, NEW_TCP};
use ripstop_tests::{Lab, eventually, write_manifest};
use serde_json::Value;

/// Everybody may do everything, and connections are remembered for that.
const ATTACKER: &str = "
apiVersion: v1
kind: Pod
metadata: {name: attacker}
spec:
  nodeName: node1
  containers: [{name: main, image: busybox, command: [sleep, infinity]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: everything}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
  ingress: [{}]
  egress: [{}]
";

/// A request over a connection, another one when standard input ends.
const IDLE: &str = r#"
exec 3<>/dev/tcp/$to
for n in 1 2; do
    printf 'GET / HTTP/1.1\r\nHost: idle\r\n\r\n' >&3 || exit 1
    read -r -t 5 -u 3 -N 1 answer || { echo "no answer to $n" >&2; exit 1; }
    [ $n = 2 ] || while read -r line; do :; done
done
echo 2
"#;

/// The machine outside of the cluster, and a port of its.
const OUTSIDE: &str = "172.31.0.2";
const PORT: u16 = 8000;
/// Source ports of a flood, each with every port of the other end.
const SOURCES: usize = 4;

/// Answers each request on every connection, until the process ends.
fn serve_outside(lab: &Lab) {
    let netns = Netns::open(format!("/run/netns/{}.outside", lab.name())).unwrap();
    let listener = netns.run(|| TcpListener::bind(("0.0.0.0", PORT)));
    let listener = listener.unwrap().unwrap();
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut request = [0; 4096];
                while connection.read(&mut request).is_ok_and(|length| length > 0) {
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                    if connection.write_all(answer).is_err() {
                        break;
                    }
                }
            });
        }
    });
}

fn address(lab: &Lab, pod: &str) -> IpAddr {
    eventually("the pod has an address", || {
        let object = lab.get(&["pod", pod]);
        object["status"]["podIP"].as_str()?.parse().ok()
    })
}

/// Datagrams to every port of `to`, of `size` bytes; how many were sent.
fn flood(from: &Netns, to: IpAddr, size: usize, rounds: usize) -> usize {
    let payload = vec![0; size];
    let sockets = from.run(|| [(); SOURCES].map(|()| UdpSocket::bind("0.0.0.0:0")));
    let mut sent = 0;
    for socket in sockets.unwrap() {
        let socket = socket.unwrap();
        socket.set_nonblocking(true).unwrap();
        for _ in 0..rounds {
            for port in 1024..=u16::MAX {
                // What is refused meanwhile is an error of a later one.
                sent += usize::from(socket.send_to(&payload, SocketAddr::new(to, port)).is_ok());
            }
        }
    }
    sent
}

fn told(lab: &Lab) -> Value {
    let told = lab.agent("node1", &["status", "-o", "json"]).stdout;
    serde_json::from_str::<Value>(&told).unwrap()["datapath"].take()
}

/// Tables and drops that are another number than before.
fn difference(before: &Value, after: &Value) -> String {
    let mut text = String::new();
    for table in after["tables"].as_array().unwrap() {
        let tables = before["tables"].as_array().unwrap().iter();
        let was = tables.clone().find(|t| t["name"] == table["name"]).unwrap();
        if was["rows"] != table["rows"] {
            text += &format!(" {} {}/{}", table["name"], table["rows"], table["limit"]);
        }
    }
    for (reason, count) in after["drops"].as_object().unwrap() {
        let was = before["drops"][reason].as_u64().unwrap_or(0);
        match count.as_u64().unwrap() - was {
            0 => {}
            new => text += &format!(" dropped({reason}) {new}"),
        }
    }
    text.replace('"', "")
}

/// Packets and connections that the kernel has dropped or forgotten for lack of
/// room, whosever they were.
fn lost(told: &Value) -> u64 {
    let reasons = ["connections_full", "connections_evicted"];
    let counts = reasons.map(|reason| told["drops"][reason].as_u64().unwrap_or(0));
    counts.iter().sum()
}

fn others_live_on(engine: &str) {
    let file = write_manifest(&format!("{}---{ATTACKER}", ripstop_tests::PAIR));
    let lab = Lab::up(&[
        "--nodes=2",
        "--datapath",
        engine,
        "-f",
        file.path().to_str().unwrap(),
    ]);
    serve_outside(&lab);
    let attacker = lab.pod_netns(address(&lab, "attacker"));
    let (near, far) = (address(&lab, "near"), address(&lab, "far"));
    let service = lab.get(&["service", "web"]);
    let service: IpAddr = service["spec"]["clusterIP"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let node = lab.get(&["node", "node1"]);
    let node = node["status"]["addresses"][0]["address"].as_str().unwrap();
    let froms = [
        From {
            what: "a pod to a service",
            place: &["client"],
            to: format!("{service}/80"),
        },
        From {
            what: "a pod to a pod",
            place: &["client"],
            to: format!("{far}/80"),
        },
        From {
            what: "a pod to outside",
            place: &["client"],
            to: format!("{OUTSIDE}/{PORT}"),
        },
        From {
            what: "from outside to a node's port",
            place: &["--outside"],
            to: format!("{node}/30080"),
        },
    ];
    let outside: IpAddr = OUTSIDE.parse().unwrap();
    let floods = [
        ("connections to outside", outside, 1, 1),
        ("connections to a pod of its node", near, 1, 1),
        ("connections to a pod of another node", far, 1, 1),
        ("datagrams in parts, to a pod", far, 3000, 1),
        ("datagrams in parts, to outside", outside, 3000, 1),
    ];
    let mut failed = Vec::new();
    for (what, to, size, rounds) in floods {
        let before = told(&lab);
        let mut loops = Vec::new();
        for from in &froms {
            loops.push(Loop::start(&lab, from, "idle", IDLE));
            loops.push(Loop::start(&lab, from, "kept", KEPT));
            loops.push(Loop::start(&lab, from, "new", NEW_TCP));
        }
        // All of them have begun.
        std::thread::sleep(std::time::Duration::from_secs(1));
        let sent = flood(&attacker, to, size, rounds);
        let after = told(&lab);
        println!(
            "{engine}: {what}: {sent} sent;{}",
            difference(&before, &after)
        );
        if engine == "nftables" && lost(&after) != lost(&before) {
            failed.push(format!("{what}: the table of connections was full"));
        }
        for one in loops {
            let name = one.what.clone();
            match catch_unwind(AssertUnwindSafe(|| one.end())) {
                Ok(answered) => println!("    {name}: {answered} answered"),
                Err(error) => {
                    let error = error.downcast_ref::<String>().cloned().unwrap_or_default();
                    println!("    {name}: FAILED: {error}");
                    failed.push(format!("{what}: {name}"));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
    if engine == "nftables" {
        let crowding = told(&lab)["crowding"].take();
        let pods: Vec<_> = crowding.as_object().unwrap().keys().collect();
        assert_eq!(pods, ["default/attacker"], "who was held back");
    }
}

#[test]
fn others_live_on_with_ebpf() {
    others_live_on("ebpf");
}

#[test]
fn others_live_on_with_nftables() {
    others_live_on("nftables");
}
