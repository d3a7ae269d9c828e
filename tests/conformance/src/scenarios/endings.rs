//! Nobody there, nobody there any more, and who stays to the end.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::cluster::{at, eventually};
use crate::engine::Family;
use crate::path::{CLIENT, FAR, HOME, NEAR, NODES, ON_HOST, Path};
use crate::place::Place;
use crate::scenario::Scenario;
use crate::stage::{Asker, Endpoint, Kind, Service, Socket, Stage, refused};
use crate::wire::{Outcome, Transport};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "no-endpoints",
        "A service without endpoints refuses at once, TCP and UDP, at every address.",
        no_endpoints,
    )
    .on(Path::CLIENTS)
    .also_single_stack(),
    Scenario::new(
        "unallocated",
        "An address of a ServiceCIDR that no service has is refused.",
        unallocated,
    )
    .on(&[Path::PodToNear, Path::NodeToNear, Path::HostPodToNear])
    .also_single_stack(),
    Scenario::new(
        "scaled-to-nothing-and-back",
        "Endpoints go and come: refused and answered in turn.",
        scaled,
    )
    .on(Path::CLIENTS),
    Scenario::new(
        "not-ready",
        "A pod that is not ready is not asked.",
        not_ready,
    ),
    Scenario::new(
        "publish-not-ready",
        "publishNotReadyAddresses: it is asked all the same.",
        publish_not_ready,
    ),
    Scenario::new(
        "terminating-fallback",
        "When no endpoint is ready, those that end but still serve are asked.",
        terminating_fallback,
    )
    .on(Path::CLIENTS),
    Scenario::new(
        "terminating-not-asked",
        "While another is ready, an endpoint that ends gets no new connection.",
        terminating_not_asked,
    )
    .on(Path::CLIENTS),
    Scenario::new(
        "terminating-keeps",
        "A connection to an endpoint that ends lives on.",
        terminating_keeps,
    )
    .on(Path::CLIENTS),
    Scenario::new(
        "terminating-pod",
        "A pod that was deleted serves its connections, and new ones as the only one, until it ends.",
        terminating_pod,
    ),
    Scenario::new(
        "udp-endpoint-gone",
        "Datagrams of a socket that asked an endpoint that is gone reach another one.",
        udp_endpoint_gone,
    )
    .on(Path::CLIENTS),
    Scenario::new(
        "udp-last-endpoint-gone",
        "Also when it was the last one: refused, and then the next one is reached.",
        udp_last_endpoint_gone,
    )
    .on(Path::CLIENTS),
    Scenario::new(
        "udp-endpoint-that-is-no-pod-gone",
        "Also where the endpoint is no pod, but in a node's network.",
        udp_other_endpoint_gone,
    )
    .on(Path::CLIENTS),
    Scenario::new(
        "udp-before-service",
        "Datagrams that were sent before the service had endpoints spoil nothing.",
        udp_before_service,
    )
    .on(Path::CLIENTS),
    Scenario::new(
        "service-removed",
        "A removed service is refused, and what it had can be had again.",
        service_removed,
    )
    .on(Path::CLIENTS),
];

/// Where the path's client asks: from outside a NodePort, from inside a ClusterIP.
fn kind(stage: &Stage<'_>) -> (Kind, &'static str) {
    match stage.path.client() {
        Place::Outside => (Kind::NodePort, "NodePort"),
        _ => (Kind::ClusterIp, "ClusterIP"),
    }
}

fn no_endpoints(stage: &Stage<'_>) -> Result<()> {
    let service = stage.service(
        "web",
        &json!({
            "type": "LoadBalancer",
            "selector": {"who": "nobody"},
            "externalIPs": [stage.own_ip()],
            "ports": [
                {"name": "tcp", "port": 80, "protocol": "TCP"},
                {"name": "udp", "port": 80, "protocol": "UDP"},
            ],
        }),
    )?;
    let client = stage.client()?;
    let kinds = [
        Kind::ClusterIp,
        Kind::NodePort,
        Kind::LoadBalancer,
        Kind::ExternalIp,
    ];
    for kind in kinds {
        if kind == Kind::ClusterIp && stage.path.client() == Place::Outside {
            continue;
        }
        for port in ["tcp", "udp"] {
            let to = service.frontend(kind, port, HOME)?;
            let transports = match port {
                "tcp" => &[Transport::Tcp][..],
                _ => &[Transport::UdpConnected, Transport::UdpUnconnected],
            };
            for transport in transports {
                refused(&client, *transport, to).with_context(|| format!("{kind:?} {to}"))?;
            }
        }
    }
    Ok(())
}

fn unallocated(stage: &Stage<'_>) -> Result<()> {
    let to = match stage.family {
        Family::Ipv4 => at("10.96.255.200".parse()?, 80),
        Family::Ipv6 => at("fd00:96::ff00".parse()?, 80),
    };
    let client = stage.client()?;
    for transport in [
        Transport::Tcp,
        Transport::UdpConnected,
        Transport::UdpUnconnected,
    ] {
        refused(&client, transport, to)?;
    }
    Ok(())
}

/// A service without selector, and its slice, with these endpoints.
fn by_hand<'a>(stage: &'a Stage<'_>, endpoints: &[Endpoint]) -> Result<ByHand<'a>> {
    let (kind, name) = kind(stage);
    let service = stage.service(
        "web",
        &json!({"type": name, "ports": [
            {"name": "tcp", "port": 80, "protocol": "TCP"},
            {"name": "udp", "port": 80, "protocol": "UDP"},
        ]}),
    )?;
    let slice = service.slice(8080, endpoints)?;
    Ok(ByHand {
        tcp: service.frontend(kind, "tcp", HOME)?,
        udp: service.frontend(kind, "udp", HOME)?,
        service,
        slice,
    })
}

struct ByHand<'a> {
    service: Service<'a>,
    slice: String,
    tcp: SocketAddr,
    udp: SocketAddr,
}

impl ByHand<'_> {
    fn set(&self, endpoints: &[Endpoint]) -> Result<()> {
        self.service.set_endpoints(&self.slice, endpoints)
    }
}

fn scaled(stage: &Stage<'_>) -> Result<()> {
    let far = Endpoint::ready(stage.address(FAR.name)?);
    let service = by_hand(stage, &[far])?;
    let client = stage.client()?;
    for _ in 0..3 {
        service.set(&[far])?;
        eventually("TCP", || client.tcp(service.tcp)?.answered())?;
        eventually("UDP", || client.udp(service.udp)?.answered())?;
        service.set(&[])?;
        eventually("no TCP", || client.tcp(service.tcp)?.refused())?;
        refused(&client, Transport::UdpUnconnected, service.udp)?;
    }
    Ok(())
}

/// A probe that fails until the file is there.
fn unready() -> serde_json::Value {
    json!({"containers": [{
        "readinessProbe": {"tcpSocket": null, "exec": {"command": ["test", "-e", "/ready"]}, "periodSeconds": 1},
    }]})
}

fn not_ready(stage: &Stage<'_>) -> Result<()> {
    let server = stage.server("late", NODES[2], false, &unready())?;
    let service = stage.service(
        "web",
        &json!({"selector": stage.own(), "ports": [{"port": 80, "targetPort": 8080}]}),
    )?;
    let (client, to) = (stage.client()?, service.cluster()?);
    // It runs: its own namespace has it listening.
    let inside = stage.from_own(&server)?;
    let own = match stage.family {
        Family::Ipv4 => at("127.0.0.1".parse()?, 8080),
        Family::Ipv6 => at("::1".parse()?, 8080),
    };
    eventually("it listens", || inside.tcp(own)?.answered())?;
    eventually("refused", || client.tcp(to)?.refused())?;
    inside.run(&["touch", "/ready"])?;
    eventually("answered once it is ready", || {
        client.tcp(to)?.answered()?.by(&server)
    })?;
    inside.run(&["rm", "/ready"])?;
    eventually("refused again", || client.tcp(to)?.refused())
}

fn publish_not_ready(stage: &Stage<'_>) -> Result<()> {
    let server = stage.server("late", NODES[2], false, &unready())?;
    let service = stage.service(
        "web",
        &json!({
            "selector": stage.own(),
            "publishNotReadyAddresses": true,
            "ports": [{"port": 80, "targetPort": 8080}],
        }),
    )?;
    let (client, to) = (stage.client()?, service.cluster()?);
    eventually("answered", || client.tcp(to)?.answered()?.by(&server))?;
    Ok(())
}

fn ending(address: IpAddr, serving: bool) -> Endpoint {
    Endpoint {
        address,
        ready: false,
        serving,
        terminating: true,
    }
}

fn terminating_fallback(stage: &Stage<'_>) -> Result<()> {
    let (near, far) = (stage.address(NEAR.name)?, stage.address(FAR.name)?);
    let service = by_hand(stage, &[ending(far, true), ending(near, false)])?;
    let client = stage.client()?;
    eventually("TCP", || client.tcp(service.tcp)?.answered()?.by(FAR.name))?;
    eventually("UDP", || client.udp(service.udp)?.answered()?.by(FAR.name))?;
    for name in client.answerers(Transport::Tcp, service.tcp, 20)? {
        ensure!(name == FAR.name, "{name}, which does not serve any more");
    }
    service.set(&[ending(far, false), ending(near, false)])?;
    eventually("refused", || client.tcp(service.tcp)?.refused())
}

fn terminating_not_asked(stage: &Stage<'_>) -> Result<()> {
    let (near, far) = (stage.address(NEAR.name)?, stage.address(FAR.name)?);
    let service = by_hand(stage, &[Endpoint::ready(near), Endpoint::ready(far)])?;
    let client = stage.client()?;
    for name in [NEAR.name, FAR.name] {
        eventually("each answers", || {
            client.tcp(service.tcp)?.answered()?.by(name)
        })?;
    }
    service.set(&[Endpoint::ready(near), ending(far, true)])?;
    eventually("only the ready one", || {
        let names = client.answerers(Transport::Tcp, service.tcp, 40)?;
        ensure!(names.iter().all(|name| name == NEAR.name), "{names:?}");
        Ok(())
    })
}

fn terminating_keeps(stage: &Stage<'_>) -> Result<()> {
    let (near, far) = (stage.address(NEAR.name)?, stage.address(FAR.name)?);
    let service = by_hand(stage, &[Endpoint::ready(far)])?;
    let client = stage.client()?;
    let kept = eventually("a connection", || {
        let (socket, outcome) = client.open(Transport::Tcp, service.tcp)?;
        outcome.answered()?.by(FAR.name)?;
        Ok(socket)
    })?;
    service.set(&[Endpoint::ready(near), ending(far, true)])?;
    eventually("new ones go elsewhere", || {
        client.tcp(service.tcp)?.answered()?.by(NEAR.name)
    })?;
    kept.again()?
        .answered()?
        .by(FAR.name)
        .context("terminating")?;
    service.set(&[Endpoint::ready(near), ending(far, false)])?;
    for _ in 0..5 {
        let outcome = kept.again()?;
        outcome.answered()?.by(FAR.name).context("not serving")?;
        client.tcp(service.tcp)?.answered()?;
    }
    Ok(())
}

fn terminating_pod(stage: &Stage<'_>) -> Result<()> {
    let spec = json!({"terminationGracePeriodSeconds": 600});
    let server = stage.server("web", NODES[1], true, &spec)?;
    let service = stage.service(
        "web",
        &json!({
            "type": "NodePort",
            "selector": stage.own(),
            "ports": [{"port": 80, "targetPort": 8080}],
        }),
    )?;
    stage.ready(&server)?;
    let inside = stage.from(&Place::pod(CLIENT))?;
    let outside = stage.from(&Place::Outside)?;
    let ways: [(&Asker, _); 2] = [
        (&inside, service.cluster()?),
        (&outside, service.frontend(Kind::NodePort, "", HOME)?),
    ];
    let mut kept = Vec::new();
    for (client, to) in ways {
        kept.push(eventually("a connection", || {
            let (socket, outcome) = client.open(Transport::Tcp, to)?;
            outcome.answered()?;
            Ok(socket)
        })?);
    }
    stage.end(&server)?;
    eventually("the slice says so", || {
        let path = format!(
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices\
             ?labelSelector=kubernetes.io/service-name={}",
            service.name()
        );
        let list = stage.cluster.api.get(&path)?;
        let conditions = &list["items"][0]["endpoints"][0]["conditions"];
        ensure!(conditions["terminating"] == true, "{list}");
        Ok(())
    })?;
    for (client, to) in ways {
        for _ in 0..5 {
            eventually("a new connection to the only one", || {
                client.tcp(to)?.answered()
            })?;
        }
    }
    for socket in kept {
        socket
            .again()?
            .answered()
            .context("a connection from before")?;
    }
    Ok(())
}

/// A socket whose first datagram was answered by `server`.
fn asked(client: &Asker, transport: Transport, to: SocketAddr, server: &str) -> Result<Socket> {
    eventually("the first answer", || {
        let (socket, outcome) = client.open(transport, to)?;
        outcome.answered()?.by(server)?;
        Ok(socket)
    })
}

/// No black hole: the socket's datagrams reach `server`, or, if it is connected,
/// it learns that its peer is gone and a new one reaches it.
fn comes_to(
    client: &Asker,
    socket: &Socket,
    transport: Transport,
    to: SocketAddr,
    server: &str,
) -> Result<()> {
    eventually("another endpoint, or an error", || {
        match (socket.again()?, transport) {
            (Outcome::Refused | Outcome::Reset, Transport::UdpConnected) => {
                client.once(transport, to)?.answered()?.by(server)
            }
            (outcome, _) => outcome.answered()?.by(server),
        }
    })?;
    Ok(())
}

const UDP: [Transport; 2] = [Transport::UdpConnected, Transport::UdpUnconnected];
type Sockets = [(Transport, Socket); 2];

/// A socket of either kind whose first datagram was answered by `server`.
fn all_asked(client: &Asker, to: SocketAddr, server: &str) -> Result<Sockets> {
    let [one, other] =
        UDP.map(|transport| anyhow::Ok((transport, asked(client, transport, to, server)?)));
    Ok([one?, other?])
}

fn all_refused(sockets: &Sockets) -> Result<()> {
    for (transport, socket) in sockets {
        eventually("refused", || match socket.again()? {
            Outcome::Refused => Ok(()),
            Outcome::Reset if *transport == Transport::UdpConnected => Ok(()),
            other => bail!("{transport:?}: {other:?}"),
        })?;
    }
    Ok(())
}

fn all_come_to(client: &Asker, sockets: &Sockets, to: SocketAddr, server: &str) -> Result<()> {
    for (transport, socket) in sockets {
        comes_to(client, socket, *transport, to, server)
            .with_context(|| format!("{transport:?}"))?;
    }
    Ok(())
}

fn udp_endpoint_gone(stage: &Stage<'_>) -> Result<()> {
    let far = Endpoint::ready(stage.address(FAR.name)?);
    let near = Endpoint::ready(stage.address(NEAR.name)?);
    let service = by_hand(stage, &[far])?;
    // Short, for datagrams into a black hole.
    let client = stage.client()?.expecting_silence();
    let sockets = all_asked(&client, service.udp, FAR.name)?;
    service.set(&[near])?;
    all_come_to(&client, &sockets, service.udp, NEAR.name)
}

fn udp_last_endpoint_gone(stage: &Stage<'_>) -> Result<()> {
    let far = Endpoint::ready(stage.address(FAR.name)?);
    let near = Endpoint::ready(stage.address(NEAR.name)?);
    let service = by_hand(stage, &[far])?;
    let client = stage.client()?.expecting_silence();
    let sockets = all_asked(&client, service.udp, FAR.name)?;
    service.set(&[])?;
    all_refused(&sockets)?;
    service.set(&[near])?;
    all_come_to(&client, &sockets, service.udp, NEAR.name)
}

fn udp_other_endpoint_gone(stage: &Stage<'_>) -> Result<()> {
    let (kind, name) = kind(stage);
    let ports = json!([{"name": "udp", "port": 80, "protocol": "UDP"}]);
    let service = stage.service("web", &json!({"type": name, "ports": ports}))?;
    let on_host = Endpoint::ready(stage.address(ON_HOST.name)?);
    let slice = service.slice(ON_HOST.port, &[on_host])?;
    let to = service.frontend(kind, "udp", HOME)?;
    let client = stage.client()?.expecting_silence();
    let sockets = all_asked(&client, to, ON_HOST.name)?;
    service.set_endpoints(&slice, &[])?;
    all_refused(&sockets)?;
    service.set_endpoints(&slice, &[on_host])?;
    all_come_to(&client, &sockets, to, ON_HOST.name)
}

fn udp_before_service(stage: &Stage<'_>) -> Result<()> {
    let service = by_hand(stage, &[])?;
    let client = stage.client()?.expecting_silence();
    let (socket, outcome) = client.open(Transport::UdpUnconnected, service.udp)?;
    outcome.unanswered()?;
    for _ in 0..3 {
        socket.again()?.unanswered()?;
    }
    service.set(&[Endpoint::ready(stage.address(FAR.name)?)])?;
    let transport = Transport::UdpUnconnected;
    comes_to(&client, &socket, transport, service.udp, FAR.name)
}

fn service_removed(stage: &Stage<'_>) -> Result<()> {
    let (kind, name) = kind(stage);
    let node_port = stage.cluster.fixed_node_port();
    let spec = |server: &str, address: Option<String>| {
        let port = match kind {
            Kind::NodePort => json!({"port": 80, "targetPort": 8080, "nodePort": node_port}),
            _ => json!({"port": 80, "targetPort": 8080}),
        };
        let mut spec = json!({"type": name, "selector": {"who": server}, "ports": [port]});
        if let Some(address) = address {
            spec["clusterIP"] = json!(address);
            spec["clusterIPs"] = json!([address]);
        }
        spec
    };
    let first = stage.service("first", &spec(FAR.name, None))?;
    let (client, to) = (stage.client()?, first.frontend(kind, "", HOME)?);
    eventually("the first", || client.tcp(to)?.answered()?.by(FAR.name))?;
    first.delete()?;
    eventually("nobody", || client.tcp(to)?.refused())?;
    let address = first.cluster_ip()?.to_string();
    let second = eventually("the same addresses for another", || {
        stage.service("second", &spec(NEAR.name, Some(address.clone())))
    })?;
    ensure!(second.frontend(kind, "", HOME)? == to);
    eventually("the second", || client.tcp(to)?.answered()?.by(NEAR.name))?;
    Ok(())
}
