//! What runs on each node, counted as pods come and go.

use std::collections::{BTreeSet, HashMap};

use k8s_openapi::api::core::v1::{ContainerPort, Pod};

use super::affinity::is_anti_affine;
use crate::controllers::object::{Key, controller_of};
use crate::controllers::pod;

#[derive(Debug, Default)]
pub(crate) struct Loads {
    nodes: HashMap<String, Load>,
    /// Number of placed pods that keep others away; almost always none.
    pub(crate) anti_affine: usize,
}

/// One node's pods that have not ended.
#[derive(Debug, Default)]
pub(crate) struct Load {
    pub(crate) pods: BTreeSet<Key>,
    /// Number of pods by the uid of what manages them.
    pub(crate) by_owner: HashMap<String, usize>,
    pub(crate) host_ports: Vec<(Key, HostPort)>,
}

/// A port of the node that a pod occupies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    pub(crate) address: String,
    pub(crate) protocol: String,
    pub(crate) port: i32,
}

impl HostPort {
    /// Both cannot be had on one node: an unspecified address means all.
    pub(crate) fn conflicts(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address == other.address || self.is_any() || other.is_any())
    }

    fn is_any(&self) -> bool {
        matches!(self.address.as_str(), "0.0.0.0" | "::")
    }
}

impl Loads {
    pub(crate) fn of(&self, node: &str) -> Option<&Load> {
        self.nodes.get(node)
    }

    pub(crate) fn replace(&mut self, old: Option<&Pod>, new: Option<&Pod>) {
        if let Some((node, pod)) = old.and_then(holds) {
            self.release(node, pod);
            self.anti_affine -= usize::from(is_anti_affine(pod));
        }
        if let Some((node, pod)) = new.and_then(holds) {
            self.anti_affine += usize::from(is_anti_affine(pod));
            self.nodes.entry(node.to_owned()).or_default().add(pod);
        }
    }

    fn release(&mut self, node: &str, pod: &Pod) {
        if let Some(load) = self.nodes.get_mut(node) {
            load.take(pod);
            if load.pods.is_empty() {
                self.nodes.remove(node);
            }
        }
    }
}

impl Load {
    fn add(&mut self, pod: &Pod) {
        let key = Key::of(&pod.metadata);
        if let Some(owner) = controller_of(&pod.metadata) {
            *self.by_owner.entry(owner.uid.clone()).or_default() += 1;
        }
        self.host_ports
            .extend(host_ports(pod).map(|port| (key.clone(), port)));
        self.pods.insert(key);
    }

    fn take(&mut self, pod: &Pod) {
        let key = Key::of(&pod.metadata);
        if let Some(owner) = controller_of(&pod.metadata)
            && let Some(count) = self.by_owner.get_mut(&owner.uid)
        {
            *count -= 1;
            if *count == 0 {
                self.by_owner.remove(&owner.uid);
            }
        }
        self.host_ports.retain(|(holder, _)| *holder != key);
        self.pods.remove(&key);
    }
}

fn holds(pod: &Pod) -> Option<(&str, &Pod)> {
    let node = pod::node_name(pod)?;
    (!pod::is_terminal(pod)).then_some((node, pod))
}

/// Ports of the node that the pod asks for. With the host's network every
/// container port is one (the API fills in `hostPort`).
pub(crate) fn host_ports(pod: &Pod) -> impl Iterator<Item = HostPort> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(host_port)
}

fn host_port(port: &ContainerPort) -> Option<HostPort> {
    let number = port.host_port.filter(|number| *number > 0)?;
    let address = port.host_ip.clone().filter(|ip| !ip.is_empty());
    Some(HostPort {
        address: address.unwrap_or_else(|| "0.0.0.0".to_owned()),
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
        port: number,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, node: &str, phase: &str, owner: &str) -> Pod {
        serde_saphyr::from_str(&format!(
            "{{metadata: {{namespace: a, name: {name}, ownerReferences: [{{apiVersion: apps/v1, kind: ReplicaSet, name: r, uid: {owner}, controller: true}}]}},
              spec: {{nodeName: '{node}', containers: [{{name: c, ports: [{{containerPort: 80, hostPort: 8080}}]}}]}}, status: {{phase: {phase}}}}}"
        ))
        .unwrap()
    }

    #[test]
    fn counts_follow_pods() {
        let mut loads = Loads::default();
        let (first, second) = (pod("p", "n", "Running", "o"), pod("q", "n", "Running", "o"));
        loads.replace(None, Some(&first));
        loads.replace(None, Some(&second));
        let load = loads.of("n").unwrap();
        assert_eq!(
            (load.pods.len(), load.by_owner["o"], load.host_ports.len()),
            (2, 2, 2)
        );

        loads.replace(Some(&first), Some(&pod("p", "n", "Succeeded", "o")));
        let load = loads.of("n").unwrap();
        assert_eq!(
            (load.pods.len(), load.by_owner["o"], load.host_ports.len()),
            (1, 1, 1)
        );

        loads.replace(Some(&second), None);
        assert!(loads.of("n").is_none());
    }

    #[test]
    fn ports_conflict_by_address_and_protocol() {
        let port = |address: &str, protocol: &str| HostPort {
            address: address.into(),
            protocol: protocol.into(),
            port: 80,
        };
        for (one, other, expected) in [
            (port("0.0.0.0", "TCP"), port("10.0.0.1", "TCP"), true),
            (port("::", "TCP"), port("fd00::1", "TCP"), true),
            (port("10.0.0.1", "TCP"), port("10.0.0.2", "TCP"), false),
            (port("0.0.0.0", "TCP"), port("0.0.0.0", "UDP"), false),
        ] {
            assert_eq!(one.conflicts(&other), expected, "{one:?} {other:?}");
        }
    }
}
