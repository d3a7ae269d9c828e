//! `ripstop lab probe`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use ripstop_lab::api::Api;
use ripstop_lab::probe::matrix::{self, Totals};
use ripstop_lab::probe::{self, Plan};
use ripstop_lab::ready;
use ripstop_lab::text::count;

use super::progress::Progress;
use super::{Name, Output, block_on};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    name: Name,
    /// How long an attempt may take, milliseconds.
    #[arg(long, default_value_t = 2000)]
    timeout: u64,
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
}

impl Args {
    pub(super) fn name(&self) -> &str {
        &self.name.name
    }
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    if !nix::unistd::geteuid().is_root() {
        bail!("entering pods' namespaces needs root; run it with sudo");
    }
    let paths = args.name.running()?;
    let exe = std::env::current_exe()?;
    let begin = Instant::now();
    let (plan, rows) = block_on(async {
        let api = Api::connect(&paths.kubeconfig()).await?;
        let plan = Plan::new(&ready::read(&api).await?);
        let progress = Progress::new();
        let attempts = count(plan.attempts(), "attempt");
        let show = |done: usize| {
            progress.show(format!(
                "{done} of {} done, {attempts}",
                count(plan.sources.len(), "pod")
            ));
        };
        let timeout = Duration::from_millis(args.timeout);
        let rows = probe::run(&paths, &exe, &plan, timeout, show).await;
        drop(progress);
        Ok((plan, rows))
    })?;
    if plan.sources.is_empty() {
        bail!(
            "lab {:?} has no pod that is ready; see: ripstop lab status",
            args.name.name
        );
    }
    match args.output {
        Output::Json => println!("{:#}", matrix::json(&plan, &rows, begin.elapsed())),
        Output::Text => print!("{}", matrix::text(&plan, &rows, begin.elapsed())),
    }
    Ok(match Totals::of(&rows).is_good() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
