//! Flags of `ripstop agent`.

use std::net::{AddrParseError, IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use clap::ValueEnum;
use ipnet::IpNet;
use ripstop_datapath::Deny;
use ripstop_dns::{PodNames, Stub, UpstreamServer};

use super::node_ports::NodePortAddresses;

/// What a node has to be told; everything else comes from the API server.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// File with any of these settings (`ripstop config default` writes one); flags
    /// override it.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Name of this node's Node object.
    #[arg(long, env = "NODE_NAME")]
    pub(crate) node_name: String,
    /// How to reach the API server; in a pod, its service account is the default.
    #[arg(long)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The API server's URL, in place of the kubeconfig's or the service account's:
    /// the latter is a service's, which no node reaches before the agent works.
    #[arg(long, value_name = "URL")]
    pub(crate) api_server: Option<String>,
    /// Directory of the CNI socket and the records of this node's pods.
    #[arg(long, default_value = "/run/ripstop")]
    pub(crate) run_dir: PathBuf,
    /// Folder that the plugin is put into at every start, for the runtime.
    #[arg(long, value_name = "DIR")]
    pub(crate) cni_bin_dir: Option<PathBuf>,
    /// Folder that the network list is written to once pods can be attached.
    #[arg(long, value_name = "DIR")]
    pub(crate) cni_conf_dir: Option<PathBuf>,
    /// Take over pods that another network plugin has attached and that are found
    /// running, without a restart: pods of the plugins bridge, ptp and flannel with
    /// addresses of this node's ranges, of which the runtime remembers what is needed.
    /// Each is looked at first; one with anything unexpected is left as it is, and named
    /// in the status with the reason. Otherwise all of them are left and named. For a
    /// node whose other plugin is out of use: what is adopted does not go back to it
    /// without a restart of the pod.
    #[arg(long)]
    pub(crate) adopt_pods: bool,
    /// Folder in which the runtime remembers what plugins did (libcni's cache).
    #[arg(long, value_name = "DIR", default_value = "/var/lib/cni")]
    pub(crate) cni_cache_dir: PathBuf,
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
    /// Addresses of this node at which NodePorts answer: ranges, or "primary" for
    /// those of the Node object. Loopback is always among them.
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "CIDR|primary",
        default_value = "primary"
    )]
    pub(crate) nodeport_addresses: Vec<NodePortAddresses>,
    /// Destinations outside the cluster that see pods under their own addresses.
    #[arg(long, value_delimiter = ',', value_name = "CIDR")]
    pub(crate) no_masquerade: Vec<IpNet>,
    /// Port that answers /healthz as kube-proxy's does; 0: none does.
    #[arg(long, default_value_t = 10256)]
    pub(crate) healthz_port: u16,
    /// Where kube-proxy's metrics port is looked for: /proxyMode, /healthz and
    /// /metrics; "none" for nowhere.
    #[arg(long, value_name = "IP:PORT|none", default_value = "127.0.0.1:10249")]
    pub(crate) metrics_bind_address: MetricsAddress,
    /// Where else /metrics is answered.
    #[arg(long, value_delimiter = ',', value_name = "IP:PORT")]
    pub(crate) metrics_address: Vec<SocketAddr>,
    /// Engine that carries services and pods.
    #[arg(long, value_enum, default_value_t = Mode::Auto)]
    pub(crate) datapath: Mode,
    /// What becomes of packets that network policies deny: dropped without a word,
    /// or rejected with a TCP reset or an ICMP error.
    #[arg(long, value_enum, default_value_t = PolicyDeny::Drop)]
    pub(crate) policy_deny: PolicyDeny,
    /// Where names outside the cluster are asked for: IP[:PORT], tcp://IP[:PORT] or
    /// tls://IP[:PORT][#NAME]; may be repeated. Otherwise the servers of --resolv-conf.
    #[arg(long, value_name = "SERVER")]
    pub(crate) upstream_dns: Vec<UpstreamServer>,
    /// The node's own resolver configuration.
    #[arg(long, default_value = "/etc/resolv.conf")]
    pub(crate) resolv_conf: PathBuf,
    /// Names below DOMAIN are asked for at these servers; may be repeated.
    #[arg(long, value_name = "DOMAIN=SERVER[,SERVER...]")]
    pub(crate) stub_domain: Vec<Stub>,
    /// Certificates (PEM) that upstream servers over TLS are checked against.
    #[arg(long, default_value = "/etc/ssl/certs/ca-certificates.crt")]
    pub(crate) upstream_ca: PathBuf,
    /// Names of pods, like 10-244-1-2.shop.pod: none, those that a pod has, or any.
    #[arg(long, value_enum, default_value_t = PodNameMode::Always)]
    pub(crate) pod_names: PodNameMode,
    /// Seconds for which clients may keep the cluster's names.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=3600))]
    pub(crate) dns_ttl: u32,
    /// Walk search lists here that begin with NAMESPACE.search.DOMAIN, which stands
    /// for NAMESPACE.svc.DOMAIN: a miss takes one round trip. Needs a runtime that
    /// passes the CNI capability "dns".
    #[arg(long)]
    pub(crate) dns_expand_search: bool,
}

/// An address, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MetricsAddress(pub(crate) Option<SocketAddr>);

impl FromStr for MetricsAddress {
    type Err = AddrParseError;

    fn from_str(text: &str) -> Result<Self, AddrParseError> {
        match text {
            "none" => Ok(Self(None)),
            _ => text.parse().map(Some).map(Self),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PodNameMode {
    Off,
    Verified,
    Always,
}

impl From<PodNameMode> for PodNames {
    fn from(mode: PodNameMode) -> Self {
        match mode {
            PodNameMode::Off => Self::Off,
            PodNameMode::Verified => Self::Verified,
            PodNameMode::Always => Self::Always,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PolicyDeny {
    Drop,
    Reject,
}

impl From<PolicyDeny> for Deny {
    fn from(deny: PolicyDeny) -> Self {
        match deny {
            PolicyDeny::Drop => Self::Drop,
            PolicyDeny::Reject => Self::Reject,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// eBPF, or nftables if the kernel refuses eBPF.
    Auto,
    Ebpf,
    Nftables,
}

impl Mode {
    /// As the flag has it.
    pub(crate) fn flag(self) -> String {
        match self {
            Self::Auto => "auto",
            Self::Ebpf => "ebpf",
            Self::Nftables => "nftables",
        }
        .to_owned()
    }
}

impl Args {
    /// Refuses what no cluster can mean.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        for dns in &self.cluster_dns {
            let inside = self.service_cidr.iter().any(|range| range.contains(dns));
            anyhow::ensure!(inside, "--cluster-dns {dns} is in no --service-cidr");
        }
        one_per_family(
            "--cluster-dns",
            self.cluster_dns.iter().map(IpAddr::is_ipv4),
        )?;
        let is_v4 = |range: &IpNet| matches!(range, IpNet::V4(_));
        one_per_family("--cluster-cidr", self.cluster_cidr.iter().map(is_v4))?;
        one_per_family("--service-cidr", self.service_cidr.iter().map(is_v4))
    }
}

fn one_per_family(flag: &str, are_v4: impl Iterator<Item = bool>) -> anyhow::Result<()> {
    let mut seen = [0; 2];
    for is_v4 in are_v4 {
        seen[usize::from(is_v4)] += 1;
    }
    anyhow::ensure!(
        seen.iter().all(|n| *n <= 1),
        "{flag} has two entries of one family"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn check(dns: &str, pods: &str, services: &str) -> Result<(), String> {
        let flags = [
            "agent",
            "--node-name",
            "n",
            "--cluster-dns",
            dns,
            "--cluster-cidr",
            pods,
            "--service-cidr",
            services,
        ];
        let cli = Cli::try_parse_from(flags).map_err(|error| error.to_string())?;
        cli.args.check().map_err(|error| error.to_string())
    }

    #[test]
    fn flags_that_no_cluster_can_mean() {
        let (dns, pods, services) = ("10.96.0.10", "10.244.0.0/16", "10.96.0.0/16");
        assert_eq!(check(dns, pods, services), Ok(()));
        assert_eq!(
            check(
                "10.96.0.10,fd00:96::a",
                "10.244.0.0/16,fd00:244::/48",
                "10.96.0.0/16,fd00:96::/112"
            ),
            Ok(())
        );
        let error = check("10.97.0.10", pods, services).unwrap_err();
        assert_eq!(error, "--cluster-dns 10.97.0.10 is in no --service-cidr");
        let error = check("10.96.0.10,10.96.0.11", pods, services).unwrap_err();
        assert_eq!(error, "--cluster-dns has two entries of one family");
        let error = check(dns, "10.244.0.0/16,10.245.0.0/16", services).unwrap_err();
        assert_eq!(error, "--cluster-cidr has two entries of one family");
        assert!(
            check(dns, "10.244.0.0", services)
                .unwrap_err()
                .contains("--cluster-cidr")
        );
    }
}
