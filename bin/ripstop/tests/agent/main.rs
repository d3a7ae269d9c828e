//! The agent as a process: against the embedded API server, in a node of its
//! own with its own cgroup, BPF file system and run directory.

mod adopt;
mod controller;
mod install;
mod life;
mod memory;
mod node;
mod pod;
mod rights;
mod talk;

use std::fs::{Permissions, set_permissions};
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use node::{TestNode, eventually, read};
use serde_json::json;

/// Names and rows follow the API, in both families.
#[test]
fn services_and_names_follow_the_api() {
    let node = TestNode::new("follow");
    node.create(&service("web", "10.96.0.80"));
    node.create(&slice("web", &["10.244.9.1"]));
    let agent = node.start_agent();
    let status = agent.until("synced", |s| s["synced"] == true);
    assert_eq!(status["api"], "up");
    assert_eq!(status["problem"], json!(null));
    assert_eq!(status["podRanges"].as_array().map(Vec::len), Some(2));

    for dns in ["10.96.0.10", "fd00:96::a"] {
        let web = node.resolve(dns, "web.default.svc.cluster.local");
        assert_eq!(web, Ok(vec!["10.96.0.80".parse::<IpAddr>().unwrap()]));
        assert_eq!(node.resolve(dns, "nil.default.svc.cluster.local"), Err(3));
        assert_eq!(node.resolve(dns, "example.org"), Err(2));
    }

    // An endpoint of the node itself: the connection shows the translation.
    let backend = node.listen("172.30.1.11");
    node.create(&service("echo", "10.96.0.81"));
    node.create(&slice_at("echo", backend));
    let frontend = SocketAddr::from(([10, 96, 0, 81], 80));
    eventually("the service leads to its endpoint", || {
        node.connect(frontend).is_ok()
    });
    node.delete::<EndpointSlice>("echo");
    eventually("without an endpoint it refuses", || {
        let refused = node.connect(frontend);
        refused.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
    });
    node.delete::<Service>("echo");
    eventually("its name is gone", || {
        node.resolve("10.96.0.10", "echo.default.svc.cluster.local") == Err(3)
    });
}

/// Routes to other nodes' pods come and go with the nodes.
#[test]
fn routes_follow_the_nodes() {
    let node = TestNode::new("routes");
    let agent = node.start_agent();
    agent.until("synced", |s| s["synced"] == true);
    node.create_node("node2", 12, &["10.244.2.0/24", "fd00:244:0:2::/64"]);
    eventually("routes to node2", || {
        let routes = node.routes();
        routes.contains("10.244.2.0/24 via 172.30.1.12")
            && routes.contains("fd00:244:0:2::/64 via fd00:30:1::c")
    });
    // It changes its addresses, and comes to be on no link of ours.
    node.move_node("node2", &["172.30.1.32", "fd00:30:1::20"]);
    eventually("routes to where node2 is now", || {
        let routes = node.routes();
        routes.contains("10.244.2.0/24 via 172.30.1.32")
            && routes.contains("fd00:244:0:2::/64 via fd00:30:1::20")
            && !routes.contains("172.30.1.12")
    });
    node.move_node("node2", &["198.51.100.7", "2001:db8::7"]);
    eventually("a tunnel to node2", || {
        let routes = node.routes();
        routes.contains("10.244.2.0/24 via ") && !routes.contains("172.30.1.32")
    });
    node.delete_cluster_object::<Node>("node2");
    eventually("no routes to node2", || {
        !node.routes().contains("10.244.2.0/24")
    });
}

/// Killed and started again without an API server, the node goes on as it was;
/// when the server is back, it catches up with what it missed.
#[test]
fn a_restart_without_the_api_changes_nothing() {
    let mut node = TestNode::new("restart");
    let backend = node.listen("172.30.1.11");
    node.create(&service("echo", "10.96.0.81"));
    node.create(&slice_at("echo", backend));
    node.create_node("node2", 12, &["10.244.2.0/24", "fd00:244:0:2::/64"]);
    let agent = node.start_agent();
    agent.until("synced", |s| s["synced"] == true);
    let frontend = SocketAddr::from(([10, 96, 0, 81], 80));
    eventually("the service works", || node.connect(frontend).is_ok());

    eventually("the names are kept", || {
        node.kept_names().contains("\"echo\"")
    });
    node.stop_api();
    agent.until("away", |s| s["api"] == "away");
    node.connect(frontend).expect("without the API");
    drop(agent);
    node.connect(frontend).expect("without an agent");

    let agent = node.start_agent();
    let status = agent.until("a second agent", |s| s["api"] == "away");
    assert_eq!(
        (&status["synced"], &status["datapath"]["adopted"]),
        (&json!(false), &json!(true))
    );
    std::thread::sleep(Duration::from_millis(300));
    node.connect(frontend)
        .expect("with an agent that knows nothing");
    assert!(node.routes().contains("via 172.30.1.12"));
    // The names are those that the first agent has left.
    let echo = node.resolve("10.96.0.10", "echo.default.svc.cluster.local");
    assert_eq!(echo, Ok(vec!["10.96.0.81".parse::<IpAddr>().unwrap()]));
    assert_eq!(
        node.resolve("10.96.0.10", "nil.default.svc.cluster.local"),
        Err(3)
    );
    let log = read(&agent.log);
    assert_eq!(log.matches("cannot be followed").count(), 1, "{log}");

    node.delete::<Service>("echo");
    node.delete_cluster_object::<Node>("node2");
    node.start_api();
    let status = agent.until("synced again", |s| s["synced"] == true);
    assert_eq!(status["api"], "up");
    assert!(!node.routes().contains("via 172.30.1.12"));
    assert_eq!(
        node.resolve("10.96.0.10", "echo.default.svc.cluster.local"),
        Err(3)
    );
    // The address means nothing any more: there is no route to it.
    assert!(node.connect(frontend).is_err());
}

/// A node without a pod range is not ready, and says what it waits for.
#[test]
fn it_waits_for_its_pod_range() {
    let node = TestNode::new("wait");
    node.delete_cluster_object::<Node>("node1");
    node.create_node("node1", 11, &[]);
    let agent = node.start_agent();
    eventually("the agent says what is missing", || {
        read(&agent.log).contains("waiting for spec.podCIDRs of the Node object")
    });
    assert!(!node.cni_socket().exists());
    node.modify_node(|object| {
        let spec = serde_json::from_value(json!({"podCIDRs": ["10.244.1.0/24"]}));
        object.spec = spec.unwrap();
    });
    agent.until("synced", |s| s["synced"] == true);
    eventually("it is ready for pods", || node.cni_socket().exists());
}

/// Who is not root gets no word, also where somebody opened the folder to all.
#[test]
fn its_sockets_answer_only_root() {
    let node = TestNode::new("peer");
    let agent = node.start_agent();
    agent.until("synced", |s| s["synced"] == true);
    let dir = node.run_dir();
    let mut folders = vec![dir.join("agent.sock"), dir.join("cni.sock")];
    folders.extend([dir.clone(), dir.parent().unwrap().to_owned()]);
    for path in folders {
        set_permissions(path, Permissions::from_mode(0o777)).unwrap();
    }
    for socket in ["agent.sock", "cni.sock"] {
        let ask = |user: u32| {
            let path = dir.join(socket);
            let asking = std::thread::spawn(move || {
                // SAFETY: takes numbers. Without the C library, which would change
                // the user of every thread.
                let changed = unsafe { libc::syscall(libc::SYS_setresuid, user, user, user) };
                assert_eq!(changed, 0);
                let mut stream = UnixStream::connect(path).unwrap();
                // Who is not answered may have been hung up on meanwhile.
                let _ = stream.write_all(b"{}\n");
                let _ = stream.shutdown(Shutdown::Write);
                let mut answer = String::new();
                let _ = stream.read_to_string(&mut answer);
                answer
            });
            asking.join().unwrap()
        };
        assert_eq!(ask(65534), "", "{socket}");
        assert!(ask(0).starts_with('{'), "{socket}");
    }
}

/// Flags that make no sense end the agent with a sentence.
#[test]
fn a_wrong_flag_is_named() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_ripstop"))
        .args(["agent", "--node-name", "n", "--cluster-dns", "10.97.0.10"])
        .args([
            "--cluster-cidr",
            "10.244.0.0/16",
            "--service-cidr",
            "10.96.0.0/16",
        ])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        said.trim(),
        "ripstop: --cluster-dns 10.97.0.10 is in no --service-cidr"
    );
}

fn service(name: &str, ip: &str) -> Service {
    read_object(json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"clusterIP": ip, "ports": [{"port": 80, "targetPort": 8080}]},
    }))
}

fn slice(service: &str, addresses: &[&str]) -> EndpointSlice {
    let endpoints: Vec<_> = addresses
        .iter()
        .map(|a| json!({"addresses": [a], "conditions": {"ready": true}}))
        .collect();
    slice_of(service, 8080, &json!(endpoints))
}

fn slice_at(service: &str, backend: SocketAddr) -> EndpointSlice {
    slice_of(
        service,
        backend.port(),
        &json!([{"addresses": [backend.ip()]}]),
    )
}

fn slice_of(service: &str, port: u16, endpoints: &serde_json::Value) -> EndpointSlice {
    read_object(json!({
        "metadata": {"name": service, "namespace": "default",
            "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"port": port, "protocol": "TCP"}],
        "endpoints": endpoints,
    }))
}

fn read_object<K: serde::de::DeserializeOwned>(object: serde_json::Value) -> K {
    serde_json::from_value(object).unwrap()
}
