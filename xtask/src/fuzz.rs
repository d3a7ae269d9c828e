//! `cargo xtask fuzz`: hostile bytes for a given time, on stable Rust.

use anyhow::Result;

use crate::run::{cargo, checked};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long, in seconds.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
}

/// Runs the decoders' tests with structured random packets, with the checks of a
/// debug build.
pub(crate) fn run(args: &Args) -> Result<()> {
    checked(
        cargo()
            .args(["test", "--package", "ripstop-dns"])
            .args(["--test", "hostile", "--", "--nocapture"])
            .env("RIPSTOP_FUZZ_SECONDS", args.seconds.to_string()),
    )
}
