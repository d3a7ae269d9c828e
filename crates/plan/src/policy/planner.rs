//! From policies and what they select to rows, re-planning only what a change
//! touches.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ripstop_model::{ClusterNetworkPolicy, Namespace, NetworkPolicy, NodeIdentity, ObjectKey, Pod};

use super::active::Active;
use super::attribution::Direction;
use super::cluster::{Cluster, Holder};
use super::id::{ClassId, PeersId, PolicyId};
use super::in_force::InForce;
use super::peers::Peers;
use super::prefixes::{Host, Prefix, Prefixes, outermost};
use super::rows::{PodPolicies, PolicyChange, PolicyTables};
use super::rules::Rules;
use super::side::{Side, SideKey};
use super::subjects::Subjects;

/// Peers that come into force at once, from which on it is cheaper to look at
/// every pod than at the pods of each.
const MANY: usize = 32;

/// Holds the objects that policies are about and the rows that follow.
///
/// Only policies that select a pod of this node count, and only addresses that
/// one of their rules tells from others have a class of their own.
#[derive(Clone, Debug, Default)]
pub struct PolicyPlanner {
    cluster: Cluster,
    subjects: Subjects,
    active: Active,
    prefixes: Prefixes,
    rules: Rules,
    stale_prefixes: BTreeSet<Prefix>,
    /// Sides that lost their last pod in the update before. They stay for one
    /// update, so that while an engine puts classes and then pods in place there
    /// is a rule for each pair that a packet can meet.
    retired: BTreeSet<PolicyId>,
    /// Addresses that pods of this node have given up.
    forget_rows: BTreeSet<IpAddr>,
}

impl PolicyPlanner {
    /// `node`: name of this node, which its pods can always talk to.
    pub fn new(node: impl Into<String>) -> Self {
        Self {
            cluster: Cluster::new(node.into()),
            ..Self::default()
        }
    }

    /// A NetworkPolicy as it is now.
    pub fn upsert_policy(&mut self, policy: NetworkPolicy) {
        let key = policy.key.clone();
        self.subjects.set_network(&key, Some(policy), &self.cluster);
    }

    /// One that is not known is no error.
    pub fn remove_policy(&mut self, key: &ObjectKey) {
        self.subjects.set_network(key, None, &self.cluster);
    }

    /// A ClusterNetworkPolicy as it is now.
    pub fn upsert_cluster_policy(&mut self, policy: ClusterNetworkPolicy) {
        let name = policy.name.clone();
        self.subjects
            .set_cluster(&name, Some(policy), &self.cluster);
    }

    /// One that is not known is no error.
    pub fn remove_cluster_policy(&mut self, name: &str) {
        self.subjects.set_cluster(name, None, &self.cluster);
    }

    /// A pod of any node as it is now.
    pub fn upsert_pod(&mut self, pod: Pod) {
        let key = pod.key.clone();
        if self.cluster.upsert_pod(pod) {
            self.subjects.select(&key, &self.cluster);
        }
    }

    /// One that is not known is no error.
    pub fn remove_pod(&mut self, key: &ObjectKey) {
        if self.cluster.remove_pod(key) {
            self.subjects.select(key, &self.cluster);
        }
    }

    /// A namespace as it is now.
    pub fn upsert_namespace(&mut self, namespace: Namespace) {
        let name = namespace.name.clone();
        if self.cluster.upsert_namespace(namespace) {
            self.subjects.select_namespace(&name, &self.cluster);
        }
    }

    /// One that is not known is no error.
    pub fn remove_namespace(&mut self, name: &str) {
        if self.cluster.remove_namespace(name) {
            self.subjects.select_namespace(name, &self.cluster);
        }
    }

    /// A node as it is now.
    pub fn upsert_node(&mut self, node: NodeIdentity) {
        self.cluster.upsert_node(node);
    }

    /// One that is not known is no error.
    pub fn remove_node(&mut self, name: &str) {
        self.cluster.set_node(name, None);
    }

    /// The addresses that a domain name stands for, as the pods' resolver said;
    /// none once they are no longer valid.
    pub fn set_name(&mut self, name: &str, addresses: Vec<IpAddr>) {
        self.cluster.set_name(name, addresses);
    }

    /// A pod of this node has these addresses. It may come before the pod's
    /// object; until that is there (with this `uid`, if one is given), nothing
    /// passes.
    pub fn add_local_pod(&mut self, key: &ObjectKey, uid: Option<&str>, addresses: Vec<IpAddr>) {
        let before = self.cluster.local_addresses(key).to_vec();
        if self
            .cluster
            .set_local(key, Some((uid.map(Into::into), addresses)))
        {
            self.subjects.add_local(key, &self.cluster);
            // Rows of addresses that it has no longer.
            self.forget_rows.extend(before);
        }
    }

    /// A container of this node that is no pod, and that no policy can be about,
    /// has these addresses. It goes as a pod without a namespace does.
    pub fn add_local_container(&mut self, id: &str, addresses: Vec<IpAddr>) {
        self.add_local_pod(&ObjectKey::new("", id), None, addresses);
    }

    /// Whether everything is known by which policies select this pod of this node.
    pub fn is_known(&self, key: &ObjectKey) -> bool {
        is_container(key) || self.cluster.local_pod(key).is_some()
    }

    /// One that is not known is no error.
    pub fn remove_local_pod(&mut self, key: &ObjectKey) {
        let before = self.cluster.local_addresses(key).to_vec();
        if self.cluster.set_local(key, None) {
            self.subjects.remove_local(key);
            self.forget_rows.extend(before);
        }
    }

    /// Removes what a complete list does not have.
    pub fn retain_policies(&mut self, keep: impl Fn(&ObjectKey) -> bool) {
        let gone = self.subjects.network_keys().filter(|key| !keep(key));
        for key in gone.cloned().collect::<Vec<_>>() {
            self.remove_policy(&key);
        }
    }

    /// Removes what a complete list does not have.
    pub fn retain_cluster_policies(&mut self, keep: impl Fn(&str) -> bool) {
        let gone = self.subjects.cluster_names().filter(|name| !keep(name));
        for name in gone.cloned().collect::<Vec<_>>() {
            self.remove_cluster_policy(&name);
        }
    }

    /// Removes what a complete list does not have.
    pub fn retain_pods(&mut self, keep: impl Fn(&ObjectKey) -> bool) {
        let gone = self.cluster.pod_keys().filter(|key| !keep(key));
        for key in gone.collect::<Vec<_>>() {
            self.remove_pod(&key);
        }
    }

    /// Removes what a complete list does not have.
    pub fn retain_namespaces(&mut self, keep: impl Fn(&str) -> bool) {
        let gone = self.cluster.namespace_names().filter(|name| !keep(name));
        for name in gone.cloned().collect::<Vec<_>>() {
            self.remove_namespace(&name);
        }
    }

    /// Removes what a complete list does not have.
    pub fn retain_nodes(&mut self, keep: impl Fn(&str) -> bool) {
        let gone = self.cluster.node_names().filter(|name| !keep(name));
        for name in gone.cloned().collect::<Vec<_>>() {
            self.remove_node(&name);
        }
    }

    /// Plans what the objects since the last call touched, and brings `tables` up
    /// to date, which hold the sum of all changes so far. When it is applied and
    /// [`Self::is_settled`] says no, there is more to come: what nobody uses any
    /// more goes one update later.
    pub fn take_change(&mut self, tables: &mut PolicyTables) -> PolicyChange {
        let mut change = PolicyChange::default();
        self.plan_retired();
        self.plan_pods(tables, &mut change);
        self.plan_hosts();
        self.plan_classes(tables, &mut change);
        self.rules.plan(tables, &mut change);
        tables.apply(&change);
        change
    }

    /// Nothing waits to be planned.
    pub fn is_settled(&self) -> bool {
        self.retired.is_empty()
            && self.forget_rows.is_empty()
            && self.cluster.is_settled()
            && self.subjects.is_settled()
    }

    /// Numbers of NetworkPolicies and of ClusterNetworkPolicies of the cluster.
    pub fn policies(&self) -> (usize, usize) {
        let cluster = self.subjects.cluster_names().count();
        (self.subjects.network_keys().count(), cluster)
    }

    /// Number of classes besides the two that need no row.
    pub fn classes(&self) -> usize {
        self.rules.classes()
    }

    /// Whose an address is, as far as objects say.
    pub fn holder(&self, address: IpAddr) -> Option<Holder<'_>> {
        self.cluster.holder(address)
    }

    /// Addresses of a pod of this node; none if it is not.
    pub fn local_addresses(&self, key: &ObjectKey) -> &[IpAddr] {
        self.cluster.local_addresses(key)
    }

    /// All pods that are known, of every node.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.cluster.pods()
    }

    /// A pod of any node that is known.
    pub fn pod(&self, key: &ObjectKey) -> Option<&Pod> {
        self.cluster.pod(key)
    }

    /// The rules that are in force on a pod of this node, in the order in which
    /// they are asked; `None` if there is no such pod.
    pub fn in_force(&self, pod: &ObjectKey, direction: Direction) -> Option<InForce> {
        let parts = self.subjects.parts(pod, direction)?;
        Some(InForce::new(&parts))
    }

    fn plan_retired(&mut self) {
        let mut gone = Vec::new();
        for id in std::mem::take(&mut self.retired) {
            if self
                .rules
                .sides
                .get(&id)
                .is_some_and(|side| side.users == 0)
            {
                gone.extend(self.rules.remove_side(id));
            }
        }
        let mut released = BTreeSet::new();
        for side in gone {
            for (id, _) in &side.peers {
                if let Some(peers) = self.active.release(*id) {
                    self.change_blocks(*id, &peers, false);
                    if peers.blocks.len() < peers.members() {
                        released.insert(*id);
                    }
                }
            }
            if side.isolated.is_some() && self.active.release(PeersId::OWN_NODE).is_some() {
                self.cluster.touch_nodes();
            }
            for name in &side.names {
                if self.active.release_name(name) {
                    self.cluster.touch_named(name);
                }
            }
        }
        if !released.is_empty() {
            self.cluster.touch(self.prefixes.hosts_with(&released));
        }
    }

    /// Pods of this node: their sides, and what these bring into force.
    fn plan_pods(&mut self, tables: &PolicyTables, change: &mut PolicyChange) {
        let mut addresses = std::mem::take(&mut self.forget_rows);
        let stale = self.subjects.take_stale();
        for pod in stale.keys() {
            addresses.extend(self.cluster.local_addresses(pod));
        }
        let mut fresh = Vec::new();
        let mut planned = HashMap::new();
        for address in addresses {
            let pod = self.cluster.local_at(address).cloned();
            let before = tables.pods.get(&address).copied();
            let row = pod.and_then(|pod| {
                let delta = stale.get(&pod);
                let delta = delta.and_then(|delta| self.subjects.same_delta(&pod, delta));
                let same = before.zip(delta);
                match same.as_ref().and_then(|same| planned.get(same).copied()) {
                    Some(known) => known,
                    None => {
                        let row = self.sides(&pod, &mut fresh);
                        planned.extend(same.map(|same| (same, row)));
                        row
                    }
                }
            });
            if before == row {
                continue;
            }
            for id in row.iter().flat_map(PodPolicies::both) {
                if let Some(side) = self.rules.sides.get_mut(&id) {
                    side.users += 1;
                }
            }
            for id in before.iter().flat_map(PodPolicies::both) {
                if let Some(side) = self.rules.sides.get_mut(&id) {
                    side.users -= 1;
                    if side.users == 0 {
                        self.retired.insert(id);
                    }
                }
            }
            change.pods.insert(address, row);
        }
        // Made for a pod that then got no row.
        for id in &fresh {
            if self.rules.sides.get(id).is_some_and(|side| side.users == 0) {
                self.retired.insert(*id);
            }
        }
        self.activate(&fresh);
    }

    /// The two sides of a pod; new ones are remembered in `fresh`.
    fn sides(&mut self, pod: &ObjectKey, fresh: &mut Vec<PolicyId>) -> Option<PodPolicies> {
        if is_container(pod) {
            return Some(PodPolicies {
                ingress: PolicyId::NONE,
                egress: PolicyId::NONE,
            });
        }
        let mut side = |direction| {
            let parts = self.subjects.parts(pod, direction)?;
            let Some(object) = self.cluster.local_pod(pod) else {
                let (id, side) = Side::unknown(pod.clone());
                if !self.rules.sides.contains_key(&id) {
                    self.rules.add_side(id, side);
                    fresh.push(id);
                }
                return Some(id);
            };
            let key = SideKey::new(direction, &parts, object);
            let id = key.id();
            if id != PolicyId::NONE && !self.rules.sides.contains_key(&id) {
                self.rules.add_side(id, key.build());
                fresh.push(id);
            }
            Some(id)
        };
        Some(PodPolicies {
            ingress: side(Direction::Ingress)?,
            egress: side(Direction::Egress)?,
        })
    }

    /// Peers and port names of sides that are new.
    fn activate(&mut self, fresh: &[PolicyId]) {
        let mut new: Vec<(PeersId, Arc<Peers>)> = Vec::new();
        let mut names = Vec::new();
        for id in fresh {
            let Some(side) = self.rules.sides.get(id) else {
                continue;
            };
            for (id, peers) in &side.peers {
                if self.active.acquire(*id, peers) {
                    new.push((*id, Arc::clone(peers)));
                }
            }
            if side.isolated.is_some() && self.active.acquire(PeersId::OWN_NODE, &Arc::default()) {
                self.cluster.touch_nodes();
            }
            for name in &side.names {
                if self.active.acquire_name(name) {
                    names.push(name.to_owned());
                }
            }
        }
        let selectors = new.iter().flat_map(|(_, peers)| &peers.pods);
        if selectors.clone().count() + names.len() > MANY {
            self.cluster.touch_all_pods();
        } else {
            selectors.for_each(|selector| self.cluster.touch_selected(selector));
            names.iter().for_each(|name| self.cluster.touch_named(name));
        }
        if new.iter().any(|(_, peers)| !peers.nodes.is_empty()) {
            self.cluster.touch_nodes();
        }
        if new.iter().any(|(_, peers)| !peers.domains.is_empty()) {
            self.cluster.touch_names();
        }
        for (id, peers) in new {
            self.change_blocks(id, &peers, true);
        }
    }

    fn change_blocks(&mut self, id: PeersId, peers: &Peers, add: bool) {
        let whole: BTreeSet<_> = peers
            .blocks
            .iter()
            .map(|block| self.prefixes.block(block, id, add))
            .collect();
        // What is inside of another one has been looked at with that.
        for prefix in outermost(&whole) {
            self.stale_prefixes.extend(self.prefixes.inside(prefix));
        }
    }

    fn plan_hosts(&mut self) {
        for address in self.cluster.take_stale() {
            let mut content = self.cluster.at(address, &self.active);
            if !self.active.is_active(PeersId::OWN_NODE) {
                content.peers.retain(|peers| *peers != PeersId::OWN_NODE);
            }
            let is_empty = content.peers.is_empty() && content.ports.is_empty();
            let host = (!is_empty).then(|| Host::new(content));
            if self.prefixes.set_host(address, host.as_ref()) {
                self.stale_prefixes.insert(address.into());
            }
        }
    }

    fn plan_classes(&mut self, tables: &PolicyTables, change: &mut PolicyChange) {
        let mut stale = std::mem::take(&mut self.stale_prefixes);
        stale.retain(|prefix| match self.prefixes.forget(*prefix) {
            None => true,
            Some(class) => {
                class
                    .into_iter()
                    .for_each(|class| self.rules.release_class(class));
                put_class(tables, change, *prefix, None);
                false
            }
        });
        for prefix in &stale {
            let content = self.prefixes.content(*prefix);
            let base = prefix.base();
            if prefix.is_everything() {
                self.rules.set_base(base, content);
                continue;
            }
            let class = match self.rules.is_base(base, &content) {
                true => base,
                false => ClassId::of(&(base, &content)),
            };
            let before = self.prefixes.class(*prefix);
            if before == Some(class) {
                continue;
            }
            if class != base {
                self.rules.acquire_class(class, base, content);
            }
            before
                .into_iter()
                .for_each(|class| self.rules.release_class(class));
            self.prefixes.set_class(*prefix, class);
        }
        for prefix in stale {
            let class = self.prefixes.class(prefix);
            let row = class.filter(|_| class != self.prefixes.class_around(prefix));
            put_class(tables, change, prefix, row);
        }
    }
}

fn is_container(key: &ObjectKey) -> bool {
    key.namespace.is_empty()
}

fn put_class(
    tables: &PolicyTables,
    change: &mut PolicyChange,
    prefix: Prefix,
    row: Option<ClassId>,
) {
    let Some(net) = prefix.net() else { return };
    if tables.classes.get(&net) != row.as_ref() && !prefix.is_everything() {
        change.classes.insert(net, row);
    }
}
