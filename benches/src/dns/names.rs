//! The names that all servers have, and our server with them.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use ripstop_dns::{Server, ServerConfig, Sockets, UpstreamConfig, Zone, ZoneConfig};
use ripstop_model::{ObjectKey, Protocol};
use ripstop_plan::{Headless, Host, NamedPort, ServiceNames};

use crate::report::{Report, Row};

pub(super) const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
pub(super) const SERVICES: u32 = 10_000;
const ENDPOINTS: u32 = 50_000;
const NAMESPACES: u32 = 100;
const QUESTIONS: u32 = 20_000;

/// Name and address of each service.
pub(super) fn services() -> impl Iterator<Item = (ObjectKey, Ipv4Addr)> {
    (0..SERVICES).map(|i| {
        let key = ObjectKey::new(format!("n{}", i % NAMESPACES), format!("s{i}"));
        (key, Ipv4Addr::from(0x0a60_0100 + i))
    })
}

pub(super) fn name(key: &ObjectKey) -> String {
    format!("{}.{}.svc.cluster.local", key.name, key.namespace)
}

/// For dnsperf: names that exist, and the first step of a search list's walk
/// that leads to them.
pub(super) fn queries() -> String {
    let mut text = String::new();
    let keys: Vec<ObjectKey> = services().map(|(key, _)| key).collect();
    for question in 0..QUESTIONS {
        // Steps that have no divisor in common with the number of services.
        let name = name(&keys[(question * 7919 % SERVICES) as usize]);
        let _ = match question % 2 {
            0 => writeln!(text, "{name} A"),
            _ => writeln!(text, "{name}.n7.svc.cluster.local A"),
        };
    }
    text
}

fn zone() -> Result<Zone> {
    Ok(Zone::new(ZoneConfig {
        servers: vec![ADDRESS],
        ranges: vec!["10.96.0.0/16".parse()?, "10.244.0.0/16".parse()?],
        ..ZoneConfig::default()
    })?)
}

fn cluster_names() -> impl Iterator<Item = (ObjectKey, Option<ServiceNames>)> {
    services().map(|(key, address)| {
        let names = ServiceNames::Cluster {
            addresses: vec![address.into()],
            ports: vec![NamedPort {
                name: "http".into(),
                protocol: Protocol::Tcp,
                port: 80,
            }],
        };
        (key, Some(names))
    })
}

/// Serves the names at `address` until the process is killed.
pub(crate) fn serve(address: SocketAddr) -> Result<()> {
    let zone = Arc::new(zone()?);
    zone.update(cluster_names());
    zone.set_known();
    let sockets = Sockets::bind(&[address.ip()], address.port())?;
    let config = ServerConfig {
        upstream: UpstreamConfig::default(),
        expand_search: false,
        backlog: Some(|socket| {
            let backlog = ripstop_host::backlog::backlog(socket)?;
            Some((backlog.waiting, backlog.limit))
        }),
        witness: None,
    };
    let server = Server::new(zone, &config).context("server")?;
    let threads: Vec<_> = server
        .threads(sockets)
        .into_iter()
        .map(std::thread::spawn)
        .collect();
    threads.into_iter().for_each(|thread| drop(thread.join()));
    Ok(())
}

/// What the names take beside the objects that they were planned from.
pub(super) fn memory(report: &mut Report) -> Result<()> {
    report.progress("dns: memory");
    let output = std::process::Command::new(std::env::current_exe()?)
        .arg("dns-memory")
        .output()?;
    let figures: Vec<f64> = serde_json::from_slice(&output.stdout).context("dns-memory")?;
    report.add(Row {
        what: format!("dns, memory of the names of {SERVICES} services with {ENDPOINTS} endpoints"),
        ours: format!(
            "{:.1} MB; {:.1} MB when all were listed again",
            figures[0], figures[1]
        ),
        peer: String::new(),
        ratio: None,
        goal: "20 MB".into(),
    });
    Ok(())
}

/// The same in a process of its own: every service headless, with its share of
/// the endpoints.
pub(crate) fn tell_memory() -> Result<()> {
    let zone = zone()?;
    let before = resident()?;
    let fill = || {
        let share = ENDPOINTS / SERVICES;
        zone.update(services().zip(0..).map(|((key, _), service)| {
            let hosts = (0..share).map(|pod| {
                let address = Ipv4Addr::from(0x0af4_0000 + service * share + pod);
                Host {
                    name: format!("{}-{pod}", key.name).into(),
                    address: address.into(),
                    ports: 0,
                }
            });
            let names = ServiceNames::Headless(Headless {
                hosts: hosts.collect(),
                port_sets: vec![vec![NamedPort {
                    name: "http".into(),
                    protocol: Protocol::Tcp,
                    port: 8080,
                }]],
            });
            (key, Some(names))
        }));
    };
    fill();
    let filled = resident()? - before;
    fill();
    let again = resident()? - before;
    let figures = [filled / 1e6, again / 1e6];
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&figures)?)?;
    Ok(())
}

/// Memory of this process, bytes.
fn resident() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let words = line.and_then(|line| line.split_whitespace().nth(1));
    let kilobytes: f64 = words.context("VmRSS")?.parse()?;
    Ok(kilobytes * 1024.0)
}
