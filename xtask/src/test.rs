//! `cargo xtask test`: the README's second command.

use anyhow::{Result, ensure};

use crate::image;
use crate::run::{cargo, checked, install};

/// Programs that tests talk to or run inside pods, and a file of each.
const TOOLS: &[(&str, &str)] = &[
    ("bind9-dnsutils", "/usr/bin/dig"),
    ("busybox-static", "/bin/busybox"),
    ("containerd", "/usr/bin/ctr"),
    ("containernetworking-plugins", "/usr/lib/cni/bridge"),
    ("iproute2", "/sbin/ip"),
    ("knot-dnsutils", "/usr/bin/kdig"),
    ("kubernetes-client", "/usr/bin/kubectl"),
    ("musl-tools", "/usr/bin/musl-gcc"),
    ("podman", "/usr/bin/podman"),
    ("runc", "/usr/sbin/runc"),
    ("wget", "/usr/bin/wget"),
];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Passed to `cargo test`: a filter, `-p CRATE`, `-- --nocapture`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    cargo_args: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the tests make namespaces and load eBPF programs: run them as root \
         (without root: cargo test -p ripstop-plan, and the other pure crates)"
    );
    install(TOOLS)?;
    // The two programs, which whole-lab tests start, also as an image has them.
    image::programs(true)?;
    checked(cargo().args(["test", "--workspace"]).args(&args.cargo_args))
}
