//! Which agent is meant.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use ripstop_lab::names::check_label;
use ripstop_lab::paths::LabPaths;

/// Names an agent by its run directory, or by lab and node.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RunDir {
    /// Run directory of the agent.
    #[arg(long, default_value = "/run/ripstop")]
    run_dir: PathBuf,
    /// The agent of a node of this lab.
    #[arg(long, requires = "node", conflicts_with = "run_dir")]
    lab: Option<String>,
    #[arg(long, requires = "lab")]
    node: Option<String>,
}

impl RunDir {
    /// # Errors
    /// If there is no such lab or node.
    pub(crate) fn path(&self) -> Result<PathBuf> {
        let (Some(lab), Some(node)) = (&self.lab, &self.node) else {
            return Ok(self.run_dir.clone());
        };
        check_label("lab", lab)?;
        check_label("node", node)?;
        let paths = LabPaths::new(lab);
        ensure!(
            paths.root().exists(),
            "there is no lab {lab:?}; see which there are: ripstop lab list"
        );
        let path = paths.agent_dir(node);
        ensure!(path.exists(), "there is no node {node:?} in lab {lab:?}");
        Ok(path)
    }
}
