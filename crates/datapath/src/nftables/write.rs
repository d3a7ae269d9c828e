//! Changes to the table, gathered into transactions.

use std::collections::{BTreeMap, BTreeSet};

use ripstop_netlink::nftables::{Batch, Element, Family, Verdict};

use super::class::Class;
use super::rules::{self, Chain};
use super::sets::{FAMILIES, Set};
use super::{TABLE, pressure, ranges, readback, sets};

/// A set of one family.
pub(super) type SetOf = (Set, Family);

/// What tells elements of a set from one another.
pub(super) type ElementId = (Vec<u8>, Option<Vec<u8>>, bool);

pub(super) fn id(element: &Element) -> ElementId {
    (
        element.key.clone(),
        element.key_end.clone(),
        element.ends_range,
    )
}

/// Whether the kernel's element says what ours does.
pub(super) fn is_same(one: &Element, other: &Element) -> bool {
    one.data == other.data && one.verdict == other.verdict && one.comment == other.comment
}

/// Elements that stand and fall together, by the key of the first: one, or
/// beginning and end of a range.
pub(super) type Parts = BTreeMap<Vec<u8>, Vec<Element>>;

pub(super) fn is_same_part(one: &[Element], other: &[Element]) -> bool {
    let same = |(one, other): (&Element, &Element)| id(one) == id(other) && is_same(one, other);
    one.len() == other.len() && one.iter().zip(other).all(same)
}

/// The parts that the kernel's elements are.
pub(super) fn parts(elements: impl IntoIterator<Item = Element>) -> Parts {
    let mut sorted: Vec<Element> = elements.into_iter().collect();
    sorted.sort_by(|a, b| (&a.key, !a.ends_range).cmp(&(&b.key, !b.ends_range)));
    let mut parts = Parts::new();
    let mut open: Option<Vec<u8>> = None;
    for element in sorted {
        let first = match element.ends_range {
            true => open.take().unwrap_or_else(|| element.key.clone()),
            false => element.key.clone(),
        };
        if !element.ends_range {
            open = Some(first.clone());
        }
        parts.entry(first).or_default().push(element);
    }
    parts
}

/// One transaction in the making.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// The table is made anew: its comment and its first chains.
    anew: Option<(String, Vec<Chain>)>,
    chains: Vec<Chain>,
    deleted: BTreeMap<SetOf, Vec<Element>>,
    added: BTreeMap<SetOf, Vec<Element>>,
    /// Chains that lose their rules, and are made if they are not there.
    emptied: Vec<String>,
    gone: Vec<String>,
    size: usize,
}

impl Changes {
    /// An empty table with these chains, whatever there is.
    pub(super) fn anew(comment: String, chains: Vec<Chain>) -> Self {
        Self {
            anew: Some((comment, chains)),
            ..Self::default()
        }
    }

    pub(super) fn is_anew(&self) -> bool {
        self.anew.is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.anew.is_none()
            && self.chains.is_empty()
            && self.deleted.is_empty()
            && self.added.is_empty()
            && self.gone.is_empty()
    }

    /// Whether elements of some of these sets come or go.
    pub(super) fn touches(&self, sets: &[Set]) -> bool {
        let mut touched = self.deleted.keys().chain(self.added.keys());
        touched.any(|(set, _)| sets.contains(set))
    }

    /// Bytes, about; rather too many.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn add(&mut self, set: SetOf, element: Element) {
        self.size += size(&element);
        self.added.entry(set).or_default().push(element);
    }

    pub(super) fn delete(&mut self, set: SetOf, element: Element) {
        self.size += size(&element);
        self.deleted.entry(set).or_default().push(element);
    }

    /// From one list of elements of a frontend to another; true if they differ.
    pub(super) fn replace(
        &mut self,
        family: Family,
        before: Vec<(Set, Element)>,
        after: Vec<(Set, Element)>,
    ) -> bool {
        let mut old: BTreeMap<(Set, ElementId), Element> = before
            .into_iter()
            .map(|(set, element)| ((set, id(&element)), element))
            .collect();
        let mut changed = false;
        for (set, element) in after {
            match old.remove(&(set, id(&element))) {
                Some(old) if is_same(&old, &element) => continue,
                Some(old) => self.delete((set, family), old),
                None => {}
            }
            changed = true;
            self.add((set, family), element);
        }
        changed |= !old.is_empty();
        for ((set, _), element) in old {
            self.delete((set, family), element);
        }
        changed
    }

    /// From some parts of a set to others. The kernel refuses beginnings and ends
    /// of ranges that do not take turns, so a range goes and comes whole.
    pub(super) fn replace_parts(&mut self, set: SetOf, mut before: Parts, after: Parts) {
        for (key, part) in after {
            if let Some(old) = before.remove(&key) {
                if is_same_part(&old, &part) {
                    continue;
                }
                old.into_iter()
                    .for_each(|element| self.delete(set, element));
            }
            part.into_iter().for_each(|element| self.add(set, element));
        }
        for element in before.into_values().flatten() {
            self.delete(set, element);
        }
    }

    /// A chain with other rules than before.
    pub(super) fn replace_chain(&mut self, chain: Chain) {
        self.size += 4096;
        self.emptied.push(chain.name.clone());
        self.chains.push(chain);
    }

    /// Makes the chains of a class and the way to them.
    pub(super) fn add_class(&mut self, family: Family, class: Class) {
        let chains = rules::class(family, class);
        self.size += 4096;
        self.chains.extend(chains);
        let element = Element {
            verdict: Some(Verdict::Goto(class.chain(family))),
            ..Element::key(class.encode())
        };
        self.add((Set::Classes, family), element);
    }

    /// Makes the chains of a class anew, whatever is left of them.
    pub(super) fn repair_class(&mut self, family: Family, class: Class, raw: &readback::Raw) {
        let set = (Set::Classes, family);
        let element = Element::key(class.encode());
        if raw
            .get(&set)
            .is_some_and(|there| there.contains_key(&id(&element)))
        {
            self.delete(set, element);
        }
        for chain in rules::class(family, class) {
            self.emptied.push(chain.name);
        }
        self.add_class(family, class);
    }

    /// Nobody is of this class any more.
    pub(super) fn remove_class(&mut self, family: Family, class: Class) {
        self.delete((Set::Classes, family), Element::key(class.encode()));
        // Who leads to the other one first.
        self.gone.push(class.chain(family));
        self.gone.extend(class.outside_chain(family));
    }

    /// A chain that leads nowhere and to which nobody leads.
    pub(super) fn remove_chain(&mut self, name: String) {
        self.gone.push(name);
    }

    /// From one division into ranges to another.
    pub(super) fn replace_ranges(
        &mut self,
        set: SetOf,
        before: &BTreeSet<ranges::Interval>,
        after: &BTreeSet<ranges::Interval>,
    ) {
        for interval in before.difference(after) {
            for element in ranges::elements(interval) {
                self.delete(set, element);
            }
        }
        for interval in after.difference(before) {
            for element in ranges::elements(interval) {
                self.add(set, element);
            }
        }
    }

    pub(super) fn into_batch(self) -> Batch {
        let mut batch = Batch::new(TABLE);
        if let Some((comment, chains)) = &self.anew {
            // Made, so that there is something to delete.
            batch.create_table(comment);
            batch.delete_table();
            batch.create_table(comment);
            for family in FAMILIES {
                for set in sets::ALL {
                    batch.create_set(&set.spec(family));
                }
            }
            for set in &pressure::SETS {
                batch.create_set(set);
            }
            make(&mut batch, chains);
        }
        for chain in &self.emptied {
            batch.create_chain(chain, None);
            batch.flush_chain(chain);
        }
        make(&mut batch, &self.chains);
        for ((set, family), elements) in &self.deleted {
            batch.delete_elements(set.name(*family), elements);
        }
        for ((set, family), elements) in &self.added {
            batch.add_elements(set.name(*family), elements);
        }
        for chain in &self.gone {
            batch.delete_chain(chain);
        }
        batch
    }
}

/// Makes chains, and fills them. One that is there is emptied before.
fn make(batch: &mut Batch, chains: &[Chain]) {
    for chain in chains {
        batch.create_chain(&chain.name, chain.hook);
    }
    for chain in chains {
        for rule in &chain.rules {
            batch.add_rule(&chain.name, &rule.what, &rule.steps);
        }
    }
}

/// As the kernel gets it: attributes have headers.
fn size(element: &Element) -> usize {
    let end = element.key_end.as_ref().map_or(0, Vec::len);
    64 + element.key.len() + end + element.data.len() + element.comment.len()
}
