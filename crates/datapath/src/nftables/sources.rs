//! What pods may send from: their own addresses, by their own interfaces. Else
//! one could speak as another, and policies know pods by their addresses.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use ripstop_abi::TUNNEL_PORT;
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

/// Drops what pods send from addresses that are not theirs, or in a tunnel's packet
/// as if they were a node, in which anybody could be the sender. Addresses of the
/// link itself are everybody's.
pub(super) fn guards(family: Family) -> Vec<Rule> {
    let mut rules = vec![not_own(family), tunnelled(family)];
    if family == Family::V6 {
        rules.push(from_nobody());
        rules.extend(untracked());
    }
    rules
}

fn word(number: u32) -> Register {
    Register::word(number)
}

fn compare(value: Register, how: Compare, with: &[u8]) -> E {
    E::Compare {
        value,
        how,
        with: with.to_vec(),
    }
}

fn network(offset: u32, length: u32, to: Register) -> E {
    E::Payload {
        header: Header::Network,
        offset,
        length,
        to,
    }
}

/// It comes by a pod's link, whose index is then in the first word.
fn by_pod_link(family: Family) -> [E; 4] {
    [
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
    ]
}

fn drops(steps: Vec<E>) -> Rule {
    let end = [E::Counter, E::Verdict(Verdict::Drop)];
    Rule::new(WHAT, steps.into_iter().chain(end))
}

/// VXLAN to the cluster, where none but nodes speak it with nodes.
fn tunnelled(family: Family) -> Rule {
    const UDP: u8 = 17;
    let (offset, length) = match family {
        Family::V4 => (16, 4),
        Family::V6 => (24, 16),
    };
    let within = |set: Set, not| E::Contains {
        set: set.name(family).into(),
        key: word(1),
        not,
    };
    let mut steps = by_pod_link(family).to_vec();
    steps.extend([
        E::Meta {
            key: MetaKey::Protocol,
            to: word(1),
        },
        compare(word(1), Compare::Equal, &[UDP]),
        E::Payload {
            header: Header::Transport,
            offset: 2,
            length: 2,
            to: word(1),
        },
        compare(word(1), Compare::Equal, &TUNNEL_PORT.to_be_bytes()),
        network(offset, length, word(1)),
        within(Set::ClusterRanges, false),
        within(Set::PodRanges, true),
        within(Set::ServiceRanges, true),
    ]);
    drops(steps)
}

/// Who has no address yet asks groups only (RFC 4861, 4.3; RFC 3810, 5.2.13).
fn from_nobody() -> Rule {
    let mut steps = by_pod_link(Family::V6).to_vec();
    steps.extend([
        network(8, 16, word(1)),
        compare(word(1), Compare::Equal, &[0; 16]),
        network(24, 1, word(1)),
        compare(word(1), Compare::NotEqual, &[0xff]),
    ]);
    drops(steps)
}

/// What goes from an address of the link, or from none, goes to the node or to a
/// group, and no further. Connection tracking would know it by an address that does
/// not say whose it is, of which a pod can make up as many as it likes: see
/// [`super::pressure`].
fn untracked() -> [Rule; 2] {
    let source = |length| network(8, length, word(1));
    let of_link = vec![
        source(2),
        E::Mask {
            value: word(1),
            mask: vec![0xff, 0xc0],
        },
        compare(word(1), Compare::Equal, &[0xfe, 0x80]),
    ];
    let none = vec![source(16), compare(word(1), Compare::Equal, &[0; 16])];
    [of_link, none].map(|is_such| {
        let [family, is_v6, link, is_pods] = by_pod_link(Family::V6);
        // The link last: most packets are from other addresses.
        let steps = [family, is_v6].into_iter().chain(is_such);
        Rule::new(
            "a pod, from no address of its own",
            steps.chain([link, is_pods, E::LeaveUntracked]),
        )
    })
}

fn not_own(family: Family) -> Rule {
    let (offset, length) = match family {
        Family::V4 => (12, 4),
        Family::V6 => (8, 16),
    };
    let source = |length, to| network(offset, length, to);
    let mut steps = by_pod_link(family).to_vec();
    steps.extend([
        source(length, word(1)),
        E::Contains {
            set: Set::PodSources.name(family).into(),
            key: word(0),
            not: true,
        },
    ]);
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
    drops(steps)
}

/// Packets that were dropped here.
pub(super) fn dropped(nftables: &mut Nftables) -> Result<u64, Error> {
    let rules = nftables.rules(TABLE).map_err(refused)?;
    let ours = rules.iter().filter(|rule| rule.comment == WHAT);
    Ok(ours.filter_map(|rule| rule.packets).sum())
}
