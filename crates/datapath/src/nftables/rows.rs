//! A frontend's row as elements of the kernel's sets.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use ripstop_model::ObjectKey;
use ripstop_netlink::nftables::{Element, Family};
use ripstop_plan::{Backend, Backends, Frontend, FrontendKind, FrontendRow, Outside};

use super::class::{Class, Outside as OutsideClass};
use super::known::{self, Known, Slots};
use super::sets::Set;
use super::{keys, spread};

/// A row, and in which slot each of its backends is: one that stays keeps its
/// slot, so that what is written is what changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) row: FrontendRow,
    /// A pod's port of the node, not a service.
    pub(super) host_port: bool,
    pub(super) inside: Slots,
    /// Of [`Outside::Local`].
    pub(super) local: Slots,
    /// How clients from outside are spread over the row's backends.
    spread: spread::Table,
}

impl Placed {
    pub(super) fn new(
        row: FrontendRow,
        host_port: bool,
        before: Option<&Self>,
        known: &mut Known,
    ) -> Self {
        let none = Backends::default();
        let mut place = |of: &Backends, there: Option<(&Slots, &Backends)>| match there {
            Some((slots, before)) => known.place(slots, [before, of]),
            None => known.place(&Slots::default(), [&none, of]),
        };
        let inside = place(
            &row.backends,
            before.map(|placed| (&placed.inside, &placed.row.backends)),
        );
        let local = match &row.outside {
            Outside::Cluster => Slots::default(),
            Outside::Local(local) => {
                let before = before.and_then(|placed| match &placed.row.outside {
                    Outside::Local(known) => Some((&placed.local, known)),
                    Outside::Cluster => None,
                });
                place(local, before)
            }
        };
        // A ClusterIP is rarely reached from outside, and then as from inside.
        let spreads = row.outside == Outside::Cluster
            && row.kind != FrontendKind::ClusterIp
            && row.backends.len() > 1;
        let spread = if spreads {
            let before = before.map_or(0, |placed| placed.spread.size());
            let size = spread::size(row.backends.len(), before);
            spread::table(&row.backends, size, &mut known.tables)
        } else {
            spread::Table::default()
        };
        Self {
            row,
            host_port,
            inside,
            local,
            spread,
        }
    }

    pub(super) fn class(&self) -> Class {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let row = &self.row;
        let outside = match &row.outside {
            // Nobody anywhere: refused.
            Outside::Local(local) if local.is_empty() && row.backends.is_empty() => {
                OutsideClass::Same
            }
            Outside::Local(local) => OutsideClass::Local(count(local.len())),
            Outside::Cluster if self.spread.size() != 0 => OutsideClass::Spread(self.spread.size()),
            Outside::Cluster => OutsideClass::Same,
        };
        Class {
            backends: count(row.backends.len()),
            outside,
            affinity: row.affinity.unwrap_or_default(),
            ranges: !row.source_ranges.is_empty(),
        }
    }

    /// How clients from outside are spread.
    fn spread(&self) -> spread::Made {
        (self.spread.clone(), self.row.backends.clone())
    }

    /// Everything that the kernel has of it.
    pub(super) fn elements(&self, frontend: &Frontend) -> Vec<(Set, Element)> {
        self.elements_beside(frontend, None)
    }

    /// The same, without what there is one of for each backend or slot and is as
    /// it is there: of ten thousand, few change.
    pub(super) fn elements_beside(
        &self,
        frontend: &Frontend,
        beside: Option<(&Self, &Differing)>,
    ) -> Vec<(Set, Element)> {
        let none = Differing::default();
        let differing = beside.map_or(&none, |(_, differing)| differing);
        let beside = beside.map(|(placed, _)| placed);
        let key = keys::frontend(frontend);
        let class = self.class();
        let mut elements = Vec::new();
        let with = |rest: &[u8]| [&key[..], rest].concat();
        let slot = |slot: usize| {
            let slot = keys::slot(u32::try_from(slot).unwrap_or(u32::MAX));
            [&slot, &key[..]].concat()
        };
        let service = Element {
            comment: self.comment(),
            ..Element::pair(key.clone(), keys::result(frontend, &class.encode()))
        };
        elements.push((Set::Services, service));
        let mut add = |set, index, backend| {
            let data = keys::result(frontend, &keys::backend(backend));
            elements.push((set, Element::pair(slot(index), data)));
        };
        let lists = [
            (
                Set::Slots,
                &self.inside,
                beside.map(|b| &b.inside),
                &differing.inside,
            ),
            (
                Set::Outer,
                &self.local,
                beside.map(|b| &b.local),
                &differing.local,
            ),
        ];
        for (set, slots, there, differing) in lists {
            let new = there.map_or(0, |there| there.len())..slots.len();
            for index in differing.iter().copied().chain(new) {
                add(set, index, &slots[index]);
            }
        }
        let backends = &self.row.backends;
        for index in &*differing.spread {
            if let Some(backend) = self.spread.backend(*index, backends) {
                add(Set::Spread, *index, backend);
            }
        }
        let common = beside.map_or(0, |beside| beside.spread.size() as usize);
        for (index, backend) in self.spread.slots_from(common, backends) {
            add(Set::Spread, index, backend);
        }
        if matches!(class.outside, OutsideClass::Local(_)) {
            elements.push((Set::Preserved, Element::key(key.clone())));
        }
        let members = only_in_first(
            &self.members(),
            &beside.map(Self::members).unwrap_or_default(),
        );
        let member = |backend| Element::key(with(&keys::backend(&backend)));
        elements.extend(members.into_iter().map(|b| (Set::Members, member(b))));
        let ranges = IpNet::aggregate(&self.row.source_ranges);
        for range in ranges {
            let client = |ip: IpAddr| with(&keys::address(ip));
            if Family::of(&range.addr()) == Family::of(&frontend.address) {
                let element = Element {
                    key_end: Some(client(range.broadcast())),
                    ..Element::key(client(range.network()))
                };
                elements.push((Set::Clients, element));
            }
        }
        elements
    }

    /// Those that clients may hold, sorted.
    fn members(&self) -> Vec<Backend> {
        if self.row.affinity.unwrap_or_default() == 0 {
            return Vec::new();
        }
        let mut members: Vec<Backend> = self.backends().copied().collect();
        members.sort_unstable();
        members.dedup();
        members
    }

    /// Says whose it is, to people and to [`read_comment`].
    fn comment(&self) -> String {
        let kind = if self.host_port {
            HOST_PORT
        } else {
            kind(self.row.kind)
        };
        format!("{kind} {}", self.row.service)
    }

    /// All backends that packets may have been led to.
    pub(super) fn backends(&self) -> impl Iterator<Item = &Backend> {
        self.inside.iter().chain(&*self.local)
    }
}

/// In which of the slots that two rows have in common they have something else.
#[derive(Clone, Debug, Default)]
pub(super) struct Differing {
    inside: known::Differing,
    local: known::Differing,
    spread: known::Differing,
}

impl Differing {
    pub(super) fn of(before: &Placed, after: &Placed, known: &mut Known) -> Self {
        Self {
            inside: known.differing_slots(&before.inside, &after.inside),
            local: known.differing_slots(&before.local, &after.local),
            spread: known.differing_spread(before.spread(), after.spread()),
        }
    }
}

const HOST_PORT: &str = "hostPort";

fn kind(kind: FrontendKind) -> &'static str {
    match kind {
        FrontendKind::ClusterIp => "ClusterIP",
        FrontendKind::NodePort => "NodePort",
        FrontendKind::ExternalIp => "ExternalIP",
        FrontendKind::LoadBalancer => "LoadBalancer",
    }
}

/// Kind of row, whether it is a pod's port, and whose.
fn read_comment(comment: &str) -> Option<(FrontendKind, bool, ObjectKey)> {
    let (word, name) = comment.split_once(' ')?;
    let (namespace, name) = name.split_once('/')?;
    let kinds = [
        FrontendKind::ClusterIp,
        FrontendKind::NodePort,
        FrontendKind::ExternalIp,
        FrontendKind::LoadBalancer,
    ];
    let known = kinds.into_iter().find(|known| kind(*known) == word);
    let host_port = word == HOST_PORT;
    let kind = known.or(host_port.then_some(FrontendKind::NodePort))?;
    Some((kind, host_port, ObjectKey::new(namespace, name)))
}

/// Of two sorted lists, without duplicates; sorted, too.
fn only_in_first(first: &[Backend], second: &[Backend]) -> Vec<Backend> {
    let mut second = second.iter().peekable();
    let mut only = Vec::new();
    for backend in first {
        while second.next_if(|other| *other < backend).is_some() {}
        if second.next_if_eq(&backend).is_none() {
            only.push(*backend);
        }
    }
    only
}

/// What the kernel's elements say of one frontend, in the making.
#[derive(Clone, Debug, Default)]
pub(super) struct Read {
    pub(super) class: Option<Class>,
    pub(super) comment: String,
    /// Lookups of the frontend.
    pub(super) asked: u64,
    /// By slot, with the connections that it got.
    pub(super) slots: BTreeMap<u32, (Backend, u64)>,
    pub(super) outer: BTreeMap<u32, (Backend, u64)>,
    /// Connections of clients that came back.
    pub(super) members: BTreeMap<Backend, u64>,
    pub(super) clients: Vec<IpNet>,
}

impl Read {
    /// The row; `None` if it is not whole.
    pub(super) fn placed(&self, tables: &mut spread::Tables) -> Option<Placed> {
        let class = self.class?;
        let (kind, host_port, service) = read_comment(&self.comment)?;
        let backends = |slots: &BTreeMap<u32, (Backend, u64)>| -> Vec<Backend> {
            slots.values().map(|(backend, _)| *backend).collect()
        };
        let sorted = |slots: &[Backend]| Backends::from(slots.to_vec());
        let inside: Slots = backends(&self.slots).into();
        let (outside, local) = match class.outside {
            OutsideClass::Local(_) => {
                let local = backends(&self.outer);
                (Outside::Local(sorted(&local)), local.into())
            }
            OutsideClass::Same | OutsideClass::Spread(_) => (Outside::Cluster, Slots::default()),
        };
        let mut source_ranges = self.clients.clone();
        source_ranges.sort_unstable();
        let row = FrontendRow {
            service,
            kind,
            backends: sorted(&inside),
            outside,
            affinity: (class.affinity != 0).then_some(class.affinity),
            source_ranges,
        };
        let spread = match class.outside {
            OutsideClass::Spread(size) => spread::table(&row.backends, size, tables),
            OutsideClass::Same | OutsideClass::Local(_) => spread::Table::default(),
        };
        let placed = Placed {
            row,
            host_port,
            inside,
            local,
            spread,
        };
        // Else something of it is missing.
        (placed.class() == class).then_some(placed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_read() {
        assert_eq!(
            read_comment("NodePort a/b"),
            Some((FrontendKind::NodePort, false, ObjectKey::new("a", "b")))
        );
        assert_eq!(
            read_comment("hostPort a/b").map(|(_, port, _)| port),
            Some(true)
        );
        assert_eq!(read_comment("other a/b"), None);
        assert_eq!(read_comment(""), None);
    }
}
