//! `ripstop datapath`: which engine a node has, and another one while it works.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Subcommand;

use crate::agent::{Ask, Kind, Switched, ask, ask_status};
use crate::run_dir::RunDirs;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Say which engine it is, and why.
    Show {
        #[command(flatten)]
        agents: RunDirs,
    },
    /// Switch to another engine, now and for every start: connections live on.
    Set {
        engine: Kind,
        #[command(flatten)]
        agents: RunDirs,
    },
}

/// # Errors
/// If an agent does not answer, or its kernel refuses the engine. With several
/// agents all are tried.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let (Verb::Show { agents } | Verb::Set { agents, .. }) = &args.verb;
    let mut result = Ok(());
    for (name, run_dir) in agents.paths()? {
        let done = match &args.verb {
            Verb::Show { .. } => show(&name, &run_dir),
            Verb::Set { engine, .. } => set(&name, &run_dir, *engine),
        };
        if let Err(error) = done {
            let error = error.context(name);
            result = match result {
                Ok(()) => Err(error),
                Err(first) => {
                    eprintln!("ripstop: {error:#}");
                    Err(first)
                }
            };
        }
    }
    result.map(|()| ExitCode::SUCCESS)
}

fn show(name: &str, run_dir: &Path) -> Result<()> {
    let status = ask_status(run_dir)?;
    println!(
        "{name}: {} ({})",
        status.datapath.mode, status.datapath.reason
    );
    Ok(())
}

fn set(name: &str, run_dir: &Path, engine: Kind) -> Result<()> {
    let done: Switched = ask(run_dir, &Ask::SetDatapath { engine })
        .with_context(|| format!("switching to {}", engine.name()))?;
    if done.from == done.to {
        println!("{name}: {} already", done.to);
    } else {
        println!(
            "{name}: {} -> {} in {} ms, {} flows taken over",
            done.from, done.to, done.millis, done.flows
        );
    }
    Ok(())
}
