//! Flags of `ripstop agent`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::ValueEnum;
use ipnet::IpNet;

/// What a node has to be told; everything else comes from the API server.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of this node's Node object.
    #[arg(long, env = "NODE_NAME")]
    pub(crate) node_name: String,
    /// How to reach the API server; in a pod, its service account is the default.
    #[arg(long)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Directory of the CNI socket and the records of this node's pods.
    #[arg(long, default_value = "/run/ripstop")]
    pub(crate) run_dir: PathBuf,
    /// Directory on a BPF file system that keeps programs and tables while no agent runs.
    #[arg(long, default_value = "/sys/fs/bpf/ripstop")]
    pub(crate) bpffs: PathBuf,
    /// Processes in this cgroup and below it reach services.
    #[arg(long, default_value = "/sys/fs/cgroup")]
    pub(crate) cgroup_root: PathBuf,
    #[arg(long, default_value = "cluster.local")]
    pub(crate) cluster_domain: String,
    /// Addresses at which pods ask for names, at most one per family.
    #[arg(long, value_delimiter = ',', required = true)]
    pub(crate) cluster_dns: Vec<IpAddr>,
    /// Ranges of all pods, at most one per family.
    #[arg(long, value_delimiter = ',', required = true)]
    pub(crate) cluster_cidr: Vec<IpNet>,
    /// Ranges of ClusterIPs, at most one per family.
    #[arg(long, value_delimiter = ',', required = true)]
    pub(crate) service_cidr: Vec<IpNet>,
    /// Engine that carries services and pods.
    #[arg(long, value_enum, default_value_t = Mode::Ebpf)]
    pub(crate) datapath: Mode,
    /// Where names outside the cluster are asked for; may be repeated.
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) upstream_dns: Vec<SocketAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    Ebpf,
}
