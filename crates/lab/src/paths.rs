//! Where a lab keeps what it makes. Everything of a lab can be found from its
//! name alone, so that `down` works when every process of it was killed.

use std::path::{Path, PathBuf};

use crate::rootless;

/// Directories and names of one lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabPaths {
    name: String,
    root: PathBuf,
}

impl LabPaths {
    /// Where all labs have their directories; a user's own without root.
    pub fn base() -> PathBuf {
        match rootless::base() {
            Some(base) => base.join("lab"),
            None => PathBuf::from("/run/ripstop/lab"),
        }
    }

    /// `name` is a DNS label: it becomes part of namespace names, which contain
    /// a dot after it, so that no lab's name is a prefix of another's.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            root: Self::base().join(name),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }
    /// The lab's own directory; removed by `down`.
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// Held while the lab runs.
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }
    /// The lab's control group, below the mount point of cgroup2. The lab's
    /// groups of nodes and pods are inside.
    pub fn cgroup(&self) -> PathBuf {
        PathBuf::from(format!("ripstop.{}", self.name))
    }
    /// What `up` was asked for, and the process that serves it.
    pub fn lab_file(&self) -> PathBuf {
        self.root.join("lab.json")
    }
    /// For kubectl on this machine.
    pub fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }
    /// For agents: the API at its address on the underlay.
    pub fn agent_kubeconfig(&self) -> PathBuf {
        self.root.join("agent.kubeconfig")
    }
    /// The API server's objects.
    pub fn journal(&self) -> PathBuf {
        self.root.join("api.journal")
    }
    /// Certificates and keys.
    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }
    pub fn daemon_log(&self) -> PathBuf {
        self.root.join("lab.log")
    }
    /// A BPF file system of the lab's own: unmounting it frees all pins.
    pub fn bpffs(&self) -> PathBuf {
        self.root.join("bpf")
    }
    /// A directory per node.
    pub fn nodes(&self) -> PathBuf {
        self.root.join("nodes")
    }
    pub fn node_dir(&self, node: &str) -> PathBuf {
        self.root.join("nodes").join(node)
    }
    /// The agent's run directory: CNI socket, pod records.
    pub fn agent_dir(&self, node: &str) -> PathBuf {
        self.node_dir(node).join("agent")
    }
    pub fn agent_log(&self, node: &str) -> PathBuf {
        self.node_dir(node).join("agent.log")
    }
    /// CNI network configuration list of the node.
    pub fn cni_config(&self, node: &str) -> PathBuf {
        self.node_dir(node).join("cni/net.d/10-ripstop.conflist")
    }
    /// Files of one pod: resolv.conf, hosts, a working directory and a log per container.
    pub fn pod_dir(&self, node: &str, uid: &str) -> PathBuf {
        self.node_dir(node).join("pods").join(uid)
    }
    /// Name under `/run/netns` of a node's namespace.
    pub fn node_netns(&self, node: &str) -> String {
        format!("{}.{node}", self.name)
    }
    /// Name under `/run/netns` of the underlay's namespace (bridges, router).
    pub fn underlay_netns(&self) -> String {
        format!("{}.underlay", self.name)
    }
    /// Name under `/run/netns` of a machine that is not of the cluster.
    pub fn outside_netns(&self) -> String {
        format!("{}.outside", self.name)
    }
    /// Name under `/run/netns` of a pod's namespace; `sandbox` is its CNI
    /// container id. Every namespace of the lab starts with [`Self::netns_prefix`].
    pub fn pod_netns(&self, node: &str, sandbox: &str) -> String {
        format!("{}.{node}.{sandbox}", self.name)
    }
    pub fn netns_prefix(&self) -> String {
        format!("{}.", self.name)
    }
}
