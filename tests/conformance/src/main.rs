//! `ripstop-conformance`: the suite, and what it runs in pods.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use ripstop_conformance::{client, options::Options, server, suite};

#[derive(Debug, Parser)]
#[command(
    about = "Does this cluster's network do what Kubernetes promises of Services?",
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// What runs where connections come from.
    #[command(hide = true)]
    Client,
    /// What runs where connections go to.
    #[command(hide = true)]
    Serve(server::Args),
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    match cli.role {
        Some(Role::Client) => client::run().map(|()| ExitCode::SUCCESS),
        Some(Role::Serve(args)) => server::run(&args).map(|()| ExitCode::SUCCESS),
        None => suite::main(&cli.options),
    }
}
