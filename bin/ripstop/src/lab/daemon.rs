//! `ripstop lab daemon`: the process that `up` starts.

use std::process::ExitCode;

use anyhow::Result;
use tracing_subscriber::EnvFilter;

use super::Name;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    name: Name,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let filter = EnvFilter::try_from_env("RIPSTOP_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    ripstop_lab::daemon::main(&args.name.name)?;
    Ok(ExitCode::SUCCESS)
}
