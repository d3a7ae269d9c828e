//! `cargo xtask bench`: how fast Ripstop is, beside its peers, in one run.
//!
//! No test and no thresholds: the goals stand beside the figures, and a figure
//! that falls short is printed like any other. Runs need root; everything is
//! made in namespaces of its own and removed afterwards.

mod blocks;
mod cni;
mod dns;
mod enforce;
mod engine;
mod lab;
mod late;
mod load;
mod objects;
mod paired;
mod policy;
mod report;
mod rig;
mod rolling;
mod routed;
mod services;
mod start;
mod switch;
mod throughput;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use paired::Rounds;
use report::Report;

#[derive(Debug, Parser)]
#[command(about = "Measures Ripstop beside its peers")]
struct Args {
    /// Only these parts (all of them if none is named).
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// Folder of the `ripstop` and `ripstop-cni` to measure.
    #[arg(long, default_value = "target/release")]
    binaries: PathBuf,
    /// Repetitions of each throughput measurement, interleaved.
    #[arg(long, default_value_t = 5)]
    repetitions: usize,
    /// Seconds that one throughput measurement takes. Where two are compared both
    /// have as many seconds as all repetitions would take, in short turns.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Only this engine, in `services`, `rolling`, `enforce` and `blocks`.
    #[arg(long, value_enum)]
    engine: Option<rig::Kind>,
    /// The Online Boutique's manifests.
    #[arg(
        long,
        default_value = "../shared/manifests/online-boutique/kubernetes-manifests.yaml"
    )]
    boutique: PathBuf,
    #[arg(long, value_enum, default_value_t)]
    output: report::Output,
    #[command(subcommand)]
    load: Option<Load>,
}

impl Args {
    fn rounds(&self) -> Rounds {
        let repetitions = u64::try_from(self.repetitions).unwrap_or(u64::MAX);
        Rounds::of_seconds(self.seconds.saturating_mul(repetitions))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The eBPF engine alone: load time, run time, same-node rates.
    Engine,
    /// Thousands of services in each engine: cold start, changes, rates, memory.
    Services,
    /// 1,000 endpoints of a service replaced under load, in each engine.
    Rolling,
    /// Planning network policies, without a kernel.
    Policy,
    /// Enforcing them in each engine: rates beside none, changes until they are in force.
    Enforce,
    /// 100,000 blocks in policies, in each engine: loaded, and audited.
    Blocks,
    /// Connections and requests per second, pod to pod and through a service.
    Throughput,
    /// From one engine to the other while 100,000 connections stay.
    Switch,
    /// How many connections to one server outside, which ends them, begin late.
    Late,
    /// CNI ADD and DEL beside the reference plugins.
    Cni,
    /// The Online Boutique from nothing to all Ready, and the agent's memory.
    Start,
    /// 200 pods on 20 nodes.
    Scale,
    /// The DNS server beside other servers with the same names.
    Dns,
}

/// The load's two ends, started by the benchmark inside namespaces and pods.
#[derive(Debug, Subcommand)]
enum Load {
    /// Our DNS server with the names that its peers have.
    #[command(hide = true)]
    DnsServe { address: SocketAddr },
    #[command(hide = true)]
    DnsMemory,
    #[command(name = "load-serve", hide = true)]
    Serve { addresses: Vec<SocketAddr> },
    #[command(name = "load-probe", hide = true)]
    Probe,
    #[command(name = "load-doors", hide = true)]
    Doors,
    /// Many connections that are kept.
    #[command(name = "load-hold", hide = true)]
    Hold { target: SocketAddr },
    /// Connections at a pace.
    #[command(name = "load-paced", hide = true)]
    Paced { target: SocketAddr },
    /// One case of part `services`, for one engine.
    #[command(hide = true)]
    ServicesOf {
        #[arg(value_enum)]
        engine: rig::Kind,
        #[arg(value_enum)]
        case: services::Case,
    },
    /// Connections until standard input ends.
    #[command(name = "load-until", hide = true)]
    Until { target: SocketAddr, clients: usize },
    #[command(name = "load-run", hide = true)]
    Run {
        target: SocketAddr,
        #[arg(value_enum)]
        pattern: load::Pattern,
        clients: usize,
        milliseconds: u64,
    },
}

fn main() -> Result<()> {
    let args = Args::parse();
    match args.load {
        Some(Load::DnsServe { address }) => return dns::serve(address),
        Some(Load::DnsMemory) => return dns::tell_memory(),
        Some(Load::Serve { addresses }) => return load::serve(&addresses),
        Some(Load::Probe) => return services::probe(),
        Some(Load::Hold { target }) => return switch::hold(target),
        Some(Load::Paced { target }) => return late::run(target),
        Some(Load::Doors) => return rolling::doors(),
        Some(Load::ServicesOf { engine, case }) => {
            let mut report = Report::new(args.output);
            services::measure_one(engine, case, args.rounds(), &mut report)?;
            return report.finish();
        }
        Some(Load::Until { target, clients }) => {
            let until = || std::io::stdin().lines().for_each(drop);
            return load::run(target, load::Pattern::Crr, clients, until)?.print();
        }
        Some(Load::Run {
            target,
            pattern,
            clients,
            milliseconds,
        }) => {
            let until = || std::thread::sleep(Duration::from_millis(milliseconds));
            return load::run(target, pattern, clients, until)?.print();
        }
        None => {}
    }
    let engines = rig::Engines(args.engine);
    let rounds = args.rounds();
    let wanted = |part| args.parts.is_empty() || args.parts.contains(&part);
    let mut report = Report::new(args.output);
    if wanted(Part::Engine) {
        engine::measure(rounds, &mut report)?;
    }
    if wanted(Part::Services) {
        services::measure(engines, args.repetitions, args.seconds, &mut report)?;
    }
    if wanted(Part::Rolling) {
        rolling::measure(engines, &mut report)?;
    }
    if wanted(Part::Policy) {
        policy::measure(&mut report);
    }
    if wanted(Part::Enforce) {
        enforce::measure(engines, rounds, &mut report)?;
    }
    if wanted(Part::Blocks) {
        blocks::measure(engines, &mut report)?;
    }
    let alone = [
        Part::Engine,
        Part::Services,
        Part::Rolling,
        Part::Policy,
        Part::Enforce,
        Part::Blocks,
    ];
    if !args.parts.is_empty() && args.parts.iter().all(|part| alone.contains(part)) {
        return report.finish();
    }
    let binaries = args.binaries.canonicalize().with_context(|| {
        format!(
            "{}: build with `cargo build --release`",
            args.binaries.display()
        )
    })?;
    if wanted(Part::Throughput) {
        throughput::measure(&binaries, rounds, &mut report)?;
    }
    if wanted(Part::Switch) {
        switch::measure(&binaries, &mut report)?;
    }
    if wanted(Part::Late) {
        late::measure(&binaries, &mut report)?;
    }
    if wanted(Part::Cni) {
        cni::measure(&binaries, &mut report)?;
    }
    if wanted(Part::Start) {
        start::boutique(&binaries, &args.boutique, args.repetitions, &mut report)?;
    }
    if wanted(Part::Dns) {
        dns::measure(&binaries, args.repetitions, args.seconds, &mut report)?;
    }
    if wanted(Part::Scale) {
        start::scale(&binaries, &mut report)?;
    }
    report.finish()
}
