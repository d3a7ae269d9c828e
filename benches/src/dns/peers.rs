//! Servers with the same names, each with one thread on one core.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::SERVER_CORE;
use super::names::{name, services};
use crate::rig::Server;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Ours,
    Unbound,
    Dnsmasq,
    Knot,
}

impl Peer {
    /// Starts it in the foreground; dropped, it is killed.
    pub(super) fn start(self, dir: &Path, at: SocketAddr) -> Result<Server> {
        let dir = dir.join(format!("{self:?}"));
        fs::create_dir_all(&dir)?;
        let path = |name: &str| dir.join(name).display().to_string();
        let (ip, port) = (at.ip(), at.port());
        let mut command = Command::new("taskset");
        command.args(["-c", SERVER_CORE]);
        match self {
            Self::Ours => {
                let bench = std::env::current_exe()?;
                command.arg(bench).args(["dns-serve", &at.to_string()]);
            }
            Self::Unbound => {
                let mut text = format!(
                    "server:\n  interface: {ip}@{port}\n  num-threads: 1\n  use-syslog: no\n  \
                     chroot: \"\"\n  username: \"\"\n  directory: \"{}\"\n  pidfile: \"\"\n  \
                     do-daemonize: no\n  local-zone: \"cluster.local.\" static\n  \
                     local-data: \"cluster.local. 5 SOA ns.dns.cluster.local. h.cluster.local. 1 7200 1800 86400 5\"\n",
                    dir.display()
                );
                for (key, address) in services() {
                    let _ = writeln!(text, "  local-data: \"{}. 5 A {address}\"", name(&key));
                }
                text.push_str("remote-control:\n  control-enable: no\n");
                fs::write(path("conf"), text)?;
                command.args(["unbound", "-d", "-c", &path("conf")]);
            }
            Self::Dnsmasq => {
                let mut text = format!(
                    "port={port}\nlisten-address={ip}\nbind-interfaces\nno-resolv\nno-hosts\n\
                     no-daemon\nuser=root\npid-file=\nlocal=/cluster.local/\nlocal-ttl=5\n\
                     dns-forward-max=1000\n"
                );
                for (key, address) in services() {
                    let _ = writeln!(text, "host-record={},{address}", name(&key));
                }
                fs::write(path("conf"), text)?;
                command.args(["dnsmasq", "-k", "-C", &path("conf")]);
            }
            Self::Knot => {
                let mut zone =
                    "$ORIGIN cluster.local.\n@ 5 SOA ns.dns hostmaster 1 7200 1800 86400 5\n\
                                @ 5 NS ns.dns\nns.dns 5 A 127.0.0.1\n"
                        .to_owned();
                for (key, address) in services() {
                    let _ = writeln!(zone, "{}. 5 A {address}", name(&key));
                }
                fs::write(path("zone"), zone)?;
                let text = format!(
                    "server:\n  rundir: \"{0}\"\n  listen: {ip}@{port}\n  udp-workers: 1\n  \
                     tcp-workers: 1\n  background-workers: 1\ndatabase:\n  storage: \"{0}\"\n\
                     zone:\n  - domain: cluster.local\n    storage: \"{0}\"\n    file: zone\n",
                    dir.display()
                );
                fs::write(path("conf"), text)?;
                command.args(["knotd", "-c", &path("conf")]);
            }
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("start {self:?}"))?;
        Ok(Server(child))
    }
}
