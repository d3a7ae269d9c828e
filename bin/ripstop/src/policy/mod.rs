//! `ripstop policy`: what network policies allow, asked of manifests.

mod check;
mod matrix;
mod service;
mod show;
mod target;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use ipnet::IpNet;

use world::World;

/// Arguments of `ripstop policy`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Would one end reach the other, and which rule says so.
    Check(check::Args),
    /// What is in force on a pod, and which object it comes from.
    Show(show::Args),
    /// Who reaches whom, on which ports.
    Matrix(matrix::Args),
}

/// Where the objects come from.
#[derive(Debug, clap::Args)]
struct Input {
    /// Manifests: files, or folders of them; `-` for standard input. What makes
    /// pods (a Deployment, say) counts as a pod of its name.
    #[arg(long = "filename", short, required = true, value_name = "FILE|FOLDER")]
    filenames: Vec<PathBuf>,
    /// Namespace of what names none.
    #[arg(long, short, default_value = "default")]
    namespace: String,
    /// Ranges for the addresses of pods that have none yet: rules with address
    /// blocks see them.
    #[arg(long, value_delimiter = ',', default_values = ["10.244.0.0/16", "fd00:244::/48"])]
    pod_cidr: Vec<IpNet>,
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// # Errors
/// If the manifests cannot be read, with file and line, or name no such pod.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let (text, code) = match &args.command {
        Command::Check(args) => check::run(&World::read(&args.input)?, args)?,
        Command::Show(args) => show::run(&World::read(&args.input)?, args)?,
        Command::Matrix(args) => matrix::run(&World::read(&args.input)?, args)?,
    };
    print!("{text}");
    Ok(code)
}

#[cfg(test)]
mod tests;
