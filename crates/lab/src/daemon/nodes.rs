//! Makes the nodes and starts what runs on them.

use std::fs;
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use tokio::task::JoinSet;

use super::agent::{self, Agent};
use super::{DaemonError, Lab};
use crate::enter::OUTSIDE_GROUP;
use crate::paths::LabPaths;
use crate::plan::NodePlan;
use crate::underlay::Underlay;

/// The nodes, with nothing running on them yet.
pub(super) struct Nodes {
    /// For agents, inside the underlay.
    pub(super) listener: TcpListener,
    pub(super) underlay: Arc<Underlay>,
    /// By node name.
    pub(super) agents: Vec<(String, Agent)>,
}

/// Makes the underlay, then all nodes at once.
pub(super) async fn make_all(lab: &Arc<Lab>) -> Result<Nodes, DaemonError> {
    let underlay = Arc::new(Underlay::create(&lab.paths, &lab.plan)?);
    let mut made = JoinSet::new();
    for index in 0..lab.plan.nodes.len() {
        let (lab, underlay) = (Arc::clone(lab), Arc::clone(&underlay));
        made.spawn_blocking(move || make(&lab, &underlay, &lab.plan.nodes[index]));
    }
    let listener = underlay.listen(&lab.plan)?;
    underlay.add_outside(&lab.paths, &lab.plan.outside)?;
    let group = cgroup(lab, OUTSIDE_GROUP);
    fs::create_dir_all(&group).map_err(DaemonError::io(group.display().to_string()))?;
    let mut agents = Vec::new();
    while let Some(node) = made.join_next().await {
        agents.push(node.map_err(|error| DaemonError::Io {
            what: "making a node".to_owned(),
            source: io::Error::other(error),
        })??);
    }
    Ok(Nodes {
        listener,
        underlay,
        agents,
    })
}

fn make(lab: &Lab, underlay: &Underlay, node: &NodePlan) -> Result<(String, Agent), DaemonError> {
    let paths = &lab.paths;
    let cgroup = cgroup(lab, &node.name);
    let netns = underlay.add_node(paths, node)?;
    agent::prepare(paths, &node.name, &cgroup)
        .and_then(|()| write_cni_config(paths, &node.name))
        .map_err(DaemonError::io(format!("files of {}", node.name)))?;
    let other = lab.record.options.agent.as_ref();
    let agent = Agent {
        exe: other.unwrap_or(&lab.exe).clone(),
        args: agent::flags(paths, &lab.plan, &lab.record.options, node, &cgroup),
        netns,
        cgroup: cgroup.join("agent"),
        log: paths.agent_log(&node.name),
    };
    Ok((node.name.clone(), agent))
}

/// Directory of a node's control group.
pub(super) fn cgroup(lab: &Lab, node: &str) -> PathBuf {
    lab.machine.cgroups.join(lab.paths.cgroup()).join(node)
}

/// What the node's runtime calls for each pod.
fn write_cni_config(paths: &LabPaths, node: &str) -> io::Result<()> {
    let config = json!({
        // For libcni before 1.2 (containerd 1.x, podman 4), which does not know
        // the list of versions; others take the newest of it.
        "cniVersion": "1.0.0",
        "cniVersions": ["1.0.0", "1.1.0"],
        "name": "ripstop",
        "plugins": [{
            "type": "ripstop-cni",
            "socket": paths.agent_dir(node).join("cni.sock"),
            "capabilities": {"portMappings": true, "dns": true}
        }]
    });
    let path = paths.cni_config(node);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, format!("{config:#}\n"))
}

/// Replaces a file at once; only its owner can read it.
pub(super) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&new, path)
}
