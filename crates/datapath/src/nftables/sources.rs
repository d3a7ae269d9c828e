//! What pods may send from: their own addresses, by their own interfaces. Else
//! one could speak as another, and policies know pods by their addresses.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use ripstop_model::LocalPod;
use ripstop_netlink::nftables::Element;
use ripstop_netlink::nftables::{
    Compare, Expression as E, Family, Header, MetaKey, Nftables, Register, Verdict,
};

use super::readback::Raw;
use super::rules::Rule;
use super::sets::{FAMILIES, Set};
use super::write::{Changes, SetOf};
use super::{TABLE, keys, refused};
use crate::engine::Error;

const SETS: [Set; 2] = [Set::PodLinks, Set::PodSources];
const WHAT: &str = "a pod, not from its own address";

/// Elements of the kernel, by set and key.
#[derive(Debug, Default)]
pub(super) struct Sources(BTreeMap<(SetOf, Vec<u8>), Element>);

pub(super) fn is_set(set: Set) -> bool {
    SETS.contains(&set)
}

/// Of one pod; all of them say whose they are.
fn elements(pod: &LocalPod) -> impl Iterator<Item = (SetOf, Element)> {
    let link = pod.host_ifindex.to_ne_bytes();
    let with = |key: Vec<u8>| Element {
        comment: pod.container_id.clone(),
        ..Element::key(key)
    };
    // A family of which it has no address it does not send.
    let links = FAMILIES.map(|family| ((Set::PodLinks, family), with(link.to_vec())));
    let sources = pod.addresses.iter().map(move |address| {
        let key = [&link[..], &keys::address(*address)].concat();
        ((Set::PodSources, Family::of(address)), with(key))
    });
    links.into_iter().chain(sources)
}

impl Sources {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn read_back(&mut self, raw: &Raw) {
        let of = |set| {
            let of_family =
                move |family| raw.get(&(set, family)).map(|found| ((set, family), found));
            FAMILIES.into_iter().filter_map(of_family)
        };
        let elements = SETS.into_iter().flat_map(of).flat_map(|(set, found)| {
            let found = found.values();
            found.map(move |element| ((set, element.key.clone()), element.clone()))
        });
        self.0 = elements.collect();
    }

    /// A pod that has come; also in the place of one that had its interface.
    pub(super) fn add(&mut self, changes: &mut Changes, pod: &LocalPod) {
        let link = pod.host_ifindex.to_ne_bytes();
        let is_stale = |element: &Element| {
            element.comment == pod.container_id || element.key.starts_with(&link)
        };
        self.replace(changes, is_stale, elements(pod));
    }

    pub(super) fn remove(&mut self, changes: &mut Changes, pod: &LocalPod) {
        let is_its = |element: &Element| element.comment == pod.container_id;
        self.replace(changes, is_its, []);
    }

    /// Exactly these pods; says which keys differed.
    pub(super) fn audit(
        &mut self,
        changes: &mut Changes,
        pods: &[LocalPod],
        repaired: &mut BTreeSet<String>,
    ) {
        let differed = self.replace(changes, |_| true, pods.iter().flat_map(elements));
        // What pods that are gone had is told of their addresses.
        let names = differed.iter().map(|element| &element.comment);
        let names = names.filter(|name| pods.iter().any(|pod| pod.container_id == **name));
        repaired.extend(names.map(|name| format!("source addresses of {name}")));
    }

    /// Puts `wanted` in the place of what `is_old`; gives what differed.
    fn replace(
        &mut self,
        changes: &mut Changes,
        is_old: impl Fn(&Element) -> bool,
        wanted: impl IntoIterator<Item = (SetOf, Element)>,
    ) -> Vec<Element> {
        let wanted: BTreeMap<_, _> = wanted
            .into_iter()
            .map(|(set, element)| ((set, element.key.clone()), element))
            .collect();
        let mut differed = Vec::new();
        let stale = self.0.extract_if(.., |key, element| {
            is_old(element) && wanted.get(key).is_none_or(|w| w.comment != element.comment)
        });
        for ((set, _), element) in stale {
            differed.push(element.clone());
            changes.delete(set, element);
        }
        for (key, element) in wanted {
            let set = key.0;
            if let Entry::Vacant(vacant) = self.0.entry(key) {
                differed.push(element.clone());
                changes.add(set, element.clone());
                vacant.insert(element);
            }
        }
        differed
    }
}

/// Drops what pods send from addresses that are not theirs; those of the link
/// itself are everybody's.
pub(super) fn guard(family: Family) -> Rule {
    let word = Register::word;
    let (offset, length) = match family {
        Family::V4 => (12, 4),
        Family::V6 => (8, 16),
    };
    let source = |length, to| E::Payload {
        header: Header::Network,
        offset,
        length,
        to,
    };
    let compare = |value, how, with: &[u8]| E::Compare {
        value,
        how,
        with: with.to_vec(),
    };
    let mut steps = vec![
        E::Meta {
            key: MetaKey::Family,
            to: word(0),
        },
        compare(word(0), Compare::Equal, &[family.number()]),
        E::Meta {
            key: MetaKey::Iif,
            to: word(0),
        },
        E::Contains {
            set: Set::PodLinks.name(family).into(),
            key: word(0),
            not: false,
        },
        source(length, word(1)),
        E::Contains {
            set: Set::PodSources.name(family).into(),
            key: word(0),
            not: true,
        },
    ];
    if family == Family::V6 {
        // fe80::/10, and no address yet.
        steps.extend([
            source(2, word(6)),
            E::Mask {
                value: word(6),
                mask: vec![0xff, 0xc0],
            },
            compare(word(6), Compare::NotEqual, &[0xfe, 0x80]),
            compare(word(1), Compare::NotEqual, &[0; 16]),
        ]);
    }
    steps.extend([E::Counter, E::Verdict(Verdict::Drop)]);
    Rule::new(WHAT, steps)
}

/// Packets that were dropped here.
pub(super) fn dropped(nftables: &mut Nftables) -> Result<u64, Error> {
    let rules = nftables.rules(TABLE).map_err(refused)?;
    let ours = rules.iter().filter(|rule| rule.comment == WHAT);
    Ok(ours.filter_map(|rule| rule.packets).sum())
}
