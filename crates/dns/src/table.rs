//! The services of the cluster by name and by address.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::IpNet;
use ripstop_model::ObjectKey;
use ripstop_plan::ServiceNames;

use crate::name::LABEL_MAX;

/// `<service>.<namespace>` in wire form, as a question has it.
pub(crate) type Key = Arc<[u8]>;

/// Everything that can be asked for. Names are kept once: the index by address
/// points at the keys of the index by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    services: HashMap<Key, ServiceNames>,
    /// How many services each namespace has: the name of a namespace exists as
    /// long as there is one below it.
    namespaces: HashMap<Box<[u8]>, usize>,
    /// Who has an address: services, and headless services by their endpoints.
    addresses: BTreeSet<(IpAddr, Key)>,
    /// Pods by namespace, if they are followed at all.
    pods: HashMap<Box<[u8]>, BTreeMap<IpAddr, u32>>,
    /// Ranges of pods and services.
    ranges: BTreeSet<IpNet>,
}

impl Table {
    /// Sets or removes the names of one service.
    pub(crate) fn set(&mut self, service: &ObjectKey, names: Option<ServiceNames>) {
        let Some(wire) = wire_key(service) else {
            return;
        };
        let known = self.services.get_key_value(&wire[..]);
        let key = known.map_or_else(|| Key::from(wire), |(key, _)| Key::clone(key));
        let before = self.services.remove(&key);
        // Only what differs: one endpoint of thousands, as a rule.
        let had = before.as_ref().map_or_else(Vec::new, addresses);
        let has = names.as_ref().map_or_else(Vec::new, addresses);
        for address in had.iter().filter(|ip| has.binary_search(ip).is_err()) {
            self.addresses.remove(&(*address, Key::clone(&key)));
        }
        for address in has.iter().filter(|ip| had.binary_search(ip).is_err()) {
            self.addresses.insert((*address, Key::clone(&key)));
        }
        let namespace = namespace(&key);
        match (before.is_some(), names.is_some()) {
            (false, true) => *self.namespaces.entry(namespace.into()).or_default() += 1,
            (true, false) => self.leave(namespace.into()),
            _ => {}
        }
        if let Some(names) = names {
            self.services.insert(key, names);
        }
    }

    fn leave(&mut self, namespace: Box<[u8]>) {
        if let Some(count) = self.namespaces.get_mut(&namespace) {
            *count -= 1;
            if *count == 0 {
                self.namespaces.remove(&namespace);
            }
        }
    }

    /// Services that [`Table::set`] would have to remove for `keep` to be all.
    pub(crate) fn others(&self, keep: impl Fn(&ObjectKey) -> bool) -> Vec<ObjectKey> {
        self.services
            .keys()
            .map(|key| object(key))
            .filter(|key| !keep(key))
            .collect()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<(&Key, &ServiceNames)> {
        self.services.get_key_value(key)
    }

    /// All services.
    pub(crate) fn keys(&self) -> Vec<Key> {
        self.services.keys().cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.services.len()
    }

    pub(crate) fn has_namespace(&self, namespace: &[u8]) -> bool {
        self.namespaces.contains_key(namespace)
    }

    /// Services that have an address.
    pub(crate) fn at(&self, address: IpAddr) -> impl Iterator<Item = (&Key, &ServiceNames)> {
        let first: Key = Arc::from([]);
        self.addresses
            .range((address, first)..)
            .take_while(move |(at, _)| *at == address)
            .filter_map(|(_, key)| self.services.get_key_value(key))
    }

    /// Whether any service has one of these addresses.
    pub(crate) fn any_within(&self, addresses: RangeInclusive<IpAddr>) -> bool {
        let first: Key = Arc::from([]);
        let next = self.addresses.range((*addresses.start(), first)..).next();
        next.is_some_and(|(address, _)| address <= addresses.end())
    }

    /// Adds a pod's address, or takes it away. Pods that come and go with one
    /// address are counted: their events may come in either order.
    pub(crate) fn set_pod(&mut self, namespace: &str, address: IpAddr, there: bool) {
        let namespace = namespace.as_bytes();
        let pods = self.pods.entry(namespace.into()).or_default();
        let count = pods.entry(address).or_default();
        *count = match there {
            true => *count + 1,
            false => count.saturating_sub(1),
        };
        if *count == 0 {
            pods.remove(&address);
        }
        if pods.is_empty() {
            self.pods.remove(namespace);
        }
    }

    /// Adds a range of pods or services, or takes it away.
    pub(crate) fn set_range(&mut self, range: IpNet, there: bool) {
        match there {
            true => self.ranges.insert(range.trunc()),
            false => self.ranges.remove(&range.trunc()),
        };
    }

    /// The range that has all of a block's addresses.
    pub(crate) fn range_of(&self, block: IpNet) -> Option<IpNet> {
        let mut ranges = self.ranges.iter();
        ranges.find(|range| range.contains(&block)).copied()
    }

    pub(crate) fn has_pod(&self, namespace: &[u8], address: IpAddr) -> bool {
        let pods = self.pods.get(namespace);
        pods.is_some_and(|pods| pods.contains_key(&address))
    }

    pub(crate) fn has_pods(&self, namespace: &[u8]) -> bool {
        self.pods.contains_key(namespace)
    }
}

/// Sorted.
fn addresses(names: &ServiceNames) -> Vec<IpAddr> {
    let mut addresses = match names {
        ServiceNames::Cluster { addresses, .. } => addresses.clone(),
        ServiceNames::Headless(headless) => headless.hosts.iter().map(|h| h.address).collect(),
        ServiceNames::Alias(_) => Vec::new(),
    };
    addresses.sort_unstable();
    addresses
}

fn wire_key(service: &ObjectKey) -> Option<Vec<u8>> {
    let mut wire = Vec::with_capacity(service.name.len() + service.namespace.len() + 2);
    for label in [&service.name, &service.namespace] {
        // The API has no such names; nobody could ask for them.
        if label.is_empty() || label.len() > LABEL_MAX {
            return None;
        }
        wire.push(label.len() as u8);
        wire.extend(label.bytes().map(|b| b.to_ascii_lowercase()));
    }
    Some(wire)
}

/// Both labels of a key, which [`wire_key`] has made.
pub(crate) fn labels(key: &[u8]) -> (&[u8], &[u8]) {
    let (name, rest) = key[1..].split_at(usize::from(key[0]));
    (name, &rest[1..])
}

fn namespace(key: &[u8]) -> &[u8] {
    labels(key).1
}

/// The service of a key.
pub(crate) fn object(key: &[u8]) -> ObjectKey {
    let (name, namespace) = labels(key);
    let text = |label| String::from_utf8_lossy(label).into_owned();
    ObjectKey::new(text(namespace), text(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(ip: &str) -> Option<ServiceNames> {
        Some(ServiceNames::Cluster {
            addresses: vec![ip.parse().unwrap()],
            ports: Vec::new(),
        })
    }

    #[test]
    fn what_is_removed_leaves_nothing() {
        let mut table = Table::default();
        let (web, db) = (ObjectKey::new("shop", "web"), ObjectKey::new("shop", "db"));
        table.set(&web, cluster("10.96.0.7"));
        table.set(&db, cluster("10.96.0.7"));
        table.set(&web, cluster("fd00::7"));
        assert_eq!(table.at("10.96.0.7".parse().unwrap()).count(), 1);
        assert_eq!(table.at("fd00::7".parse().unwrap()).count(), 1);
        assert!(table.any_within("fd00::".parse().unwrap()..="fd00::ffff".parse().unwrap()));
        table.set(&web, None);
        table.set(&web, None);
        assert!(table.has_namespace(b"shop"));
        assert!(!table.any_within("fd00::".parse().unwrap()..="fd00::ffff".parse().unwrap()));
        table.set_pod("shop", "10.244.0.1".parse().unwrap(), true);
        assert!(table.has_pod(b"shop", "10.244.0.1".parse().unwrap()));
        table.set_pod("shop", "10.244.0.1".parse().unwrap(), false);
        table.set(&db, None);
        assert_eq!(table, Table::default());
    }
}
