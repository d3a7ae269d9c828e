//! `ripstop lab ...`: the verbs of the lab.

use std::process::ExitCode;

/// Arguments of `ripstop lab`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Runs one verb of the lab.
///
/// # Errors
/// If the verb could not do what it says.
pub(crate) fn run(Args {}: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("this build has no lab")
}
