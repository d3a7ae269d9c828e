//! The node loop: what kubelet and a container runtime do on a node, for all
//! nodes of a lab.
//!
//! Pods that are bound to one of the nodes get a network namespace through the
//! node's CNI plugin, their files, and their containers as processes; probes,
//! restarts, termination, status and events follow Kubernetes.
//!
//! The way of a pod: `pods` (one task each) -> `decide` (pure: what next) ->
//! `task` (does it: `sandbox`, `start`, `hooks`) -> `status` (pure: what
//! to report). Nothing else in the lab starts or ends a container.
//!
//! Deliberate differences from a cluster, beside images (`image`):
//! - For stand-ins, probes start quickly (`probe`) and `exec` probes succeed:
//!   there is no application to ask. `HTTPS` probes of them go without TLS.
//! - Init containers wait a moment for other pods (`batch`).
//! - SIGTERM ends a process that does not handle it, also as process 1, where the
//!   kernel would drop it (`container::supervise`).
//! - A failed container without a termination message shows its last log line.
//! - Volumes of other kinds than emptyDir, configMap, secret, downwardAPI and
//!   projected are empty directories, and files made from objects do not follow
//!   later changes of these.
//! - A new node loop starts all pods again, as after the reboot of a node.

mod access;
mod backoff;
mod batch;
mod cgroup;
mod cni;
mod conditions;
mod decide;
mod env;
mod events;
mod exec;
mod expand;
mod facts;
mod hooks;
mod hosts;
mod image;
mod log;
mod machine;
mod node;
mod pods;
mod probe;
mod process;
mod quantity;
mod recover;
mod registry;
mod report;
mod resolv;
mod run;
mod sandbox;
mod service_env;
mod start;
mod state;
mod status;
mod task;
mod tty;
mod user;
mod volumes;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use ripstop_apiserver::Client;

pub use cni::LoadError;
pub(crate) use exec::ENTER_FILE;
pub(crate) use start::container_dir;

use crate::container::spec::Bind;
use crate::paths::LabPaths;

/// One node of the lab, whose namespace and control group exist already.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    pub name: String,
    /// On the underlay; the first one is the primary.
    pub addresses: Vec<IpAddr>,
    /// Ranges of its pods, at most one per family. Empty: the node controller
    /// gives it some.
    pub pod_cidrs: Vec<IpNet>,
    /// Label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    /// Path of its network namespace.
    pub netns: PathBuf,
    /// Directory of its control group (cgroup2).
    pub cgroup: PathBuf,
    /// Its CNI network configuration list.
    pub cni_config: PathBuf,
}

#[derive(Clone, Debug)]
pub struct KubeletConfig {
    pub paths: LabPaths,
    /// `cluster.local`.
    pub cluster_domain: String,
    /// Name servers that pods get; the first one is of the primary family.
    pub cluster_dns: Vec<IpAddr>,
    /// Give pods search lists that the agents walk: as a cluster whose admission
    /// puts `<namespace>.search.<domain>` in place of `<namespace>.svc.<domain>`.
    pub dns_expand_search: bool,
    pub nodes: Vec<NodeSpec>,
    /// An executable whose `lab-container` subcommand is
    /// [`crate::container::main`]: the lab's own.
    pub exe: PathBuf,
    /// Where CNI plugins are.
    pub cni_bin_dir: PathBuf,
    /// Keep to the API's timing of probes also for stand-ins, and start init
    /// containers at once. Off, a lab is faster: stand-ins need no time to start,
    /// so `initialDelaySeconds` is skipped and the first probes are tried within
    /// milliseconds; and init containers start when the pods are ready that they
    /// probably wait for.
    pub real_probe_timing: bool,
}

/// Why the node loop cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("node {node}: {source}")]
    Cni { node: String, source: LoadError },
    #[error("node {node}: network namespace {path}: {source}")]
    Netns {
        node: String,
        path: PathBuf,
        source: io::Error,
    },
    #[error("preparing {path}: {source}")]
    Files { path: PathBuf, source: io::Error },
}

/// What all nodes share.
#[derive(Debug)]
struct Context {
    client: Client,
    sources: ApiSources,
    paths: LabPaths,
    dns: resolv::ClusterDns,
    exe: PathBuf,
    machine: image::Machine,
    /// The machine's file systems besides its root.
    file_systems: Vec<Bind>,
    /// What a node says that it has, by resource.
    allocatable: BTreeMap<String, String>,
    real_timing: bool,
    batch: batch::Batch,
    registry: registry::Registry,
}

/// The running node loop. Clones share it; it ends with the runtime.
#[derive(Clone, Debug)]
pub struct Kubelet {
    context: Arc<Context>,
}

impl Kubelet {
    /// Registers the nodes and takes charge of their pods. What a node loop
    /// before it left behind (processes, namespaces) is removed first, as after
    /// the reboot of a node.
    ///
    /// # Errors
    /// [`StartError`]; nothing has been started then.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(client: Client, config: KubeletConfig) -> Result<Self, StartError> {
        let root = config.paths.root();
        let files = |source| StartError::Files {
            path: root.to_owned(),
            source,
        };
        std::fs::create_dir_all(root).map_err(files)?;
        let context = Arc::new(Context {
            sources: ApiSources(client.clone()),
            client,
            dns: resolv::ClusterDns {
                domain: config.cluster_domain,
                servers: config.cluster_dns,
                walked: config.dns_expand_search,
            },
            exe: config.exe,
            machine: machine::find(),
            file_systems: machine::file_systems(),
            allocatable: node::allocatable(),
            real_timing: config.real_probe_timing,
            batch: batch::Batch::default(),
            registry: registry::Registry::default(),
            paths: config.paths,
        });
        let nodes = config
            .nodes
            .into_iter()
            .map(|spec| node::Node::new(&context, spec, &config.cni_bin_dir).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        for node in &nodes {
            tokio::spawn(node::keep(Arc::clone(node)));
        }
        tokio::spawn(pods::run(Arc::clone(&context), nodes));
        Ok(Self { context })
    }
}

/// Objects that pods refer to, from the API.
#[derive(Clone, Debug)]
struct ApiSources(Client);

impl facts::Sources for ApiSources {
    fn config_map(&self, namespace: &str, name: &str) -> Option<ConfigMap> {
        self.0.get(Some(namespace), name)
    }

    fn secret(&self, namespace: &str, name: &str) -> Option<Secret> {
        self.0.get(Some(namespace), name)
    }
}
