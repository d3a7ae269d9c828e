//! The agents: a process in each node, started again when it dies.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use ipnet::IpNet;
use nix::sched::{CloneFlags, setns};
use ripstop_netlink::netns::Netns;
use tokio::process::{Child, Command};

use crate::cgroup;
use crate::paths::LabPaths;
use crate::plan::{CLUSTER_DOMAIN, LabOptions, LabPlan, NodePlan};

/// Pause before an agent that died is started again: one that cannot start
/// shall not keep a processor busy.
const RESTART_PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub(super) struct AgentError {
    what: String,
    source: io::Error,
}

/// How to start the agent of one node.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) exe: PathBuf,
    pub(super) args: Vec<String>,
    pub(super) netns: Netns,
    /// Its own control group.
    pub(super) cgroup: PathBuf,
    pub(super) log: PathBuf,
}

/// Flags of `ripstop agent` on `node`.
pub(super) fn flags(
    paths: &LabPaths,
    plan: &LabPlan,
    options: &LabOptions,
    node: &NodePlan,
    cgroup: &Path,
) -> Vec<String> {
    let list = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<_>>().join(",");
    let path = |path: PathBuf| path.display().to_string();
    [
        ("--node-name", node.name.clone()),
        ("--kubeconfig", path(paths.agent_kubeconfig())),
        ("--run-dir", path(paths.agent_dir(&node.name))),
        ("--bpffs", path(paths.bpffs().join(&node.name))),
        ("--cgroup-root", cgroup.display().to_string()),
        ("--cluster-domain", CLUSTER_DOMAIN.to_owned()),
        // The machine's own servers cannot be reached from a lab.
        ("--resolv-conf", "/dev/null".to_owned()),
        (
            "--cluster-dns",
            list(&mut plan.cluster_dns.iter().map(ToString::to_string)),
        ),
        (
            "--cluster-cidr",
            list(&mut plan.cluster_cidrs.iter().map(ToString::to_string)),
        ),
        (
            "--service-cidr",
            list(&mut plan.service_cidrs.iter().map(ToString::to_string)),
        ),
    ]
    .into_iter()
    .chain(given(options))
    .flat_map(|(flag, value)| [flag.to_owned(), value])
    .chain(
        options
            .dns_expand_search
            .then(|| "--dns-expand-search".to_owned()),
    )
    .collect()
}

/// Flags that `up` was given.
fn given(options: &LabOptions) -> impl Iterator<Item = (&'static str, String)> {
    let excluded: Vec<_> = options.no_masquerade.iter().map(IpNet::to_string).collect();
    let given = [
        ("--nodeport-addresses", options.nodeport_addresses.join(",")),
        ("--no-masquerade", excluded.join(",")),
        ("--datapath", options.datapath.clone()),
        ("--pod-names", options.pod_names.clone()),
        ("--policy-deny", options.policy_deny.clone()),
    ];
    let upstream = options.upstream_dns.iter();
    let upstream = upstream.map(|server| ("--upstream-dns", server.clone()));
    let given = given.into_iter().filter(|(_, value)| !value.is_empty());
    given.chain(upstream)
}

impl Agent {
    /// Keeps the agent running for as long as the lab does.
    pub(super) async fn supervise(self, node: String) {
        loop {
            match self.start() {
                Ok(mut child) => {
                    let status = child.wait().await;
                    tracing::warn!(%node, ?status, "agent ended; starting it again");
                }
                Err(error) => tracing::error!(%node, %error, "cannot start agent"),
            }
            tokio::time::sleep(RESTART_PAUSE).await;
        }
    }

    fn start(&self) -> Result<Child, AgentError> {
        let failed = |what: String| move |source| AgentError { what, source };
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(failed(self.log.display().to_string()))?;
        let cgroup =
            cgroup::procs(&self.cgroup).map_err(failed(self.cgroup.display().to_string()))?;
        let netns = self
            .netns
            .as_fd()
            .try_clone_to_owned()
            .map_err(failed("network namespace".to_owned()))?;
        let mut command = Command::new(&self.exe);
        command
            .arg("agent")
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let enter = move || {
            // "0" is whoever writes it (cgroup-v2.rst).
            nix::unistd::write(&cgroup, b"0")?;
            setns(&netns, CloneFlags::CLONE_NEWNET)?;
            Ok(())
        };
        // SAFETY: the closure makes two system calls on files that are open
        // already; it neither allocates nor takes a lock.
        unsafe { command.pre_exec(enter) };
        let child = command
            .spawn()
            .map_err(failed(self.exe.display().to_string()))?;
        if let Some(pid) = child.id() {
            cgroup::add(&self.cgroup, pid).map_err(failed(self.cgroup.display().to_string()))?;
        }
        Ok(child)
    }
}

/// Makes the directories and the control group that a node's agent needs.
pub(super) fn prepare(paths: &LabPaths, node: &str, cgroup: &Path) -> io::Result<()> {
    fs::create_dir_all(paths.agent_dir(node))?;
    fs::create_dir_all(paths.bpffs().join(node))?;
    fs::create_dir_all(cgroup.join("agent"))
}
