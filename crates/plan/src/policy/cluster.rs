//! Who is where in the cluster: pods, namespaces, nodes, resolved names.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use ripstop_model::{ContainerPort, Labels, Namespace, NodeIdentity, ObjectKey, Pod, StringPool};

use super::active::Active;
use super::compile::ClassContent;
use super::id::PeersId;
use super::peers::PodSelector;
use crate::claims::Claims;

/// A pod of this node as the CNI plugin made it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Local {
    uid: Option<Box<str>>,
    addresses: Vec<IpAddr>,
}

/// Whose an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder<'a> {
    /// Without a namespace: a container that is no pod, by its id.
    Pod(&'a ObjectKey),
    Node(&'a str),
}

impl std::fmt::Display for Holder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pod(pod) if pod.namespace.is_empty() => write!(f, "container {}", pod.name),
            Self::Pod(pod) => write!(f, "{pod}"),
            Self::Node(node) => write!(f, "node {node}"),
        }
    }
}

/// The objects that peers are made of, and the addresses that they touched.
#[derive(Clone, Debug, Default)]
pub(super) struct Cluster {
    /// Name of this node.
    node: String,
    pool: StringPool,
    namespaces: HashMap<String, Labels>,
    /// By namespace and name.
    pods: HashMap<String, HashMap<String, Pod>>,
    locals: HashMap<ObjectKey, Local>,
    nodes: HashMap<String, NodeIdentity>,
    names: HashMap<String, Vec<IpAddr>>,
    /// Pods of this node (`false`) first: what the CNI plugin says is newer.
    owners: Claims<IpAddr, (bool, ObjectKey)>,
    nodes_at: BTreeMap<IpAddr, BTreeSet<String>>,
    names_at: BTreeMap<IpAddr, BTreeSet<String>>,
    stale: HashSet<IpAddr>,
}

impl Cluster {
    pub(super) fn new(node: String) -> Self {
        Self {
            node,
            ..Self::default()
        }
    }

    /// Labels of a namespace; one that is not known has none.
    pub(super) fn namespace<'a>(&'a self, name: &'a str) -> (&'a str, &'a Labels) {
        static NONE: std::sync::LazyLock<Labels> = std::sync::LazyLock::new(Labels::default);
        (name, self.namespaces.get(name).unwrap_or(&NONE))
    }

    pub(super) fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods
            .values()
            .flat_map(|of_namespace| of_namespace.values())
    }

    pub(super) fn pod(&self, key: &ObjectKey) -> Option<&Pod> {
        self.pods.get(&key.namespace)?.get(&key.name)
    }

    /// The object of a pod of this node, if it is that one and no predecessor.
    fn local_object(&self, key: &ObjectKey) -> Option<&Pod> {
        let local = self.locals.get(key)?;
        let pod = self.pod(key)?;
        let is_it = local.uid.as_ref().is_none_or(|uid| *uid == pod.uid);
        is_it.then_some(pod)
    }

    /// The same, if its namespace is known too: policies select it by both.
    pub(super) fn local_pod(&self, key: &ObjectKey) -> Option<&Pod> {
        let pod = self.local_object(key)?;
        self.namespaces.contains_key(&key.namespace).then_some(pod)
    }

    /// False if nothing has changed.
    pub(super) fn upsert_namespace(&mut self, namespace: Namespace) -> bool {
        let labels = namespace.labels.pooled(&mut self.pool);
        let before = self.namespaces.insert(namespace.name.clone(), labels);
        if before.as_ref() == self.namespaces.get(&namespace.name) {
            return false;
        }
        self.touch_pods(&namespace.name);
        true
    }

    pub(super) fn remove_namespace(&mut self, name: &str) -> bool {
        let known = self.namespaces.remove(name).is_some();
        self.touch_pods(name);
        known
    }

    /// False if nothing has changed.
    pub(super) fn upsert_pod(&mut self, mut pod: Pod) -> bool {
        let before = self.pod(&pod.key);
        if before == Some(&pod) {
            return false;
        }
        let key = pod.key.clone();
        let old = before.map(claims_of).unwrap_or_default();
        let new = claims_of(&pod);
        self.claim(&(true, key.clone()), &old, &new);
        pod.labels = pod.labels.pooled(&mut self.pool);
        for port in &mut pod.ports {
            port.name = self.pool.get(&port.name);
        }
        pod.node = pod.node.map(|node| self.pool.get(&node));
        let pods = self.pods.entry(key.namespace.clone()).or_default();
        pods.insert(key.name.clone(), pod);
        self.touch_local(&key);
        true
    }

    pub(super) fn remove_pod(&mut self, key: &ObjectKey) -> bool {
        let Some(pods) = self.pods.get_mut(&key.namespace) else {
            return false;
        };
        let Some(pod) = pods.remove(&key.name) else {
            return false;
        };
        if pods.is_empty() {
            self.pods.remove(&key.namespace);
        }
        self.claim(&(true, key.clone()), &claims_of(&pod), &[]);
        self.touch_local(key);
        true
    }

    /// False if nothing has changed.
    pub(super) fn set_local(
        &mut self,
        key: &ObjectKey,
        pod: Option<(Option<Box<str>>, Vec<IpAddr>)>,
    ) -> bool {
        let new = pod.map(|(uid, addresses)| Local { uid, addresses });
        let old = match new.clone() {
            Some(local) => self.locals.insert(key.clone(), local),
            None => self.locals.remove(key),
        };
        if old == new {
            return false;
        }
        let addresses = |local: Option<Local>| local.map(|l| l.addresses).unwrap_or_default();
        self.claim(&(false, key.clone()), &addresses(old), &addresses(new));
        true
    }

    pub(super) fn local_addresses(&self, key: &ObjectKey) -> &[IpAddr] {
        self.locals.get(key).map_or(&[], |local| &local.addresses)
    }

    /// The pod of this node that has an address.
    pub(super) fn local_at(&self, address: IpAddr) -> Option<&ObjectKey> {
        let (is_remote, pod) = self.owners.owner(address)?;
        (!is_remote).then_some(pod)
    }

    pub(super) fn upsert_node(&mut self, mut node: NodeIdentity) {
        node.labels = node.labels.pooled(&mut self.pool);
        self.set_node(&node.name.clone(), Some(node));
    }

    pub(super) fn set_node(&mut self, name: &str, node: Option<NodeIdentity>) {
        let new = node.clone();
        let old = match node {
            Some(node) => self.nodes.insert(name.to_owned(), node),
            None => self.nodes.remove(name),
        };
        if old == new {
            return;
        }
        let addresses = |n: Option<NodeIdentity>| n.map(|n| n.addresses).unwrap_or_default();
        let (old, new) = (addresses(old), addresses(new));
        place(&mut self.nodes_at, name, &old, &new);
        self.stale.extend(old.iter().chain(&new));
    }

    /// Addresses that a name has been resolved to; none forgets it.
    pub(super) fn set_name(&mut self, name: &str, addresses: Vec<IpAddr>) {
        let old = match addresses.is_empty() {
            true => self.names.remove(name),
            false => self.names.insert(name.to_owned(), addresses.clone()),
        };
        let old = old.unwrap_or_default();
        place(&mut self.names_at, name, &old, &addresses);
        self.stale.extend(old.iter().chain(&addresses));
    }

    /// The pod that has an address, or else the node.
    pub(super) fn holder(&self, address: IpAddr) -> Option<Holder<'_>> {
        if let Some((_, pod)) = self.owners.owner(address) {
            return Some(Holder::Pod(pod));
        }
        let node = self.nodes_at.get(&address)?.first()?;
        Some(Holder::Node(node))
    }

    pub(super) fn pod_keys(&self) -> impl Iterator<Item = ObjectKey> {
        let of = |(namespace, pods): (&String, &HashMap<String, Pod>)| {
            let namespace = namespace.clone();
            let names: Vec<_> = pods.keys().cloned().collect();
            names
                .into_iter()
                .map(move |name| ObjectKey::new(namespace.clone(), name))
        };
        self.pods.iter().flat_map(of)
    }

    pub(super) fn namespace_names(&self) -> impl Iterator<Item = &String> {
        self.namespaces.keys()
    }

    pub(super) fn node_names(&self) -> impl Iterator<Item = &String> {
        self.nodes.keys()
    }

    pub(super) fn take_stale(&mut self) -> HashSet<IpAddr> {
        std::mem::take(&mut self.stale)
    }

    pub(super) fn is_settled(&self) -> bool {
        self.stale.is_empty()
    }

    pub(super) fn touch(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.stale.extend(addresses);
    }

    /// Marks the pods that a selector chooses.
    pub(super) fn touch_selected(&mut self, selector: &PodSelector) {
        let mut stale = std::mem::take(&mut self.stale);
        for (name, pods) in &self.pods {
            let namespace = self.namespace(name);
            if !selector.namespaces.matches(namespace) {
                continue;
            }
            for pod in pods
                .values()
                .filter(|pod| selector.pods.matches(&pod.labels))
            {
                self.addresses(pod, &mut stale);
            }
        }
        self.stale = stale;
    }

    /// Marks the pods that have a port of this name.
    pub(super) fn touch_named(&mut self, name: &str) {
        let mut stale = std::mem::take(&mut self.stale);
        for pod in self.pods.values().flat_map(HashMap::values) {
            if pod.ports.iter().any(|port| &*port.name == name) {
                self.addresses(pod, &mut stale);
            }
        }
        self.stale = stale;
    }

    pub(super) fn touch_all_pods(&mut self) {
        let mut stale = std::mem::take(&mut self.stale);
        for pod in self.pods.values().flat_map(HashMap::values) {
            self.addresses(pod, &mut stale);
        }
        self.stale = stale;
    }

    pub(super) fn touch_nodes(&mut self) {
        self.stale.extend(self.nodes_at.keys());
    }

    pub(super) fn touch_names(&mut self) {
        self.stale.extend(self.names_at.keys());
    }

    /// What is known of exactly this address: peers in force, and named ports
    /// that are asked for.
    pub(super) fn at(&self, address: IpAddr, active: &Active) -> ClassContent {
        let mut content = ClassContent::default();
        if let Some((is_remote, key)) = self.owners.owner(address) {
            let pod = if *is_remote {
                self.pod(key)
            } else {
                self.local_object(key)
            };
            if let Some(pod) = pod.filter(|pod| pod.is_subject()) {
                let namespace = self.namespace(&pod.key.namespace);
                active.of_pod(namespace, &pod.labels, &mut content.peers);
                content.ports = asked_ports(pod, active);
            }
        }
        for name in self.nodes_at.get(&address).into_iter().flatten() {
            if let Some(node) = self.nodes.get(name) {
                active.of_node(&node.labels, &mut content.peers);
            }
            if *name == self.node {
                content.peers.push(PeersId::OWN_NODE);
            }
        }
        for name in self.names_at.get(&address).into_iter().flatten() {
            active.of_name(name, &mut content.peers);
        }
        content.peers.sort_unstable();
        content.peers.dedup();
        content
    }

    fn touch_pods(&mut self, namespace: &str) {
        let mut stale = std::mem::take(&mut self.stale);
        for pod in self
            .pods
            .get(namespace)
            .into_iter()
            .flat_map(HashMap::values)
        {
            self.addresses(pod, &mut stale);
        }
        self.stale = stale;
    }

    fn touch_local(&mut self, key: &ObjectKey) {
        if let Some(local) = self.locals.get(key) {
            self.stale.extend(&local.addresses);
        }
    }

    fn addresses(&self, pod: &Pod, into: &mut HashSet<IpAddr>) {
        into.extend(claims_of(pod));
        if !self.locals.is_empty() {
            into.extend(self.local_addresses(&pod.key));
        }
    }

    fn claim(&mut self, claimant: &(bool, ObjectKey), old: &[IpAddr], new: &[IpAddr]) {
        for address in old.iter().filter(|address| !new.contains(address)) {
            self.owners.release(*address, claimant);
        }
        for address in new {
            self.owners.claim(*address, claimant);
        }
        self.stale.extend(old.iter().chain(new));
    }
}

/// The addresses that are a pod's own.
fn claims_of(pod: &Pod) -> Vec<IpAddr> {
    match pod.is_subject() {
        true => pod.addresses.to_vec(),
        false => Vec::new(),
    }
}

fn asked_ports(pod: &Pod, active: &Active) -> Vec<ContainerPort> {
    let mut ports: Vec<ContainerPort> = Vec::new();
    for port in pod.ports.iter().filter(|port| active.uses_name(&port.name)) {
        // The first of a name and protocol counts.
        let is_known =
            |known: &ContainerPort| known.name == port.name && known.protocol == port.protocol;
        if !ports.iter().any(is_known) {
            ports.push(port.clone());
        }
    }
    ports.sort_unstable();
    ports
}

fn place(at: &mut BTreeMap<IpAddr, BTreeSet<String>>, name: &str, old: &[IpAddr], new: &[IpAddr]) {
    for address in old {
        if let Some(names) = at.get_mut(address) {
            names.remove(name);
            if names.is_empty() {
                at.remove(address);
            }
        }
    }
    for address in new {
        at.entry(*address).or_default().insert(name.to_owned());
    }
}
