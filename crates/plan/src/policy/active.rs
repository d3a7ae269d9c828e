//! The peers that rules in force name, and which pods, nodes and names they are.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use ripstop_model::{DomainPattern, LabelSelector, Labels};

use super::id::PeersId;
use super::peers::{Namespaces, Peers, PodSelector};

/// Label that every namespace has, with its name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Peers in force.
#[derive(Clone, Debug, Default)]
pub(super) struct Active {
    peers: HashMap<PeersId, Entry>,
    /// Pod selectors by where their pods can be found.
    places: HashMap<u64, Vec<(Arc<PodSelector>, PeersId)>>,
    nodes: BTreeSet<(LabelSelector, PeersId)>,
    domains: BTreeSet<(DomainPattern, PeersId)>,
    /// Port names that egress rules use, with the number of sides.
    names: HashMap<String, usize>,
}

#[derive(Clone, Debug)]
struct Entry {
    peers: Arc<Peers>,
    /// Sides that name it.
    uses: usize,
}

impl Active {
    /// True if they were not in force before.
    pub(super) fn acquire(&mut self, id: PeersId, peers: &Arc<Peers>) -> bool {
        if let Some(entry) = self.peers.get_mut(&id) {
            entry.uses += 1;
            return false;
        }
        for selector in &peers.pods {
            let at = self.places.entry(place_of(selector)).or_default();
            at.push((Arc::new(selector.clone()), id));
        }
        self.nodes
            .extend(peers.nodes.iter().map(|n| (n.clone(), id)));
        self.domains
            .extend(peers.domains.iter().map(|d| (d.clone(), id)));
        let peers = Arc::clone(peers);
        self.peers.insert(id, Entry { peers, uses: 1 });
        true
    }

    /// The peers, if nobody names them any more.
    pub(super) fn release(&mut self, id: PeersId) -> Option<Arc<Peers>> {
        let entry = self.peers.get_mut(&id)?;
        entry.uses -= 1;
        if entry.uses > 0 {
            return None;
        }
        let peers = self.peers.remove(&id)?.peers;
        for selector in &peers.pods {
            let place = place_of(selector);
            if let Some(at) = self.places.get_mut(&place) {
                at.retain(|(_, of)| *of != id);
                if at.is_empty() {
                    self.places.remove(&place);
                }
            }
        }
        for selector in &peers.nodes {
            self.nodes.remove(&(selector.clone(), id));
        }
        for pattern in &peers.domains {
            self.domains.remove(&(pattern.clone(), id));
        }
        Some(peers)
    }

    pub(super) fn is_active(&self, id: PeersId) -> bool {
        self.peers.contains_key(&id)
    }

    /// True if the name was not in use before.
    pub(super) fn acquire_name(&mut self, name: &str) -> bool {
        let uses = self.names.entry(name.to_owned()).or_default();
        *uses += 1;
        *uses == 1
    }

    /// True if nobody uses it any more.
    pub(super) fn release_name(&mut self, name: &str) -> bool {
        let Some(uses) = self.names.get_mut(name) else {
            return false;
        };
        *uses -= 1;
        if *uses > 0 {
            return false;
        }
        self.names.remove(name);
        true
    }

    pub(super) fn uses_name(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    pub(super) fn of_pod(&self, namespace: (&str, &Labels), pod: &Labels, into: &mut Vec<PeersId>) {
        if self.places.is_empty() {
            return;
        }
        let mut look = |space: Option<&str>, label: Option<(&str, &str)>| {
            for (selector, id) in self.places.get(&place(space, label)).into_iter().flatten() {
                if selector.matches(namespace, pod) {
                    into.push(*id);
                }
            }
        };
        for space in [Some(namespace.0), None] {
            look(space, None);
            for label in pod.iter() {
                look(space, Some(label));
            }
        }
    }

    pub(super) fn of_node(&self, labels: &Labels, into: &mut Vec<PeersId>) {
        let matching = self.nodes.iter().filter(|(nodes, _)| nodes.matches(labels));
        into.extend(matching.map(|(_, id)| *id));
    }

    pub(super) fn of_name(&self, name: &str, into: &mut Vec<PeersId>) {
        let matching = self
            .domains
            .iter()
            .filter(|(domains, _)| domains.matches(name));
        into.extend(matching.map(|(_, id)| *id));
    }
}

fn place_of(selector: &PodSelector) -> u64 {
    let namespace = match &selector.namespaces {
        Namespaces::One(name) => Some(name.as_str()),
        Namespaces::Selected(by) => match by.needs() {
            Some((NAME_LABEL, name)) => Some(name),
            _ => None,
        },
    };
    place(namespace, selector.pods.needs())
}

/// Pods of one namespace or of any, with one label or any. As a hash: what is
/// found at a place is compared anyway.
fn place(namespace: Option<&str>, label: Option<(&str, &str)>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (namespace, label).hash(&mut hasher);
    hasher.finish()
}
