//! Would one end reach the other?

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use ripstop_model::{Pod, Protocol};
use ripstop_plan::policy::{Direction, PolicyPlanner, PolicyTables};
use serde::{Deserialize, Serialize};

use super::{End, addresses, attribution};
use crate::agent::effects::{Effects, lock};
use crate::agent::feed::Feed;

/// What the kernel of this node says to a connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CheckView {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) port: u16,
    pub(crate) protocol: String,
    pub(crate) egress: VerdictView,
    pub(crate) ingress: VerdictView,
}

/// What one end's policies say.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VerdictView {
    /// `None`: another node's kernel knows.
    pub(crate) allowed: Option<bool>,
    pub(crate) by: String,
}

pub(super) fn check(
    feed: &Feed,
    effects: &Effects,
    from: &str,
    to: &str,
    port: &str,
) -> Result<CheckView> {
    let planner = feed.policies();
    let (client, server) = (End::parse(planner, from)?, End::parse(planner, to)?);
    let (protocol, port) = parse_port(port, &server)?;
    let (source, destination) = one_family(planner, &client, &server)?;
    let tables = lock(&effects.datapath)
        .policies()
        .context("reading the kernel's policies")?;
    let verdict = |end, direction, own, other| {
        let packet = (own, other, protocol as u8, port);
        verdict(feed, &tables, end, direction, packet)
    };
    Ok(CheckView {
        from: client.name(),
        to: server.name(),
        source,
        destination,
        port,
        protocol: protocol.to_string(),
        egress: verdict(&client, Direction::Egress, source, destination),
        ingress: verdict(&server, Direction::Ingress, destination, source),
    })
}

fn verdict(
    feed: &Feed,
    tables: &PolicyTables,
    end: &End<'_>,
    direction: Direction,
    (own, other, protocol, port): (IpAddr, IpAddr, u8, u16),
) -> VerdictView {
    let says = |allowed, by: String| VerdictView { allowed, by };
    let End::Pod(pod) = end else {
        return says(Some(true), "no pod".to_owned());
    };
    if pod.host_network {
        let why = "on the network of its node: no policy selects it";
        return says(Some(true), why.to_owned());
    }
    if feed.policies().local_addresses(&pod.key).is_empty() {
        let node = pod.node.as_deref().unwrap_or("no node yet");
        return says(None, format!("it is on {node}, whose agent knows"));
    }
    match tables.judge(own, direction, other, protocol, port) {
        Some(outcome) => says(Some(outcome.allowed), attribution(feed, outcome.by)),
        None => says(
            Some(false),
            "the kernel has no row of it: closed".to_owned(),
        ),
    }
}

fn one_family(planner: &PolicyPlanner, from: &End<'_>, to: &End<'_>) -> Result<(IpAddr, IpAddr)> {
    let of = |end: &End<'_>| match end {
        End::Pod(pod) => addresses(planner, pod),
        End::Address(address) => vec![*address],
    };
    let destinations = of(to);
    let mut pairs = of(from).into_iter().filter_map(|source| {
        let like = |one: &&IpAddr| one.is_ipv4() == source.is_ipv4();
        Some((source, *destinations.iter().find(like)?))
    });
    pairs.next().with_context(|| {
        let (from, to) = (from.name(), to.name());
        format!("{from} and {to} have no addresses of one family")
    })
}

/// `80`, `53/UDP`, or the name of a port of the pod that is asked.
fn parse_port(text: &str, to: &End<'_>) -> Result<(Protocol, u16)> {
    let (name, protocol) = match text.split_once('/') {
        Some((name, protocol)) => {
            let protocol = protocol.to_ascii_uppercase().parse();
            (name, Some(protocol.map_err(anyhow::Error::msg)?))
        }
        None => (text, None),
    };
    if let Ok(number) = name.parse::<u16>() {
        anyhow::ensure!(number > 0, "port 0: a port is 1 to 65535");
        return Ok((protocol.unwrap_or(Protocol::Tcp), number));
    }
    let End::Pod(pod) = to else {
        bail!(
            "port {name:?}: {} is no pod, so its ports have no names",
            to.name()
        );
    };
    named(pod, name, protocol)
        .with_context(|| format!("port {name:?}: pod {} has no port of this name", pod.key))
}

fn named(pod: &Pod, name: &str, protocol: Option<Protocol>) -> Option<(Protocol, u16)> {
    let is_it = |one: &&ripstop_model::ContainerPort| {
        &*one.name == name && protocol.is_none_or(|protocol| protocol == one.protocol)
    };
    let port = pod.ports.iter().find(is_it)?;
    Some((port.protocol, port.port))
}
