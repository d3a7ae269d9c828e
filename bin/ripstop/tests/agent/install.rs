//! An agent installed on a node, and a node that is rid of it.

use std::fs;
use std::path::Path;
use std::process::Command;

use ripstop_netlink::link;

use crate::node::{TestNode, eventually};
use crate::{service, slice};

/// A folder beside the executable, where links to it can be made, with the
/// executable and what stands for the plugin.
fn programs() -> tempfile::TempDir {
    let exe = Path::new(env!("CARGO_BIN_EXE_ripstop"));
    let folder = tempfile::tempdir_in(exe.parent().unwrap()).unwrap();
    fs::hard_link(exe, folder.path().join("ripstop")).unwrap();
    fs::write(folder.path().join("ripstop-cni"), "the plugin").unwrap();
    folder
}

fn an_uninstalled_node(engine: &str) {
    let node = TestNode::new(&format!("install-{engine}"));
    let programs = programs();
    let exe = programs.path().join("ripstop");
    let at = |name: &str| programs.path().join(name).display().to_string();
    node.create(&service("web", "10.96.0.80"));
    node.create(&slice("web", &["10.244.9.1"]));
    node.create_node("node2", 12, &["10.244.2.0/24", "fd00:244:0:2::/64"]);
    // On no link of ours: a tunnel leads there.
    node.create_node("node3", 200, &["10.244.3.0/24"]);
    node.move_node("node3", &["198.51.100.7"]);
    // Somebody else's, which stay.
    let foreign = "tc qdisc add dev eth0 clsact && \
        tc filter add dev eth0 ingress prio 7 bpf bytecode '1,6 0 0 0' && \
        nft add table ip foreign && nft add chain ip foreign c";
    let (well, said) = node.run(Command::new("sh").args(["-c", foreign]));
    assert!(well, "{said}");
    let settings = "sysctl -w net.ipv4.ip_forward=0 net.ipv4.conf.eth0.rp_filter=1";
    let (well, said) = node.run(Command::new("sh").args(["-c", settings]));
    assert!(well, "{said}");
    let before = node.traces();

    let (bin, conf) = (at("bin"), at("net.d"));
    let flags = [
        "--datapath",
        engine,
        "--cni-bin-dir",
        &bin,
        "--cni-conf-dir",
        &conf,
    ];
    let agent = node.start_agent_of(&exe, &flags);
    agent.until("synced", |s| {
        s["synced"] == true && s["datapath"]["mode"] == engine
    });
    let list = Path::new(&conf).join("05-ripstop.conflist");
    eventually("the network list is written", || list.exists());
    let plugin = fs::read_to_string(Path::new(&bin).join("ripstop-cni")).unwrap();
    assert_eq!(plugin, "the plugin");
    let loopback = Path::new(&bin).join("loopback");
    assert_eq!(
        fs::read_link(&loopback).unwrap(),
        Path::new("ripstop-cni"),
        "for a runtime that calls it"
    );
    let text = fs::read_to_string(&list).unwrap();
    assert!(text.contains(node.cni_socket().to_str().unwrap()), "{text}");
    eventually("ways to other nodes", || {
        let routes = node.routes();
        routes.contains("via 172.30.1.12") && node.traces().contains("ripstop.vx")
    });

    // By hand, beside an agent.
    fs::remove_file(&list).unwrap();
    let install = |run_dir: &Path| {
        let mut command = Command::new(&exe);
        command
            .args(["install", "--timeout", "0", "--run-dir"])
            .arg(run_dir);
        node.run(command.args(["--cni-bin-dir", &bin, "--cni-conf-dir", &conf]))
    };
    let (well, said) = install(programs.path());
    assert!(
        !well && said.contains("no agent is ready for pods"),
        "{said}"
    );
    assert!(!list.exists());
    let (well, said) = install(&node.run_dir());
    assert!(well && list.exists(), "{said}");

    let uninstall = |more: &[&str]| {
        let mut command = Command::new(&exe);
        command
            .arg("uninstall")
            .arg("--run-dir")
            .arg(node.run_dir());
        node.run(command.args(more))
    };
    let (well, said) = uninstall(&[]);
    assert!(!well && said.contains("still runs"), "{said}");
    drop(agent);
    let (host, _) = ripstop_host::pod::derive_names("a-pod", "eth0");
    let mut netlink = node.netlink();
    netlink.execute([link::create_bridge(&host)]).unwrap();
    let (well, said) = uninstall(&[]);
    assert!(!well && said.contains("1 pods are attached"), "{said}");
    assert!(list.exists(), "nothing was done");
    let (well, said) = uninstall(&["--with-pods"]);
    assert!(well, "{said}");
    assert_eq!(node.traces(), before);
    assert!(!node.run_dir().exists());
    assert!(!list.exists());
    assert_eq!(fs::read_dir(&bin).unwrap().count(), 0);
    let (well, said) = uninstall(&[]);
    assert!(well, "once more: {said}");
}

#[test]
fn an_uninstalled_node_has_nothing_of_ebpf() {
    an_uninstalled_node("ebpf");
}

#[test]
fn an_uninstalled_node_has_nothing_of_nftables() {
    an_uninstalled_node("nftables");
}
