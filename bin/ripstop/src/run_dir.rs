//! Which agent is meant.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
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

/// As [`RunDir`], or all agents of a lab.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RunDirs {
    /// Run directory of the agent.
    #[arg(long, default_value = "/run/ripstop")]
    run_dir: PathBuf,
    /// The agent of a node of this lab.
    #[arg(long, conflicts_with = "run_dir")]
    lab: Option<String>,
    #[arg(long, requires = "lab")]
    node: Option<String>,
    /// All nodes of the lab.
    #[arg(long, requires = "lab", conflicts_with = "node")]
    all: bool,
}

impl RunDirs {
    /// Names and run directories; at least one.
    ///
    /// # Errors
    /// If there is no such lab or node.
    pub(crate) fn paths(&self) -> Result<Vec<(String, PathBuf)>> {
        let one = |node: &str| -> Result<(String, PathBuf)> {
            let run_dir = RunDir {
                run_dir: self.run_dir.clone(),
                lab: self.lab.clone(),
                node: Some(node.to_owned()),
            };
            Ok((node.to_owned(), run_dir.path()?))
        };
        let Some(lab) = &self.lab else {
            return Ok(vec![("this node".to_owned(), self.run_dir.clone())]);
        };
        if let Some(node) = &self.node {
            return Ok(vec![one(node)?]);
        }
        ensure!(
            self.all,
            "--lab {lab}: which node? Name it with --node, or take --all"
        );
        check_label("lab", lab)?;
        let mut nodes: Vec<String> = std::fs::read_dir(LabPaths::new(lab).nodes())
            .with_context(|| {
                format!("there is no lab {lab:?}; see which there are: ripstop lab list")
            })?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        nodes.sort();
        nodes.iter().map(|node| one(node)).collect()
    }
}
