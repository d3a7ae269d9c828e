//! Pods of a node, and what our plugin says of them to the agent.

use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::process::Command;

use k8s_openapi::api::core::v1::Pod;
use ripstop_cni_types::wire::{ACK, Reply, Request};
use ripstop_netlink::netns::Netns;
use ripstop_netlink::{Netlink, link};
use serde_json::{Value, json};

use crate::node::TestNode;
use crate::read_object;

/// A pod with one interface, whoever made it.
pub(crate) struct TestPod {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) netns: Netns,
    space: String,
    /// Of the network that it is attached to, if that is another plugin's.
    pub(crate) config: Value,
}

impl Drop for TestPod {
    fn drop(&mut self) {
        Netns::remove(&self.space).unwrap();
    }
}

impl TestPod {
    /// An empty one.
    pub(crate) fn new(node: &TestNode, name: &str) -> Self {
        let folder = node.folder().file_name().unwrap().to_string_lossy();
        let space = format!("ripstop-adopt-{}.{folder}.{name}", std::process::id());
        let netns = Netns::create(&space).expect("root makes network namespaces");
        let mut inside = Netlink::in_netns(&netns).unwrap();
        // Runtimes have a plugin of its own do that.
        inside.execute([link::up(1)]).unwrap();
        Self {
            name: name.to_owned(),
            id: format!("{name}-container"),
            addresses: Vec::new(),
            netns,
            space,
            config: Value::Null,
        }
    }

    /// One that our plugin has attached, and that the API knows.
    pub(crate) fn attached(node: &TestNode, name: &str) -> Self {
        let mut pod = Self::new(node, name);
        node.create(&pod.object(&json!({})));
        let result = plugin(node, "ADD", &pod, json!({}));
        let ips = result["ips"].as_array().unwrap();
        let addresses = ips.iter().map(|ip| ip["address"].as_str().unwrap());
        let addresses = addresses.map(|net| net.split('/').next().unwrap().parse().unwrap());
        pod.addresses = addresses.collect();
        pod.tell(node);
        pod
    }

    pub(crate) fn netlink(&self) -> Netlink {
        Netlink::in_netns(&self.netns).unwrap()
    }

    pub(crate) fn args(&self) -> String {
        let name = &self.name;
        format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={name}")
    }

    /// As a scheduler leaves it.
    pub(crate) fn object(&self, labels: &Value) -> Pod {
        read_object(json!({
            "metadata": {"name": self.name, "namespace": "default", "labels": labels},
            "spec": {"nodeName": "node1", "containers": [{"name": "main", "image": "web"}]},
        }))
    }

    /// As its node's kubelet tells the API.
    pub(crate) fn tell(&self, node: &TestNode) {
        let ips: Vec<_> = self.addresses.iter().map(|ip| json!({"ip": ip})).collect();
        let running = json!({"phase": "Running", "podIP": self.addresses[0], "podIPs": ips});
        let status = |pod: &mut Pod| pod.status = serde_json::from_value(running.clone()).unwrap();
        let client = node.client();
        client
            .modify_status(Some("default"), &self.name, status)
            .unwrap();
    }

    /// Everything that an agent could change inside it.
    pub(crate) fn traces(&self) -> String {
        let script = "ip -o addr; ip route; ip -6 route; ip neigh show nud permanent";
        let output = Command::new("ip")
            .args(["netns", "exec", &self.space, "sh", "-c", script])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

/// As [`try_plugin`]; the result.
pub(crate) fn plugin(node: &TestNode, command: &str, pod: &TestPod, more: Value) -> Value {
    try_plugin(node, command, pod, more)
        .unwrap_or_else(|error| panic!("{command} of {}: {error}", pod.name))
}

/// What our plugin says to the agent; the result, or the error.
pub(crate) fn try_plugin(
    node: &TestNode,
    command: &str,
    pod: &TestPod,
    more: Value,
) -> Result<Value, Value> {
    let mut config = json!({"cniVersion": "1.1.0", "name": "ripstop", "type": "ripstop-cni"});
    let more = more.as_object().unwrap().clone();
    config.as_object_mut().unwrap().extend(more);
    let request = Request {
        command: command.to_owned(),
        container_id: pod.id.clone(),
        netns: Some(pod.netns.path().display().to_string()),
        ifname: "eth0".to_owned(),
        args: pod.args(),
        config,
    };
    let mut line = serde_json::to_vec(&request).unwrap();
    line.push(b'\n');
    let mut stream = UnixStream::connect(node.cni_socket()).unwrap();
    stream.write_all(&line).unwrap();
    let mut answer = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        answer.extend(byte);
    }
    let _ = stream.write_all(ACK);
    match serde_json::from_slice(&answer).unwrap() {
        Reply::Result(result) => Ok(result),
        Reply::Error(error) => Err(error),
    }
}
