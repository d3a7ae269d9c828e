//! Kubernetes' own test image, agnhost: the subcommands that network tests use.
//! <https://github.com/kubernetes/kubernetes/tree/master/test/images/agnhost>

mod connect;
mod dial;
mod flags;
mod hostname;
mod netexec;
mod porter;
mod query;

use std::collections::BTreeMap;
use std::process::ExitCode;

use super::drain::{self, Drain};
use super::{Failure, Identity};
use crate::container::notify::Notifier;

/// Runs a subcommand until it ends by itself or is told to.
pub(super) async fn run(
    args: &[String],
    identity: &Identity,
    env: &BTreeMap<String, String>,
    started: Notifier,
) -> Result<ExitCode, Failure> {
    // The image's default command.
    let (command, args) = match args.split_first() {
        Some((command, args)) => (command.as_str(), args),
        None => ("pause", args),
    };
    if command == "connect" {
        let wanted = connect::Connect::parse(args)?;
        drop(started);
        return Ok(connect::run(&wanted).await);
    }
    let term = drain::on_term().map_err(Failure::Runtime)?;
    let drain = Drain::new();
    match command {
        "netexec" => netexec::start(&netexec::NetExec::parse(args)?, identity, &drain)?,
        "serve-hostname" => {
            hostname::start(&hostname::ServeHostname::parse(args)?, identity, &drain)?;
        }
        "porter" => porter::start(&porter::ports(env)?, &drain)?,
        "pause" => println!("Paused"),
        other => {
            return Err(Failure::Usage(format!(
                "unknown command {other:?} for the stand-in of agnhost, which knows connect, \
                 netexec, pause, porter and serve-hostname"
            )));
        }
    }
    drop(started);
    drain.run(term).await;
    Ok(ExitCode::SUCCESS)
}
