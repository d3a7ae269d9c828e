//! `ripstop policy matrix`.

use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::Result;
use ripstop_model::Protocol;
use ripstop_plan::policy::{Direction, PolicyTables, PortTable};
use serde_json::json;

use super::target::{Target, addresses};
use super::world::World;
use super::{Input, Output};

const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Addresses outside of the cluster that are asked as well.
    #[arg(long, value_delimiter = ',', default_value = "192.0.2.1")]
    outside: Vec<IpAddr>,
    #[command(flatten)]
    pub(super) input: Input,
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(super) fn run(world: &World, args: &Args) -> Result<(String, ExitCode)> {
    let pods = world.pods.values().map(Target::Pod);
    let ends: Vec<_> = pods
        .chain(args.outside.iter().map(|address| Target::Address(*address)))
        .collect();
    let mut rows = Vec::new();
    for from in &ends {
        let mut row = Vec::new();
        for to in &ends {
            let between_outsiders = matches!((from, to), (Target::Address(_), Target::Address(_)));
            row.push(match between_outsiders {
                true => None,
                false => Some(open(world, from, to)?),
            });
        }
        rows.push(row);
    }
    let text = match args.output {
        Output::Json => {
            let pairs = ends.iter().zip(&rows).flat_map(|(from, row)| {
                let known = ends.iter().zip(row);
                known.filter_map(move |(to, open)| {
                    let open = open.as_ref()?;
                    Some(json!({"from": from.name(), "to": to.name(), "ports": open}))
                })
            });
            format!("{:#}\n", json!(pairs.collect::<Vec<_>>()))
        }
        Output::Text => table(&names(world, &ends), &rows),
    };
    Ok((text, ExitCode::SUCCESS))
}

/// The ports on which one end reaches the other; `all` if it is all of all
/// protocols.
fn open(world: &World, from: &Target<'_>, to: &Target<'_>) -> Result<Vec<String>> {
    let Ok((source, destination)) = addresses(world, from, to) else {
        return Ok(Vec::new());
    };
    let mut all = Vec::new();
    let mut everything = true;
    for protocol in PROTOCOLS {
        let egress = of(
            &world.tables,
            from,
            Direction::Egress,
            (source, destination),
            protocol,
        );
        let ingress = of(
            &world.tables,
            to,
            Direction::Ingress,
            (destination, source),
            protocol,
        );
        for (first, last) in both(&egress, &ingress) {
            everything &= (first, last) == (0, u16::MAX);
            all.push(match (first, last) {
                (0, u16::MAX) => format!("*/{protocol}"),
                _ if first == last => format!("{first}/{protocol}"),
                _ => format!("{first}-{last}/{protocol}"),
            });
        }
    }
    Ok(match everything && all.len() == PROTOCOLS.len() {
        true => vec!["all".to_owned()],
        false => all,
    })
}

/// `None`: nobody restricts this end.
fn of(
    tables: &PolicyTables,
    end: &Target<'_>,
    direction: Direction,
    (own, other): (IpAddr, IpAddr),
    protocol: Protocol,
) -> Option<PortTable> {
    match end {
        Target::Pod(pod) if !pod.host_network => {
            tables.judge_ports(own, direction, other, protocol)
        }
        _ => None,
    }
}

/// Ranges of ports that both sides allow.
fn both(a: &Option<PortTable>, b: &Option<PortTable>) -> Vec<(u16, u16)> {
    let tables = || [a, b].into_iter().flatten();
    let mut starts: Vec<u16> = tables()
        .flat_map(|t| t.0.iter().map(|(first, _)| *first))
        .collect();
    starts.push(0);
    starts.sort_unstable();
    starts.dedup();
    let ends = starts.iter().skip(1).map(|next| next - 1).chain([u16::MAX]);
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for (first, last) in starts.iter().copied().zip(ends) {
        if !tables().all(|table| table.at(first).allowed) {
            continue;
        }
        match ranges.last_mut() {
            Some((_, end)) if end.checked_add(1) == Some(first) => *end = last,
            _ => ranges.push((first, last)),
        }
    }
    ranges
}

/// Without the namespace where there is only one.
fn names(world: &World, ends: &[Target<'_>]) -> Vec<String> {
    let mut namespaces = world.pods.keys().map(|key| &key.namespace);
    let first = namespaces.next();
    let is_one = namespaces.all(|other| Some(other) == first);
    let name = |end: &Target<'_>| match end {
        Target::Pod(pod) if is_one => pod.key.name.clone(),
        _ => end.name(),
    };
    ends.iter().map(name).collect()
}

fn table(ends: &[String], rows: &[Vec<Option<Vec<String>>>]) -> String {
    // TCP goes without saying.
    let cell = |open: &Option<Vec<String>>| match open {
        None => String::new(),
        Some(ports) if ports.is_empty() => "-".to_owned(),
        Some(ports) => {
            let short = ports
                .iter()
                .map(|port| port.strip_suffix("/TCP").unwrap_or(port));
            short.collect::<Vec<_>>().join(",")
        }
    };
    let corner = "FROM \\ TO".to_owned();
    let mut lines = vec![
        [corner]
            .into_iter()
            .chain(ends.iter().cloned())
            .collect::<Vec<_>>(),
    ];
    for (from, row) in ends.iter().zip(rows) {
        lines.push(
            [from.clone()]
                .into_iter()
                .chain(row.iter().map(cell))
                .collect(),
        );
    }
    let mut widths = vec![0; ends.len() + 1];
    for line in &lines {
        for (width, text) in widths.iter_mut().zip(line) {
            *width = text.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for line in &lines {
        let cells = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
