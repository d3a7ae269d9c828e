//! Pods as other plugins make them: Debian's, run as libcni runs them, with what
//! libcni remembers of it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ipnet::IpNet;
use k8s_openapi::ByteString;
use serde_json::{Value, json};

use crate::node::TestNode;
use crate::pod::TestPod;

const FOLDER: &str = "/usr/lib/cni";

/// False, with the reason printed, where the other plugins are missing.
pub(super) fn there_are_others() -> bool {
    let there = Path::new(FOLDER).join("bridge").exists();
    if !there {
        eprintln!("skipped: no {FOLDER}/bridge (containernetworking-plugins)");
    }
    there
}

/// The other plugin's network on a node.
pub(super) struct Other<'a> {
    node: &'a TestNode,
    cache: PathBuf,
}

impl<'a> Other<'a> {
    pub(super) fn new(node: &'a TestNode) -> Self {
        let cache = node.folder().join("cni-cache");
        fs::create_dir_all(cache.join("results")).unwrap();
        Self { node, cache }
    }

    /// For `--cni-cache-dir`.
    pub(super) fn cache(&self) -> &str {
        self.cache.to_str().unwrap()
    }

    /// The network of that plugin; addresses begin at `start`.
    pub(super) fn network(&self, kind: &str, start: u8) -> Value {
        let data = self.node.folder().join("host-local");
        json!({
            "cniVersion": "1.0.0", "name": format!("old-{kind}"), "type": kind,
            "bridge": "cni0", "isGateway": true, "mtu": 1450, "master": "eth0",
            "ipam": {
                "type": "host-local", "dataDir": data,
                "ranges": [
                    [{"subnet": "10.244.1.0/24", "rangeStart": format!("10.244.1.{start}")}],
                    [{"subnet": "fd00:244:0:1::/64",
                        "rangeStart": format!("fd00:244:0:1::{start:x}")}],
                ],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            },
        })
    }

    /// ADD, and what libcni remembers of it, with `more` in that.
    pub(super) fn add(&self, name: &str, config: Value, more: Value) -> TestPod {
        let mut pod = TestPod::new(self.node, name);
        let result = self.run("ADD", &pod, &config).expect("a result of ADD");
        let ips = result["ips"].as_array().expect("addresses");
        let nets = ips
            .iter()
            .map(|ip| ip["address"].as_str().unwrap().parse::<IpNet>().unwrap());
        pod.addresses = nets.map(|net| net.addr()).collect();
        let bytes = serde_json::to_vec(&config).unwrap();
        let mut file = json!({
            "kind": "cniCacheV1", "containerId": pod.id, "config": ByteString(bytes),
            "ifName": "eth0", "networkName": config["name"], "result": result,
            "cniArgs": [["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", "default"],
                ["K8S_POD_NAME", name]],
        });
        let more = more.as_object().unwrap().clone();
        file.as_object_mut().unwrap().extend(more);
        fs::write(self.file(&pod, &config), file.to_string()).unwrap();
        pod.config = config;
        pod
    }

    /// DEL of the plugin that made it.
    pub(super) fn del(&self, pod: &TestPod) {
        self.run("DEL", pod, &pod.config);
        fs::remove_file(self.file(pod, &pod.config)).unwrap();
    }

    pub(super) fn file(&self, pod: &TestPod, config: &Value) -> PathBuf {
        let network = config["name"].as_str().unwrap();
        let name = format!("{network}-{}-eth0", pod.id);
        self.cache.join("results").join(name)
    }

    fn run(&self, command: &str, pod: &TestPod, config: &Value) -> Option<Value> {
        let kind = config["type"].as_str().unwrap();
        let mut process = Command::new(Path::new(FOLDER).join(kind));
        process
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &pod.id)
            .env("CNI_NETNS", pod.netns.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_ARGS", pod.args())
            .env("CNI_PATH", FOLDER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let started = self.node.netns().run(|| process.spawn()).unwrap();
        let mut child = started.unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(config.to_string().as_bytes()).unwrap();
        drop(input);
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{kind} {command}: {said}");
        serde_json::from_str(&said).ok()
    }
}
