//! `ripstop policy`: what network policies allow, asked of running agents or of
//! manifests.

mod check;
mod drops;
mod dry_run;
mod live;
mod matrix;
mod service;
mod show;
mod target;
pub(crate) mod view;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use ipnet::IpNet;

use crate::run_dir::RunDirs;
use world::World;

/// Arguments of `ripstop policy`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Would one end reach the other, and which rule says so: as the kernel has it,
    /// or with -f as manifests say.
    Check(check::Args),
    /// What is in force on a pod, and which object it comes from: as the kernel has
    /// it, or with -f as manifests say.
    Show(show::Args),
    /// What policies stopped on a node, and which of them.
    Drops(drops::Args),
    /// What policies would deny of the connections that there are, without
    /// enforcing them.
    DryRun(dry_run::Args),
    /// Who reaches whom, on which ports, as manifests say.
    Matrix(matrix::Args),
}

/// Where the objects come from.
#[derive(Debug, clap::Args)]
struct Input {
    /// Manifests: files, or folders of them; `-` for standard input. What makes
    /// pods (a Deployment, say) counts as a pod of its name.
    #[arg(long = "filename", short, value_name = "FILE|FOLDER")]
    filenames: Vec<PathBuf>,
    /// Namespace of what names none.
    #[arg(long, short, default_value = "default")]
    namespace: String,
    /// Ranges for the addresses of pods that have none yet: rules with address
    /// blocks see them.
    #[arg(long, value_delimiter = ',', default_values = ["10.244.0.0/16", "fd00:244::/48"])]
    pod_cidr: Vec<IpNet>,
}

/// Manifests, or else running agents.
#[derive(Debug, clap::Args)]
struct Source {
    #[command(flatten)]
    input: Input,
    #[command(flatten)]
    agents: RunDirs,
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
}

impl Source {
    /// `None`: agents are asked.
    fn world(&self) -> Result<Option<World>> {
        let given = !self.input.filenames.is_empty();
        given.then(|| World::read(&self.input)).transpose()
    }

    /// A pod's full name, or an address as it is.
    fn full(&self, name: &str) -> String {
        match name.contains('/') || name.parse::<std::net::IpAddr>().is_ok() {
            true => name.to_owned(),
            false => format!("{}/{name}", self.input.namespace),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// # Errors
/// If the manifests cannot be read, with file and line, or name no such pod; or no
/// agent answers.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let (text, code) = match &args.command {
        Command::Check(args) => check::run(args)?,
        Command::Show(args) => show::run(args)?,
        Command::Drops(args) => drops::run(args)?,
        Command::DryRun(args) => dry_run::run(args)?,
        Command::Matrix(args) => matrix::run(&World::read(&args.input)?, args)?,
    };
    print!("{text}");
    Ok(code)
}

#[cfg(test)]
mod tests;
