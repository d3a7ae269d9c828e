//! Which policies select which pods of this node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ripstop_model::{ClusterNetworkPolicy, NetworkPolicy, ObjectKey};

use super::attribution::Direction;
use super::cluster::Cluster;
use super::part::{Part, Parts, Rank};

/// The policies of the cluster, and the pods of this node with those that select
/// them.
#[derive(Clone, Debug, Default)]
pub(super) struct Subjects {
    network: BTreeMap<ObjectKey, (NetworkPolicy, Parts)>,
    cluster: BTreeMap<String, (ClusterNetworkPolicy, Parts)>,
    /// By namespace and name; in the order in which they are asked.
    locals: BTreeMap<ObjectKey, Selected>,
    stale: BTreeMap<ObjectKey, Delta>,
}

/// What has changed for a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Delta {
    /// The policies of these ranks, as they are to be found now.
    Policies(BTreeSet<Arc<Rank>>),
    Everything,
}

impl Default for Delta {
    fn default() -> Self {
        Self::Policies(BTreeSet::new())
    }
}

impl Delta {
    fn add(&mut self, rank: &Arc<Rank>) {
        if let Self::Policies(ranks) = self {
            ranks.insert(Arc::clone(rank));
            if ranks.len() > MANY {
                *self = Self::Everything;
            }
        }
    }
}

/// What pods have in common for which the same has changed: policies with the
/// hashes of what they say now.
pub(super) type SameDelta = Vec<(Arc<Rank>, Option<[u64; 2]>)>;

/// What selects a pod, in the order in which it is asked.
type Selected = BTreeMap<Arc<Rank>, Parts>;

/// Changes of one pod from which on it is cheaper not to remember which.
const MANY: usize = 32;

impl Subjects {
    pub(super) fn set_network(
        &mut self,
        key: &ObjectKey,
        policy: Option<NetworkPolicy>,
        cluster: &Cluster,
    ) {
        if self.network.get(key).map(|(old, _)| old) == policy.as_ref() {
            return;
        }
        let rank = Arc::new(Rank::Network(key.clone()));
        let new = policy.map(|policy| {
            let parts = Parts::network(&policy);
            (policy, parts)
        });
        for (pod, selected) in of_namespace(&mut self.locals, &key.namespace) {
            let chosen = new
                .as_ref()
                .filter(|(policy, _)| selects(policy, pod, cluster));
            let before = match chosen {
                Some((_, parts)) => selected.insert(rank.clone(), parts.clone()),
                None => selected.remove(&rank),
            };
            if before.is_some() || chosen.is_some() {
                self.stale.entry(pod.clone()).or_default().add(&rank);
            }
        }
        match new {
            Some(new) => drop(self.network.insert(key.clone(), new)),
            None => drop(self.network.remove(key)),
        }
    }

    pub(super) fn set_cluster(
        &mut self,
        name: &str,
        policy: Option<ClusterNetworkPolicy>,
        cluster: &Cluster,
    ) {
        let old = self.cluster.get(name);
        if old.map(|(old, _)| old) == policy.as_ref() {
            return;
        }
        let old_rank = old.and_then(|(_, parts)| rank_of(parts));
        let new = policy.map(|policy| {
            let parts = Parts::cluster(&policy);
            (policy, parts)
        });
        for (pod, selected) in &mut self.locals {
            if let Some(rank) = &old_rank
                && selected.remove(rank).is_some()
            {
                self.stale.entry(pod.clone()).or_default().add(rank);
            }
            if let Some((policy, parts)) = &new
                && let Some(rank) = rank_of(parts)
                && selects_cluster(policy, pod, cluster)
            {
                self.stale.entry(pod.clone()).or_default().add(&rank);
                selected.insert(rank, parts.clone());
            }
        }
        match new {
            Some(new) => drop(self.cluster.insert(name.to_owned(), new)),
            None => drop(self.cluster.remove(name)),
        }
    }

    pub(super) fn add_local(&mut self, pod: &ObjectKey, cluster: &Cluster) {
        self.locals.entry(pod.clone()).or_default();
        self.select(pod, cluster);
    }

    pub(super) fn remove_local(&mut self, pod: &ObjectKey) {
        self.locals.remove(pod);
        self.stale.insert(pod.clone(), Delta::Everything);
    }

    /// Asks all policies again about one pod, if it is of this node.
    pub(super) fn select(&mut self, pod: &ObjectKey, cluster: &Cluster) {
        let Some(selected) = self.locals.get_mut(pod) else {
            return;
        };
        selected.clear();
        let from = ObjectKey::new(&pod.namespace, "");
        let network = self.network.range(from..);
        let network = network.take_while(|(key, _)| key.namespace == pod.namespace);
        for (policy, parts) in network.map(|(_, policy)| policy) {
            if let Some(rank) = rank_of(parts)
                && selects(policy, pod, cluster)
            {
                selected.insert(rank, parts.clone());
            }
        }
        for (policy, parts) in self.cluster.values() {
            if let Some(rank) = rank_of(parts)
                && selects_cluster(policy, pod, cluster)
            {
                selected.insert(rank, parts.clone());
            }
        }
        self.stale.insert(pod.clone(), Delta::Everything);
    }

    /// As [`Self::select`], for the pods of a namespace.
    pub(super) fn select_namespace(&mut self, namespace: &str, cluster: &Cluster) {
        let pods = of_namespace(&mut self.locals, namespace);
        for pod in pods.map(|(pod, _)| pod.clone()).collect::<Vec<_>>() {
            self.select(&pod, cluster);
        }
    }

    /// What is in force on a pod, in the order in which it is asked; `None` if it
    /// is not of this node.
    pub(super) fn parts(&self, pod: &ObjectKey, direction: Direction) -> Option<Vec<Arc<Part>>> {
        let selected = self.locals.get(pod)?;
        let parts = selected.values().filter_map(|parts| parts.of(direction));
        Some(parts.cloned().collect())
    }

    /// What has changed for a pod, if it is the same for all pods that had the
    /// same in force before: then they have the same afterwards.
    pub(super) fn same_delta(&self, pod: &ObjectKey, delta: &Delta) -> Option<SameDelta> {
        let Delta::Policies(ranks) = delta else {
            return None;
        };
        let selected = self.locals.get(pod)?;
        let mut same = Vec::new();
        for rank in ranks {
            let parts = selected.get(rank);
            let sides = parts.map(|parts| [&parts.ingress, &parts.egress]);
            // Names are other ports in each pod.
            if sides.iter().flatten().any(|side| has_names(side.as_ref())) {
                return None;
            }
            let hash = |side: &Option<Arc<Part>>| side.as_ref().map_or(0, |part| part.hash);
            same.push((Arc::clone(rank), sides.map(|sides| sides.map(hash))));
        }
        Some(same)
    }

    pub(super) fn take_stale(&mut self) -> BTreeMap<ObjectKey, Delta> {
        std::mem::take(&mut self.stale)
    }

    pub(super) fn is_settled(&self) -> bool {
        self.stale.is_empty()
    }

    pub(super) fn network_keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.network.keys()
    }

    pub(super) fn cluster_names(&self) -> impl Iterator<Item = &String> {
        self.cluster.keys()
    }
}

fn has_names(part: Option<&Arc<Part>>) -> bool {
    part.is_some_and(|part| !part.names.is_empty())
}

fn rank_of(parts: &Parts) -> Option<Arc<Rank>> {
    let part = parts.ingress.as_ref().or(parts.egress.as_ref())?;
    Some(Arc::clone(&part.rank))
}

fn selects(policy: &NetworkPolicy, pod: &ObjectKey, cluster: &Cluster) -> bool {
    cluster
        .local_pod(pod)
        .is_some_and(|pod| !pod.host_network && policy.pod_selector.matches(&pod.labels))
}

fn selects_cluster(policy: &ClusterNetworkPolicy, pod: &ObjectKey, cluster: &Cluster) -> bool {
    let (_, namespace) = cluster.namespace(&pod.namespace);
    cluster.local_pod(pod).is_some_and(|pod| {
        !pod.host_network
            && policy.subject.namespaces.matches(namespace)
            && policy.subject.pods.matches(&pod.labels)
    })
}

fn of_namespace<'a>(
    locals: &'a mut BTreeMap<ObjectKey, Selected>,
    namespace: &'a str,
) -> impl Iterator<Item = (&'a ObjectKey, &'a mut Selected)> {
    locals
        .range_mut(ObjectKey::new(namespace, "")..)
        .take_while(move |(pod, _)| pod.namespace == namespace)
}
