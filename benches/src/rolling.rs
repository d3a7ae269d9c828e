//! A service whose endpoints are all replaced, one after the other, while
//! clients connect to it. An endpoint is a port of a pod; it goes as pods do:
//! out of the slices first, and some time later it listens no more.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use ripstop_datapath::ebpf::EbpfEngine;
use ripstop_datapath::nftables::NftEngine;
use ripstop_model::{EndpointSlice, ObjectKey};
use ripstop_plan::{PlanConfig, Planner};

use crate::load::{Sample, many_files};
use crate::objects;
use crate::report::{Report, Row};
use crate::rig::{Engine, Engines, Kind, PODS, PORT, Rig, Server, with_own_mounts};

const ENDPOINTS: u16 = 1_000;
/// Ports of the first endpoints; those that take their place come after them.
const FIRST_PORT: u16 = 10_000;
/// Between an endpoint's end for new connections and its own.
const GRACE: Duration = Duration::from_millis(100);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
const CLIENTS: &str = "4";

pub(crate) fn measure(engines: Engines, report: &mut Report) -> Result<()> {
    with_own_mounts(|| {
        if engines.has(Kind::Ebpf) {
            measure_engine::<EbpfEngine>(report)?;
        }
        if engines.has(Kind::Nftables) {
            measure_engine::<NftEngine>(report)?;
        }
        Ok(())
    })
}

fn measure_engine<E: Engine>(report: &mut Report) -> Result<()> {
    report.progress(&format!("{}: {ENDPOINTS} endpoints rolled", E::NAME));
    let bench = std::env::current_exe()?;
    let bench = bench.to_str().context("path of the benchmark")?;
    let mut rig = Rig::<E>::new("rolling")?;
    let mut doors = Doors::start(&rig, bench)?;
    let mut planner = Planner::new(PlanConfig {
        node: "node".into(),
        service_cidrs: vec!["10.96.0.0/12".parse()?],
        cluster_cidrs: vec!["10.244.0.0/16".parse()?],
        ..PlanConfig::default()
    });
    planner.upsert_service(objects::service(key(), ADDRESS.into(), PORT));
    for port in FIRST_PORT..FIRST_PORT + ENDPOINTS {
        doors.ask("open", port)?;
        planner.upsert_slice(slice(port));
    }
    apply(&mut rig, &mut planner)?;

    let target = SocketAddr::from((ADDRESS, PORT)).to_string();
    let load = rig.client(bench, &["load-until", &target, CLIENTS])?;
    let mut load = Server(load);
    let start = Instant::now();
    let mut going = VecDeque::new();
    for old in FIRST_PORT..FIRST_PORT + ENDPOINTS {
        let new = old + ENDPOINTS;
        doors.ask("open", new)?;
        planner.upsert_slice(slice(new));
        apply(&mut rig, &mut planner)?;
        planner.remove_slice(&slice(old).key);
        apply(&mut rig, &mut planner)?;
        going.push_back((Instant::now() + GRACE, old));
        while let Some((_, port)) = going.pop_front_if(|(end, _)| *end <= Instant::now()) {
            doors.ask("close", port)?;
        }
    }
    let rolled = start.elapsed();
    // The load ends when its input does.
    drop(load.0.stdin.take());
    let mut said = String::new();
    let output = load.0.stdout.as_mut().context("output of the load")?;
    output.read_to_string(&mut said)?;
    let sample: Sample = serde_json::from_str(&said).with_context(|| format!("load: {said}"))?;
    report.add(Row {
        what: format!("{}: {ENDPOINTS} endpoints rolled under load", E::NAME),
        ours: format!(
            "{} of {:.0} connections failed, {:.1} s",
            sample.errors,
            sample.rate * rolled.as_secs_f64(),
            rolled.as_secs_f64()
        ),
        peer: String::new(),
        ratio: None,
        goal: "0 failed".into(),
    });
    Ok(())
}

fn apply<E: Engine>(rig: &mut Rig<E>, planner: &mut Planner) -> Result<()> {
    let update = planner.take_update();
    Ok(rig.run(|engine| engine.apply(&update.rows))??)
}

fn key() -> ObjectKey {
    ObjectKey::new("bench", "rolling")
}

/// Of one endpoint: a slice's endpoints share their ports.
fn slice(port: u16) -> EndpointSlice {
    let pod = PODS[1].parse().expect("an address");
    objects::slice(key(), port.into(), port, &[pod])
}

/// `load-doors` in the second pod: listens where it is told.
struct Doors {
    _process: Server,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Doors {
    fn start<E: Engine>(rig: &Rig<E>, bench: &str) -> Result<Self> {
        let mut command = rig.command(bench, &["load-doors"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = rig.in_pod(1, || command.spawn())??;
        let input = process.stdin.take().context("input of the doors")?;
        let output = process.stdout.take().context("output of the doors")?;
        Ok(Self {
            _process: Server(process),
            input,
            output: BufReader::new(output),
        })
    }

    fn ask(&mut self, what: &str, port: u16) -> Result<()> {
        writeln!(self.input, "{what} {port}")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(line.trim() == "done", "{what} {port}: {}", line.trim());
        Ok(())
    }
}

/// The other end of [`Doors`]: answers one byte a connection, as `crr` wants it,
/// on every port that standard input says is open.
pub(crate) fn doors() -> Result<()> {
    const INPUT: u64 = 0;
    many_files()?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut input = std::io::stdin().lines();
    epoll.add(
        std::io::stdin(),
        EpollEvent::new(EpollFlags::EPOLLIN, INPUT),
    )?;
    let mut by_descriptor: HashMap<u64, TcpListener> = HashMap::new();
    let mut by_port: HashMap<u16, u64> = HashMap::new();
    loop {
        let mut events = [EpollEvent::empty(); 64];
        let count = epoll.wait(&mut events, nix::sys::epoll::EpollTimeout::NONE)?;
        for event in &events[..count] {
            if let Some(listener) = by_descriptor.get(&event.data()) {
                answer(listener);
                continue;
            }
            // Each question is answered before the next one is asked, so no
            // line waits in the buffer of the reader.
            let Some(line) = input.next().transpose()? else {
                return Ok(());
            };
            let (what, port) = line.split_once(' ').context("a word and a port")?;
            let port: u16 = port.parse()?;
            if what == "open" {
                let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
                listener.set_nonblocking(true)?;
                let id = u64::from(listener.as_raw_fd().cast_unsigned());
                epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, id))?;
                by_port.insert(port, id);
                by_descriptor.insert(id, listener);
            } else if let Some(listener) = by_port
                .remove(&port)
                .and_then(|id| by_descriptor.remove(&id))
            {
                // Who is in its queue still gets an answer.
                answer(&listener);
            }
            println!("done");
        }
    }
}

fn answer(listener: &TcpListener) {
    while let Ok((mut connection, _)) = listener.accept() {
        let mut byte = [0];
        if connection.read_exact(&mut byte).is_ok() {
            let _ = connection.write_all(&byte);
        }
    }
}
