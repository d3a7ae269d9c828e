//! Ports of a service, and the ports that they lead to.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::cluster::{at, eventually};
use crate::path::{BESIDE, FAR, NEAR, Path};
use crate::scenario::Scenario;
use crate::stage::{Stage, refused};
use crate::wire::Transport;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "ports-several",
        "Each port of a service leads to its own target port.",
        several,
    )
    .on(&[Path::PodToNear, Path::NodeToNear]),
    Scenario::new(
        "ports-both-protocols",
        "One port number leads elsewhere for TCP and for UDP.",
        both_protocols,
    )
    .on(&[Path::PodToNear, Path::NodeToNear]),
    Scenario::new(
        "ports-named",
        "A named target port is another number in another pod.",
        named,
    )
    .on(&[Path::PodToNear, Path::NodeToNear]),
    Scenario::new(
        "ports-others-refuse",
        "A port that the service does not have is refused, whatever its endpoints listen at.",
        others_refuse,
    )
    .on(&[Path::PodToNear, Path::NodeToNear]),
    Scenario::new(
        "app-protocol",
        "appProtocol is carried to the endpoint slices.",
        app_protocol,
    ),
];

fn several(stage: &Stage<'_>) -> Result<()> {
    let service = stage.service(
        "web",
        &json!({"selector": {"who": NEAR.name}, "ports": [
            {"name": "a", "port": 80, "targetPort": 8080},
            {"name": "b", "port": 81, "targetPort": 8081},
            {"name": "c", "port": 82, "targetPort": 8080},
        ]}),
    )?;
    let client = stage.client()?;
    for (port, target) in [(80, 8080), (81, 8081), (82, 8080)] {
        let to = at(service.cluster_ip()?, port);
        eventually("an answer", || {
            client.tcp(to)?.answered()?.at(target)?.from(to)
        })?;
    }
    Ok(())
}

fn both_protocols(stage: &Stage<'_>) -> Result<()> {
    let service = stage.service(
        "web",
        &json!({"selector": {"who": NEAR.name}, "ports": [
            {"name": "tcp", "port": 53, "targetPort": 8080, "protocol": "TCP"},
            {"name": "udp", "port": 53, "targetPort": 8081, "protocol": "UDP"},
        ]}),
    )?;
    let (client, to) = (stage.client()?, at(service.cluster_ip()?, 53));
    eventually("TCP", || client.tcp(to)?.answered()?.at(8080))?;
    eventually("UDP", || client.udp(to)?.answered()?.at(8081)?.from(to))?;
    Ok(())
}

fn named(stage: &Stage<'_>) -> Result<()> {
    let service = stage.service(
        "web",
        &json!({"selector": {"app": "web"}, "ports": [
            {"name": "tcp", "port": 80, "targetPort": "main", "protocol": "TCP"},
            {"name": "udp", "port": 80, "targetPort": "main-udp", "protocol": "UDP"},
        ]}),
    )?;
    let (client, to) = (stage.client()?, service.cluster()?);
    for udp in [false, true] {
        for server in [NEAR, BESIDE, FAR] {
            let expected = server.port + u16::from(server == BESIDE);
            eventually("an answer of each", || {
                let outcome = if udp {
                    client.udp(to)?
                } else {
                    client.tcp(to)?
                };
                outcome.answered()?.by(server.name)?.at(expected)
            })?;
        }
    }
    Ok(())
}

fn others_refuse(stage: &Stage<'_>) -> Result<()> {
    let service = stage.service_of(&NEAR, &json!({}))?;
    let client = stage.client()?;
    let to = service.cluster()?;
    eventually("an answer", || client.tcp(to)?.answered())?;
    for port in [NEAR.port, NEAR.port + 1, 443] {
        let to = at(service.cluster_ip()?, port);
        refused(&client, Transport::Tcp, to)?;
        refused(&client, Transport::UdpUnconnected, to)?;
    }
    Ok(())
}

fn app_protocol(stage: &Stage<'_>) -> Result<()> {
    let service = stage.service(
        "web",
        &json!({"selector": {"who": NEAR.name}, "ports": [
            {"port": 80, "targetPort": 8080, "appProtocol": "kubernetes.io/h2c"},
        ]}),
    )?;
    let path = format!(
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices\
         ?labelSelector=kubernetes.io/service-name={}",
        service.name()
    );
    eventually("it is in the slice", || {
        let list = stage.cluster.api.get(&path)?;
        let carried = &list["items"][0]["ports"][0]["appProtocol"];
        ensure!(carried == "kubernetes.io/h2c", "{list}");
        Ok(())
    })
}
