//! Which endpoint a connection goes to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::cluster::eventually;
use crate::path::{BESIDE, CLIENT, FAR, HOME, NEAR, NODES, OTHER_CLIENT, Path};
use crate::place::Place;
use crate::scenario::Scenario;
use crate::stage::{Asker, Kind, Service, Stage, refused};
use crate::wire::Transport;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "spread",
        "Connections spread evenly over the ready endpoints.",
        spread,
    )
    .on(Path::CLIENTS)
    .also_single_stack(),
    Scenario::new(
        "spread-udp",
        "So do datagrams of different sockets.",
        spread_udp,
    )
    .on(Path::CLIENTS),
    Scenario::new(
        "affinity",
        "With ClientIP affinity a client keeps its endpoint.",
        affinity,
    )
    .on(Path::CLIENTS),
    Scenario::new(
        "affinity-timeout",
        "After the affinity's timeout a client may get another endpoint.",
        affinity_timeout,
    )
    // Outside, the choice may well be the same again: it is to be consistent.
    .on(&[Path::PodToNear, Path::NodeToNear]),
    Scenario::new(
        "affinity-endpoint-gone",
        "A client whose endpoint is gone gets another one and keeps that.",
        affinity_endpoint_gone,
    )
    .on(Path::CLIENTS),
    Scenario::new(
        "internal-traffic-local",
        "internalTrafficPolicy Local: only endpoints of the client's node; none there: refused.",
        internal_traffic_local,
    ),
    Scenario::new(
        "prefer-same-zone",
        "trafficDistribution PreferSameZone: endpoints of the client's zone.",
        |stage| prefer(stage, "PreferSameZone", &[NEAR.name, BESIDE.name]),
    ),
    Scenario::new(
        "prefer-close",
        "trafficDistribution PreferClose, its older name.",
        |stage| prefer(stage, "PreferClose", &[NEAR.name, BESIDE.name]),
    ),
    Scenario::new(
        "prefer-same-node",
        "trafficDistribution PreferSameNode: endpoints of the client's node.",
        |stage| prefer(stage, "PreferSameNode", &[NEAR.name]),
    ),
    Scenario::new(
        "prefer-without-near",
        "Without an endpoint that is preferred, any will do.",
        prefer_without_near,
    ),
    Scenario::new(
        "consistent-backend-gone",
        "When an endpoint goes, clients from outside that had others keep theirs.",
        consistent_backend_gone,
    ),
    Scenario::new(
        "consistent-entry-node",
        "A client from outside gets the same endpoint by whichever node it comes in.",
        consistent_entry_node,
    ),
];

/// Chi-square of three equally likely outcomes exceeds this once in three million.
const CHI_SQUARE: f64 = 30.0;

fn even(names: &[String]) -> Result<()> {
    let mut counts: BTreeMap<&str, f64> = [NEAR, BESIDE, FAR]
        .iter()
        .map(|server| (server.name, 0.0))
        .collect();
    for name in names {
        *counts.entry(name).or_default() += 1.0;
    }
    ensure!(counts.len() == 3, "{counts:?}");
    let expected = names.len() as f64 / 3.0;
    let chi_square: f64 = counts
        .values()
        .map(|count| (count - expected).powi(2) / expected)
        .sum();
    ensure!(
        chi_square < CHI_SQUARE,
        "chi-square {chi_square}: {counts:?}"
    );
    Ok(())
}

/// Where the path's client asks: from outside a NodePort, from inside a ClusterIP.
fn kind(stage: &Stage<'_>) -> (Kind, &'static str) {
    match stage.path.client() {
        Place::Outside => (Kind::NodePort, "NodePort"),
        _ => (Kind::ClusterIp, "ClusterIP"),
    }
}

/// Waits until each of the servers has answered.
fn until_all(client: &Asker, transport: Transport, to: SocketAddr) -> Result<()> {
    for server in [NEAR, BESIDE, FAR] {
        eventually("an answer of each", || {
            client.once(transport, to)?.answered()?.by(server.name)
        })?;
    }
    Ok(())
}

fn spread(stage: &Stage<'_>) -> Result<()> {
    let (kind, name) = kind(stage);
    let service = stage.service_of_all(&json!({"type": name}))?;
    let to = service.frontend(kind, "tcp", HOME)?;
    let client = stage.client()?;
    until_all(&client, Transport::Tcp, to)?;
    even(&client.answerers(Transport::Tcp, to, 300)?)
}

fn spread_udp(stage: &Stage<'_>) -> Result<()> {
    let (kind, name) = kind(stage);
    let service = stage.service_of_all(&json!({"type": name}))?;
    let to = service.frontend(kind, "udp", HOME)?;
    let client = stage.client()?;
    until_all(&client, Transport::UdpUnconnected, to)?;
    even(&client.answerers(Transport::UdpUnconnected, to, 300)?)
}

/// A service with affinity, and who answers the client once all endpoints do.
fn with_affinity<'a>(stage: &'a Stage<'_>, seconds: u32) -> Result<(Service<'a>, SocketAddr)> {
    let (kind, name) = kind(stage);
    let mut service = stage.service_of_all(&json!({"type": name}))?;
    let to = service.frontend(kind, "tcp", HOME)?;
    until_all(&stage.client()?, Transport::Tcp, to)?;
    service.change(&json!({"spec": {
        "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}},
    }}))?;
    Ok((service, to))
}

/// Asks until a row of connections has had the same answer.
fn settled(client: &Asker, to: SocketAddr, count: u16) -> Result<String> {
    eventually("the same endpoint each time", || {
        let names = client.answerers(Transport::Tcp, to, count)?;
        ensure!(names.iter().all(|name| *name == names[0]), "{names:?}");
        Ok(names[0].clone())
    })
}

fn affinity(stage: &Stage<'_>) -> Result<()> {
    let (_service, to) = with_affinity(stage, 3600)?;
    let client = stage.client()?;
    let chosen = settled(&client, to, 40)?;
    let names = client.answerers(Transport::Tcp, to, 100)?;
    ensure!(
        names.iter().all(|name| *name == chosen),
        "{chosen}, then {names:?}"
    );
    Ok(())
}

fn affinity_timeout(stage: &Stage<'_>) -> Result<()> {
    let (_service, to) = with_affinity(stage, 1)?;
    let client = stage.client()?;
    // Within a second, many connections: the same one.
    let chosen = settled(&client, to, 10)?;
    eventually("another endpoint after the timeout", || {
        std::thread::sleep(Duration::from_millis(2_200));
        let answered = client.tcp(to)?.answered()?;
        ensure!(answered.answer.server != chosen, "{chosen} again");
        Ok(())
    })
}

fn affinity_endpoint_gone(stage: &Stage<'_>) -> Result<()> {
    let servers = [
        stage.server("one", HOME, false, &json!({}))?,
        stage.server("two", NODES[1], false, &json!({}))?,
        stage.server("three", NODES[2], false, &json!({}))?,
    ];
    let (kind, name) = kind(stage);
    let service = stage.service(
        "web",
        &json!({
            "type": name,
            "selector": stage.own(),
            "sessionAffinity": "ClientIP",
            "ports": [{"port": 80, "targetPort": 8080}],
        }),
    )?;
    for server in &servers {
        stage.ready(server)?;
    }
    let to = service.frontend(kind, "tcp", HOME)?;
    let client = stage.client()?;
    let first = settled(&client, to, 20)?;
    stage.end(&first)?;
    let second = eventually("another endpoint", || {
        let answered = client.tcp(to)?.answered()?;
        ensure!(answered.answer.server != first, "{first} again");
        Ok(answered.answer.server)
    })?;
    let names = client.answerers(Transport::Tcp, to, 50)?;
    ensure!(
        names.iter().all(|name| *name == second),
        "{second}, then {names:?}"
    );
    Ok(())
}

fn internal_traffic_local(stage: &Stage<'_>) -> Result<()> {
    let all = stage.service_of_all(&json!({"internalTrafficPolicy": "Local"}))?;
    let to = all.cluster()?;
    for (place, own) in [
        (Place::pod(CLIENT), NEAR),
        (Place::node(HOME), NEAR),
        (Place::pod(OTHER_CLIENT), FAR),
    ] {
        let client = stage.from(&place)?;
        eventually("an answer", || client.tcp(to)?.answered())?;
        for name in client.answerers(Transport::Tcp, to, 30)? {
            ensure!(
                name == own.name,
                "{place}: {name} answered instead of {}",
                own.name
            );
        }
    }
    all.delete()?;
    let there = stage.service(
        "there",
        &json!({
            "internalTrafficPolicy": "Local",
            "selector": {"who": FAR.name},
            "ports": [
                {"name": "tcp", "port": 80, "targetPort": FAR.port, "protocol": "TCP"},
                {"name": "udp", "port": 80, "targetPort": FAR.port, "protocol": "UDP"},
            ],
        }),
    )?;
    let to = there.cluster()?;
    let other = stage.from(&Place::pod(OTHER_CLIENT))?;
    eventually("an answer on its node", || other.tcp(to)?.answered())?;
    let here = stage.from(&Place::pod(CLIENT))?;
    eventually("refused on another node", || here.tcp(to)?.refused())?;
    refused(&here, Transport::UdpUnconnected, to)
}

/// Only the `preferred` answer the client's pod and node.
fn prefer(stage: &Stage<'_>, distribution: &str, preferred: &[&str]) -> Result<()> {
    let service = stage.service_of_all(&json!({"trafficDistribution": distribution}))?;
    let to = service.cluster()?;
    for place in [Place::pod(CLIENT), Place::node(HOME)] {
        let client = stage.from(&place)?;
        eventually("only preferred endpoints", || {
            let names = client.answerers(Transport::Tcp, to, 40)?;
            for name in &names {
                ensure!(preferred.contains(&name.as_str()), "{place}: {names:?}");
            }
            for name in preferred {
                ensure!(names.iter().any(|n| n == name), "{place}: {names:?}");
            }
            Ok(())
        })?;
    }
    // Alone in its zone, and on its node.
    let other = stage.from(&Place::pod(OTHER_CLIENT))?;
    eventually("only its own endpoint", || {
        for name in other.answerers(Transport::Tcp, to, 20)? {
            ensure!(name == FAR.name, "{OTHER_CLIENT}: {name}");
        }
        Ok(())
    })
}

fn prefer_without_near(stage: &Stage<'_>) -> Result<()> {
    for (index, distribution) in ["PreferSameZone", "PreferSameNode"].iter().enumerate() {
        let service = stage.service(
            &format!("web{index}"),
            &json!({
                "trafficDistribution": distribution,
                "selector": {"who": FAR.name},
                "ports": [{"port": 80, "targetPort": FAR.port}],
            }),
        )?;
        let (client, to) = (stage.client()?, service.cluster()?);
        eventually("the only endpoint", || {
            client.tcp(to)?.answered()?.by(FAR.name)
        })
        .context(*distribution)?;
    }
    Ok(())
}

/// Clients, by their ports, that are asked for.
const CLIENTS: u16 = 120;
const FIRST_PORT: u16 = 20000;

fn consistent_entry_node(stage: &Stage<'_>) -> Result<()> {
    let service = stage.service(
        "web",
        &json!({"type": "NodePort", "selector": stage.own(), "ports": [{"port": 80, "targetPort": 8080}]}),
    )?;
    let outside = stage.from(&Place::Outside)?;
    let mut entries = Vec::new();
    for node in NODES {
        entries.push(service.frontend(Kind::NodePort, "tcp", node)?);
    }
    for (index, node) in NODES.iter().enumerate() {
        let server = stage.server(&format!("web{index}"), node, false, &json!({}))?;
        stage.ready(&server)?;
        for to in &entries {
            eventually("an answer of each, by each node", || {
                outside.tcp(*to)?.answered()?.by(&server)
            })?;
        }
    }
    let offset = match stage.family {
        crate::engine::Family::Ipv4 => 0,
        crate::engine::Family::Ipv6 => CLIENTS,
    };
    let ported = outside.from_port(FIRST_PORT + 2 * CLIENTS + offset);
    let by = |to| ported.answerers(Transport::Tcp, to, CLIENTS);
    let first = by(entries[0])?;
    for to in &entries[1..] {
        let other = by(*to)?;
        ensure!(
            other == first,
            "by {}: {first:?}\nby {to}: {other:?}",
            entries[0]
        );
    }
    Ok(())
}

fn consistent_backend_gone(stage: &Stage<'_>) -> Result<()> {
    let mut servers = Vec::new();
    for (index, node) in [NODES[0], NODES[1], NODES[2], NODES[0]].iter().enumerate() {
        servers.push(stage.server(&format!("web{index}"), node, false, &json!({}))?);
    }
    for server in &servers {
        stage.ready(server)?;
    }
    let service = stage.service(
        "web",
        &json!({"type": "NodePort", "selector": stage.own(), "ports": [{"port": 80, "targetPort": 8080}]}),
    )?;
    let to = service.frontend(Kind::NodePort, "tcp", HOME)?;
    let outside = stage.from(&Place::Outside)?;
    for server in &servers {
        eventually("an answer of each", || {
            outside.tcp(to)?.answered()?.by(server)
        })?;
    }
    let offset = match stage.family {
        crate::engine::Family::Ipv4 => 0,
        crate::engine::Family::Ipv6 => CLIENTS,
    };
    let ported = outside.from_port(FIRST_PORT + offset);
    let before = ported.answerers(Transport::Tcp, to, CLIENTS)?;
    let again = ported.answerers(Transport::Tcp, to, CLIENTS)?;
    ensure!(
        before == again,
        "the choice depends on more than the client:\n{before:?}\n{again:?}"
    );
    let gone = servers[1].as_str();
    stage.end(gone)?;
    eventually("nobody goes there any more", || {
        let names = outside.answerers(Transport::Tcp, to, 40)?;
        ensure!(names.iter().all(|name| name != gone), "{names:?}");
        Ok(())
    })?;
    let after = ported.answerers(Transport::Tcp, to, CLIENTS)?;
    let others: Vec<_> = before
        .iter()
        .zip(&after)
        .filter(|(before, _)| *before != gone)
        .collect();
    let moved = others
        .iter()
        .filter(|(before, after)| before != after)
        .count();
    // Maglev moves a few percent; choosing anew would move two thirds.
    ensure!(
        moved * 5 < others.len(),
        "{moved} of {} clients of other endpoints got another one",
        others.len()
    );
    Ok(())
}
