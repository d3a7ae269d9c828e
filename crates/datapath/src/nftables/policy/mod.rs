//! Network policies: each forwarded packet is judged by what its connection asks,
//! under the rules of now. What the node's own processes say and hear is not
//! forwarded, and passes.
//!
//! A pod's side leads to what is said of the other end's class. An address of a
//! pod that has no row leads to a side of which nothing is said: it is closed.

mod chains;
mod denials;
mod pairs;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ripstop_netlink::nftables::{Element, Family};
use ripstop_plan::policy::{ClassId, Direction, PodPolicies, PolicyChange, PolicyId, PolicyTables};

use super::readback::Raw;
use super::sets::{FAMILIES, Set};
use super::write::{Changes, Parts, SetOf, id, is_same_part, parts};
use super::{keys, readback};
use crate::engine::PolicySettings;
use steps::Classes;

pub(super) use chains::{base, denied};
pub(super) use denials::{connections, denials};
pub(super) use pairs::KEY;

/// Before what maps give: `chains` says why.
const FILLER: [u8; 4] = [0; 4];
/// The side of a pod that nothing is known of. No rule is about it.
const CLOSED: PolicyId = PolicyId::from_number(u64::MAX);
const CLOSED_POD: PodPolicies = PodPolicies {
    ingress: CLOSED,
    egress: CLOSED,
};
const DIRECTIONS: [Direction; 2] = [Direction::Egress, Direction::Ingress];

/// The sets that are about policies and not made by packets.
pub(super) const SETS: [Set; 4] = [
    Set::EgressSides,
    Set::IngressSides,
    Set::PolicyClasses,
    Set::Pairs,
];

/// Rows of policies, and what of them is in the kernel.
#[derive(Debug, Default)]
pub(super) struct Policies {
    pub(super) settings: PolicySettings,
    /// Without classes and attributions. Pods of other nodes may be among them.
    tables: PolicyTables,
    classes: Classes,
    /// Addresses of this node's pods, as the kernel has them.
    pods: BTreeMap<IpAddr, PodPolicies>,
    /// Whether `tables` are what the kernel has: not after a start that found a
    /// table, until the first audit.
    pub(super) known: bool,
}

/// One after the other: rules that go, go last. A packet on its way that found a
/// class or a side before the change must not miss them and be judged as everybody.
pub(super) fn in_turn(change: &PolicyChange) -> Vec<PolicyChange> {
    let gone = change.rules.values().any(Option::is_none);
    if !gone || change.classes.is_empty() && change.pods.is_empty() {
        return vec![change.clone()];
    }
    let mut first = change.clone();
    first.rules.retain(|_, row| row.is_some());
    first.ports.retain(|_, row| row.is_some());
    let mut last = PolicyChange {
        rules: change.rules.clone(),
        ports: change.ports.clone(),
        ..PolicyChange::default()
    };
    last.rules.retain(|_, row| row.is_none());
    last.ports.retain(|_, row| row.is_none());
    vec![first, last]
}

/// Parts of some sets.
type Sets = BTreeMap<SetOf, Parts>;

fn pod_elements(address: IpAddr, policies: PodPolicies) -> Vec<(Set, Element)> {
    DIRECTIONS
        .into_iter()
        .filter(|direction| policies.side(*direction) != PolicyId::NONE)
        .map(|direction| {
            let data = chains::side_data(policies.side(direction));
            let element = Element::pair(chains::pod_key(address), data);
            (chains::sides(direction), element)
        })
        .collect()
}

fn is_of(family: Family, class: ClassId) -> bool {
    let other = match family {
        Family::V4 => ClassId::V6,
        Family::V6 => ClassId::V4,
    };
    class != other
}

impl Policies {
    /// Of an empty table.
    pub(super) fn clear(&mut self) {
        *self = Self {
            settings: self.settings,
            known: true,
            ..Self::default()
        };
    }

    /// What a table that was found has of pods.
    pub(super) fn read_pods(&mut self, raw: &Raw) {
        let addresses = readback::pods(raw);
        self.pods = addresses
            .into_keys()
            .map(|address| (address, read_pod(raw, address)))
            .collect();
    }

    /// A pod that has just come, or another one than before, is closed; `None`:
    /// it is gone.
    pub(super) fn change_pod(
        &mut self,
        changes: &mut Changes,
        address: IpAddr,
        policies: Option<PodPolicies>,
    ) {
        let before = match policies {
            Some(policies) => self.pods.insert(address, policies),
            None => self.pods.remove(&address),
        };
        let elements = |policies| pod_elements(address, policies);
        changes.replace(
            Family::of(&address),
            before.map(elements).unwrap_or_default(),
            policies.map(elements).unwrap_or_default(),
        );
    }

    pub(super) fn close_pod(&mut self, changes: &mut Changes, address: IpAddr) {
        // Of who had the address before.
        self.tables.pods.remove(&address);
        self.change_pod(changes, address, Some(CLOSED_POD));
    }

    /// Adds to the changes what a change of rows is in the kernel. Gives the rows
    /// as they were, for [`Self::undo`].
    pub(super) fn apply(&mut self, changes: &mut Changes, change: &PolicyChange) -> PolicyChange {
        // From there on it is cheaper to look at all.
        let many = change.classes.len() > self.classes.rows().len() / 4;
        let mut before = self.touched(change, many);
        let undo = self.replace(change);
        let mut after = self.touched(change, many);
        for family in FAMILIES {
            for set in [Set::PolicyClasses, Set::Pairs] {
                let of = |sets: &mut Sets| sets.remove(&(set, family)).unwrap_or_default();
                changes.replace_parts((set, family), of(&mut before), of(&mut after));
            }
        }
        for (address, policies) in &change.pods {
            // Those of other nodes are nobody here.
            if self.pods.contains_key(address) {
                let policies = policies.unwrap_or(CLOSED_POD);
                self.change_pod(changes, *address, Some(policies));
            }
        }
        undo
    }

    /// Takes rows back that the kernel did not take. (What it has of pods is read
    /// again.)
    pub(super) fn undo(&mut self, before: &PolicyChange) {
        self.replace(before);
    }

    /// Gives the rows as they were.
    fn replace(&mut self, change: &PolicyChange) -> PolicyChange {
        let tables = &mut self.tables;
        PolicyChange {
            pods: replace(&mut tables.pods, &change.pods),
            classes: change
                .classes
                .iter()
                .map(|(net, class)| (*net, self.classes.set(*net, *class)))
                .collect(),
            rules: replace(&mut tables.rules, &change.rules),
            ports: replace(&mut tables.ports, &change.ports),
            attributions: BTreeMap::new(),
        }
    }

    /// The parts that rows of a change have now.
    fn touched(&self, change: &PolicyChange, all_classes: bool) -> Sets {
        let mut sets = Sets::new();
        for family in FAMILIES {
            if all_classes {
                let set = (Set::PolicyClasses, family);
                sets.insert(set, self.classes.parts(family));
            }
            let pairs = sets.entry((Set::Pairs, family)).or_default();
            for pair in change.rules.keys().filter(|pair| is_of(family, pair.1)) {
                pairs::parts(&self.tables, *pair, family, pairs);
            }
        }
        if !all_classes {
            for net in change.classes.keys() {
                let set = (Set::PolicyClasses, Family::of(&net.addr()));
                self.classes.parts_of(*net, sets.entry(set).or_default());
            }
        }
        sets
    }

    /// All that there is to be.
    fn parts(&self) -> Sets {
        let mut sets = Sets::new();
        for (address, policies) in &self.pods {
            for (set, element) in pod_elements(*address, *policies) {
                let of = sets.entry((set, Family::of(address))).or_default();
                of.insert(element.key.clone(), vec![element]);
            }
        }
        for family in FAMILIES {
            let classes = self.classes.parts(family);
            sets.insert((Set::PolicyClasses, family), classes);
            let pairs = sets.entry((Set::Pairs, family)).or_default();
            for pair in self.tables.rules.keys() {
                if is_of(family, pair.1) {
                    pairs::parts(&self.tables, *pair, family, pairs);
                }
            }
        }
        sets
    }

    /// Makes of what the kernel has what the plan wants, for these pods' addresses.
    pub(super) fn audit(
        &mut self,
        changes: &mut Changes,
        raw: &Raw,
        desired: &PolicyTables,
        addresses: impl IntoIterator<Item = IpAddr>,
        repaired: &mut BTreeSet<String>,
    ) {
        self.known = true;
        self.tables = PolicyTables {
            classes: BTreeMap::new(),
            attributions: BTreeMap::new(),
            ..desired.clone()
        };
        self.classes = Classes::new(desired.classes.iter().map(|(net, class)| (*net, *class)));
        let policies = |address| desired.pods.get(&address).copied().unwrap_or(CLOSED_POD);
        self.pods = addresses
            .into_iter()
            .map(|address| (address, policies(address)))
            .collect();
        let mut wanted = self.parts();
        for family in FAMILIES {
            for set in SETS {
                let there = read_parts(raw, set, family);
                let wanted = wanted.remove(&(set, family)).unwrap_or_default();
                let differs = |(key, part): (&Vec<u8>, &Vec<Element>)| {
                    let there = there.get(key);
                    there
                        .is_none_or(|there| !is_same_part(there, part))
                        .then(|| name(set, key))
                };
                repaired.extend(wanted.iter().filter_map(differs));
                let stray = there.keys().filter(|key| !wanted.contains_key(*key));
                repaired.extend(stray.map(|key| name(set, key)));
                changes.replace_parts((set, family), there, wanted);
            }
        }
    }

    /// The rows that the kernel has, whole: what is in it and what was put there.
    pub(super) fn read(&self, raw: &Raw) -> PolicyTables {
        let mut tables = self.tables.clone();
        let addresses = readback::pods(raw).into_keys();
        tables.pods = addresses
            .map(|address| (address, read_pod(raw, address)))
            .filter(|(_, policies)| *policies != CLOSED_POD)
            .collect();
        tables.classes.clone_from(self.classes.rows());
        for family in FAMILIES {
            let there = read_parts(raw, Set::PolicyClasses, family);
            for net in steps::damaged(&self.classes, family, &there) {
                tables.classes.remove(&net);
            }
            let there = read_parts(raw, Set::Pairs, family);
            let is_whole = |pair: &(PolicyId, ClassId)| {
                let mut wanted = Parts::new();
                if is_of(family, pair.1) {
                    pairs::parts(&self.tables, *pair, family, &mut wanted);
                }
                wanted.iter().all(|(key, part)| {
                    there
                        .get(key)
                        .is_some_and(|there| is_same_part(there, part))
                })
            };
            tables.rules.retain(|pair, _| is_whole(pair));
        }
        tables
    }

    pub(super) fn rows(&self) -> [(&'static str, usize); 3] {
        [
            ("policy-pods", self.tables.pods.len()),
            ("policy-classes", self.classes.rows().len()),
            ("policy-rules", self.tables.rules.len()),
        ]
    }
}

/// Gives the rows as they were.
fn replace<K: Ord + Clone, V: Clone>(
    table: &mut BTreeMap<K, V>,
    change: &BTreeMap<K, Option<V>>,
) -> BTreeMap<K, Option<V>> {
    let before = change.iter().map(|(key, row)| {
        let before = match row {
            Some(row) => table.insert(key.clone(), row.clone()),
            None => table.remove(key),
        };
        (key.clone(), before)
    });
    before.collect()
}

fn read_parts(raw: &Raw, set: Set, family: Family) -> Parts {
    let elements = raw.get(&(set, family)).into_iter().flatten();
    parts(elements.map(|(_, element)| element.clone()))
}

fn read_pod(raw: &Raw, address: IpAddr) -> PodPolicies {
    let key = id(&Element::key(chains::pod_key(address)));
    let side = |direction| {
        let set = (chains::sides(direction), Family::of(&address));
        let Some(element) = raw.get(&set).and_then(|elements| elements.get(&key)) else {
            return PolicyId::NONE;
        };
        let number = element.data.get(FILLER.len()..);
        let number = number.and_then(|number| <[u8; 8]>::try_from(number).ok());
        number.map_or(CLOSED, |number| {
            PolicyId::from_number(u64::from_be_bytes(number))
        })
    };
    PodPolicies {
        ingress: side(Direction::Ingress),
        egress: side(Direction::Egress),
    }
}

/// What the part with this key is of, for people.
fn name(set: Set, key: &[u8]) -> String {
    match (set, keys::read_address(key), pairs::read_pair(key)) {
        (Set::PolicyClasses, Some(address), _) => format!("policy class from {address} on"),
        (_, Some(address), _) => format!("policies of {address}"),
        (_, _, Some((side, class))) => format!("policy rule {side:?} {class:?}"),
        _ => "policy rule of nobody".into(),
    }
}
