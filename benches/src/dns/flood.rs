//! A client that asks a little while another asks all that it can.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use nix::sched::{sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::names::{name, services};
use super::peers::Peer;
use super::probe;
use super::{ADDRESS, SERVER_CORE};
use crate::report::{Report, Row, quantile};

/// Threads that ask without waiting for answers.
const FLOODERS: usize = 2;
/// Questions per second of the other client.
const MODEST: f64 = 500.0;
const MODEST_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Questions of the flood per second, and the other client's round trips.
struct Outcome {
    flood: f64,
    latencies: Vec<f64>,
    lost: usize,
}

pub(super) fn measure(dir: &Path, seconds: u64, report: &mut Report) -> Result<()> {
    let mut shown = Vec::new();
    for (peer, port) in [
        (Peer::Ours, 5410),
        (Peer::Unbound, 5411),
        (Peer::Knot, 5412),
    ] {
        report.progress(&format!("dns: {peer:?}, flooded"));
        let at = SocketAddr::new(ADDRESS, port);
        let _server = peer.start(dir, at)?;
        probe::wait_until_served(at)?;
        shown.push((peer, show(&flooded(at, seconds)?)));
    }
    let (_, ours) = shown.remove(0);
    for (peer, theirs) in shown {
        report.add(Row {
            what: format!("dns, a client with {MODEST} questions/s beside a flood of another"),
            ours: ours.clone(),
            peer: format!("{peer:?}: {theirs}"),
            ratio: None,
            goal: "none lost".into(),
        });
    }
    Ok(())
}

fn show(outcome: &Outcome) -> String {
    let at = |q| quantile(outcome.latencies.iter().copied(), q);
    let all = outcome.latencies.len() + outcome.lost;
    format!(
        "{} of {all} lost, p50 {:.0} µs, p99 {:.0} µs (flood: {:.0}/s)",
        outcome.lost,
        at(0.5),
        at(0.99),
        outcome.flood
    )
}

/// The server's core is its own, for this thread as for others that load it.
fn leave_servers_core() -> Result<()> {
    let this = Pid::from_raw(0);
    let mut cores = sched_getaffinity(this)?;
    cores.unset(SERVER_CORE.parse()?)?;
    Ok(sched_setaffinity(this, &cores)?)
}

fn flooded(at: SocketAddr, seconds: u64) -> Result<Outcome> {
    let (ending, sent) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let name = services().next().map(|(key, _)| name(&key));
    let packet = probe::question(7, &name.unwrap_or_default());
    let flooders: Vec<_> = (0..FLOODERS)
        .map(|_| {
            let (ending, sent, packet) = (ending.clone(), sent.clone(), packet.clone());
            std::thread::spawn(move || -> Result<()> {
                leave_servers_core()?;
                let socket = UdpSocket::bind((ADDRESS, 0))?;
                socket.connect(at)?;
                while !ending.load(Ordering::Relaxed) {
                    // Its answers are thrown away in its own socket.
                    if socket.send(&packet).is_ok() {
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Ok(())
            })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(200));
    let before = sent.load(Ordering::Relaxed);
    let measured = probe::latencies(MODEST_ADDRESS, at, MODEST, seconds);
    let flood = (sent.load(Ordering::Relaxed) - before) as f64 / seconds as f64;
    ending.store(true, Ordering::Relaxed);
    for flooder in flooders {
        let _ = flooder.join();
    }
    let (latencies, lost) = measured?;
    Ok(Outcome {
        flood,
        latencies,
        lost,
    })
}
