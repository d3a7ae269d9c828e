//! `ripstop install` and `ripstop uninstall`: what a runtime needs to find on a
//! node, and back to a node without any of it.

pub(crate) mod files;
pub(crate) mod made;
mod print;
mod uninstall;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::agent;
use files::Folders;
use print::Cluster;
pub(crate) use uninstall::Args as UninstallArgs;
pub(crate) use uninstall::run as uninstall;

/// Between looks whether the agent is there.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of the runtime's CNI plugins.
    #[arg(long, default_value = "/opt/cni/bin")]
    cni_bin_dir: PathBuf,
    /// Folder of the runtime's CNI configuration.
    #[arg(long, default_value = "/etc/cni/net.d")]
    cni_conf_dir: PathBuf,
    /// Run directory of the agent.
    #[arg(long, default_value = "/run/ripstop")]
    run_dir: PathBuf,
    /// Seconds to wait for the agent to be ready for pods.
    #[arg(long, default_value_t = 60)]
    timeout: u64,
    /// Touch nothing: write the manifests that a cluster applies instead.
    #[arg(long)]
    print: bool,
    #[command(flatten, next_help_heading = "Of the cluster (with --print)")]
    cluster: Cluster,
}

/// The plugin at once, the network list when pods can be attached: a runtime that
/// finds it takes the node for ready.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if args.print {
        print!("{}", args.cluster.manifests()?);
        return Ok(ExitCode::SUCCESS);
    }
    let folders = Folders {
        bin: Some(args.cni_bin_dir.clone()),
        conf: Some(args.cni_conf_dir.clone()),
    };
    let plugin = folders.write_plugin()?;
    if let Some(path) = plugin {
        println!("{}: installed", path.display());
    }
    let start = Instant::now();
    let patience = Duration::from_secs(args.timeout);
    while let Err(error) = agent::is_ready(&args.run_dir) {
        if start.elapsed() > patience {
            return Err(error).with_context(|| {
                format!(
                    "no agent is ready for pods at {} after {} s; the network list is not written",
                    args.run_dir.display(),
                    args.timeout
                )
            });
        }
        std::thread::sleep(PAUSE);
    }
    // Also what another start of the agent has not been told of.
    made::Made::read(&args.run_dir)?
        .with_folders(&folders)
        .write(&args.run_dir)?;
    if let Some(path) = folders.write_list(&args.run_dir)? {
        println!("{}: written", path.display());
    }
    Ok(ExitCode::SUCCESS)
}
