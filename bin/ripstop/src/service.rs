//! `ripstop service`: what the engine of a node has in the kernel.

use std::fmt::Write;
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Subcommand, ValueEnum};

use crate::agent::{Ask, BackendView, EndpointView, FrontendView, ServiceView, ask};
use crate::run_dir::RunDir;

/// Arguments of `ripstop service`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// All services with their frontends.
    List(ListArgs),
    /// One service with its backends and counters.
    Show(ShowArgs),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    agent: RunDir,
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// NAMESPACE/NAME
    service: String,
    #[command(flatten)]
    agent: RunDir,
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// Prints what the agent reads from the kernel.
///
/// # Errors
/// If no agent answers, or there is no such service.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    match &args.verb {
        Verb::List(args) => {
            let services: Vec<ServiceView> = ask(
                &args.agent.path()?,
                &Ask::Services {
                    namespace: None,
                    name: None,
                },
            )?;
            match args.output {
                Output::Json => println!("{}", serde_json::to_string_pretty(&services)?),
                Output::Table => print!("{}", list(&services)),
            }
        }
        Verb::Show(args) => {
            let Some((namespace, name)) = args.service.split_once('/') else {
                bail!(
                    "{:?} is no service: expected NAMESPACE/NAME, like default/{}",
                    args.service,
                    args.service
                );
            };
            let services: Vec<ServiceView> = ask(
                &args.agent.path()?,
                &Ask::Services {
                    namespace: Some(namespace.to_owned()),
                    name: Some(name.to_owned()),
                },
            )?;
            match args.output {
                Output::Json => println!("{}", serde_json::to_string_pretty(&services.first())?),
                Output::Table => services
                    .iter()
                    .for_each(|service| print!("{}", show(service))),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(services: &[ServiceView]) -> String {
    let mut rows = vec![
        [
            "SERVICE",
            "KIND",
            "FRONTEND",
            "BACKENDS",
            "CONNECTIONS",
            "BYTES",
            "REFUSED",
        ]
        .map(str::to_owned),
    ];
    for service in services {
        for frontend in &service.frontends {
            let backends = match &frontend.outside {
                None => frontend.backends.len().to_string(),
                Some(outside) => format!("{}, {} outside", frontend.backends.len(), outside.len()),
            };
            rows.push([
                name(service),
                frontend.kind.clone(),
                address(frontend),
                backends,
                all(frontend)
                    .map(|b| b.connections)
                    .sum::<u64>()
                    .to_string(),
                bytes(all(frontend).map(|b| b.bytes).sum()),
                frontend.refused.to_string(),
            ]);
        }
    }
    table(&rows)
}

fn show(service: &ServiceView) -> String {
    let mut text = format!("{}\n", name(service));
    for frontend in &service.frontends {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n{} {}", frontend.kind, address(frontend));
        if let Some(seconds) = frontend.affinity_seconds {
            let held = frontend.affinities_held;
            let _ = write!(text, ", clients stay for {seconds} s ({held} do)");
        }
        if !frontend.source_ranges.is_empty() {
            let ranges: Vec<_> = frontend
                .source_ranges
                .iter()
                .map(ToString::to_string)
                .collect();
            let _ = write!(text, ", only from {}", ranges.join(", "));
        }
        let _ = writeln!(text, ", {} refused", frontend.refused);
        let mut rows = vec![
            [
                "  BACKEND",
                "FOR",
                "POD",
                "NODE",
                "STATE",
                "CONNECTIONS",
                "BYTES",
            ]
            .map(str::to_owned),
        ];
        let whom = match frontend.outside {
            None => "all",
            Some(_) => "inside",
        };
        let inside = frontend.backends.iter().map(|backend| (whom, backend));
        let outside = frontend.outside.iter().flatten();
        let outside = outside.map(|backend| ("outside", backend));
        for (whom, backend) in inside.chain(outside) {
            let endpoints = service.endpoints.iter();
            let endpoint = endpoints.clone().find(|e| e.address == backend.address);
            let known = |field: &dyn Fn(&EndpointView) -> Option<String>| {
                endpoint.and_then(field).unwrap_or_else(|| "-".to_owned())
            };
            rows.push([
                format!("  {}", SocketAddr::new(backend.address, backend.port)),
                whom.to_owned(),
                known(&|e| e.pod.clone()),
                known(&|e| e.node.clone()),
                endpoint.map_or("unknown", state).to_owned(),
                backend.connections.to_string(),
                bytes(backend.bytes),
            ]);
        }
        match rows.len() {
            1 => text.push_str("  no backend: refused\n"),
            _ => text.push_str(&table(&rows)),
        }
    }
    let unused: Vec<_> = service
        .endpoints
        .iter()
        .filter(|endpoint| {
            let mut used = service.frontends.iter().flat_map(all);
            !used.any(|backend| backend.address == endpoint.address)
        })
        .collect();
    if !unused.is_empty() {
        text.push_str("\nendpoints that get nothing:\n");
        let row = |endpoint: &&EndpointView| {
            [
                format!("  {}", endpoint.address),
                endpoint.pod.clone().unwrap_or_else(|| "-".to_owned()),
                endpoint.node.clone().unwrap_or_else(|| "-".to_owned()),
                state(endpoint).to_owned(),
            ]
        };
        text.push_str(&table(&unused.iter().map(row).collect::<Vec<_>>()));
    }
    text
}

/// Backends for everybody; those that get traffic from inside and outside twice.
fn all(frontend: &FrontendView) -> impl Iterator<Item = &BackendView> {
    frontend
        .backends
        .iter()
        .chain(frontend.outside.iter().flatten())
}

fn name(service: &ServiceView) -> String {
    match service.name.as_str() {
        "" => "(of no service)".to_owned(),
        name => format!("{}/{name}", service.namespace),
    }
}

fn address(frontend: &FrontendView) -> String {
    let address = SocketAddr::new(frontend.address, frontend.port);
    format!("{address}/{}", frontend.protocol)
}

fn state(endpoint: &EndpointView) -> &'static str {
    match (endpoint.ready, endpoint.serving, endpoint.terminating) {
        (true, _, false) => "ready",
        (true, _, true) => "ready, terminating",
        (false, true, true) => "draining",
        (false, false, true) => "terminating",
        (false, ..) => "not ready",
    }
}

fn bytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string())
}

/// Columns as wide as their widest cell.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(host: u8, connections: u64) -> BackendView {
        BackendView {
            address: [10, 244, 0, host].into(),
            port: 8080,
            connections,
            bytes: None,
        }
    }

    fn service() -> ServiceView {
        let endpoint = |host: u8, pod: &str, ready| EndpointView {
            address: [10, 244, 0, host].into(),
            pod: Some(pod.to_owned()),
            node: Some("node1".to_owned()),
            zone: None,
            ready,
            serving: ready,
            terminating: false,
        };
        ServiceView {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            frontends: vec![FrontendView {
                address: [172, 30, 1, 11].into(),
                port: 30080,
                protocol: "TCP".to_owned(),
                kind: "NodePort".to_owned(),
                affinity_seconds: Some(60),
                affinities_held: 2,
                source_ranges: Vec::new(),
                refused: 3,
                backends: vec![backend(1, 5), backend(2, 6)],
                outside: Some(vec![backend(1, 7)]),
            }],
            endpoints: vec![endpoint(1, "web-1", true), endpoint(3, "web-3", false)],
        }
    }

    #[test]
    fn a_line_for_each_frontend() {
        assert_eq!(
            list(&[service()]),
            "\
SERVICE   KIND      FRONTEND               BACKENDS      CONNECTIONS  BYTES  REFUSED
shop/web  NodePort  172.30.1.11:30080/TCP  2, 1 outside  18           -      3
"
        );
    }

    #[test]
    fn one_service_with_all_there_is() {
        assert_eq!(
            show(&service()),
            "\
shop/web

NodePort 172.30.1.11:30080/TCP, clients stay for 60 s (2 do), 3 refused
  BACKEND          FOR      POD    NODE   STATE    CONNECTIONS  BYTES
  10.244.0.1:8080  inside   web-1  node1  ready    5            -
  10.244.0.2:8080  inside   -      -      unknown  6            -
  10.244.0.1:8080  outside  web-1  node1  ready    7            -

endpoints that get nothing:
  10.244.0.3  web-3  node1  not ready
"
        );
    }
}
