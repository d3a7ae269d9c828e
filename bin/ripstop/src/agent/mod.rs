//! `ripstop agent`: the network of one node.

mod args;
mod cni;

pub(crate) use args::Args;

/// Runs the agent until SIGTERM.
///
/// # Errors
/// If the node's network cannot be set up.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let _ = args;
    anyhow::bail!("this build has no agent")
}
