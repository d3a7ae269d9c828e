//! `cargo xtask sctp`: tests of SCTP, which the kernels of many machines do not
//! have, on one that has it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::kernel;
use crate::run::{cargo, checked};

/// Policies, in both engines, and the suite's scenarios.
pub(crate) fn run() -> Result<()> {
    let packages = ["--package", "ripstop", "--package", "ripstop-cni"];
    let suite = ["--package", "ripstop-conformance"];
    // Without acceleration the machine is slow enough.
    checked(
        cargo()
            .args(["build", "--release", "--quiet"])
            .args(packages)
            .args(suite),
    )?;
    let policies = test_program("policy")?;
    // It says what did not work even where something else did not before.
    let script = format!(
        "{} sctp --nocapture; policies=$?; target/release/ripstop-conformance --scenario sctp && \
         exit $policies",
        policies.display()
    );
    kernel::run_with(
        &["sctp", "nf_conntrack", "nf_tables"],
        20,
        &["sh", "-c", &script],
    )
}

/// The program of an integration test, relative to here.
fn test_program(name: &str) -> Result<PathBuf> {
    let output = cargo()
        .args([
            "test",
            "--release",
            "--no-run",
            "--package",
            "ripstop-tests",
            "--test",
            name,
        ])
        .args(["--message-format", "json"])
        .stderr(std::process::Stdio::inherit())
        .output()?;
    anyhow::ensure!(output.status.success(), "the test {name} does not compile");
    let lines = output.stdout.split(|byte| *byte == b'\n');
    let built = lines
        .filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| Some(PathBuf::from(message["executable"].as_str()?)));
    let built = built.with_context(|| format!("cargo names no program of the test {name}"))?;
    let here = std::env::current_dir()?;
    let relative = built.strip_prefix(&here).map(Path::to_path_buf);
    Ok(relative.unwrap_or(built))
}
