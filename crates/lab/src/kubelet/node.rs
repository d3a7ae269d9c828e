//! The node itself: its object, and whether its network works.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Node as ApiNode, NodeAddress, NodeCondition, NodeStatus, NodeSystemInfo, Taint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use ripstop_netlink::netns::Netns;
use tokio::sync::watch;

use super::cgroup::Cgroup;
use super::cni::Network;
use super::events::{Level, Recorder};
use super::{Context, NodeSpec, StartError};
use crate::clock;

/// The version whose behaviour this follows.
const KUBELET_VERSION: &str = "v1.37.0";

/// <https://kubernetes.io/docs/reference/labels-annotations-taints/#node-kubernetes-io-not-ready>
const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// Between questions to a network that is not ready, at first and at most.
const FIRST_WAIT: Duration = Duration::from_millis(2);
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// The longest wait while it only takes a look at the file system.
const LONGEST_LOOK: Duration = Duration::from_millis(10);

/// A network that works is asked again, and the node's heartbeat written, after
/// this time; kubelet writes one every five minutes if nothing changes.
const HEARTBEAT: Duration = Duration::from_secs(60);

/// One node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) context: Arc<Context>,
    pub(super) spec: NodeSpec,
    pub(super) netns: Arc<Netns>,
    pub(super) network: Network,
    pub(super) recorder: Recorder,
    ready: watch::Sender<bool>,
}

impl Node {
    pub(super) fn new(
        context: &Arc<Context>,
        spec: NodeSpec,
        cni_bin_dir: &Path,
    ) -> Result<Self, StartError> {
        let network =
            Network::load(&spec.cni_config, cni_bin_dir).map_err(|source| StartError::Cni {
                node: spec.name.clone(),
                source,
            })?;
        let netns = Netns::open(&spec.netns).map_err(|source| StartError::Netns {
            node: spec.name.clone(),
            path: spec.netns.clone(),
            source,
        })?;
        Ok(Self {
            recorder: Recorder::new(context.client.clone(), &spec.name),
            context: Arc::clone(context),
            network,
            netns: Arc::new(netns),
            ready: watch::Sender::new(false),
            spec,
        })
    }

    /// Whether pods can be attached.
    pub(super) fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Returns when [`Node::is_ready`] changes.
    pub(super) fn readiness(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Removes what a node loop that was killed left of its pods. Their
    /// addresses are given back by GC, when the network answers.
    async fn clean_up(&self) {
        let pods = std::fs::read_dir(&self.spec.cgroup)
            .into_iter()
            .flatten()
            .flatten();
        for entry in pods.filter(|e| is_uid(&e.file_name().to_string_lossy())) {
            let removed = match Cgroup::create(entry.path()) {
                Ok(cgroup) => cgroup.destroy().await,
                Err(error) => Err(error),
            };
            if let Err(error) = removed {
                tracing::warn!(path = %entry.path().display(), %error, "cannot clean up");
            }
        }
        let prefix = format!("{}.", self.context.paths.node_netns(&self.spec.name));
        let namespaces = std::fs::read_dir(ripstop_netlink::netns::RUN_NETNS);
        for entry in namespaces.into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&prefix)
                && let Err(error) = Netns::remove(&name)
            {
                tracing::warn!(name, %error, "cannot clean up");
            }
        }
        let pods = self.context.paths.node_dir(&self.spec.name).join("pods");
        match std::fs::remove_dir_all(&pods) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(path = %pods.display(), %error, "cannot clean up");
            }
            _ => {}
        }
    }

    /// Brings the Node object up to date.
    fn publish(&self, problem: Option<&str>) {
        let client = &self.context.client;
        let name = &self.spec.name;
        if client.get::<ApiNode>(None, name).is_none()
            && let Err(error) = client.create(&self.new_object())
        {
            tracing::warn!(node = name, %error, "cannot register");
        }
        let ready = problem.is_none();
        let taint = |node: &mut ApiNode| {
            let spec = node.spec.get_or_insert_default();
            let taints = spec.taints.get_or_insert_default();
            taints.retain(|taint| taint.key != NOT_READY);
            if !ready {
                taints.push(not_ready());
            }
            if taints.is_empty() {
                spec.taints = None;
            }
        };
        let status = |node: &mut ApiNode| self.fill_status(node, problem);
        // The status first: who sees no taint shall see a ready node.
        let written = client
            .modify_status::<ApiNode>(None, name, status)
            .and_then(|_| client.modify::<ApiNode>(None, name, taint));
        match written {
            Ok(node) if ready && !self.is_ready() => {
                let message = format!("Node {name} status is now: NodeReady");
                self.recorder
                    .node(&node, Level::Normal, "NodeReady", &message);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(node = name, %error, "cannot report"),
        }
    }

    fn new_object(&self) -> ApiNode {
        let mut node = ApiNode::default();
        node.metadata.name = Some(self.spec.name.clone());
        let zone = self.spec.zone.as_deref();
        node.metadata.labels = Some(
            [
                ("kubernetes.io/hostname", self.spec.name.as_str()),
                ("kubernetes.io/os", "linux"),
                ("kubernetes.io/arch", architecture()),
            ]
            .into_iter()
            .chain(zone.map(|zone| ("topology.kubernetes.io/zone", zone)))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
        );
        let spec = node.spec.get_or_insert_default();
        // From the first moment: nothing may be scheduled to a node without
        // network.
        spec.taints = Some(vec![not_ready()]);
        let cidrs = self.spec.pod_cidrs.iter().map(ToString::to_string);
        let cidrs: Vec<_> = cidrs.collect();
        spec.pod_cidr = cidrs.first().cloned();
        spec.pod_cidrs = (!cidrs.is_empty()).then_some(cidrs);
        node
    }

    fn fill_status(&self, node: &mut ApiNode, problem: Option<&str>) {
        let status = node.status.get_or_insert_default();
        let address = |kind: &str, address: String| NodeAddress {
            type_: kind.to_owned(),
            address,
        };
        let addresses = self
            .spec
            .addresses
            .iter()
            .map(|ip| address("InternalIP", ip.to_string()));
        let hostname = address("Hostname", self.spec.name.clone());
        status.addresses = Some(addresses.chain([hostname]).collect());
        let resources: BTreeMap<_, _> = self
            .context
            .allocatable
            .iter()
            .map(|(name, amount)| (name.clone(), Quantity(amount.clone())))
            .collect();
        status.capacity = Some(resources.clone());
        status.allocatable = Some(resources);
        status.node_info = Some(node_info(&self.spec.name));
        set_ready(status, problem);
    }
}

fn not_ready() -> Taint {
    Taint {
        key: NOT_READY.to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    }
}

fn set_ready(status: &mut NodeStatus, problem: Option<&str>) {
    let now = clock::second();
    let (value, reason, message) = match problem {
        None => (
            "True",
            "KubeletReady",
            "kubelet is posting ready status".to_owned(),
        ),
        Some(problem) => (
            "False",
            "KubeletNotReady",
            format!(
                "container runtime network not ready: NetworkReady=false \
                 reason:NetworkPluginNotReady message:{problem}"
            ),
        ),
    };
    let conditions = status.conditions.get_or_insert_default();
    let old = conditions
        .iter()
        .find(|c| c.type_ == "Ready" && c.status == value);
    let since = old.and_then(|c| c.last_transition_time.clone());
    conditions.retain(|condition| condition.type_ != "Ready");
    conditions.push(NodeCondition {
        type_: "Ready".to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_heartbeat_time: Some(Time(now)),
        last_transition_time: since.or(Some(Time(now))),
    });
}

/// What a node says that it has: more than any manifest asks for. Nothing is
/// limited in the lab, so a request must not be a reason to wait.
pub(super) fn allocatable() -> BTreeMap<String, String> {
    [
        ("cpu", "64"),
        ("memory", "256Gi"),
        ("ephemeral-storage", "1Ti"),
        ("pods", "250"),
    ]
    .into_iter()
    .map(|(resource, amount)| (resource.to_owned(), amount.to_owned()))
    .collect()
}

/// The name that container images use.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn node_info(node: &str) -> NodeSystemInfo {
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let release = read("/etc/os-release");
    let os_image = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    NodeSystemInfo {
        architecture: architecture().to_owned(),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: format!("ripstop-lab://{}", env!("CARGO_PKG_VERSION")),
        kernel_version: read("/proc/sys/kernel/osrelease"),
        kube_proxy_version: String::new(),
        kubelet_version: KUBELET_VERSION.to_owned(),
        // All nodes are one machine, but tools expect them to differ.
        machine_id: format!("{}-{node}", read("/etc/machine-id")),
        operating_system: "linux".to_owned(),
        os_image: os_image.unwrap_or("Linux").trim_matches('"').to_owned(),
        system_uuid: String::new(),
        ..NodeSystemInfo::default()
    }
}

/// A pod's directory among a node's control groups (beside `agent`).
fn is_uid(name: &str) -> bool {
    name.len() == 36 && name.chars().all(|c| c.is_ascii_hexdigit() || c == '-')
}

/// Registers the node, and keeps saying whether its network works.
pub(super) async fn keep(node: Arc<Node>) {
    node.clean_up().await;
    let mut reported: Option<Option<String>> = None;
    let mut collected = false;
    let mut wait = FIRST_WAIT;
    loop {
        let mut problem = ask(&node).await;
        if problem.is_none() && !node.is_ready() {
            problem = collect_garbage(&node, &mut collected).await;
        }
        let ready = problem.is_none();
        if reported.as_ref() != Some(&problem) || ready {
            node.publish(problem.as_deref());
        }
        reported = Some(problem);
        node.ready
            .send_if_modified(|was| std::mem::replace(was, ready) != ready);
        let pause = if ready {
            wait = FIRST_WAIT;
            HEARTBEAT
        } else {
            let longest = match node.network.missing_socket() {
                Some(_) => LONGEST_LOOK,
                None => LONGEST_WAIT,
            };
            wait = (wait * 3 / 2).min(longest);
            wait
        };
        tokio::time::sleep(pause).await;
    }
}

/// Why the network cannot serve, if so.
async fn ask(node: &Node) -> Option<String> {
    match node.network.missing_socket() {
        Some(path) => Some(format!("{} is not there yet", path.display())),
        None => node
            .network
            .status()
            .await
            .err()
            .map(|error| error.to_string()),
    }
}

/// Gives back what a node loop before this one had attached: before the first
/// ADD, so all of it is garbage.
async fn collect_garbage(node: &Node, collected: &mut bool) -> Option<String> {
    if *collected {
        return None;
    }
    let result = node.network.collect_garbage(&[]).await;
    *collected = result.is_ok();
    result.err().map(|error| error.to_string())
}
