//! What runtimes remember of the pods that plugins attached: libcni's cache, a file
//! for each attachment.
//!
//! <https://github.com/containernetworking/cni/blob/main/libcni/api.go> (`cachedInfo`)

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use ipnet::IpNet;
use k8s_openapi::ByteString;
use ripstop_cni_types::{Attachment, PodArgs};
use serde::Deserialize;
use serde_json::{Map, Value};

/// `kind` of the files that we read.
const KIND: &str = "cniCacheV1";

/// An attachment as its runtime remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cached {
    pub(super) at: Attachment,
    pub(super) network: String,
    pub(super) pod: PodArgs,
    /// All that the plugins gave.
    pub(super) addresses: Vec<IpAddr>,
    /// Path of the pod's network namespace.
    pub(super) netns: PathBuf,
    pub(super) plugins: Vec<Plugin>,
    /// Capabilities with something in them, as `portMappings`.
    pub(super) capabilities: Vec<String>,
}

/// One of the network list's plugins, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Plugin {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default, rename = "ipMasq")]
    pub(super) masquerades: bool,
    #[serde(default)]
    pub(super) vlan: u32,
    #[serde(default)]
    pub(super) ipam: Ipam,
    /// Of `flannel`: what it has `bridge` do.
    #[serde(default)]
    pub(super) delegate: Option<Delegate>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Ipam {
    #[serde(default, rename = "type")]
    pub(super) kind: String,
}

/// What a plugin has another one do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Delegate {
    #[serde(default, rename = "type")]
    pub(super) kind: String,
    #[serde(default, rename = "ipMasq")]
    pub(super) masquerades: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    kind: String,
    container_id: String,
    if_name: String,
    network_name: String,
    /// The network list, or the configuration of its one plugin.
    config: ByteString,
    #[serde(default)]
    cni_args: Option<Vec<[String; 2]>>,
    #[serde(default)]
    capability_args: Option<Map<String, Value>>,
    result: Outcome,
}

#[derive(Deserialize)]
struct Outcome {
    #[serde(default)]
    interfaces: Vec<Interface>,
    #[serde(default)]
    ips: Vec<Ip>,
}

#[derive(Deserialize)]
struct Interface {
    name: String,
    #[serde(default)]
    sandbox: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Ip {
    address: IpNet,
}

#[derive(Deserialize)]
struct Network {
    #[serde(default)]
    plugins: Option<Vec<Plugin>>,
    #[serde(flatten)]
    only: Value,
}

/// All attachments in a folder; files that are something else are left out.
///
/// # Errors
/// If the folder cannot be listed. One that does not exist has none.
pub(super) fn read(folder: &Path) -> io::Result<Vec<Cached>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let read = fs::read(&path).map_err(|error| error.to_string());
        match read.and_then(|bytes| parse(&bytes)) {
            Ok(cached) => found.push(cached),
            Err(reason) => tracing::debug!(path = %path.display(), reason, "not read"),
        }
    }
    // The same every time.
    found.sort_by(|a, b| key(a).cmp(&key(b)));
    Ok(found)
}

fn key(cached: &Cached) -> (&str, &str) {
    (&cached.at.container_id, &cached.at.ifname)
}

/// # Errors
/// What is missing.
fn parse(bytes: &[u8]) -> Result<Cached, String> {
    let file: File = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if file.kind != KIND {
        return Err(format!("its kind is {:?}, not {KIND:?}", file.kind));
    }
    let network: Network =
        serde_json::from_slice(&file.config.0).map_err(|error| format!("config: {error}"))?;
    let plugins = match network.plugins {
        Some(plugins) => plugins,
        None => vec![Plugin::deserialize(&network.only).map_err(|error| error.to_string())?],
    };
    let inside = |one: &Interface| one.name == file.if_name;
    let interface = file.result.interfaces.into_iter().find(inside);
    let netns = interface.and_then(|one| one.sandbox);
    let netns = netns.filter(|path| !path.as_os_str().is_empty());
    let words: Vec<String> = file
        .cni_args
        .unwrap_or_default()
        .into_iter()
        .map(|[key, value]| format!("{key}={value}"))
        .collect();
    let capabilities = file.capability_args.unwrap_or_default();
    let used = capabilities
        .into_iter()
        .filter(|(_, value)| !is_empty(value));
    Ok(Cached {
        at: Attachment {
            container_id: file.container_id,
            ifname: file.if_name,
        },
        network: file.network_name,
        pod: PodArgs::parse(&words.join(";")),
        addresses: file.result.ips.iter().map(|ip| ip.address.addr()).collect(),
        netns: netns.ok_or("its result names no interface with a sandbox")?,
        plugins,
        capabilities: used.map(|(name, _)| name).collect(),
    })
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn file(config: &Value, result: &Value) -> Vec<u8> {
        let config = serde_json::to_value(ByteString(config.to_string().into_bytes())).unwrap();
        json!({
            "kind": "cniCacheV1", "containerId": "3f", "config": config, "ifName": "eth0",
            "networkName": "cbr0",
            "cniArgs": [["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", "shop"],
                ["K8S_POD_NAME", "cart-0"], ["K8S_POD_UID", "7f"]],
            "capabilityArgs": {"portMappings": [], "dns": {}, "bandwidth": {"ingressRate": 1}},
            "result": result,
        })
        .to_string()
        .into_bytes()
    }

    fn result() -> Value {
        json!({
            "cniVersion": "0.3.1",
            "interfaces": [{"name": "cni0"}, {"name": "veth1", "mac": "aa"},
                {"name": "eth0", "mac": "bb", "sandbox": "/run/netns/x"}],
            "ips": [{"version": "4", "interface": 2, "address": "10.244.1.5/24"},
                {"version": "6", "interface": 2, "address": "fd00::5/64"}],
        })
    }

    #[test]
    fn an_attachment_is_read() {
        let list = json!({"name": "cbr0", "plugins": [
            {"type": "flannel", "delegate": {"isDefaultGateway": true, "ipMasq": true}},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ]});
        let cached = parse(&file(&list, &result())).unwrap();
        assert_eq!(cached.at.container_id, "3f");
        assert_eq!(cached.pod.name, "cart-0");
        assert_eq!(cached.pod.uid.as_deref(), Some("7f"));
        let expected: [IpAddr; 2] = ["10.244.1.5".parse().unwrap(), "fd00::5".parse().unwrap()];
        assert_eq!(cached.addresses, expected);
        assert_eq!(cached.netns, Path::new("/run/netns/x"));
        assert_eq!(cached.capabilities, ["bandwidth"]);
        assert_eq!(cached.plugins.len(), 2);
        assert!(cached.plugins[0].delegate.as_ref().unwrap().masquerades);

        let only = json!({"name": "cbr0", "type": "bridge", "ipam": {"type": "host-local"}});
        let cached = parse(&file(&only, &result())).unwrap();
        assert_eq!(cached.plugins[0].kind, "bridge");
        assert_eq!(cached.plugins[0].ipam.kind, "host-local");
    }

    #[test]
    fn what_is_no_attachment_is_left_out() {
        let list = json!({"name": "cbr0", "plugins": []});
        let nowhere = json!({"interfaces": [{"name": "eth0"}], "ips": []});
        assert!(parse(&file(&list, &nowhere)).is_err());
        // As libcni wrote it before it had a kind: the result alone.
        assert!(parse(result().to_string().as_bytes()).is_err());
        assert!(parse(b"{").is_err());
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(&folder.path().join("none")).unwrap(), []);
        fs::write(folder.path().join("a"), file(&list, &result())).unwrap();
        fs::write(folder.path().join("b"), b"{").unwrap();
        fs::create_dir(folder.path().join("c")).unwrap();
        assert_eq!(read(folder.path()).unwrap().len(), 1);
    }
}
