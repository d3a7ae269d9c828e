//! Services by the thousand, in each engine: how long until the last one can be
//! reached, what it costs to connect through it, how soon a changed endpoint
//! counts, and what memory it takes. No API server: from the objects on.

mod objects;
mod probe;
mod world;

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use nix::time::{ClockId, clock_gettime};
use ripstop_datapath::ebpf::EbpfEngine;
use ripstop_datapath::nftables::NftEngine;

use crate::load::Pattern;
use crate::paired::{Rounds, compare};
use crate::report::{Report, Row, quantile};
use crate::rig::{DIRECT_PORT, Engine, Engines, Kind, with_own_mounts};
use crate::throughput::figure;
use objects::{ENDPOINTS, address, pod};
pub(crate) use probe::probe;
use world::{Size, World};

/// Changes of one endpoint that are timed.
const CHANGES: usize = 200;

/// What is measured in a process of its own: memory that one has had is not
/// another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Case {
    /// 10,000 services: cold start, memory, changes.
    Start,
    /// Connections through the last of so many services.
    Rates,
    /// One service with 10,000 endpoints: loaded, and changed.
    Large,
    /// The same, with addresses for clients outside.
    LargeOutside,
    /// 5,000 services with 50 endpoints.
    Many,
}

pub(crate) fn measure(
    engines: Engines,
    repetitions: usize,
    seconds: u64,
    report: &mut Report,
) -> Result<()> {
    let bench = std::env::current_exe()?;
    let kinds = Kind::value_variants().iter();
    for engine in kinds.filter(|kind| engines.has(**kind)) {
        for case in Case::value_variants() {
            let (engine, case) = (name(*engine)?, name(*case)?);
            let output = Command::new(&bench)
                .args(["--repetitions", &repetitions.to_string()])
                .args(["--seconds", &seconds.to_string(), "--output", "json"])
                .args(["services-of", &engine, &case])
                .stderr(Stdio::inherit())
                .output()?;
            ensure!(output.status.success(), "services of {engine}: {case}");
            let rows: Vec<Row> = serde_json::from_slice(&output.stdout)?;
            rows.into_iter().for_each(|row| report.add(row));
        }
    }
    Ok(())
}

/// As it is written as an argument.
fn name(value: impl ValueEnum) -> Result<String> {
    let value = value
        .to_possible_value()
        .context("a value without a name")?;
    Ok(value.get_name().to_owned())
}

/// One case of [`measure`].
pub(crate) fn measure_one(
    engine: Kind,
    case: Case,
    rounds: Rounds,
    report: &mut Report,
) -> Result<()> {
    with_own_mounts(|| match engine {
        Kind::Ebpf => measure_case::<EbpfEngine>(case, rounds, report),
        Kind::Nftables => measure_case::<NftEngine>(case, rounds, report),
    })
}

fn measure_case<E: Engine>(case: Case, rounds: Rounds, report: &mut Report) -> Result<()> {
    let bench = std::env::current_exe()?;
    let bench = bench.to_str().context("path of the benchmark")?;
    let (services, endpoints) = match case {
        Case::Rates => return rates::<E>(bench, rounds, report),
        Case::Start => (10_000, ENDPOINTS),
        Case::Large | Case::LargeOutside => (1, 10_000),
        Case::Many => (5_000, 50),
    };
    let size = Size {
        services,
        endpoints,
        outside: case == Case::LargeOutside,
    };
    report.progress(&format!("{}: {services} x {endpoints}", E::NAME));
    let mut world = World::<E>::new(bench, size)?;
    if load(&mut world, report)? {
        changes(&mut world, report)?;
    }
    Ok(())
}

/// Everything at once; false if it did not fit.
fn load<E: Engine>(world: &mut World<E>, report: &mut Report) -> Result<bool> {
    let loaded = world.fill();
    let Size {
        services,
        endpoints,
        ..
    } = world.size;
    let (until, goal) = match world.size.is_small() {
        true => (
            "listed to the last one reached",
            "500 ms (aim 150) eBPF, 1 s nftables; maps 20 MB; 60 MB resident",
        ),
        false => ("written", ""),
    };
    let ours = match &loaded {
        Ok(time) => format!("{:.0} ms, {}", time.as_secs_f64() * 1e3, world.memory()?),
        Err(error) => format!("refused: {error}"),
    };
    report.add(Row {
        what: format!(
            "{}: {services} services{} with {endpoints} endpoints, {until}",
            E::NAME,
            world.size.at()
        ),
        ours,
        peer: String::new(),
        ratio: None,
        goal: goal.into(),
    });
    Ok(loaded.is_ok())
}

/// One endpoint of the last service is replaced by another, again and again.
/// Until a connection reaches it, where it is the only one; else until it is
/// written.
fn changes<E: Engine>(world: &mut World<E>, report: &mut Report) -> Result<()> {
    let change = |turn: usize| -> Result<Duration> {
        match world.size.is_small() {
            true => world.lead_to(1 + turn % ENDPOINTS),
            false => world.replace(turn),
        }
    };
    let times = (0..CHANGES).map(change).collect::<Result<Vec<_>>>()?;
    let at = |q| quantile(times.iter().map(|time| time.as_secs_f64() * 1e3), q);
    let Size {
        services,
        endpoints,
        ..
    } = world.size;
    let until = match world.size.is_small() {
        true => "a connection reaches it",
        false => "it is written",
    };
    report.add(Row {
        what: format!(
            "{}: one endpoint changed at {services} services{} with {endpoints}",
            E::NAME,
            world.size.at()
        ),
        ours: format!(
            "p50 {:.2} ms, p99 {:.2} ms until {until}",
            at(0.5),
            at(0.99)
        ),
        peer: String::new(),
        ratio: None,
        goal: "p99 5 ms (aim 2)".into(),
    });
    Ok(())
}

/// Through the last service and straight to the same pod, on nodes with few and
/// with many services, in turns.
fn rates<E: Engine>(bench: &str, rounds: Rounds, report: &mut Report) -> Result<()> {
    let mut worlds = Vec::new();
    for services in [1, 1_000, 10_000, 30_000] {
        report.progress(&format!("{}: {services} services", E::NAME));
        let size = Size {
            services,
            endpoints: ENDPOINTS,
            outside: false,
        };
        let mut world = World::<E>::new(bench, size)?;
        world.fill()?;
        world.lead_to(1)?;
        worlds.push(world);
    }
    report.progress(&format!("{}: connections", E::NAME));
    let direct = SocketAddr::new(pod(1), DIRECT_PORT);
    let targets = |world: &World<E>| [address(world.size.services - 1), direct];
    let sides: Vec<_> = worlds
        .iter()
        .flat_map(|world| targets(world).map(|target| (world, target)))
        .collect();
    let samples = rounds.measure(&sides, |(world, target), time| {
        world.rig.sample(bench, *target, Pattern::Crr, time)
    })?;
    for (world, samples) in worlds.iter().zip(samples.chunks_exact(2)) {
        let [service, pod] = samples else { continue };
        report.add(Row {
            what: format!(
                "{}: connections/s through the last of {} services",
                E::NAME,
                world.size.services
            ),
            ours: figure(service),
            peer: format!("the pod itself: {}", figure(pod)),
            ratio: Some(compare(service, pod)),
            goal: "0.97 eBPF".into(),
        });
    }
    if let [one, .., most, _] = &samples[..] {
        report.add(Row {
            what: format!("{}: connections/s at 30,000 services", E::NAME),
            ours: figure(most),
            peer: format!("at 1: {}", figure(one)),
            ratio: Some(compare(most, one)),
            goal: "0.95".into(),
        });
    }
    Ok(())
}

/// The machine's monotonic clock, which the probe reads as well.
fn now() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC)?.into())
}
