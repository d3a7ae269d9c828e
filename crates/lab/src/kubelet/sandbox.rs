//! A pod's network namespace and its files.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use ripstop_host::sysctl;
use ripstop_netlink::netns::Netns;
use ripstop_netlink::{Netlink, link};
use serde_json::{Map, Value, json};

use super::cni::{self, Attachment, PluginError};
use super::node::Node;
use super::resolv::Resolver;
use super::volumes::{self, VolumeError};
use super::{facts::Facts, hosts, quantity};

/// The loopback device of every namespace.
const LO: u32 = 1;

/// What is made of a pod before its containers.
#[derive(Debug)]
pub(super) struct Sandbox {
    /// Path of the network namespace.
    pub(super) netns: PathBuf,
    pub(super) ips: Vec<IpAddr>,
    /// Files and directories of the pod.
    pub(super) dir: PathBuf,
    pub(super) hostname: String,
    /// Volumes that the lab has only an empty directory for.
    pub(super) substituted: Vec<String>,
    /// `None` on the node's own network.
    attached: Option<Attached>,
}

#[derive(Debug)]
struct Attached {
    name: String,
    attachment: Attachment,
    result: Value,
}

/// Why a pod cannot have its sandbox (yet).
#[derive(Debug, thiserror::Error)]
pub(super) enum SandboxError {
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error("writing {path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("network namespace {name}: {problem}")]
    Netns { name: String, problem: String },
    #[error("failed to setup network for sandbox {id:?}: {source}")]
    Plugin { id: String, source: PluginError },
    #[error("failed to setup network for sandbox {0:?}: the plugin's result has no address")]
    NoAddress(String),
    #[error("node {0} is not ready")]
    NodeNotReady(String),
}

impl SandboxError {
    /// The event under which people find it.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Volume(_) => "FailedMount",
            _ => "FailedCreatePodSandBox",
        }
    }
}

impl Sandbox {
    /// Makes everything, or nothing.
    ///
    /// # Errors
    /// [`SandboxError`]; what was made before is undone.
    pub(super) async fn make(node: &Arc<Node>, pod: &Pod) -> Result<Self, SandboxError> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let dir = node.context.paths.pod_dir(&node.spec.name, uid);
        let substituted = prepare_dir(node, pod, &dir)?;
        let host_network = pod
            .spec
            .as_ref()
            .and_then(|s| s.host_network)
            .unwrap_or(false);
        let attached = match host_network {
            true => None,
            false => Some(attach(node, pod).await?),
        };
        let (netns, ips) = match &attached {
            Some((_, attached, ips)) => (attached.attachment.netns.clone(), ips.clone()),
            None => (node.spec.netns.clone(), node.spec.addresses.clone()),
        };
        let name = hosts::name(pod, &node.context.dns.domain, &node.spec.name);
        let sandbox = Self {
            netns,
            ips,
            dir,
            hostname: name.uts.clone(),
            substituted,
            attached: attached.map(|(_, attached, _)| attached),
        };
        match sandbox.write_files(node, pod, &name) {
            Ok(()) => Ok(sandbox),
            Err(error) => {
                sandbox.remove(node).await;
                Err(error)
            }
        }
    }

    /// hosts, hostname and resolv.conf, for which the addresses had to be known.
    fn write_files(
        &self,
        node: &Node,
        pod: &Pod,
        name: &hosts::PodName,
    ) -> Result<(), SandboxError> {
        let own = |path: &str| fs::read_to_string(path).unwrap_or_default();
        for (file, text) in [
            ("hostname", format!("{}\n", name.uts)),
            (
                "hosts",
                hosts::hosts(pod, name, &self.ips, &own("/etc/hosts")),
            ),
            ("resolv.conf", dns(node, pod).to_string()),
        ] {
            write(&self.dir.join(file), text.as_bytes())?;
        }
        // For people and `ripstop lab` verbs that enter without the API.
        let facts = json!({
            "netns": self.netns,
            "sandbox": self.attached.as_ref().map(|attached| &attached.attachment.id),
            "ips": self.ips,
            "cni": self.attached.as_ref().map(|attached| &attached.result),
        });
        write(&self.dir.join("sandbox.json"), facts.to_string().as_bytes())
    }

    /// Whether the network is still as it was made.
    ///
    /// # Errors
    /// What the plugin found different.
    pub(super) async fn check(&self, node: &Node) -> Result<(), PluginError> {
        match &self.attached {
            Some(attached) => {
                node.network
                    .check(&attached.attachment, &attached.result)
                    .await
            }
            None => Ok(()),
        }
    }

    /// Gives the addresses back and removes the namespace. Errors are logged:
    /// the pod must be able to go, and GC finds what is left.
    pub(super) async fn remove(&self, node: &Arc<Node>) {
        if let Some(attached) = &self.attached {
            detach(node, &attached.name, &attached.attachment, &attached.result).await;
        }
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), SandboxError> {
    fs::write(path, bytes).map_err(|source| SandboxError::File {
        path: path.to_owned(),
        source,
    })
}

/// The pod's directory and its volumes; returns what had to be substituted.
fn prepare_dir(node: &Node, pod: &Pod, dir: &Path) -> Result<Vec<String>, SandboxError> {
    let volumes_dir = dir.join("volumes");
    // Volumes may hold secrets; containers get at them by mounts.
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&volumes_dir)
        .map_err(|source| SandboxError::File {
            path: dir.to_owned(),
            source,
        })?;
    let facts = Facts {
        pod,
        node: &node.spec.name,
        pod_ips: &[],
        host_ips: &node.spec.addresses,
        allocatable: &node.context.allocatable,
    };
    Ok(volumes::prepare(
        &volumes_dir,
        &facts,
        &node.context.sources,
    )?)
}

/// Makes a namespace and attaches it.
async fn attach(
    node: &Arc<Node>,
    pod: &Pod,
) -> Result<(PathBuf, Attached, Vec<IpAddr>), SandboxError> {
    if !node.is_ready() {
        return Err(SandboxError::NodeNotReady(node.spec.name.clone()));
    }
    let id = format!("{:016x}", rand::random::<u64>());
    let name = node.context.paths.pod_netns(&node.spec.name, &id);
    let failed = |problem: String| SandboxError::Netns {
        name: name.clone(),
        problem,
    };
    let settings = settings(pod);
    let create = {
        let name = name.clone();
        move || new_namespace(&name, &settings)
    };
    let netns = tokio::task::spawn_blocking(create)
        .await
        .map_err(|error| failed(error.to_string()))?
        .map_err(failed)?;
    let attachment = Attachment {
        args: cni_args(pod, &id),
        capabilities: capabilities(pod, &dns(node, pod)),
        netns: netns.clone(),
        id,
    };
    let added = node.network.add(&attachment).await;
    let (result, error) = match added {
        Ok(result) => {
            let ips = cni::addresses(&result);
            if !ips.is_empty() {
                return Ok((
                    netns,
                    Attached {
                        name,
                        attachment,
                        result,
                    },
                    ips,
                ));
            }
            (result, SandboxError::NoAddress(attachment.id.clone()))
        }
        Err(source) => (
            Value::Null,
            SandboxError::Plugin {
                id: attachment.id.clone(),
                source,
            },
        ),
    };
    // Also after a failed ADD, says the specification: it may have got half-way.
    detach(node, &name, &attachment, &result).await;
    Err(error)
}

async fn detach(node: &Node, name: &str, attachment: &Attachment, result: &Value) {
    if let Err(error) = node.network.delete(attachment, result).await {
        tracing::warn!(node = node.spec.name, netns = name, %error, "cannot detach");
    }
    if let Err(error) = Netns::remove(name) {
        tracing::warn!(node = node.spec.name, netns = name, %error, "cannot remove namespace");
    }
}

/// A namespace as runtimes prepare it: loopback up, and the settings.
fn new_namespace(name: &str, settings: &[(String, String)]) -> Result<PathBuf, String> {
    let netns = Netns::create(name).map_err(|error| error.to_string())?;
    let prepare = || {
        let mut netlink = Netlink::in_netns(&netns).map_err(|error| error.to_string())?;
        netlink
            .execute([link::up(LO)])
            .map_err(|error| error.to_string())?;
        let settings: Vec<(&str, &str)> = settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        sysctl::set_in(&netns, &settings).map_err(|error| error.to_string())
    };
    prepare().inspect_err(|_| {
        let _ = Netns::remove(name);
    })?;
    Ok(netns.path().to_owned())
}

/// What container runtimes set in every pod (containerd's
/// `enable_unprivileged_ports` and `_icmp`), then what the pod asks for.
fn settings(pod: &Pod) -> Vec<(String, String)> {
    let groups = match crate::rootless::is_inside() {
        // There are no others.
        true => "0 0",
        false => "0 2147483647",
    };
    let defaults = [
        ("net/ipv4/ip_unprivileged_port_start", "0"),
        ("net/ipv4/ping_group_range", groups),
    ];
    let security = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.security_context.as_ref());
    let own = security
        .and_then(|s| s.sysctls.as_deref())
        .unwrap_or_default();
    let own = own.iter().filter_map(|sysctl| {
        // Kubernetes writes either separator; only those of the network are the
        // pod's own.
        let name = sysctl.name.replace('.', "/");
        name.starts_with("net/")
            .then(|| (name, sysctl.value.clone()))
    });
    defaults
        .iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .chain(own)
        .collect()
}

fn cni_args(pod: &Pod, id: &str) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={id};\
         K8S_POD_UID={}",
        text(&pod.metadata.namespace),
        text(&pod.metadata.name),
        text(&pod.metadata.uid),
    )
}

/// How the pod finds names.
fn dns(node: &Node, pod: &Pod) -> Resolver {
    let spec = pod.spec.clone().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let own = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    Resolver::of_pod(&spec, namespace, &node.context.dns, &own)
}

/// What the pod asks of plugins that can do it.
/// <https://github.com/containernetworking/cni/blob/main/CONVENTIONS.md>
fn capabilities(pod: &Pod, dns: &Resolver) -> Map<String, Value> {
    let spec = pod.spec.as_ref();
    let ports = spec
        .into_iter()
        .flat_map(|s| &s.containers)
        .flat_map(|c| c.ports.iter().flatten());
    let mappings: Vec<Value> = ports
        .filter(|port| port.host_port.is_some_and(|port| port != 0))
        .map(|port| {
            json!({
                "hostPort": port.host_port,
                "containerPort": port.container_port,
                "protocol": port.protocol.as_deref().unwrap_or("TCP").to_lowercase(),
                "hostIP": port.host_ip.as_deref().unwrap_or_default(),
            })
        })
        .collect();
    let mut capabilities = Map::new();
    capabilities.insert("dns".to_owned(), dns.capability());
    if !mappings.is_empty() {
        capabilities.insert("portMappings".to_owned(), mappings.into());
    }
    if let Some(bandwidth) = bandwidth(pod) {
        capabilities.insert("bandwidth".to_owned(), bandwidth);
    }
    capabilities
}

/// <https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/network-plugins/#support-traffic-shaping>
fn bandwidth(pod: &Pod) -> Option<Value> {
    let annotations = pod.metadata.annotations.as_ref()?;
    let mut limits = Map::new();
    for direction in ["ingress", "egress"] {
        let Some(text) = annotations.get(&format!("kubernetes.io/{direction}-bandwidth")) else {
            continue;
        };
        let rate = quantity::divide(text, "1").and_then(|rate| u64::try_from(rate).ok())?;
        limits.insert(format!("{direction}Rate"), rate.into());
        // As large as containerd makes it: no limit of its own.
        limits.insert(format!("{direction}Burst"), u32::MAX.into());
    }
    (!limits.is_empty()).then_some(limits.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_plugins_are_told() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "u",
                         "annotations": {"kubernetes.io/egress-bandwidth": "10M"}},
            "spec": {
                "securityContext": {"sysctls": [
                    {"name": "net.ipv4.tcp_syncookies", "value": "0"},
                    {"name": "kernel.shm_rmid_forced", "value": "1"}]},
                "containers": [{"name": "c", "ports": [
                    {"containerPort": 80}, {"containerPort": 53, "hostPort": 5353,
                                            "protocol": "UDP", "hostIP": "192.0.2.1"}]}],
            },
        }))
        .unwrap();
        assert_eq!(
            Value::Object(capabilities(&pod, &Resolver::default())),
            json!({
                "dns": {"servers": [], "searches": [], "options": []},
                "portMappings": [{"hostPort": 5353, "containerPort": 53, "protocol": "udp",
                                  "hostIP": "192.0.2.1"}],
                "bandwidth": {"egressRate": 10_000_000, "egressBurst": u32::MAX},
            })
        );
        assert_eq!(
            cni_args(&pod, "id"),
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;\
             K8S_POD_INFRA_CONTAINER_ID=id;K8S_POD_UID=u"
        );
        let settings = settings(&pod);
        assert_eq!(
            settings[2..],
            [("net/ipv4/tcp_syncookies".to_owned(), "0".to_owned())]
        );
    }
}
