//! `cargo xtask bench`: builds for release and runs `benches/`.

use anyhow::{Result, ensure};

use crate::run::{cargo, checked, install};

/// The peers and what the measurement uses.
const TOOLS: &[(&str, &str)] = &[
    ("busybox-static", "/bin/busybox"),
    ("containernetworking-plugins", "/usr/lib/cni/bridge"),
    ("dnsmasq-base", "/usr/sbin/dnsmasq"),
    ("dnsperf", "/usr/bin/dnsperf"),
    ("iproute2", "/sbin/ip"),
    ("knot", "/usr/sbin/knotd"),
    ("kubernetes-client", "/usr/bin/kubectl"),
    ("unbound", "/usr/sbin/unbound"),
];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Passed to the benchmark; `--help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    bench_args: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the benchmark makes namespaces: run it as root"
    );
    install(TOOLS)?;
    checked(cargo().args(["build", "--release", "--quiet"]))?;
    checked(
        cargo()
            .args([
                "run",
                "--release",
                "--quiet",
                "--package",
                "ripstop-bench",
                "--",
            ])
            .args(&args.bench_args),
    )
}
