//! What leaves pods without being for a service.

use std::net::IpAddr;

use anyhow::{Context, Result};
use serde_json::json;

use crate::cluster::{OUTSIDE, OUTSIDE_PORT, at, eventually};
use crate::engine::Family;
use crate::path::{BESIDE, CLIENT, FAR, HOME, NEAR, ON_HOST, OTHER_CLIENT};
use crate::place::Place;
use crate::scenario::Scenario;
use crate::scenarios::reach::LARGE;
use crate::stage::{Asker, Stage};
use crate::wire::{Ask, Transport};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "egress",
        "Who is outside sees a pod under its node's address; answers find it again.",
        egress,
    )
    .also_single_stack(),
    Scenario::new(
        "egress-udp-large",
        "A datagram longer than the way is wide leaves likewise, and so does one come back.",
        egress_udp_large,
    )
    .also_single_stack(),
    Scenario::new(
        "egress-ports",
        "Pods of a node that come from one port are told apart.",
        egress_ports,
    ),
    Scenario::new(
        "egress-excluded",
        "Who is excluded from it sees the pod's own address.",
        egress_excluded,
    )
    .also_single_stack(),
    Scenario::new(
        "egress-not-inside",
        "Pods and nodes see a pod's own address.",
        egress_not_inside,
    )
    .also_single_stack(),
    Scenario::new(
        "egress-node",
        "A node's own connections are left alone.",
        egress_node,
    ),
];

const STREAMS_AND_DATAGRAMS: [Transport; 3] = [
    Transport::Tcp,
    Transport::UdpConnected,
    Transport::UdpUnconnected,
];

fn outside(stage: &Stage<'_>) -> Result<IpAddr> {
    // Its server begins with its client.
    stage.from(&Place::Outside)?;
    Ok(match stage.family {
        Family::Ipv4 => "172.31.0.2".parse()?,
        Family::Ipv6 => "fd00:31::2".parse()?,
    })
}

fn egress(stage: &Stage<'_>) -> Result<()> {
    let to = at(outside(stage)?, OUTSIDE_PORT);
    for (pod, node) in [(CLIENT, HOME), (OTHER_CLIENT, FAR.node)] {
        let (client, node) = (stage.from(&Place::pod(pod))?, stage.address(node)?);
        for transport in STREAMS_AND_DATAGRAMS {
            let outcome = client.once(transport, to)?;
            let answered = outcome.answered().and_then(|answered| answered.by(OUTSIDE));
            answered
                .and_then(|answered| answered.from(to)?.seen_as(node))
                .with_context(|| format!("{transport:?}"))?;
        }
        client.bulk(Transport::Tcp, to, 300_000)?.answered()?;
    }
    Ok(())
}

fn egress_udp_large(stage: &Stage<'_>) -> Result<()> {
    let to = at(outside(stage)?, OUTSIDE_PORT);
    let (client, node) = (stage.from(&Place::pod(CLIENT))?, stage.address(HOME)?);
    let client = client.expecting_silence();
    for transport in [Transport::UdpConnected, Transport::UdpUnconnected] {
        for bytes in LARGE {
            // One of its many parts may be lost.
            eventually("an answer", || {
                let answered = client.bulk(transport, to, bytes)?.answered();
                let answered = answered.with_context(|| format!("{transport:?}, {bytes} bytes"))?;
                answered.by(OUTSIDE)?.from(to)?.seen_as(node).map(drop)
            })?;
        }
    }
    Ok(())
}

fn egress_ports(stage: &Stage<'_>) -> Result<()> {
    let to = at(outside(stage)?, OUTSIDE_PORT);
    let port = match stage.family {
        Family::Ipv4 => 23456,
        Family::Ipv6 => 23457,
    };
    let mut kept = Vec::new();
    for transport in [Transport::Tcp, Transport::UdpUnconnected] {
        for pod in [CLIENT, NEAR.name] {
            let client = stage.from(&Place::pod(pod))?.from_port(port);
            let (socket, outcome) = client.open(transport, to)?;
            outcome.answered()?.seen_as(stage.address(HOME)?)?;
            kept.push(socket);
        }
    }
    for socket in &kept {
        socket.again()?.answered()?;
    }
    Ok(())
}

/// One more address. It is deprecated from the start (RFC 4862, 5.5.4): else the kernel
/// may choose it for what other scenarios send from there meanwhile.
fn add_address(asker: &Asker, address: &str) -> Result<()> {
    let add = ["ip", "addr", "replace", address, "dev", "eth0"];
    let deprecated = ["valid_lft", "forever", "preferred_lft", "0"];
    let of_ipv6 = [&add[..], &["nodad"], &deprecated].concat();
    let added = asker.run(&of_ipv6);
    added
        .or_else(|_| asker.run(&[&add[..], &deprecated].concat()))
        .map(drop)
}

fn egress_excluded(stage: &Stage<'_>) -> Result<()> {
    let machine = stage.from(&Place::Outside)?;
    let (address, net) = match stage.family {
        Family::Ipv4 => ("172.31.0.200", "172.31.0.200/24"),
        Family::Ipv6 => ("fd00:31:0:0:8000::1", "fd00:31:0:0:8000::1/64"),
    };
    add_address(&machine, net)?;
    let to = at(address.parse()?, OUTSIDE_PORT);
    let client = stage.from(&Place::pod(CLIENT))?;
    let own = stage.address(CLIENT)?;
    for transport in STREAMS_AND_DATAGRAMS {
        eventually("an answer", || {
            client
                .once(transport, to)?
                .answered()?
                .by(OUTSIDE)?
                .seen_as(own)
        })
        .with_context(|| format!("{transport:?}"))?;
    }
    Ok(())
}

fn egress_not_inside(stage: &Stage<'_>) -> Result<()> {
    let client = stage.from(&Place::pod(CLIENT))?;
    let own = stage.address(CLIENT)?;
    for server in [NEAR, BESIDE, FAR, ON_HOST] {
        let to = stage.at(server.name, server.port)?;
        for transport in STREAMS_AND_DATAGRAMS {
            let outcome = client.once(transport, to)?;
            let answered = outcome
                .answered()
                .and_then(|answered| answered.by(server.name));
            answered
                .and_then(|answered| answered.seen_as(own))
                .with_context(|| format!("{transport:?} to {}", server.name))?;
        }
    }
    // A node behind the router.
    let port = match stage.family {
        Family::Ipv4 => 19000,
        Family::Ipv6 => 19001,
    };
    let node = stage.cluster.client(&Place::node(FAR.node))?;
    node.ask(Ask::Serve {
        name: FAR.node.to_owned(),
        ports: vec![port],
    })?;
    let to = stage.at(FAR.node, port)?;
    client.tcp(to)?.answered()?.by(FAR.node)?.seen_as(own)?;
    client.udp(to)?.answered()?.by(FAR.node)?.seen_as(own)?;
    Ok(())
}

fn egress_node(stage: &Stage<'_>) -> Result<()> {
    let to = at(outside(stage)?, OUTSIDE_PORT);
    // From an address of the node's choice, as its own policy routing may have it.
    let (own, net) = match stage.family {
        Family::Ipv4 => ("172.30.1.77", "172.30.1.77/24"),
        Family::Ipv6 => ("fd00:30:1::77", "fd00:30:1::77/64"),
    };
    let node = stage.from(&Place::node(HOME))?;
    add_address(&node, net)?;
    let from_there = node.from(own.parse()?);
    for transport in STREAMS_AND_DATAGRAMS {
        eventually("an answer", || {
            from_there
                .once(transport, to)?
                .answered()?
                .seen_as(own.parse()?)
        })
        .with_context(|| format!("{transport:?}"))?;
    }
    let service = stage.service_of(&FAR, &json!({}))?;
    let to = service.cluster()?;
    eventually("a service, beside it", || node.tcp(to)?.answered())?;
    Ok(())
}
