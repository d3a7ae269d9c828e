//! Every kind of address, by every transport, on every way.

use anyhow::{Context, Result};
use serde_json::json;

use crate::cluster::{OUTSIDE, eventually, node_port_nodes};
use crate::path::{CLIENT, HOME, ON_HOST, Path};
use crate::place::Place;
use crate::scenario::{Scenario, Skip};
use crate::stage::{Kind, Stage};
use crate::wire::{Outcome, Transport};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "cluster-ip-tcp",
        "A ClusterIP leads to the endpoint, which sees a pod under its own address.",
        |stage| reach(stage, Kind::ClusterIp, Transport::Tcp),
    )
    .on(Path::INSIDE)
    .also_single_stack(),
    Scenario::new(
        "cluster-ip-udp",
        "A connected datagram socket is answered.",
        |stage| reach(stage, Kind::ClusterIp, Transport::UdpConnected),
    )
    .on(Path::INSIDE),
    Scenario::new(
        "cluster-ip-udp-unconnected",
        "Answers to a socket that is not connected come from the service's address.",
        |stage| reach(stage, Kind::ClusterIp, Transport::UdpUnconnected),
    )
    .on(Path::INSIDE)
    .also_single_stack(),
    Scenario::new("cluster-ip-sctp", "SCTP associations as well.", |stage| {
        reach(stage, Kind::ClusterIp, Transport::Sctp)
    })
    .on(&[Path::PodToNear, Path::PodToFar]),
    Scenario::new(
        "node-port-tcp",
        "A NodePort answers at every node, whichever has the endpoint.",
        |stage| reach(stage, Kind::NodePort, Transport::Tcp),
    )
    .on(Path::ALL)
    .also_single_stack(),
    Scenario::new(
        "node-port-udp",
        "A connected datagram socket is answered by a NodePort.",
        |stage| reach(stage, Kind::NodePort, Transport::UdpConnected),
    )
    .on(Path::ALL),
    Scenario::new(
        "node-port-udp-unconnected",
        "Datagrams come back from the NodePort that was asked.",
        |stage| reach(stage, Kind::NodePort, Transport::UdpUnconnected),
    )
    .on(Path::ALL)
    .also_single_stack(),
    Scenario::new(
        "load-balancer-tcp",
        "The ingress address of a LoadBalancer leads to the endpoint, from inside and outside.",
        |stage| reach(stage, Kind::LoadBalancer, Transport::Tcp),
    )
    .on(Path::ALL)
    .also_single_stack(),
    Scenario::new(
        "load-balancer-udp",
        "Datagrams come back from the ingress address.",
        |stage| reach(stage, Kind::LoadBalancer, Transport::UdpUnconnected),
    )
    .on(Path::ALL)
    .also_single_stack(),
    Scenario::new(
        "external-ip-tcp",
        "An address of externalIPs leads to the endpoint, from inside and outside.",
        |stage| reach(stage, Kind::ExternalIp, Transport::Tcp),
    )
    .on(Path::ALL),
    Scenario::new(
        "external-ip-udp",
        "Datagrams come back from the address of externalIPs.",
        |stage| reach(stage, Kind::ExternalIp, Transport::UdpUnconnected),
    )
    .on(Path::ALL),
    Scenario::new(
        "cluster-ip-udp-large",
        "A datagram longer than the way is wide reaches the ClusterIP's endpoint, and so does one back.",
        |stage| reach_by_large(stage, Kind::ClusterIp),
    )
    .on(Path::INSIDE)
    .also_single_stack(),
    Scenario::new(
        "node-port-udp-large",
        "Likewise by a NodePort.",
        |stage| reach_by_large(stage, Kind::NodePort),
    )
    .on(Path::ALL)
    .also_single_stack(),
];

/// There and back: more than any MTU on the way, and than a window.
const BULK: usize = 300_000;

fn reach(stage: &Stage<'_>, kind: Kind, transport: Transport) -> Result<()> {
    let server = stage.path.server();
    let spec = match kind {
        Kind::ClusterIp => json!({}),
        Kind::NodePort => json!({"type": "NodePort"}),
        Kind::LoadBalancer => json!({"type": "LoadBalancer"}),
        Kind::ExternalIp => json!({"externalIPs": [stage.own_ip()]}),
    };
    let service = stage.service_of(&server, &spec)?;
    service.settle()?;
    let port = match transport {
        Transport::Tcp => "tcp",
        Transport::Sctp => "sctp",
        Transport::UdpConnected | Transport::UdpUnconnected => "udp",
    };
    let client = stage.client()?;
    let entries: &[&str] = match kind {
        Kind::NodePort => node_port_nodes(stage.cluster.stack),
        _ => &[HOME],
    };
    for entry in entries {
        let to = service.frontend(kind, port, entry)?;
        let once = || {
            let outcome = client.once(transport, to)?;
            if transport == Transport::Sctp
                && let Outcome::Failed(error) = &outcome
                && error.starts_with("Protocol not supported")
            {
                return Ok(Err(Skip(format!(
                    "this kernel has no SCTP sockets ({error})"
                ))));
            }
            let answered = outcome.answered().with_context(|| format!("{to}"))?;
            let answered = answered.by(server.name)?.at(server.port)?.from(to)?;
            match stage.path.client() {
                // A pod may see itself under another address.
                Place::Pod(name) if name == CLIENT && kind == Kind::ClusterIp => {
                    answered.seen_as(stage.address(CLIENT)?)?;
                }
                // It may be seen as it is by who is in the entry's own network
                // namespace: answers come by there anyway.
                Place::Outside if server == ON_HOST => {}
                Place::Outside if kind == Kind::NodePort => {
                    answered.seen_as(stage.address(entry)?)?;
                }
                Place::Outside => {
                    answered.seen_as_one_of(&stage.nodes()?).context(OUTSIDE)?;
                }
                _ => {}
            }
            Ok(Ok(()))
        };
        eventually("the first answer", once)??;
        // What has answered once answers always.
        for _ in 0..4 {
            once()??;
        }
        if transport == Transport::Tcp {
            let outcome = client.bulk(transport, to, BULK)?;
            outcome.answered().context("many bytes there and back")?;
        }
    }
    Ok(())
}

/// Bytes of a datagram: two or three packets, and nearly as many as there can be.
pub(super) const LARGE: [usize; 2] = [2_000, 60_000];

fn reach_by_large(stage: &Stage<'_>, kind: Kind) -> Result<()> {
    let server = stage.path.server();
    let spec = match kind {
        Kind::NodePort => json!({"type": "NodePort"}),
        _ => json!({}),
    };
    let service = stage.service_of(&server, &spec)?;
    let to = service.frontend(kind, "udp", HOME)?;
    // Short, as datagrams may be lost: those that find out how wide the way is, and
    // of forty parts now and then one on a machine that has much to do.
    let client = stage.client()?.expecting_silence();
    for transport in [Transport::UdpConnected, Transport::UdpUnconnected] {
        for bytes in LARGE {
            for _ in 0..5 {
                eventually("an answer", || {
                    let outcome = client.bulk(transport, to, bytes)?;
                    let answered = outcome
                        .answered()
                        .with_context(|| format!("{transport:?} to {to}, {bytes} bytes"))?;
                    answered.by(server.name)?.from(to).map(drop)
                })?;
            }
        }
    }
    Ok(())
}
