//! A node whose pod range is used up.

use std::io::Write;
use std::process::{Command, Stdio};

use ripstop_netlink::netns::Netns;
use ripstop_tests::{Lab, eventually, ripstop, write_manifest};

const LATE: &str = "
apiVersion: v1
kind: Pod
metadata: {name: late}
spec:
  containers: [{name: main, image: web, ports: [{containerPort: 80}]}]
";

/// Attachments made past the lab, with its own plugin, until the node has no
/// address left; dropped, they go.
struct Crowd<'a> {
    lab: &'a Lab,
    pods: Vec<(String, Netns)>,
}

impl Crowd<'_> {
    /// True if there was an address.
    fn grow(&mut self) -> bool {
        let name = format!("{}.crowd{}", self.lab.name(), self.pods.len());
        let netns = Netns::create(&name).unwrap();
        self.pods.push((name, netns));
        let (name, _) = &self.pods[self.pods.len() - 1];
        self.plugin("ADD", name)
    }

    fn plugin(&self, command: &str, name: &str) -> bool {
        let socket = self.lab.root().join("nodes/node1/agent/cni.sock");
        let config = format!(
            r#"{{"cniVersion": "1.1.0", "name": "ripstop", "type": "ripstop-cni", "socket": {socket:?}}}"#
        );
        let mut plugin = Command::new(ripstop().with_file_name("ripstop-cni"))
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", name)
            .env("CNI_NETNS", format!("/run/netns/{name}"))
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        plugin
            .stdin
            .take()
            .unwrap()
            .write_all(config.as_bytes())
            .unwrap();
        plugin.wait().unwrap().success()
    }
}

impl Drop for Crowd<'_> {
    fn drop(&mut self) {
        for (name, _) in &self.pods {
            self.plugin("DEL", name);
            let _ = Netns::remove(name);
        }
    }
}

#[test]
fn a_pod_says_that_its_nodes_range_is_used_up() {
    let lab = Lab::up(&["--nodes", "1"]);
    let mut crowd = Crowd {
        lab: &lab,
        pods: Vec::new(),
    };
    while crowd.grow() {
        assert!(crowd.pods.len() < 256, "a /24 has fewer addresses");
    }
    let late = write_manifest(LATE);
    lab.must("apply", &["-f", late.path().to_str().unwrap()]);
    let described = eventually("the pod says why it waits", || {
        let described = lab.kubectl(&["describe", "pod", "late"]);
        described
            .contains("FailedCreatePodSandBox")
            .then_some(described)
    });
    assert!(described.contains("10.244.1.0/24"), "{described}");
    assert!(described.contains("used"), "{described}");
    drop(crowd);
    lab.kubectl(&["wait", "pod/late", "--for=condition=Ready", "--timeout=60s"]);
}
