//! The process that a lab is: API server, controllers, scheduler, node loop, and
//! the agents that it starts.
//!
//! `up` starts it with the lab's lock as standard input and a pipe for reports
//! as standard output; it outlives `up` and ends with the lab.

mod agent;
mod kept;
mod kube_dns;
mod nodes;
pub mod report;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use ripstop_apiserver::pki::{Pki, PkiError, Tls};
use ripstop_apiserver::{Client, ClusterConfig, OpenError, PodAccess, Store};

use ripstop_netlink::netns::RUN_NETNS;

use crate::announce;
use crate::clock;
use crate::controllers::{self, ControllerConfig};
use crate::kubelet::{self, Kubelet, KubeletConfig, NodeSpec};
use crate::lifecycle::{Preflight, Problem, Record, RecordError, check_machine};
use crate::paths::LabPaths;
use crate::plan::{API_PORT, CLUSTER_DOMAIN, InvalidOptions, LabPlan};
use crate::rootless;
use crate::underlay::UnderlayError;
pub(crate) use kube_dns::ANSWERED_BY_NODES;
use report::{Report, Reporter};

/// The verb of `ripstop lab` that calls [`main`].
pub const SUBCOMMAND: &str = "daemon";

/// Why a lab could not begin.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Options(#[from] InvalidOptions),
    #[error(transparent)]
    Machine(Problem),
    #[error(transparent)]
    Certificates(#[from] PkiError),
    #[error(transparent)]
    Objects(#[from] OpenError),
    #[error(transparent)]
    Underlay(#[from] UnderlayError),
    #[error(transparent)]
    NodeLoop(#[from] kubelet::StartError),
}

impl DaemonError {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// What every part of the daemon needs.
struct Lab {
    paths: LabPaths,
    plan: LabPlan,
    record: Record,
    machine: Preflight,
    exe: PathBuf,
}

/// Serves the lab `name` until it is killed. The caller has set up logging.
///
/// # Errors
/// Why it could not begin, after it has told `up` so.
pub fn main(name: &str) -> Result<(), DaemonError> {
    // Held until this process ends, and not by the ones that it starts.
    let _lock = take_stdin().map_err(DaemonError::io("standard input"))?;
    let mut reporter = Reporter::from_stdout().map_err(DaemonError::io("standard output"))?;
    let result = prepare(name).and_then(|lab| {
        let listening = || DaemonError::io("listening for kubectl");
        let local = local_listener(&lab.record).map_err(listening())?;
        // People reach it from where they are. The rest of a lab without root is
        // done from a network namespace of its own: from the machine's it could
        // go to those of the nodes, but not back.
        if rootless::is_inside() {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|error| DaemonError::io("a network namespace")(error.into()))?;
        }
        tokio::runtime::Runtime::new()
            .map_err(DaemonError::io("threads"))?
            .block_on(serve(lab, local, &mut reporter))
    });
    if let Err(error) = &result {
        reporter.send(&Report::Failed(error.to_string()));
    }
    result
}

fn prepare(name: &str) -> Result<Lab, DaemonError> {
    let paths = LabPaths::new(name);
    let record = Record::read(&paths)?;
    let machine =
        check_machine().map_err(|mut problems| DaemonError::Machine(problems.remove(0)))?;
    Ok(Lab {
        plan: LabPlan::new(&record.options)?,
        exe: std::env::current_exe().map_err(DaemonError::io("this program"))?,
        paths,
        record,
        machine,
    })
}

async fn serve(
    mut lab: Lab,
    local: TcpListener,
    reporter: &mut Reporter,
) -> Result<(), DaemonError> {
    let pki = Pki::open(&lab.paths.pki(), &server_names(&lab.plan))?;
    let config = ClusterConfig {
        service_cidrs: lab.plan.service_cidrs.clone(),
        api_endpoints: vec![SocketAddr::from((lab.plan.api, API_PORT))],
        ..ClusterConfig::default()
    };
    let store = Store::open_with(Some(&lab.paths.journal()), config)?;
    let client = store.client();
    kept::forget_other_nodes(&client, &lab.plan);
    kube_dns::create(&client, &lab.plan);

    let listening = || DaemonError::io("listening for kubectl");
    let url = format!("https://{}", local.local_addr().map_err(listening())?);
    write_access(&mut lab, &pki, &url)?;
    if !rootless::is_inside() {
        mount_bpffs(&lab.paths).map_err(DaemonError::io("mount the BPF file system"))?;
    }
    let lab = Arc::new(lab);
    let nodes = nodes::make_all(&lab).await?;

    let controllers = ControllerConfig {
        // Nodes come with their ranges.
        root_ca: Some(pki.ca().to_owned()),
        lb_pools: lab.plan.lb_pools.clone(),
        ..ControllerConfig::default()
    };
    tokio::spawn(controllers::run(client.clone(), controllers));
    let announcer = announce::run(client.clone(), nodes.underlay, lab.plan.clone());
    tokio::spawn(announcer);
    let kubelet = Kubelet::start(client.clone(), node_loop(&lab))?;
    let pods: Arc<dyn PodAccess> = Arc::new(kubelet);
    tokio::spawn(answer(
        client,
        vec![local, nodes.listener],
        pki.tls()?,
        pods,
    ));
    for (name, agent) in nodes.agents {
        tokio::spawn(agent.supervise(name));
    }
    reporter.send(&Report::Serving(url));
    // From here on `up` sees by the API how far the lab is.
    std::future::pending().await
}

fn node_loop(lab: &Lab) -> KubeletConfig {
    let paths = &lab.paths;
    let nodes = lab.plan.nodes.iter().map(|node| NodeSpec {
        name: node.name.clone(),
        addresses: node.addresses.iter().map(IpNet::addr).collect(),
        pod_cidrs: node.pod_cidrs.clone(),
        zone: node.zone.clone(),
        netns: Path::new(RUN_NETNS).join(paths.node_netns(&node.name)),
        cgroup: nodes::cgroup(lab, &node.name),
        cni_config: paths.cni_config(&node.name),
    });
    KubeletConfig {
        paths: paths.clone(),
        cluster_domain: CLUSTER_DOMAIN.to_owned(),
        cluster_dns: lab.plan.cluster_dns.clone(),
        dns_expand_search: lab.record.options.dns_expand_search,
        nodes: nodes.collect(),
        exe: lab.exe.clone(),
        cni_bin_dir: lab.machine.plugins.clone(),
        real_probe_timing: lab.record.options.real_probe_timing,
    }
}

/// Serves the API.
async fn answer(client: Client, listeners: Vec<TcpListener>, tls: Tls, pods: Arc<dyn PodAccess>) {
    if let Err(error) = ripstop_apiserver::serve(client, listeners, tls, pods).await {
        tracing::error!(%error, "the API server ended");
    }
}

/// The port that an earlier run had, so that copies of its kubeconfig stay good.
fn local_listener(record: &Record) -> io::Result<TcpListener> {
    let earlier = record
        .url
        .rsplit_once(':')
        .and_then(|(_, port)| port.parse().ok());
    if let Some(port) = earlier
        && let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
    {
        return Ok(listener);
    }
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
}

/// Kubeconfigs for people and agents, and where the API is.
fn write_access(lab: &mut Lab, pki: &Pki, url: &str) -> Result<(), DaemonError> {
    let context = format!("ripstop-{}", lab.paths.name());
    let write = |path: PathBuf, text: String| {
        nodes::write_private(&path, &text).map_err(DaemonError::io(path.display().to_string()))
    };
    write(lab.paths.kubeconfig(), pki.kubeconfig(&context, url))?;
    write(
        lab.paths.agent_kubeconfig(),
        pki.kubeconfig(&context, &lab.plan.agent_url()),
    )?;
    lab.record = Record {
        pid: std::process::id(),
        url: url.to_owned(),
        started: clock::now().to_string(),
        ..lab.record.clone()
    };
    Ok(lab.record.write(&lab.paths)?)
}

/// Names and addresses under which clients may know the API.
fn server_names(plan: &LabPlan) -> Vec<String> {
    let services = plan.service_cidrs.iter().filter_map(|cidr| {
        cidr.hosts().nth(match cidr {
            // The subnet-router address of an IPv6 range is one of its hosts.
            IpNet::V4(_) => 0,
            IpNet::V6(_) => 1,
        })
    });
    [
        "127.0.0.1",
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain([format!("kubernetes.default.svc.{}", CLUSTER_DOMAIN)])
    .chain([plan.api.to_string()])
    .chain(services.map(|address| address.to_string()))
    .collect()
}

fn mount_bpffs(paths: &LabPaths) -> io::Result<()> {
    let path = paths.bpffs();
    std::fs::create_dir_all(&path)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    Ok(mount(
        Some("bpf"),
        &path,
        Some("bpf"),
        flags,
        Some("mode=700"),
    )?)
}

/// Moves standard input to a descriptor that children do not get.
fn take_stdin() -> io::Result<std::os::fd::OwnedFd> {
    let copy = nix::unistd::dup(io::stdin())?;
    close_on_exec(&copy)?;
    nix::unistd::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok(copy)
}

fn close_on_exec(fd: &impl AsFd) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{IpFamily, LabOptions};

    #[test]
    fn the_certificate_is_for_every_way_to_the_api() {
        let options = LabOptions {
            ip_family: IpFamily::Dual,
            ..LabOptions::default()
        };
        let names = server_names(&LabPlan::new(&options).unwrap());
        for name in [
            "127.0.0.1",
            "172.30.1.1",
            "10.96.0.1",
            "fd00:96::1",
            "kubernetes.default.svc.cluster.local",
        ] {
            assert!(names.iter().any(|n| n == name), "{name} in {names:?}");
        }
    }
}
