//! `ripstop lab kubeconfig`.

use std::process::ExitCode;

use anyhow::{Context, Result};

use super::Name;

#[derive(Debug, clap::Args)]
pub(super) struct KubeconfigArgs {
    #[command(flatten)]
    name: Name,
    /// Print its content, not its path.
    #[arg(long)]
    print: bool,
}

pub(super) fn kubeconfig(args: &KubeconfigArgs) -> Result<ExitCode> {
    let path = args.name.paths().kubeconfig();
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!(
            "lab {:?} has no kubeconfig at {}; is it up? ripstop lab list",
            args.name.name,
            path.display()
        )
    })?;
    if args.print {
        print!("{text}");
    } else {
        println!("{}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}
