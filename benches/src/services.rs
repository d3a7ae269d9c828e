//! Services by the thousand, in each engine: how long until the last one can be
//! reached, what it costs to connect through it, how soon a changed endpoint
//! counts, and what memory it takes. No API server: from the objects on.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::time::{ClockId, clock_gettime};
use ripstop_datapath::ebpf::EbpfEngine;
use ripstop_datapath::nftables::NftEngine;
use ripstop_model::{
    EndpointSlice, ObjectKey, Protocol, Service, ServicePort, SliceEndpoint, SlicePort,
};
use ripstop_plan::{PlanConfig, Planner};

use crate::load::Sample;
use crate::report::{Report, Row, median, quantile};
use crate::rig::{Engine, PODS, PORT, Rig, Server, with_own_mounts};
use crate::throughput::figure;

/// Endpoints of every service, unless it is said.
const ENDPOINTS: usize = 2;
/// Addresses for clients outside.
const OUTSIDE: [[u8; 4]; 2] = [[192, 0, 2, 1], [192, 0, 2, 2]];
/// Changes of one endpoint that are timed.
const CHANGES: usize = 200;

pub(crate) fn measure(repetitions: usize, seconds: u64, report: &mut Report) -> Result<()> {
    let bench = std::env::current_exe()?;
    for engine in [EbpfEngine::NAME, NftEngine::NAME] {
        // A process each: memory that one has had is not the other's.
        let output = Command::new(&bench)
            .args(["--repetitions", &repetitions.to_string()])
            .args(["--seconds", &seconds.to_string(), "--output", "json"])
            .args(["services-of", engine])
            .stderr(Stdio::inherit())
            .output()?;
        ensure!(output.status.success(), "services of {engine}");
        let rows: Vec<Row> = serde_json::from_slice(&output.stdout)?;
        rows.into_iter().for_each(|row| report.add(row));
    }
    Ok(())
}

/// [`measure`] for one engine, by name.
pub(crate) fn measure_one(
    engine: &str,
    repetitions: usize,
    seconds: u64,
    report: &mut Report,
) -> Result<()> {
    let seconds = seconds.to_string();
    with_own_mounts(|| {
        if engine == EbpfEngine::NAME {
            measure_engine::<EbpfEngine>(repetitions, &seconds, report)
        } else {
            measure_engine::<NftEngine>(repetitions, &seconds, report)
        }
    })
}

fn measure_engine<E: Engine>(repetitions: usize, seconds: &str, report: &mut Report) -> Result<()> {
    let bench = std::env::current_exe()?;
    let bench = bench.to_str().context("path of the benchmark")?;
    let mut rates: Vec<(usize, f64)> = Vec::new();
    for services in [1, 1_000, 10_000, 30_000] {
        report.progress(&format!("{}: {services} services", E::NAME));
        let mut world = World::<E>::new(bench, &format!("services{services}"))?;
        let start = world.fill(services, ENDPOINTS)?;
        if services == 10_000 {
            cold_start::<E>(&world, start, report);
            changes(&mut world, report)?;
        }
        let rate = connections(&mut world, services, repetitions, seconds, report)?;
        rates.push((services, rate));
    }
    if let [(_, one), .., (_, most)] = rates[..] {
        report.add(Row {
            what: format!("{}: connections/s at 30,000 services ÷ at 1", E::NAME),
            ours: String::new(),
            peer: String::new(),
            ratio: Some(most / one),
            goal: "0.95".into(),
        });
    }
    for (services, endpoints, outside) in
        [(1, 10_000, false), (1, 10_000, true), (5_000, 50, false)]
    {
        report.progress(&format!("{}: {services} x {endpoints}", E::NAME));
        let mut world = World::<E>::new(bench, "endpoints")?;
        world.outside = outside;
        let loaded = world.fill(services, endpoints);
        let ours = match &loaded {
            Ok(time) => format!("{:.0} ms, {}", time.as_secs_f64() * 1e3, world.memory()?),
            Err(error) => format!("refused: {error}"),
        };
        report.add(Row {
            what: format!(
                "{}: {services} services{} with {endpoints} endpoints, written",
                E::NAME,
                world.at()
            ),
            ours,
            peer: String::new(),
            ratio: None,
            goal: String::new(),
        });
        if loaded.is_ok() {
            changes(&mut world, report)?;
        }
    }
    Ok(())
}

fn cold_start<E: Engine>(world: &World<E>, start: Duration, report: &mut Report) {
    report.add(Row {
        what: format!(
            "{}: 10,000 services x 2, listed to the last one reached",
            E::NAME
        ),
        ours: format!(
            "{:.0} ms, {}",
            start.as_secs_f64() * 1e3,
            world.memory().unwrap_or_default()
        ),
        peer: String::new(),
        ratio: None,
        goal: "500 ms (aim 150) eBPF, 1 s nftables; maps 20 MB".into(),
    });
}

/// One endpoint of the last service is replaced by another, again and again.
/// Until a connection reaches it, where it is the only one; else until it is
/// written.
fn changes<E: Engine>(world: &mut World<E>, report: &mut Report) -> Result<()> {
    let World {
        services,
        endpoints,
        ..
    } = *world;
    let few = endpoints <= ENDPOINTS;
    let mut times = Vec::with_capacity(CHANGES);
    for change in 0..CHANGES {
        let pod = 1 + change % ENDPOINTS;
        let changed = if few {
            slice(services - 1, [pods(pod)])
        } else {
            let all = addresses(endpoints)
                .skip(1)
                .chain([other(endpoints + change)]);
            slice(services - 1, all)
        };
        let start = now()?;
        world.planner.upsert_slice(changed);
        world.apply()?;
        let end = if few {
            world.probe.reached(services - 1, pod)?
        } else {
            now()?
        };
        times.push((end - start).as_secs_f64() * 1e3);
    }
    let until = if few {
        "a connection reaches it"
    } else {
        "it is written"
    };
    report.add(Row {
        what: format!(
            "{}: one endpoint changed at {services} services{} with {endpoints}",
            E::NAME,
            world.at()
        ),
        ours: format!(
            "p50 {:.2} ms, p99 {:.2} ms until {until}",
            median(times.iter().copied()),
            quantile(times.iter().copied(), 0.99)
        ),
        peer: String::new(),
        ratio: None,
        goal: "p99 5 ms (aim 2)".into(),
    });
    Ok(())
}

/// Through the last service and straight to a pod, interleaved. Not to its
/// endpoint: connection tracking would have to give each connection another
/// source port than one of the service's that is not forgotten yet. The median
/// rate through the service.
fn connections<E: Engine>(
    world: &mut World<E>,
    services: usize,
    repetitions: usize,
    seconds: &str,
    report: &mut Report,
) -> Result<f64> {
    // One endpoint, as the pod is one.
    world.planner.upsert_slice(slice(services - 1, [pods(1)]));
    world.apply()?;
    let targets = [address(services - 1), SocketAddr::new(pods(2), PORT)];
    let mut samples: [Vec<Sample>; 2] = Default::default();
    for _ in 0..repetitions {
        for (target, samples) in targets.iter().zip(&mut samples) {
            samples.push(
                world
                    .rig
                    .sample(world.bench, *target, ["crr", "4", seconds])?,
            );
        }
    }
    let [service, pod] = &samples;
    let pairs = service.iter().zip(pod);
    report.add(Row {
        what: format!(
            "{}: connections/s through the last of {services} services",
            E::NAME
        ),
        ours: figure(service),
        peer: format!("a pod itself: {}", figure(pod)),
        ratio: Some(median(pairs.map(|(service, pod)| service.rate / pod.rate))),
        goal: "0.97 eBPF".into(),
    });
    Ok(median(service.iter().map(|sample| sample.rate)))
}

/// A node with that many services.
struct World<'a, E> {
    // First, so that what runs in the rig ends before it.
    probe: Probe,
    _servers: [Server; 2],
    rig: Rig<E>,
    planner: Planner,
    services: usize,
    endpoints: usize,
    /// Services have addresses for clients outside, too.
    outside: bool,
    bench: &'a str,
}

impl<'a, E: Engine> World<'a, E> {
    fn new(bench: &'a str, purpose: &str) -> Result<Self> {
        let rig = Rig::new(purpose)?;
        let servers = [rig.serve(bench, 1)?, rig.serve(bench, 2)?];
        let probe = Probe::new(rig.client(bench, &["load-probe"])?)?;
        let planner = Planner::new(PlanConfig {
            node: "node".into(),
            service_cidrs: vec!["10.96.0.0/12".parse()?],
            cluster_cidrs: vec!["10.244.0.0/16".parse()?],
            ..PlanConfig::default()
        });
        Ok(Self {
            probe,
            _servers: servers,
            rig,
            planner,
            services: 0,
            endpoints: 0,
            outside: false,
            bench,
        })
    }

    /// Gives the planner all objects; how long until the last one is reached.
    fn fill(&mut self, services: usize, endpoints: usize) -> Result<Duration> {
        let objects: Vec<_> = (0..services)
            .map(|n| (self.service(n), slice(n, addresses(endpoints))))
            .collect();
        self.services = services;
        self.endpoints = endpoints;
        let start = now()?;
        for (service, slice) in objects {
            self.planner.upsert_service(service);
            self.planner.upsert_slice(slice);
        }
        self.apply()?;
        let reached = match endpoints {
            0..=2 => self.probe.reached_any(services - 1)?,
            // Nearly all of its endpoints are nowhere: written is the measure.
            _ => now()?,
        };
        Ok(reached - start)
    }

    fn service(&self, number: usize) -> Service {
        let mut service = service(number);
        if self.outside {
            service.external_ips = OUTSIDE.into_iter().map(IpAddr::from).collect();
        }
        service
    }

    /// For the report.
    fn at(&self) -> &'static str {
        if self.outside {
            " at two addresses for clients outside, too,"
        } else {
            ""
        }
    }

    fn apply(&mut self) -> Result<()> {
        let update = self.planner.take_update();
        Ok(self.rig.run(|engine| engine.apply(&update.rows))??)
    }

    /// Of this process, and of the tables that it has in the kernel.
    fn memory(&self) -> Result<String> {
        let mut tables = 0;
        for entry in std::fs::read_dir("/proc/self/fdinfo")? {
            let info = std::fs::read_to_string(entry?.path()).unwrap_or_default();
            let field = |name| {
                let line = info.lines().find_map(|line| line.strip_prefix(name))?;
                line.trim().parse::<u64>().ok()
            };
            if info.contains("map_type") {
                tables += field("memlock:").unwrap_or(0);
            }
        }
        let status = std::fs::read_to_string("/proc/self/status")?;
        let resident = status.lines().find_map(|line| {
            let kib = line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?;
            kib.parse::<u64>().ok()
        });
        #[expect(clippy::cast_precision_loss, reason = "memory is far below 2^52")]
        Ok(format!(
            "{:.1} MB resident with the plan, {:.1} MB of maps",
            resident.unwrap_or(0) as f64 * 1024.0 / 1e6,
            tables as f64 / 1e6
        ))
    }
}

fn pods(pod: usize) -> IpAddr {
    PODS[pod].parse().expect("an address")
}

/// Of a service's endpoints: the real pods first; the others are nowhere.
fn addresses(endpoints: usize) -> impl Iterator<Item = IpAddr> {
    let real = (1..=ENDPOINTS).map(pods);
    real.chain((ENDPOINTS..).map(other)).take(endpoints)
}

fn other(number: usize) -> IpAddr {
    let [.., a, b, c] = (number as u32).to_be_bytes();
    IpAddr::from([10, 200 + a, b, c])
}

fn address(service: usize) -> SocketAddr {
    let [a, b, c, d] = (u32::from(Ipv4Addr::new(10, 96, 0, 1)) + service as u32).to_be_bytes();
    SocketAddr::new(IpAddr::from([a, b, c, d]), PORT)
}

fn key(service: usize) -> ObjectKey {
    ObjectKey::new("bench", format!("service-{service}"))
}

fn service(number: usize) -> Service {
    Service {
        cluster_ips: vec![address(number).ip()],
        ports: vec![ServicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: PORT,
            node_port: None,
            app_protocol: None,
        }],
        ..Service::new(key(number))
    }
}

fn slice(service: usize, addresses: impl IntoIterator<Item = IpAddr>) -> EndpointSlice {
    let service = key(service);
    EndpointSlice {
        key: ObjectKey::new(&service.namespace, format!("{}-1", service.name)),
        service: service.name,
        ports: vec![SlicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: PORT,
        }],
        endpoints: addresses.into_iter().map(SliceEndpoint::new).collect(),
        proxied: true,
    }
}

/// The machine's monotonic clock, which the probe reads as well.
fn now() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC)?.into())
}

/// `load-probe` in the first pod: connects to what it is told until the right
/// pod answers, and says when that was.
struct Probe {
    _process: Server,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Probe {
    fn new(mut process: Child) -> Result<Self> {
        let input = process.stdin.take().context("input of the probe")?;
        let output = process.stdout.take().context("output of the probe")?;
        Ok(Self {
            _process: Server(process),
            input,
            output: BufReader::new(output),
        })
    }

    fn reached(&mut self, service: usize, pod: usize) -> Result<Duration> {
        self.ask(&format!("{} {}", address(service), pods(pod)))
    }

    fn reached_any(&mut self, service: usize) -> Result<Duration> {
        self.ask(&address(service).to_string())
    }

    fn ask(&mut self, question: &str) -> Result<Duration> {
        writeln!(self.input, "{question}")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        match line.trim().parse() {
            Ok(nanos) => Ok(Duration::from_nanos(nanos)),
            Err(_) => bail!("{question}: {}", line.trim()),
        }
    }
}

/// The other end of [`Probe`].
pub(crate) fn probe() -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(30);
    for line in std::io::stdin().lines() {
        let line = line?;
        let (target, wanted) = line.split_once(' ').unwrap_or((&line, ""));
        let target: SocketAddr = target.parse()?;
        let start = now()?;
        let reached = loop {
            match crate::load::who(target) {
                Ok(pod) if wanted.is_empty() || pod.to_string() == wanted => {
                    break now()?.as_nanos().to_string();
                }
                other if now()? - start > PATIENCE => break format!("not reached: {other:?}"),
                _ => std::thread::sleep(Duration::from_micros(50)),
            }
        };
        println!("{reached}");
    }
    Ok(())
}
