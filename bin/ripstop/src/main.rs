//! `ripstop`: the agent of a node, the lab, and the verbs people type.

mod agent;
mod lab;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The network of a Kubernetes cluster: pods, services, names.
#[derive(Debug, Parser)]
#[command(name = "ripstop", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the network of this node until told to stop.
    Agent(agent::Args),
    /// A whole cluster network on this machine.
    Lab(lab::Args),
    /// What the lab runs in place of a container image.
    #[command(hide = true)]
    LabStandIn {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    match dispatch(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ripstop: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Agent(args) => agent::run(args).map(|()| ExitCode::SUCCESS),
        Command::Lab(args) => lab::run(args),
        Command::LabStandIn { args } => lab::stand_in(args),
    }
}
