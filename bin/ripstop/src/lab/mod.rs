//! `ripstop lab ...`: the verbs of the lab. Thin: what they do is in
//! `ripstop-lab`, here is what people type and what they see.

mod apply;
mod daemon;
mod demo;
mod down;
mod exec;
mod list;
mod probe;
mod progress;
mod show;
mod status;
mod up;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Subcommand, ValueEnum};
use ripstop_lab::lifecycle::{State, state};
use ripstop_lab::names::check_label;
use ripstop_lab::paths::LabPaths;
use ripstop_lab::rootless;

/// Arguments of `ripstop lab`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Bring a lab up: nodes, API, agents; apply manifests; wait until all is ready.
    Up(up::Args),
    /// End a lab: nothing of it is left.
    Down(down::Args),
    /// Show nodes and pods of a lab.
    Status(status::Args),
    /// Show the labs of this machine.
    List(list::Args),
    /// Make objects as the manifests say.
    Apply(apply::Args),
    /// Delete the objects that the manifests name.
    Delete(apply::DeleteArgs),
    /// Run a command in a container of a pod, or on a node.
    Exec(exec::Args),
    /// Print what a container wrote.
    Logs(exec::LogsArgs),
    /// Try every pod to every pod and every service.
    Probe(probe::Args),
    /// Bring a lab up with an example and walk through what it does.
    Demo(demo::Args),
    /// Say where the lab's kubeconfig is.
    Kubeconfig(show::KubeconfigArgs),
    /// What `probe` runs in each pod.
    #[command(name = ripstop_lab::probe::prober::SUBCOMMAND, hide = true)]
    Prober,
    /// The lab's own process.
    #[command(name = ripstop_lab::daemon::SUBCOMMAND, hide = true)]
    Daemon(daemon::Args),
}

impl Verb {
    /// The lab whose namespaces the verb works in.
    fn lab(&self) -> Option<&str> {
        let name = match self {
            Self::Up(args) => args.name(),
            Self::Down(args) => args.name(),
            Self::Exec(args) => args.name(),
            Self::Logs(args) => args.name(),
            Self::Probe(args) => args.name(),
            Self::Demo(args) => args.name(),
            Self::Status(_)
            | Self::List(_)
            | Self::Apply(_)
            | Self::Delete(_)
            | Self::Kubeconfig(_)
            | Self::Prober
            | Self::Daemon(_) => return None,
        };
        Some(name)
    }
}

/// Which lab.
#[derive(Debug, clap::Args)]
struct Name {
    /// Name of the lab.
    #[arg(long, default_value = "default", value_parser = lab_name)]
    name: String,
}

impl Name {
    fn paths(&self) -> LabPaths {
        LabPaths::new(&self.name)
    }

    /// Paths of a lab that runs.
    ///
    /// # Errors
    /// If it does not, with what to do about it.
    fn running(&self) -> Result<LabPaths> {
        let (name, paths) = (&self.name, self.paths());
        match state(&paths)? {
            State::Running => Ok(paths),
            State::Dead => bail!(
                "the processes of lab {name:?} have ended; go on with its objects: \
                 ripstop lab up --name {name}; remove what is left: ripstop lab down --name {name}"
            ),
            State::Absent => bail!(
                "there is no lab {name:?}; start it: ripstop lab up --name {name}; \
                 see which there are: ripstop lab list"
            ),
        }
    }
}

/// Manifests to read.
#[derive(Debug, clap::Args)]
struct Files {
    /// Manifest: a file, a directory, or - for standard input; may be repeated.
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR")]
    files: Vec<PathBuf>,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

fn lab_name(text: &str) -> Result<String, String> {
    check_label("lab", text)
        .map(|()| text.to_owned())
        .map_err(|error| error.to_string())
}

/// Runs one verb of the lab.
///
/// # Errors
/// If the verb could not do what it says.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    if let Some(name) = args.verb.lab() {
        rootless::enter(name)?;
    }
    match args.verb {
        Verb::Up(args) => up::run(args),
        Verb::Down(args) => down::run(&args),
        Verb::Status(args) => status::run(&args),
        Verb::List(args) => list::run(&args),
        Verb::Apply(args) => apply::run(&args),
        Verb::Delete(args) => apply::delete(&args),
        Verb::Exec(args) => exec::run(args),
        Verb::Logs(args) => exec::logs(&args),
        Verb::Probe(args) => probe::run(&args),
        Verb::Demo(args) => demo::run(&args),
        Verb::Prober => Ok(ripstop_lab::probe::prober::main()),
        Verb::Kubeconfig(args) => show::kubeconfig(&args),
        Verb::Daemon(args) => daemon::run(&args),
    }
}

/// Runs asynchronous work of a verb on this thread.
fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}
