//! The peer of every same-node figure: a client and a server namespace, each
//! joined by a veth pair to a namespace that routes between them. No rules, no
//! connection tracking: what any pod network on the host's stack pays at least.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ripstop_netlink::netns::Netns;

use crate::load::{Pattern, Sample};
use crate::rig::Server;

/// Address of a server in the client's own namespace.
pub(crate) const LOOPBACK: &str = "127.0.0.1:7001";

/// Three namespaces; dropped, they go.
#[derive(Debug)]
pub(crate) struct Routed {
    client: Netns,
    server: Netns,
    names: [String; 3],
}

impl Routed {
    pub(crate) fn new() -> Result<Self> {
        let names =
            ["client", "server", "router"].map(|end| format!("bench-{}-{end}", std::process::id()));
        let [client, server, router] = &names;
        let made = Self {
            client: Netns::create(client)?,
            server: Netns::create(server)?,
            names: names.clone(),
        };
        Netns::create(router)?;
        for (end, subnet) in [(client, 1), (server, 2)] {
            for command in [
                format!("-n {router} link add to{subnet} type veth peer name eth0 netns {end}"),
                format!("-n {router} addr add 10.9.{subnet}.1/24 dev to{subnet}"),
                format!("-n {router} link set to{subnet} up"),
                format!("-n {end} addr add 10.9.{subnet}.2/24 dev eth0"),
                format!("-n {end} link set eth0 up"),
                format!("-n {end} link set lo up"),
                format!("-n {end} route add default via 10.9.{subnet}.1"),
            ] {
                ip(&command)?;
            }
        }
        Netns::open(format!("/run/netns/{router}"))?
            .run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))?
            .context("forwarding of the router namespace")?;
        Ok(made)
    }

    pub(crate) fn target(&self, port: u16) -> String {
        format!("10.9.2.2:{port}")
    }

    /// Starts `bench` as a server at [`Routed::target`], and one beside the client
    /// at [`LOOPBACK`]: the least that a connection costs on this machine.
    pub(crate) fn serve(&self, bench: &str, port: u16) -> Result<[Server; 2]> {
        let spawn = |at: &Netns, address: &str| {
            let mut command = Command::new(bench);
            command.args(["load-serve", address]).stdout(Stdio::null());
            at.run(|| command.spawn())?
                .context("start the server")
                .map(Server)
        };
        Ok([
            spawn(&self.server, &self.target(port))?,
            spawn(&self.client, LOOPBACK)?,
        ])
    }

    /// A load from the client.
    pub(crate) fn sample(
        &self,
        bench: &str,
        target: SocketAddr,
        pattern: Pattern,
        time: Duration,
    ) -> Result<Sample> {
        let mut load = Command::new(bench);
        load.args(pattern.run(target, time));
        Sample::of(load, &self.client)
    }
}

impl Drop for Routed {
    fn drop(&mut self) {
        for name in &self.names {
            if let Err(error) = Netns::remove(name) {
                eprintln!("namespace {name} is still there: {error}");
            }
        }
    }
}

fn ip(command: &str) -> Result<()> {
    let output = Command::new("ip")
        .args(command.split(' '))
        .output()
        .context("run ip")?;
    if !output.status.success() {
        bail!("ip {command}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
