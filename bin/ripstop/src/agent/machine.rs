//! What a report of a fault needs of the machine: asked in the agent's network
//! namespace, which is the node's.

use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ripstop_netlink::Netlink;
use serde::{Deserialize, Serialize};

/// A program that takes longer is stopped.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of what a program prints is kept.
const MOST: u64 = 16 << 20;

/// Programs that tell more than we ask for ourselves, where the machine has them;
/// none of them changes anything. (`iptables-save` could load modules.)
const PROGRAMS: &[&[&str]] = &[
    &["ip", "-details", "-statistics", "link"],
    &["ip", "address"],
    &["ip", "rule"],
    &["ip", "-6", "rule"],
    &["ip", "route", "show", "table", "all"],
    &["ip", "-6", "route", "show", "table", "all"],
    &["ip", "neighbour"],
    &["nft", "list", "ruleset"],
    &["bpftool", "prog", "show"],
    &["bpftool", "map", "show"],
    &["bpftool", "net", "show"],
    &["conntrack", "-S"],
    &["ss", "-s"],
];

const FILES: &[&str] = &[
    "/proc/version",
    "/etc/os-release",
    "/proc/meminfo",
    "/proc/net/snmp",
    "/proc/net/netstat",
    "/proc/net/softnet_stat",
    "/proc/net/stat/nf_conntrack",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/net/ipv4/ip_local_port_range",
    "/proc/sys/net/ipv4/conf/all/rp_filter",
    "/proc/sys/net/ipv6/conf/all/forwarding",
    "/proc/sys/net/ipv6/conf/all/disable_ipv6",
    "/proc/sys/net/netfilter/nf_conntrack_max",
    "/proc/sys/net/netfilter/nf_conntrack_count",
    "/proc/sys/net/bridge/bridge-nf-call-iptables",
    "/proc/sys/kernel/unprivileged_bpf_disabled",
];

/// Text by name of file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) files: BTreeMap<String, String>,
    /// What could not be had, and why.
    pub(crate) missing: BTreeMap<String, String>,
}

impl Machine {
    fn add(&mut self, name: String, text: Result<String>) {
        match text {
            Ok(text) => drop(self.files.insert(name, text)),
            Err(error) => drop(self.missing.insert(name, format!("{error:#}"))),
        }
    }
}

/// Takes a second at most where all is well.
pub(crate) fn gather() -> Machine {
    let mut machine = Machine::default();
    machine.add("links.txt".into(), tables(|netlink| netlink.links()));
    machine.add(
        "addresses.txt".into(),
        tables(|netlink| netlink.addresses()),
    );
    machine.add("routes.txt".into(), tables(|netlink| netlink.routes()));
    for file in FILES {
        let text = std::fs::read_to_string(file).context("cannot be read");
        let name = file.trim_start_matches('/').replace('/', "-");
        machine.add(format!("{name}.txt"), text);
    }
    for program in PROGRAMS {
        machine.add(format!("{}.txt", program.join("-")), output(program));
    }
    machine
}

/// A line for each row of a table of the kernel's.
fn tables<T: std::fmt::Debug>(
    read: impl FnOnce(&mut Netlink) -> Result<Vec<T>, ripstop_netlink::Error>,
) -> Result<String> {
    let rows = read(&mut Netlink::new()?)?;
    Ok(rows.iter().map(|row| format!("{row:?}\n")).collect())
}

fn output(program: &[&str]) -> Result<String> {
    let mut child = Command::new(program[0])
        .args(&program[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot be started")?;
    let pipe = child.stdout.take().context("no output")?;
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // Closed here when it is enough: the program ends by itself then.
        let read = pipe.take(MOST).read_to_end(&mut bytes);
        read.map(|_| String::from_utf8_lossy(&bytes).into_owned())
    });
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            bail!("did not end within {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let Ok(text) = reader.join() else {
        bail!("its output cannot be read");
    };
    let text = text?;
    if !status.success() {
        bail!("{status}; it printed {} bytes", text.len());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_had_is_said() {
        assert_eq!(output(&["echo", "yes"]).unwrap(), "yes\n");
        let failed = output(&["false"]).unwrap_err().to_string();
        assert!(failed.contains("exit status: 1"), "{failed}");
        let missing = output(&["ripstop-has-no-such-program"]).unwrap_err();
        assert_eq!(missing.to_string(), "cannot be started");
        let machine = gather();
        assert!(machine.files.contains_key("proc-version.txt"));
        assert!(machine.files["links.txt"].contains("lo"));
    }
}
