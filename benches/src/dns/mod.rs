//! The DNS server beside others that have the same names, each with one core of
//! its own; how soon a service has its name; what the names take of memory.

mod created;
mod flood;
mod names;
mod peers;
mod probe;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

pub(crate) use names::{serve, tell_memory};

use crate::report::{Report, Row, median, quantile};
use names::{ADDRESS, SERVICES};
use peers::Peer;

/// The core that servers have; the load has the others.
const SERVER_CORE: &str = "0";
const LOAD_CORES: &str = "1-3";
/// Of the server's highest rate, for latencies.
const PART_LOAD: f64 = 0.2;

pub(crate) fn measure(
    binaries: &Path,
    repetitions: usize,
    seconds: u64,
    report: &mut Report,
) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let queries = dir.path().join("queries");
    std::fs::write(&queries, names::queries())?;
    let peers = [Peer::Ours, Peer::Unbound, Peer::Dnsmasq, Peer::Knot];
    let mut rates = [const { Vec::new() }; 4];
    let mut cpu = [const { Vec::new() }; 4];
    let mut latencies = [const { Vec::new() }; 4];
    for repetition in 1..=repetitions {
        for (index, peer) in peers.iter().enumerate() {
            report.progress(&format!(
                "dns: {peer:?}, repetition {repetition} of {repetitions}"
            ));
            let port = 5400 + u16::try_from(index)?;
            let at = SocketAddr::new(ADDRESS, port);
            let server = peer.start(dir.path(), at)?;
            probe::wait_until_served(at)?;
            let before = cpu_us(server.0.id())?;
            let rate = dnsperf(at, &queries, seconds)?;
            let used = cpu_us(server.0.id())? - before;
            rates[index].push(rate);
            cpu[index].push(used / (rate * seconds as f64));
        }
    }
    // Interleaved as well: one hiccup of the machine is one run's p99.
    for repetition in 1..=repetitions {
        for (index, peer) in peers.iter().enumerate() {
            report.progress(&format!(
                "dns: latency of {peer:?}, repetition {repetition} of {repetitions}"
            ));
            let at = SocketAddr::new(ADDRESS, 5400 + u16::try_from(index)?);
            let _server = peer.start(dir.path(), at)?;
            probe::wait_until_served(at)?;
            let rate = median(rates[index].iter().copied()) * PART_LOAD;
            let (of, lost) = probe::latencies(ADDRESS, at, rate, seconds)?;
            let at = |q| quantile(of.iter().copied(), q);
            latencies[index].push(Latency {
                p50: at(0.5),
                p99: at(0.99),
                asked: of.len() + lost,
                lost,
            });
        }
    }
    for (index, goal) in [(1, "1.00"), (2, "1.00"), (3, "1.30")] {
        report.add(Row {
            what: format!("dns, questions/s of one core, {SERVICES} services, half of them misses"),
            ours: figure(&rates[0], &cpu[0]),
            peer: format!("{:?}: {}", peers[index], figure(&rates[index], &cpu[index])),
            ratio: Some(median(rates[0].iter().zip(&rates[index]).map(|(a, b)| a / b)).into()),
            goal: goal.into(),
        });
    }
    for index in 1..peers.len() {
        report.add(Row {
            what: "dns, latency at 20 % of its own highest rate".into(),
            ours: latency(&latencies[0]),
            peer: format!("{:?}: {}", peers[index], latency(&latencies[index])),
            ratio: None,
            goal: String::new(),
        });
    }
    flood::measure(dir.path(), seconds, report)?;
    names::memory(report)?;
    report.progress("dns: services until they have names");
    created::measure(binaries, report)
}

/// Round trips of one run, microseconds.
struct Latency {
    p50: f64,
    p99: f64,
    asked: usize,
    lost: usize,
}

/// Medians of the runs, and how far the runs' tails are apart.
fn latency(runs: &[Latency]) -> String {
    let p99s = || runs.iter().map(|run| run.p99);
    let lost: usize = runs.iter().map(|run| run.lost).sum();
    let lost = match lost {
        0 => String::new(),
        lost => format!(
            ", {lost} of {} lost",
            runs.iter().map(|run| run.asked).sum::<usize>()
        ),
    };
    format!(
        "p50 {:.0} µs, p99 {:.0} µs ({:.0} to {:.0}){lost}",
        median(runs.iter().map(|run| run.p50)),
        median(p99s()),
        p99s().fold(f64::INFINITY, f64::min),
        p99s().fold(0.0, f64::max),
    )
}

/// Rate, and CPU time of the server for each question, which other work on the
/// machine changes less.
fn figure(rates: &[f64], cpu: &[f64]) -> String {
    let of = |values: &[f64]| median(values.iter().copied());
    format!("{:.0}/s, {:.2} µs CPU each", of(rates), of(cpu))
}

/// CPU time of a process so far, user and system, microseconds (proc(5)).
fn cpu_us(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may have spaces.
    let (_, rest) = stat.rsplit_once(')').context("stat of the server")?;
    let ticks = rest.split_whitespace().skip(11).take(2);
    let ticks: f64 = ticks.filter_map(|t| t.parse::<f64>().ok()).sum();
    // SAFETY: sysconf only reads.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Ok(ticks * 1e6 / per_second as f64)
}

/// Highest rate that the server answers, questions per second.
fn dnsperf(server: SocketAddr, queries: &Path, seconds: u64) -> Result<f64> {
    let output = Command::new("taskset")
        .args([
            "-c", LOAD_CORES, "dnsperf", "-q", "200", "-c", "8", "-T", "2",
        ])
        .args([
            "-s",
            &server.ip().to_string(),
            "-p",
            &server.port().to_string(),
        ])
        .args(["-l", &seconds.to_string(), "-d"])
        .arg(queries)
        .output()
        .context("run dnsperf (dnsperf)")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let figure = |what: &str| {
        let line = text.lines().find(|line| line.trim().starts_with(what))?;
        let number = line.split(':').nth(1)?.split_whitespace().next()?;
        number.parse::<f64>().ok()
    };
    let rate = figure("Queries per second").with_context(|| format!("dnsperf said {text}"))?;
    let lost = figure("Queries lost").unwrap_or_default();
    let sent = figure("Queries sent").unwrap_or_default();
    ensure!(
        lost <= sent / 1000.0,
        "{lost} of {sent} questions were lost"
    );
    // Half of the names exist: a server that has lost its table is fast.
    ensure!(
        text.contains("NOERROR") && text.contains("NXDOMAIN"),
        "{text}"
    );
    Ok(rate)
}
