//! Traffic from outside: whom the endpoint sees, who may come, who is asked.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::{at, eventually};
use crate::engine::{Engine, Family, Stack};
use crate::path::{CLIENT, FAR, HOME, NEAR, NODES};
use crate::place::Place;
use crate::scenario::{Scenario, Skip};
use crate::stage::{Kind, Stage};
use crate::wire::Transport;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "external-traffic-local",
        "externalTrafficPolicy Local: the endpoint sees the client's own address; nodes without one do not answer.",
        external_traffic_local,
    )
    .also_single_stack(),
    Scenario::new(
        "external-traffic-local-udp",
        "The same for datagrams.",
        external_traffic_local_udp,
    ),
    Scenario::new(
        "external-traffic-local-inside",
        "externalTrafficPolicy Local does not bind pods at their own node, nor the node: they reach all endpoints.",
        external_traffic_local_inside,
    ),
    Scenario::new(
        "external-traffic-local-other-node",
        "externalTrafficPolicy Local binds pods at NodePorts of other nodes, as clients from outside.",
        external_traffic_local_other_node,
    ),
    Scenario::new(
        "load-balancer-local",
        "A LoadBalancer with externalTrafficPolicy Local shows the client's address.",
        load_balancer_local,
    ),
    Scenario::new(
        "health-check-node-port",
        "healthCheckNodePort says per node how many endpoints it has: 200, or 503 for none.",
        health_check_node_port,
    ),
    Scenario::new(
        "source-ranges",
        "loadBalancerSourceRanges: who is in none of them gets no answer from the load balancer's address.",
        source_ranges,
    ),
    Scenario::new(
        "node-port-fixed",
        "A NodePort that is asked for is the one that answers.",
        node_port_fixed,
    ),
    Scenario::new(
        "node-port-localhost",
        "A NodePort answers processes of the node at loopback.",
        node_port_localhost,
    ),
    Scenario::new(
        "node-port-addresses",
        "Outside of nodePortAddresses NodePorts do not answer.",
        node_port_addresses,
    )
    .also_single_stack(),
    Scenario::new(
        "node-port-own-listener",
        "A NodePort takes no connection from what listens at other ports of the node.",
        own_listener,
    ),
];

fn outside_address(stage: &Stage<'_>) -> Result<IpAddr> {
    Ok(match stage.family {
        Family::Ipv4 => "172.31.0.2".parse()?,
        Family::Ipv6 => "fd00:31::2".parse()?,
    })
}

fn local(stage: &Stage<'_>, transport: Transport, port: &str) -> Result<()> {
    let spec = json!({"type": "NodePort", "externalTrafficPolicy": "Local"});
    let service = stage.service_of(&NEAR, &spec)?;
    let outside = stage.from(&Place::Outside)?;
    let to = service.frontend(Kind::NodePort, port, NEAR.node)?;
    let client = outside_address(stage)?;
    eventually("an answer", || outside.once(transport, to)?.answered())?;
    for _ in 0..5 {
        let answered = outside.once(transport, to)?.answered()?;
        answered.by(NEAR.name)?.from(to)?.seen_as(client)?;
    }
    // The third node's NodePorts answer in every cluster of the suite.
    let elsewhere = service.frontend(Kind::NodePort, port, NODES[2])?;
    let outside = outside.expecting_silence();
    eventually("silence of a node without an endpoint", || {
        outside.once(transport, elsewhere)?.silent()
    })
}

fn external_traffic_local(stage: &Stage<'_>) -> Result<()> {
    local(stage, Transport::Tcp, "tcp")
}

fn external_traffic_local_udp(stage: &Stage<'_>) -> Result<()> {
    local(stage, Transport::UdpUnconnected, "udp")
}

fn external_traffic_local_inside(stage: &Stage<'_>) -> Result<()> {
    let spec = json!({"type": "NodePort", "externalTrafficPolicy": "Local"});
    let service = stage.service_of(&FAR, &spec)?;
    for place in [Place::pod(CLIENT), Place::node(HOME)] {
        let client = stage.from(&place)?;
        for to in [
            service.cluster()?,
            service.frontend(Kind::NodePort, "tcp", HOME)?,
        ] {
            eventually("an answer", || client.tcp(to)?.answered()?.by(FAR.name))
                .with_context(|| format!("{place} to {to}"))?;
        }
    }
    Ok(())
}

/// "Clients sending to a NodePort from within the cluster may need to take traffic
/// policy into account when picking a node" (the API's reference).
fn external_traffic_local_other_node(stage: &Stage<'_>) -> Result<()> {
    let spec = json!({"type": "NodePort", "externalTrafficPolicy": "Local"});
    let service = stage.service_of(&FAR, &spec)?;
    let client = stage.from(&Place::pod(CLIENT))?;
    let there = service.frontend(Kind::NodePort, "tcp", FAR.node)?;
    eventually("an answer", || client.tcp(there)?.answered()?.by(FAR.name))?;
    let elsewhere = service.frontend(Kind::NodePort, "tcp", NODES[2])?;
    let client = client.expecting_silence();
    eventually("silence of a node without an endpoint", || {
        client.tcp(elsewhere)?.silent()
    })
}

fn load_balancer_local(stage: &Stage<'_>) -> Result<()> {
    let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"});
    let service = stage.service_of(&FAR, &spec)?;
    let to = service.frontend(Kind::LoadBalancer, "tcp", HOME)?;
    let outside = stage.from(&Place::Outside)?;
    let client = outside_address(stage)?;
    eventually("an answer", || {
        let answered = outside.tcp(to)?.answered()?;
        answered.by(FAR.name)?.from(to)?.seen_as(client)
    })?;
    Ok(())
}

fn health_check_node_port(stage: &Stage<'_>) -> Result<()> {
    let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"});
    let service = stage.service_of(&NEAR, &spec)?;
    let port = service.object["spec"]["healthCheckNodePort"].as_u64();
    let port = port.context("no healthCheckNodePort")?.try_into()?;
    let outside = stage.from(&Place::Outside)?;
    for (node, status, endpoints) in [(NEAR.node, 200, 1), (FAR.node, 503, 0)] {
        let to = stage.at(node, port)?;
        eventually("the node's health", || {
            let (told, body) = outside.http(to, "/")?;
            ensure!(told == status, "{node}: {told}: {body}");
            // As kube-proxy says it (pkg/proxy/healthcheck/service_health.go).
            let body: Value = serde_json::from_str(&body)?;
            ensure!(body["localEndpoints"] == endpoints, "{node}: {body}");
            let of = json!({"namespace": "default", "name": service.name()});
            ensure!(body["service"] == of, "{node}: {body}");
            Ok(())
        })?;
    }
    Ok(())
}

fn source_ranges(stage: &Stage<'_>) -> Result<()> {
    let own = match stage.family {
        Family::Ipv4 => "172.31.0.0/24",
        Family::Ipv6 => "fd00:31::/64",
    };
    let others = match stage.family {
        Family::Ipv4 => "192.0.2.0/24",
        Family::Ipv6 => "2001:db8::/32",
    };
    let spec = json!({"type": "LoadBalancer", "loadBalancerSourceRanges": [others, own]});
    let mut service = stage.service_of(&FAR, &spec)?;
    let to = service.frontend(Kind::LoadBalancer, "tcp", HOME)?;
    let outside = stage.from(&Place::Outside)?;
    eventually("an answer to who may", || outside.tcp(to)?.answered())?;
    service.change(&json!({"spec": {"loadBalancerSourceRanges": [others]}}))?;
    let silent = outside.expecting_silence();
    eventually("no answer to who may not", || silent.tcp(to)?.silent())?;
    silent.udp(to)?.silent().context("UDP")?;
    // The ranges are of the load balancer's address alone.
    let node_port = service.frontend(Kind::NodePort, "tcp", HOME)?;
    outside.tcp(node_port)?.answered().context("its NodePort")?;
    service.change(&json!({"spec": {"loadBalancerSourceRanges": null}}))?;
    eventually("an answer to everybody", || outside.tcp(to)?.answered())?;
    Ok(())
}

fn node_port_fixed(stage: &Stage<'_>) -> Result<()> {
    let port = stage.cluster.fixed_node_port();
    let service = stage.service(
        "web",
        &json!({"type": "NodePort", "selector": {"who": NEAR.name}, "ports": [
            {"port": 80, "targetPort": NEAR.port, "nodePort": port},
        ]}),
    )?;
    ensure!(service.node_port("")? == port);
    let outside = stage.from(&Place::Outside)?;
    for node in NODES {
        let to = stage.at(node, port)?;
        eventually("an answer", || outside.tcp(to)?.answered()?.by(NEAR.name))?;
    }
    Ok(())
}

fn node_port_localhost(stage: &Stage<'_>) -> Result<()> {
    if stage.cluster.engine == Engine::Nftables && stage.family == Family::Ipv6 {
        let why = "the kernel has no route_localnet for IPv6: packets to ::1 never leave lo, \
                   so netfilter cannot lead them elsewhere (kube-proxy cannot either)";
        return Err(Skip(why.to_owned()).into());
    }
    let service = stage.service_of(&FAR, &json!({"type": "NodePort"}))?;
    let loopback: IpAddr = match stage.family {
        Family::Ipv4 => "127.0.0.1".parse()?,
        Family::Ipv6 => "::1".parse()?,
    };
    let client = stage.from(&Place::node(HOME))?;
    let to = at(loopback, service.node_port("tcp")?);
    eventually("TCP", || client.tcp(to)?.answered()?.by(FAR.name)?.from(to))?;
    let to = at(loopback, service.node_port("udp")?);
    eventually("UDP", || client.udp(to)?.answered()?.by(FAR.name)?.from(to))?;
    // In a pod that address is the pod's own.
    let pod = stage.from(&Place::pod(CLIENT))?;
    let to = at(loopback, service.node_port("tcp")?);
    pod.tcp(to)?.refused().context("a pod's own loopback")
}

fn node_port_addresses(stage: &Stage<'_>) -> Result<()> {
    let service = stage.service_of(&NEAR, &json!({"type": "NodePort"}))?;
    let outside = stage.from(&Place::Outside)?;
    let to = service.frontend(Kind::NodePort, "tcp", HOME)?;
    eventually("an answer", || outside.tcp(to)?.answered())?;
    if stage.cluster.stack == Stack::Dual {
        // The default: the Node's own addresses. One that it has beside them.
        let extra = match stage.family {
            Family::Ipv4 => "198.51.100.1",
            Family::Ipv6 => "2001:db8:1::1",
        };
        let node = stage.from(&Place::node(HOME))?;
        node.run(&["ip", "addr", "replace", extra, "dev", "lo"])?;
        let port = service.node_port("tcp")?;
        return node.tcp(at(extra.parse()?, port))?.refused();
    }
    let elsewhere = service.frontend(Kind::NodePort, "tcp", FAR.node)?;
    outside.tcp(elsewhere)?.refused()
}

/// What listens on the node is reached beside NodePorts.
fn own_listener(stage: &Stage<'_>) -> Result<()> {
    let service = stage.service_of(&FAR, &json!({"type": "NodePort"}))?;
    let outside = stage.from(&Place::Outside)?;
    let to = service.frontend(Kind::NodePort, "tcp", HOME)?;
    eventually("the service", || outside.tcp(to)?.answered()?.by(FAR.name))?;
    let host = crate::path::ON_HOST;
    let to = stage.at(host.node, host.port)?;
    let answered = outside.tcp(to)?.answered()?.by(host.name)?;
    answered.seen_as(outside_address(stage)?)?;
    let answered = outside.udp(to)?.answered()?.by(host.name)?.from(to)?;
    answered.seen_as(outside_address(stage)?)?;
    Ok(())
}
