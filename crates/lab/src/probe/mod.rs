//! Tries every pod to every pod and every service, from inside each pod.
//!
//! [`plan`] says what (pure), a prober process in each pod tries it
//! ([`prober`]), [`matrix`] shows what came of it (pure).

mod check;
pub mod matrix;
mod ping;
mod plan;
pub mod prober;

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use futures::{StreamExt, stream};
use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

pub use check::{Check, Client, Expect, Finding, Protocol, Task};
pub use plan::{Plan, Source, Target};

use crate::enter::{EnterError, way_in};
use crate::paths::LabPaths;

/// Probers at once, for each processor: they mostly wait.
const PROBERS_PER_CPU: usize = 4;

/// What one pod found: its findings in the order of the targets' checks, or why
/// it could not try.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub source: String,
    pub node: String,
    pub findings: Result<Vec<Finding>, String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error(transparent)]
    Enter(#[from] EnterError),
    #[error("prober: {0}")]
    Process(#[from] io::Error),
    #[error("prober: {status}: {stderr}")]
    Failed { status: String, stderr: String },
    #[error("prober: answer of {got} findings to {wanted} checks")]
    Short { got: usize, wanted: usize },
}

/// Carries out `plan`; `progress` is called with the number of pods that are done.
pub async fn run(
    paths: &LabPaths,
    exe: &Path,
    plan: &Plan,
    timeout: Duration,
    mut progress: impl FnMut(usize),
) -> Vec<Row> {
    let checks: Vec<_> = plan
        .targets
        .iter()
        .flat_map(|target| target.checks.clone())
        .collect();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let mut rows = stream::iter(&plan.sources)
        .map(|source| async {
            let findings = from_pod(paths, exe, source, checks.clone(), timeout).await;
            Row {
                source: format!("{}/{}", source.namespace, source.place.pod),
                node: source.place.node.clone(),
                findings: findings.map_err(|error| error.to_string()),
            }
        })
        .buffered(cpus * PROBERS_PER_CPU);
    let mut all = Vec::new();
    while let Some(row) = rows.next().await {
        all.push(row);
        progress(all.len());
    }
    all
}

/// Tries `checks` from one pod.
///
/// # Errors
/// If the pod cannot be entered, or its prober does not do its work.
pub async fn from_pod(
    paths: &LabPaths,
    exe: &Path,
    source: &Source,
    checks: Vec<Check>,
    timeout: Duration,
) -> Result<Vec<Finding>, ProbeError> {
    let mut enter = way_in(paths, &source.place)?;
    // Raw sockets for echo requests; the container's user may not have them.
    enter.user = None;
    enter.working_dir = None;
    let wanted = checks.len();
    let task = Task {
        enter,
        own: Client {
            pod: format!("{}/{}", source.namespace, source.place.pod),
            addresses: source.addresses.clone(),
        },
        checks,
        timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
    };
    let mut child = Command::new(exe)
        .args(["lab", prober::SUBCOMMAND])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        let text = serde_json::to_vec(&task).map_err(io::Error::from)?;
        stdin.write_all(&text).await?;
    }
    let output = child.wait_with_output().await?;
    if !output.status.success() {
        return Err(ProbeError::Failed {
            status: output.status.to_string(),
            stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    let findings: Vec<Finding> = serde_json::from_slice(&output.stdout).map_err(io::Error::from)?;
    match findings.len() == wanted {
        true => Ok(findings),
        false => Err(ProbeError::Short {
            got: findings.len(),
            wanted,
        }),
    }
}
