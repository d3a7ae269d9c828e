//! `cargo xtask test`: the README's second command.

use anyhow::{Result, ensure};

use crate::image;
use crate::next;
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

/// What tests of a real cluster look for (tests/src/cluster.rs).
const CLUSTER: &str = "RIPSTOP_TEST_CLUSTER";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Test the cluster that KUBECONFIG leads to, which runs Ripstop, and nothing
    /// else: pods, services, names and policies, in namespaces of their own.
    #[arg(long)]
    cluster: bool,
    /// Passed to `cargo test`: a filter, `-p CRATE`, `-- --nocapture`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    cargo_args: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.cluster {
        return cluster(args);
    }
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the tests make namespaces and load eBPF programs: run them as root \
         (without root: cargo test -p ripstop-plan, and the other pure crates)"
    );
    install(TOOLS)?;
    // The two programs, which whole-lab tests start, also as an image has them.
    image::programs(true)?;
    if let Err(error) = next::run() {
        println!("upgrades to other tables are not tested: {error:#}");
    }
    // Every failure is told in one run, not the first.
    checked(
        cargo()
            .args(["test", "--workspace", "--no-fail-fast"])
            .args(&args.cargo_args),
    )
}

/// Needs kubectl, and neither root nor anything of this machine.
fn cluster(args: &Args) -> Result<()> {
    let filter = &args.cargo_args;
    let test = ["test", "--package", "ripstop-tests", "--test", "cluster"];
    // Its tests make pods on every node: one after the other.
    let harness = ["--", "--nocapture", "--test-threads=1"];
    let mut test_command = cargo();
    test_command.env(CLUSTER, "1").args(test).args(filter);
    if !filter.iter().any(|word| word == "--") {
        test_command.args(harness);
    }
    checked(&mut test_command)
}
