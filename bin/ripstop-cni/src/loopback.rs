//! The plugin `loopback`: containerd 1.x calls it for each pod before the network
//! list, and attaches none where nobody has installed it.
//! <https://github.com/containerd/containerd/blob/main/docs/cri/config.md>
//!
//! It takes the pod's `lo` up, without the agent, which has no part in it.

use std::io;

use ripstop_cni_types::wire::Request;
use ripstop_cni_types::{Code, Config, Error, Version};
use ripstop_netlink::netns::Netns;
use ripstop_netlink::{Netlink, link};
use serde_json::{Value, json};

/// The name by which a runtime calls this plugin: a link to this program.
pub(crate) const NAME: &str = "loopback";
/// Index of `lo` in every network namespace.
const LO: u32 = 1;

/// What is to be printed; nothing for commands without a result.
pub(crate) fn run(request: &Request) -> Result<Value, Error> {
    let version = Config::version_of(&request.config)?;
    match request.command.as_str() {
        "ADD" => {
            let netns = netns(request)?;
            take_up(&netns)?;
            let before = request.config.get("prevResult").cloned();
            Ok(before.unwrap_or_else(|| result(version, &netns)))
        }
        "CHECK" => {
            let found = Netlink::in_netns(&netns(request)?)
                .and_then(|mut inside| inside.link_by_index(LO))
                .map_err(|error| Error::new(Code::Io, error.to_string()))?;
            match found {
                Some(lo) if lo.up => Ok(Value::Null),
                _ => Err(Error::new(Code::Io, "lo of the pod is not up")),
            }
        }
        // What ends with the namespace needs no undoing.
        _ => Ok(Value::Null),
    }
}

fn netns(request: &Request) -> Result<Netns, Error> {
    let unusable = |text: String| Error::new(Code::InvalidEnvironment, text);
    let path = request.netns.as_deref().unwrap_or_default();
    if path.is_empty() {
        return Err(unusable("CNI_NETNS is not set".to_owned()));
    }
    Netns::open(path).map_err(|error: io::Error| unusable(format!("CNI_NETNS {path}: {error}")))
}

fn take_up(netns: &Netns) -> Result<(), Error> {
    Netlink::in_netns(netns)
        .and_then(|mut inside| inside.execute([link::up(LO)]))
        .map_err(|error| Error::new(Code::Io, "lo of the pod").details(error.to_string()))
}

fn result(version: Version, netns: &Netns) -> Value {
    let ip = |address: &str, family: &str| {
        let mut ip = json!({"address": address, "interface": 0});
        if version < Version::V1_0_0 {
            ip["version"] = family.into();
        }
        ip
    };
    json!({
        "cniVersion": version.as_str(),
        "interfaces":
            [{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": netns.path()}],
        "ips": [ip("127.0.0.1/8", "4"), ip("::1/128", "6")],
        "dns": {},
    })
}
