//! An agent that is killed and starts again.

use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::cluster::{OUTSIDE_PORT, at, eventually};
use crate::engine::Family;
use crate::path::{CLIENT, FAR, HOME, NEAR};
use crate::place::Place;
use crate::scenario::Scenario;
use crate::stage::{Endpoint, Kind, Stage};
use crate::wire::Transport;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "agents-killed",
        "Connections live on and new ones are made while every agent is killed; changes are followed afterwards.",
        agents_killed,
    )
    .alone(),
];

fn agents_killed(stage: &Stage<'_>) -> Result<()> {
    let service = stage.service(
        "web",
        &json!({"type": "NodePort", "ports": [
            {"name": "tcp", "port": 80, "protocol": "TCP"},
            {"name": "udp", "port": 80, "protocol": "UDP"},
        ]}),
    )?;
    let far = Endpoint::ready(stage.address(FAR.name)?);
    let slice = service.slice(FAR.port, &[far])?;
    let outside: std::net::IpAddr = match stage.family {
        Family::Ipv4 => "172.31.0.2".parse()?,
        Family::Ipv6 => "fd00:31::2".parse()?,
    };
    let node_port = |port| service.frontend(Kind::NodePort, port, HOME);
    let ways = [
        (Place::Outside, Transport::Tcp, node_port("tcp")?),
        (Place::Outside, Transport::UdpUnconnected, node_port("udp")?),
        (Place::pod(CLIENT), Transport::Tcp, service.cluster()?),
        (
            Place::pod(CLIENT),
            Transport::UdpUnconnected,
            service.cluster()?,
        ),
        (
            Place::pod(CLIENT),
            Transport::Tcp,
            at(outside, OUTSIDE_PORT),
        ),
        (Place::node(HOME), Transport::Tcp, service.cluster()?),
    ];
    let mut kept = Vec::new();
    for (place, transport, to) in &ways {
        let client = stage.from(place)?;
        kept.push(eventually("a connection", || {
            let (socket, outcome) = client.open(*transport, *to)?;
            outcome.answered()?;
            Ok(socket)
        })?);
    }
    let killed = stage.cluster.lab.agents();
    ensure!(killed.len() == 3, "agents: {killed:?}");
    for agent in &killed {
        kill(Pid::from_raw(*agent), Signal::SIGKILL)?;
    }
    let all_use = || -> Result<()> {
        for (place, transport, to) in &ways {
            stage.from(place)?.once(*transport, *to)?.answered()?;
        }
        for socket in &kept {
            socket.again()?.answered()?;
        }
        Ok(())
    };
    let back = || {
        let now = stage.cluster.lab.agents();
        now.len() == 3 && now.iter().all(|agent| !killed.contains(agent))
    };
    while !back() {
        all_use()?;
    }
    for _ in 0..10 {
        all_use()?;
    }
    let near = Endpoint::ready(stage.address(NEAR.name)?);
    service.set_endpoints(&slice, &[near])?;
    let client = stage.from(&Place::pod(CLIENT))?;
    let to = service.cluster()?;
    eventually("a change is followed", || {
        client.tcp(to)?.answered()?.by(NEAR.name)
    })?;
    all_use()
}
