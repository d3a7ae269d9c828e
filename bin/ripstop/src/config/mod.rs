//! The agent's configuration file: every setting of `ripstop agent` by its flag's
//! name, as Kubernetes writes names (`--cluster-dns` is `clusterDns`).
//!
//! The flags are the one list of settings: what a key is, what its value may be,
//! its default and its words are all read from them. A file becomes flags in front
//! of those that were given, which so have the last word.

mod file;
mod nearest;
mod setting;
mod template;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args as _, Command, FromArgMatches as _, Subcommand};

use crate::agent;
use setting::Setting;

/// First word of the command line that has settings.
const AGENT: &str = "agent";
const CONFIG: &str = "config";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Write a configuration file with all settings and their defaults.
    Default,
    /// Check a configuration file of the agent.
    Check { file: PathBuf },
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    match &args.verb {
        Verb::Default => print!("{}", template::all(&settings())),
        Verb::Check { file } => {
            check(file)?;
            println!("{}: as it should be", file.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The command line with the settings of its configuration file in it.
///
/// # Errors
/// If there is no such file, or a key or value in it that means nothing.
pub(crate) fn expand(line: Vec<OsString>) -> Result<Vec<OsString>> {
    if line.get(1).is_none_or(|word| word != AGENT) {
        return Ok(line);
    }
    // What is wrong with the flags is said later, when all are together.
    let command = command().ignore_errors(true);
    let Ok(given) = command.try_get_matches_from(&line[1..]) else {
        return Ok(line);
    };
    let Some(path) = given.get_one::<PathBuf>(CONFIG) else {
        return Ok(line);
    };
    let from_file = flags(path, &given)?;
    let (start, flags) = line.split_at(2);
    Ok([start, &from_file, flags].concat())
}

/// The flags that a file stands for, without those that were given.
fn flags(path: &Path, given: &ArgMatches) -> Result<Vec<OsString>> {
    let settings = settings();
    let values = file::read(path, &settings)?;
    let is_given = |setting: &Setting| {
        let source = given.value_source(setting.id());
        matches!(
            source,
            Some(ValueSource::CommandLine | ValueSource::EnvVariable)
        )
    };
    let wanted = values.into_iter().filter(|(setting, _)| !is_given(setting));
    let flags = wanted.flat_map(|(setting, values)| setting.flags(&values));
    Ok(flags.map(OsString::from).collect())
}

/// Everything that the agent itself would say of the file, on a node of any name.
pub(crate) fn check(path: &Path) -> Result<()> {
    let node = OsString::from("--node-name=any");
    let line = [AGENT.into(), node].to_vec();
    let given = command().ignore_errors(true).try_get_matches_from(&line)?;
    let line = [line, flags(path, &given)?].concat();
    let matches = command().try_get_matches_from(line);
    let args = matches.and_then(|matches| agent::Args::from_arg_matches(&matches));
    let shown = path.display().to_string();
    args.with_context(|| shown.clone())?.check().context(shown)
}

fn command() -> Command {
    agent::Args::augment_args(Command::new(AGENT))
}

fn settings() -> Vec<Setting> {
    command()
        .get_arguments()
        .filter_map(Setting::new)
        .filter(|setting| setting.id() != CONFIG)
        .collect()
}

#[cfg(test)]
mod tests;
