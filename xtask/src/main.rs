//! Tasks of this repository that cargo alone does not do: `cargo xtask --help`.

mod bench;
mod conformance;
mod ebpf;
mod fuzz;
mod image;
mod kernel;
mod next;
mod run;
mod sctp;
mod test;

use anyhow::Result;
use clap::Parser;

#[derive(Debug, Parser)]
#[command(about = "Tasks of this repository")]
enum Task {
    /// Run all tests (as root: they make namespaces and load programs).
    Test(test::Args),
    /// Print what works of Services, by scenario, engine and family (as root).
    Conformance(conformance::Args),
    /// Compile the kernel programs (ebpf/) into the committed object.
    Ebpf(ebpf::Args),
    /// Build the container image.
    Image(image::Args),
    /// Build a version that does not exist, to which the tests upgrade.
    NextVersion,
    /// Run a command on Debian's own kernel, in a virtual machine.
    Kernel(kernel::Args),
    /// Run the tests of SCTP on Debian's own kernel, in a virtual machine.
    Sctp,
    /// Give the decoders hostile bytes for a while.
    Fuzz(fuzz::Args),
    /// Measure beside the peers (as root).
    Bench(bench::Args),
}

fn main() -> Result<()> {
    match Task::parse() {
        Task::Test(args) => test::run(&args),
        Task::Conformance(args) => conformance::run(&args),
        Task::Ebpf(args) => ebpf::run(&args),
        Task::Image(args) => image::run(&args),
        Task::NextVersion => next::run(),
        Task::Kernel(args) => kernel::run(&args),
        Task::Sctp => sctp::run(),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Bench(args) => bench::run(&args),
    }
}
