//! Network policies: each forwarded packet is judged by what its connection asks,
//! under the rules of now. What the node's own processes say and hear is not
//! forwarded, and passes.
//!
//! A pod's side leads to what is said of the other end's class. An address of a
//! pod that has no row leads to a side of which nothing is said: it is closed.

mod blocks;
mod chains;
mod classes;
mod denials;
mod generation;
mod judge;
mod look;
mod said;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ripstop_netlink::nftables::{Element, Family};
use ripstop_plan::policy::{ClassId, Direction, PodPolicies, PolicyChange, PolicyId, PolicyTables};

use super::readback::Raw;
use super::rules::Chain;
use super::sets::{FAMILIES, Set};
use super::write::{Changes, Parts, SetOf, id, is_same_part, parts};
use super::{keys, readback};
use crate::engine::PolicySettings;
use classes::Classes;
use said::{Rows, Uses};

pub(super) use chains::{base, denied};
pub(super) use denials::{connections, denials};
pub(super) use generation::{Generation, is_supported as remembers};
pub(super) use look::{Look, read_blocks};

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
pub(super) const SETS: [Set; 6] = [
    Set::EgressSides,
    Set::IngressSides,
    Set::PolicyAddresses,
    Set::PolicyBlocks,
    Set::Pairs,
    Set::Allowed,
];

/// Rows of policies, and what of them is in the kernel.
#[derive(Debug, Default)]
pub(super) struct Policies {
    pub(super) settings: PolicySettings,
    /// Of the rules, as the kernel has them; `None` if it cannot remember which
    /// ones a connection passed.
    pub(super) generation: Option<Generation>,
    /// Without classes and attributions. Pods of other nodes may be among them.
    tables: PolicyTables,
    classes: Classes,
    /// By pairs of `tables`, for the families of `families`.
    uses: Uses,
    /// Addresses of this node's pods, as the kernel has them.
    pods: BTreeMap<IpAddr, PodPolicies>,
    /// Those that the kernel has rows for: of which this node had a pod. Nobody
    /// would ever look at others.
    families: BTreeSet<Family>,
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

/// One element that stands and falls by itself.
fn part_of(element: Element) -> (Vec<u8>, Vec<Element>) {
    (element.key.clone(), vec![element])
}

fn pod_elements(address: IpAddr, policies: PodPolicies) -> Vec<(Set, Element)> {
    DIRECTIONS
        .into_iter()
        .filter(|direction| policies.side(*direction) != PolicyId::NONE)
        .map(|direction| {
            let data = chains::id_data(policies.side(direction).number());
            let element = Element::pair(chains::address_key(address), data);
            (judge::sides(direction), element)
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
    /// What connections passed until now, they have to pass again.
    pub(super) fn renew(&mut self, changes: &mut Changes) {
        if let Some(generation) = &mut self.generation {
            *generation = generation.next();
            changes.replace_chain(chains::forward(self.generation));
        }
    }

    /// The chains, for an empty table.
    pub(super) fn base(&mut self) -> Vec<Chain> {
        self.generation = self.generation.map(Generation::next);
        chains::base(self.settings.deny, self.generation)
    }

    /// Of an empty table.
    pub(super) fn clear(&mut self) {
        *self = Self {
            settings: self.settings,
            generation: self.generation,
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
        let is_in_use = |family: &Family| {
            let has_elements = |set| match raw.get(&(set, *family)) {
                Some(elements) => !elements.is_empty(),
                // Not read: nobody has used it otherwise meanwhile.
                None => self.families.contains(family),
            };
            SETS.into_iter().any(has_elements) || self.pods.keys().any(|a| Family::of(a) == *family)
        };
        self.families = FAMILIES.into_iter().filter(is_in_use).collect();
        self.count_uses();
    }

    /// A pod that has just come, or another one than before, is closed; `None`:
    /// it is gone.
    pub(super) fn change_pod(
        &mut self,
        changes: &mut Changes,
        address: IpAddr,
        policies: Option<PodPolicies>,
    ) {
        let family = Family::of(&address);
        if self.families.insert(family) {
            self.add_family(changes, family);
        }
        let before = match policies {
            Some(policies) => self.pods.insert(address, policies),
            None => self.pods.remove(&address),
        };
        let elements = |policies| pod_elements(address, policies);
        changes.replace(
            family,
            before.map(elements).unwrap_or_default(),
            policies.map(elements).unwrap_or_default(),
        );
    }

    /// Adds what there is for a family's first pod.
    fn add_family(&mut self, changes: &mut Changes, family: Family) {
        self.count_uses();
        let mut sets = Sets::new();
        self.parts_of_family(family, &mut sets);
        self.block_parts(family, &mut sets);
        for (set, parts) in sets {
            changes.replace_parts(set, Parts::new(), parts);
        }
    }

    pub(super) fn close_pod(&mut self, changes: &mut Changes, address: IpAddr) {
        // Of who had the address before.
        self.tables.pods.remove(&address);
        self.change_pod(changes, address, Some(CLOSED_POD));
    }

    /// Adds to the changes what a change of rows is in the kernel. Gives the rows
    /// as they were, for [`Self::undo`].
    pub(super) fn apply(&mut self, changes: &mut Changes, change: &PolicyChange) -> PolicyChange {
        let all_blocks = self.classes.are_many(change.classes.keys());
        let (mut before, unused) = self.touched(change, all_blocks);
        let undo = self.replace(change);
        let (mut after, used) = self.touched(change, all_blocks);
        for family in self.families.clone() {
            for set in [Set::PolicyAddresses, Set::PolicyBlocks, Set::Pairs] {
                let of = |sets: &mut Sets| sets.remove(&(set, family)).unwrap_or_default();
                changes.replace_parts((set, family), of(&mut before), of(&mut after));
            }
        }
        self.change_uses(changes, unused, used);
        for (address, policies) in &change.pods {
            // Those of other nodes are nobody here.
            if self.pods.contains_key(address) {
                let policies = policies.unwrap_or(CLOSED_POD);
                self.change_pod(changes, *address, Some(policies));
            }
        }
        undo
    }

    /// What rows allow is there as long as a pair leads to them.
    fn change_uses(&mut self, changes: &mut Changes, less: Uses, more: Uses) {
        for ((family, id), (count, row)) in &more {
            let uses = self.uses.entry((*family, *id));
            let (uses, _) = uses.or_insert_with(|| {
                let set = (Set::Allowed, *family);
                row.elements().for_each(|element| changes.add(set, element));
                (0, row.clone())
            });
            *uses += count;
        }
        for (key, (count, _)) in less {
            let Some((uses, row)) = self.uses.get_mut(&key) else {
                continue;
            };
            *uses = uses.saturating_sub(count);
            if *uses == 0 {
                let set = (Set::Allowed, key.0);
                row.elements()
                    .for_each(|element| changes.delete(set, element));
                self.uses.remove(&key);
            }
        }
    }

    /// From the tables.
    fn count_uses(&mut self) {
        let mut rows = Rows::default();
        let mut uses = Uses::new();
        for pair in self.tables.rules.keys() {
            for family in self
                .families
                .iter()
                .filter(|family| is_of(**family, pair.1))
            {
                if let Some(row) = rows.of(&self.tables, *pair) {
                    let (count, _) = uses
                        .entry((*family, row.id))
                        .or_insert_with(|| (0, row.clone()));
                    *count += 1;
                }
            }
        }
        self.uses = uses;
    }

    /// Takes rows back that the kernel did not take. (What it has of pods is read
    /// again.)
    pub(super) fn undo(&mut self, before: &PolicyChange) {
        self.replace(before);
        self.count_uses();
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

    /// The parts that rows of a change have now, and how often rows are used by
    /// its pairs.
    fn touched(&self, change: &PolicyChange, all_blocks: bool) -> (Sets, Uses) {
        let mut sets = Sets::new();
        let mut uses = Uses::new();
        let mut rows = Rows::default();
        for pair in change.rules.keys() {
            let Some(row) = rows.of(&self.tables, *pair) else {
                continue;
            };
            for family in self
                .families
                .iter()
                .filter(|family| is_of(**family, pair.1))
            {
                let pairs = sets.entry((Set::Pairs, *family)).or_default();
                pairs.extend([part_of(said::pair(*pair, *family, row.id))]);
                let (count, _) = uses
                    .entry((*family, row.id))
                    .or_insert_with(|| (0, row.clone()));
                *count += 1;
            }
        }
        let nets = change.classes.keys();
        self.classes.parts_of(nets, all_blocks, &mut sets);
        (sets, uses)
    }

    /// All that there is to be, but blocks.
    fn parts(&self) -> Sets {
        let mut sets = Sets::new();
        for (address, policies) in &self.pods {
            for (set, element) in pod_elements(*address, *policies) {
                let of = sets.entry((set, Family::of(address))).or_default();
                of.extend([part_of(element)]);
            }
        }
        for family in &self.families {
            self.parts_of_family(*family, &mut sets);
        }
        sets
    }

    fn block_parts(&self, family: Family, to: &mut Sets) {
        let blocks = self.classes.blocks().parts(family);
        to.insert((Set::PolicyBlocks, family), blocks);
    }

    /// But those of pods and blocks.
    fn parts_of_family(&self, family: Family, to: &mut Sets) {
        let listed = self.classes.listed_parts(family);
        to.insert((Set::PolicyAddresses, family), listed);
        let mut rows = Rows::default();
        let of_family = |pair: &&(PolicyId, ClassId)| is_of(family, pair.1);
        let pairs = self.tables.rules.keys().filter(of_family);
        let pairs = pairs.filter_map(|pair| {
            let row = rows.of(&self.tables, *pair)?;
            Some(part_of(said::pair(*pair, family, row.id)))
        });
        to.insert((Set::Pairs, family), pairs.collect());
        let of_family = self.uses.iter().filter(|((of, _), _)| *of == family);
        let elements = of_family.flat_map(|(_, (_, row))| row.elements());
        to.insert((Set::Allowed, family), elements.map(part_of).collect());
    }

    /// Makes of what the kernel has what the plan wants, for these pods' addresses.
    /// Sets that were not read stay as they are.
    pub(super) fn audit(
        &mut self,
        changes: &mut Changes,
        raw: &Raw,
        desired: &PolicyTables,
        addresses: impl IntoIterator<Item = IpAddr>,
        repaired: &mut BTreeSet<String>,
    ) {
        let has_blocks = changes.is_anew() || has_blocks(raw);
        self.known = true;
        self.tables = PolicyTables {
            pods: desired.pods.clone(),
            rules: desired.rules.clone(),
            ports: desired.ports.clone(),
            ..PolicyTables::default()
        };
        match has_blocks {
            true => {
                self.classes =
                    Classes::new(desired.classes.iter().map(|(net, class)| (*net, *class)))
            }
            false => self.classes.set_listed(desired.classes.iter()),
        }
        let policies = |address| desired.pods.get(&address).copied().unwrap_or(CLOSED_POD);
        self.pods = addresses
            .into_iter()
            .map(|address| (address, policies(address)))
            .collect();
        self.families.extend(self.pods.keys().map(Family::of));
        self.count_uses();
        let mut wanted = self.parts();
        if has_blocks {
            for family in &self.families {
                self.block_parts(*family, &mut wanted);
            }
        }
        for family in FAMILIES {
            for set in SETS
                .into_iter()
                .filter(|set| has_blocks || *set != Set::PolicyBlocks)
            {
                let wanted = wanted.remove(&(set, family)).unwrap_or_default();
                repair((set, family), raw, wanted, changes, repaired);
            }
        }
    }

    /// The rows that the kernel has, whole: what is in it and what was put there.
    /// Without blocks if they were not read.
    pub(super) fn read(&self, raw: &Raw) -> PolicyTables {
        let mut tables = self.tables.clone();
        let addresses = readback::pods(raw).into_keys();
        tables.pods = addresses
            .map(|address| (address, read_pod(raw, address)))
            .filter(|(_, policies)| *policies != CLOSED_POD)
            .collect();
        let there: Sets = FAMILIES
            .into_iter()
            .flat_map(|family| SETS.map(|set| (set, family)))
            .map(|set| (set, read_parts(raw, set.0, set.1)))
            .collect();
        let has = |set, element: Element| {
            let (key, wanted) = part_of(element);
            let there = there.get(&set).and_then(|parts| parts.get(&key));
            there.is_some_and(|there| is_same_part(there, &wanted))
        };
        if has_blocks(raw) {
            tables.classes = self.classes.whole_blocks(&there, &self.families);
        }
        let listed = self.classes.whole_listed(&there, &self.families);
        tables.classes.extend(listed);
        let damaged: BTreeSet<_> = self
            .uses
            .iter()
            .filter(|((family, _), (_, row))| {
                !row.elements().all(|e| has((Set::Allowed, *family), e))
            })
            .map(|(key, _)| *key)
            .collect();
        let mut rows = Rows::default();
        tables.rules.retain(|pair, _| {
            let Some(id) = rows.of(&self.tables, *pair).map(|row| row.id) else {
                return false;
            };
            let mut families = self
                .families
                .iter()
                .filter(|family| is_of(**family, pair.1));
            families.all(|family| {
                has((Set::Pairs, *family), said::pair(*pair, *family, id))
                    && !damaged.contains(&(*family, id))
            })
        });
        tables
    }

    pub(super) fn rows(&self) -> [(&'static str, usize); 3] {
        [
            ("policy-pods", self.tables.pods.len()),
            ("policy-classes", self.classes.len()),
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

/// Whether blocks were read.
fn has_blocks(raw: &Raw) -> bool {
    raw.keys().any(|(set, _)| *set == Set::PolicyBlocks)
}

/// Makes of what the kernel has in a set what is wanted.
fn repair(
    (set, family): SetOf,
    raw: &Raw,
    wanted: Parts,
    changes: &mut Changes,
    repaired: &mut BTreeSet<String>,
) {
    let there = read_parts(raw, set, family);
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

fn read_parts(raw: &Raw, set: Set, family: Family) -> Parts {
    let elements = raw.get(&(set, family)).into_iter().flatten();
    parts(elements.map(|(_, element)| element.clone()))
}

fn read_pod(raw: &Raw, address: IpAddr) -> PodPolicies {
    let key = id(&Element::key(chains::address_key(address)));
    let side = |direction| {
        let set = (judge::sides(direction), Family::of(&address));
        let Some(element) = raw.get(&set).and_then(|elements| elements.get(&key)) else {
            return PolicyId::NONE;
        };
        chains::read_id(&element.data).map_or(CLOSED, PolicyId::from_number)
    };
    PodPolicies {
        ingress: side(Direction::Ingress),
        egress: side(Direction::Egress),
    }
}

/// What the part with this key is of, for people.
fn name(set: Set, key: &[u8]) -> String {
    match (set, keys::read_address(key), said::read_pair(key)) {
        (Set::PolicyAddresses, Some(address), _) => format!("policy class of {address}"),
        (Set::PolicyBlocks, Some(address), _) => format!("policy class from {address} on"),
        (Set::Allowed, ..) => "ports that a policy rule allows".into(),
        (_, Some(address), _) => format!("policies of {address}"),
        (_, _, Some((side, class))) => format!("policy rule {side:?} {class:?}"),
        _ => "policy rule of nobody".into(),
    }
}
