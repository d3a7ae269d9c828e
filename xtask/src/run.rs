//! Commands that must succeed, and the tools that a machine may lack.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Runs a command with its output shown.
///
/// # Errors
/// If it cannot be started or fails.
pub(crate) fn checked(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    let status = command.status().with_context(|| format!("start {shown}"))?;
    if !status.success() {
        bail!("{shown}: {status}");
    }
    Ok(())
}

/// A cargo of the toolchain that runs this.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Installs the Debian packages of which no file is there yet.
///
/// A machine without apt does without: tests that want the program skip and
/// name it.
///
/// # Errors
/// If apt is there and fails.
pub(crate) fn install(packages: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> = packages
        .iter()
        .filter(|(_, file)| !Path::new(file).exists())
        .map(|(name, _)| *name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !Path::new("/usr/bin/apt-get").exists() || !nix::unistd::geteuid().is_root() {
        eprintln!("not installed: {} (needs apt and root)", missing.join(", "));
        return Ok(());
    }
    eprintln!("installing {}", missing.join(", "));
    let apt = || {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive")
            // Servers among them are not started (invoke-rc.d(8)).
            .env("RUNLEVEL", "1")
            .args(["-qq", "-o=Dpkg::Use-Pty=0"]);
        apt
    };
    checked(apt().arg("update"))?;
    checked(
        apt()
            .args(["install", "--no-install-recommends", "--yes"])
            .args(missing),
    )
}
