//! `ripstop lab down`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use ripstop_lab::lifecycle::{Keep, Removed, labs, tear_down};
use ripstop_lab::names::check_label;
use ripstop_lab::paths::LabPaths;
use ripstop_lab::text::count;

use super::Name;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    name: Name,
    /// All labs of this machine.
    #[arg(long, conflicts_with = "name")]
    all: bool,
}

impl Args {
    pub(super) fn name(&self) -> &str {
        &self.name.name
    }
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    if !nix::unistd::geteuid().is_root() {
        bail!("ending a lab needs root, as starting it did; run it with sudo");
    }
    let names = match args.all {
        // A directory of another name is none of a lab's.
        true => labs()
            .into_iter()
            .filter(|name| check_label("lab", name).is_ok())
            .collect(),
        false => vec![args.name.name.clone()],
    };
    if names.is_empty() {
        println!("no lab is up");
    }
    let mut code = ExitCode::SUCCESS;
    for name in names {
        match tear_down(&LabPaths::new(&name), Keep::Nothing) {
            Ok(removed) if removed.is_nothing() => println!("lab {name}: nothing was there"),
            Ok(removed) => println!("lab {name} is down: {}", describe(&removed)),
            Err(errors) => {
                code = ExitCode::FAILURE;
                for error in errors {
                    eprintln!("ripstop: lab {name}: {error}");
                }
            }
        }
    }
    Ok(code)
}

/// What was removed, as text.
fn describe(removed: &Removed) -> String {
    let some = |number: usize, what: &str| (number > 0).then(|| count(number, what));
    let parts = [
        some(removed.processes, "process"),
        some(removed.namespaces, "network namespace"),
        some(removed.mounts, "mount"),
        removed.cgroup.then(|| "its control groups".to_owned()),
        removed.directory.then(|| "its files".to_owned()),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    format!("removed {}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_removed_is_counted() {
        let removed = Removed {
            processes: 2,
            namespaces: 1,
            cgroup: true,
            ..Removed::default()
        };
        assert_eq!(
            describe(&removed),
            "removed 2 processes, 1 network namespace, its control groups"
        );
    }
}
