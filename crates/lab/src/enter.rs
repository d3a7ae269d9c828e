//! The way into pods and nodes for the verbs of `ripstop lab`: directly, without
//! the API, as `nsenter` would.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::sched::{CloneFlags, setns};
use ripstop_netlink::netns::RUN_NETNS;

use crate::cgroup;
use crate::container::spec::{ProcessSpec, Run};
use crate::container::{self, EXIT_NOT_STARTED};
use crate::kubelet::{ENTER_FILE, container_dir};
use crate::paths::LabPaths;

#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    #[error(
        "container {container:?} of pod {pod:?} is not running; see why: ripstop lab status, \
         kubectl describe pod {pod}"
    )]
    NotRunning { pod: String, container: String },
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("there is no node {node:?} in this lab")]
    NoNode { node: String },
    #[error("{what}: {source}")]
    Node { what: String, source: io::Error },
}

/// Where a container is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub node: String,
    pub uid: String,
    pub pod: String,
    pub container: String,
}

/// How to join a running container.
///
/// # Errors
/// [`EnterError::NotRunning`], or if its file cannot be read.
pub fn way_in(paths: &LabPaths, place: &Place) -> Result<ProcessSpec, EnterError> {
    let pod_dir = paths.pod_dir(&place.node, &place.uid);
    let path = container_dir(&pod_dir, &place.container).join(ENTER_FILE);
    let not_running = || EnterError::NotRunning {
        pod: place.pod.clone(),
        container: place.container.clone(),
    };
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(not_running()),
        other => other.map_err(|source| EnterError::File {
            path: path.clone(),
            source,
        })?,
    };
    let spec: ProcessSpec = serde_json::from_slice(&bytes).map_err(|error| EnterError::File {
        path,
        source: error.into(),
    })?;
    // The file outlives the container; its control group has nobody in it then.
    let alive = spec
        .cgroup
        .as_ref()
        .is_some_and(|dir| !cgroup::processes(dir).is_empty());
    if alive { Ok(spec) } else { Err(not_running()) }
}

/// Runs `words` in a container with the caller's terminal; gives the exit code.
pub fn exec_in_container(spec: ProcessSpec, words: Vec<String>) -> ExitCode {
    let mut spec = ProcessSpec {
        run: Run::Program(words),
        ..spec
    };
    if let Ok(terminal) = std::env::var("TERM") {
        spec.env.entry("TERM".to_owned()).or_insert(terminal);
    }
    container::exec(&spec)
}

/// Becomes `words` in a node's network and control group; returns only if that
/// failed.
///
/// # Errors
/// What could not be entered.
pub fn exec_on_node(
    paths: &LabPaths,
    node: &str,
    words: &[String],
) -> Result<ExitCode, EnterError> {
    let netns = Path::new(RUN_NETNS).join(paths.node_netns(node));
    if !netns.exists() || !paths.node_dir(node).exists() {
        return Err(EnterError::NoNode {
            node: node.to_owned(),
        });
    }
    become_in(paths, node, &netns, words)
}

/// Name of the control group of commands that run outside the cluster: services
/// are nothing to them.
pub(crate) const OUTSIDE_GROUP: &str = "outside";

/// Becomes `words` on a machine that is not of the cluster; returns only if that
/// failed.
///
/// # Errors
/// What could not be entered.
pub fn exec_outside(paths: &LabPaths, words: &[String]) -> Result<ExitCode, EnterError> {
    let netns = Path::new(RUN_NETNS).join(paths.outside_netns());
    become_in(paths, OUTSIDE_GROUP, &netns, words)
}

/// Becomes `words` in a control group of the lab and a network namespace.
fn become_in(
    paths: &LabPaths,
    group: &str,
    netns: &Path,
    words: &[String],
) -> Result<ExitCode, EnterError> {
    let failed = |what: String| move |source| EnterError::Node { what, source };
    let group = cgroup::mount_point()
        .map_err(failed("cgroups".to_owned()))?
        .join(paths.cgroup())
        .join(group);
    cgroup::join(&group).map_err(failed(group.display().to_string()))?;
    fs::File::open(netns)
        .and_then(|file| Ok(setns(file, CloneFlags::CLONE_NEWNET)?))
        .map_err(failed(netns.display().to_string()))?;
    let Some((program, args)) = words.split_first() else {
        return Ok(ExitCode::from(EXIT_NOT_STARTED));
    };
    let error = Command::new(program).args(args).exec();
    Err(failed(program.clone())(error))
}
