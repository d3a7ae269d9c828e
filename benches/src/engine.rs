//! The eBPF engine alone, without agent and lab: two pods of one node against
//! two namespaces joined by plain routed veth, and what the kernel says of the
//! programs.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ripstop_datapath::Datapath;
use ripstop_datapath::ebpf::{EbpfEngine, enable_stats};
use ripstop_model::{ObjectKey, Protocol};
use ripstop_plan::{Backend, Change, Frontend, FrontendRow};

use crate::load::{Pattern, many_files};
use crate::paired::{Rounds, compare};
use crate::report::{Report, Row, median};
use crate::rig::{DIRECT_PORT, PODS, PORT, Rig, with_own_mounts};
use crate::routed::Routed;
use crate::throughput::figure;

const SERVICE: &str = "10.96.0.5";

pub(crate) fn measure(rounds: Rounds, report: &mut Report) -> Result<()> {
    with_own_mounts(|| measure_here(rounds, report))
}

fn measure_here(rounds: Rounds, report: &mut Report) -> Result<()> {
    let bench = std::env::current_exe()?;
    let bench = bench.to_str().context("path of the benchmark")?;
    report.progress("engine: loading");
    opening(&mut Rig::<EbpfEngine>::new("opening")?, report)?;
    let mut rig = Rig::<EbpfEngine>::new("load")?;
    let service = lead(&mut rig, Protocol::Tcp)?;
    let _server = rig.serve(bench, 1)?;
    let routed = Routed::new()?;
    let _on_routed = routed.serve(bench, PORT)?;
    let pod = SocketAddr::new(PODS[1].parse()?, DIRECT_PORT);
    for (pattern, what, goals) in [
        (
            Pattern::Crr,
            "engine, connections/s, 4 clients",
            ["1.10", "0.98"],
        ),
        (
            Pattern::Rr,
            "engine, requests/s, 16 connections",
            ["1.35", ""],
        ),
    ] {
        report.progress(what);
        let sides = [None, Some(pod), Some(service)];
        let samples = rounds.measure(&sides, |target, time| match target {
            Some(target) => rig.sample(bench, *target, pattern, time),
            None => routed.sample(bench, routed.target(PORT).parse()?, pattern, time),
        })?;
        let names = ["routed veth", "pod", "ClusterIP"];
        for (ours, goal) in [1, 2].into_iter().zip(goals) {
            let (mine, peer) = (&samples[ours], &samples[ours - 1]);
            report.add(Row {
                what: format!("{what}: {}", names[ours]),
                ours: figure(mine),
                peer: format!("{}: {}", names[ours - 1], figure(peer)),
                ratio: Some(compare(mine, peer)),
                goal: goal.into(),
            });
        }
    }
    report.progress("engine: run time of the programs");
    let _stats = enable_stats()?;
    for pattern in [Pattern::Crr, Pattern::Rr] {
        rig.sample(bench, service, pattern, Duration::from_secs(1))?;
    }
    run_times(&mut rig, report)?;
    report.progress("engine: translated flows");
    flows(&mut rig, report)
}

/// A pod's datagrams to a service, from sockets that no hook has seen: the first of
/// each makes a flow, the second one finds it. Nobody answers.
fn flows(rig: &mut Rig<EbpfEngine>, report: &mut Report) -> Result<()> {
    const FLOWS: usize = 10_000;
    let service = lead(rig, Protocol::Udp)?;
    many_files()?;
    let _server = rig.in_pod(1, || UdpSocket::bind((PODS[1], PORT)))??;
    let connected = || -> std::io::Result<UdpSocket> {
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        socket.connect(service)?;
        Ok(socket)
    };
    let sockets = rig.in_pod(0, || {
        let sockets = (0..FLOWS).map(|_| connected());
        sockets.collect::<std::io::Result<Vec<_>>>()
    })??;
    let send = |rig: &mut Rig<EbpfEngine>| -> Result<f64> {
        let before = from_pod(rig)?;
        for socket in &sockets {
            socket.send(b"?")?;
        }
        let after = from_pod(rig)?;
        let (runs, time) = (after.0 - before.0, after.1 - before.1);
        ensure!(runs == FLOWS as u64, "{FLOWS} datagrams, {runs} runs");
        #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
        Ok(time as f64 / runs as f64)
    };
    let (new, known) = (send(rig)?, send(rig)?);
    report.add(Row {
        what: "engine, program from_pod, the first packet of a translated flow".into(),
        ours: format!("{new:.0} ns"),
        peer: format!("the second: {known:.0} ns"),
        ratio: Some((new / known).into()),
        goal: String::new(),
    });
    Ok(())
}

/// How often the program ran, and for how many nanoseconds.
fn from_pod(rig: &mut Rig<EbpfEngine>) -> Result<(u64, u64)> {
    let all = rig.run(|engine| engine.program_stats())??;
    let program = all.into_iter().find(|program| program.name == "from_pod");
    let program = program.context("no program from_pod")?;
    Ok((program.runs, program.run_time_ns))
}

/// How long an engine takes from nothing, and to adopt what is there.
fn opening(rig: &mut Rig<EbpfEngine>, report: &mut Report) -> Result<()> {
    let adopting: Vec<Duration> = (0..5).map(|_| rig.open()).collect::<Result<_>>()?;
    let loading: Vec<Duration> = (0..5)
        .map(|_| {
            // Without the record of what they are, the pins are not adopted.
            std::fs::remove_file(rig.config.bpffs.join("state"))?;
            rig.open()
        })
        .collect::<Result<_>>()?;
    for (what, times, goal) in [
        (
            "engine, tables made and programs verified",
            loading,
            "50 ms",
        ),
        ("engine, adopted by a new agent", adopting, ""),
    ] {
        report.add(Row {
            what: what.into(),
            ours: format!(
                "{:.1} ms",
                median(times.iter().map(|t| t.as_secs_f64() * 1e3))
            ),
            peer: String::new(),
            ratio: None,
            goal: goal.into(),
        });
    }
    Ok(())
}

fn run_times(rig: &mut Rig<EbpfEngine>, report: &mut Report) -> Result<()> {
    for program in rig.run(|engine| engine.program_stats())?? {
        #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
        let run_time = match program.runs {
            0 => "not run".to_owned(),
            runs => format!("{:.0} ns a run", program.run_time_ns as f64 / runs as f64),
        };
        let goal = if program.name.starts_with("from") {
            "150 ns"
        } else {
            "400 ns"
        };
        report.add(Row {
            what: format!("engine, program {}", program.name),
            ours: format!(
                "{run_time}, {} instructions verified",
                program.verified_instructions.unwrap_or(0)
            ),
            peer: String::new(),
            ratio: None,
            goal: format!("{goal}, 50,000"),
        });
    }
    Ok(())
}

/// The service in front of the second pod.
fn lead(rig: &mut Rig<EbpfEngine>, protocol: Protocol) -> Result<SocketAddr> {
    let frontend = Frontend {
        address: SERVICE.parse()?,
        protocol,
        port: PORT,
    };
    let row = FrontendRow {
        backends: vec![Backend {
            address: PODS[1].parse()?,
            port: PORT,
        }]
        .into(),
        ..FrontendRow::new(ObjectKey::new("bench", "near"))
    };
    let mut change = Change::default();
    change.frontends.insert(frontend, Some(row));
    rig.run(|engine| engine.apply(&change))??;
    Ok(SocketAddr::new(frontend.address, PORT))
}
