//! Classes of blocks as the kernel has them: in the plan the longest prefix
//! counts, in a map of ranges none may overlap. So there is a border wherever a
//! prefix begins, and after its end, and a range from each to the next one. What
//! has the class of all others, as exceptions have, is in none: there a packet is
//! judged as by everybody's class, and the map is half as large.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use ripstop_netlink::nftables::{Element, Family};
use ripstop_plan::policy::ClassId;

use super::super::keys;
use super::super::ranges::{address, last, number};
use super::super::write::{Parts, is_same_part};
use super::chains::id_data;

/// Prefixes and their classes, of both families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Blocks {
    rows: BTreeMap<IpNet, ClassId>,
    /// Lengths that prefixes have, and how many have each.
    lengths: BTreeMap<(Family, u8), usize>,
}

impl Blocks {
    pub(super) fn rows(&self) -> &BTreeMap<IpNet, ClassId> {
        &self.rows
    }

    /// Gives what was there.
    pub(super) fn set(&mut self, net: IpNet, class: Option<ClassId>) -> Option<ClassId> {
        let length = (Family::of(&net.addr()), net.prefix_len());
        let net = net.trunc();
        let before = match class {
            Some(class) => self.rows.insert(net, class),
            None => self.rows.remove(&net),
        };
        let count = self.lengths.entry(length).or_default();
        *count += usize::from(class.is_some());
        *count -= usize::from(before.is_some());
        if *count == 0 {
            self.lengths.remove(&length);
        }
        before
    }

    /// Prefixes that have rows and that `address` is in, the longest first.
    fn around(&self, family: Family, address: IpAddr) -> impl Iterator<Item = (IpNet, ClassId)> {
        let lengths = self.lengths.range((family, 0)..=(family, u8::MAX)).rev();
        lengths.filter_map(move |((_, length), _)| {
            let net = IpNet::new(address, *length).ok()?.trunc();
            Some((net, *self.rows.get(&net)?))
        })
    }

    fn class(&self, family: Family, at: u128) -> Option<ClassId> {
        let (_, class) = self.around(family, address(family, at)).next()?;
        not_of_all(family, class)
    }

    /// Whether some prefix begins here or ended just before.
    fn is_border(&self, family: Family, at: u128) -> bool {
        let here = address(family, at);
        let begins = self
            .around(family, here)
            .any(|(net, _)| net.network() == here);
        let ends = |before: u128| {
            let before = address(family, before);
            self.around(family, before)
                .any(|(net, _)| net.broadcast() == before)
        };
        begins || at.checked_sub(1).is_some_and(ends)
    }

    /// The last border before an address. What ends between the last beginning
    /// and here is around that beginning.
    fn border_before(&self, family: Family, at: u128) -> Option<u128> {
        let before = address(family, at.checked_sub(1)?);
        let lowest = IpNet::new(address(family, 0), 0).ok()?;
        let (begins, _) = self.rows.range(lowest..=IpNet::from(before)).next_back()?;
        let begins = begins.network();
        let ends = self
            .around(family, begins)
            .filter_map(|(net, _)| number(net.broadcast()).checked_add(1))
            .filter(|end| *end < at);
        ends.chain([number(begins)]).max()
    }

    /// The first border behind an address. What ends before the next beginning is
    /// around this address.
    fn border_after(&self, family: Family, at: u128) -> Option<u128> {
        let ends = self
            .around(family, address(family, at))
            .filter_map(|(net, _)| number(net.broadcast()).checked_add(1));
        let after = at.checked_add(1).filter(|after| *after <= last(family));
        let begins = after.and_then(|after| {
            let from = IpNet::new(address(family, after), 0).ok()?;
            let to = IpNet::from(address(family, last(family)));
            // A shorter prefix of the same address comes first, and is as good.
            self.rows.range(from..=to).next()
        });
        let begins = begins.map(|(net, _)| number(net.network()));
        ends.chain(begins)
            .filter(|border| *border <= last(family))
            .min()
    }

    /// All ranges of a family.
    pub(super) fn parts(&self, family: Family) -> Parts {
        let of_family = |(net, _): &(&IpNet, _)| Family::of(&net.addr()) == family;
        let rows = self.rows.iter().filter(of_family);
        let borders = borders(family, rows.map(|(net, class)| (*net, *class)), None);
        ranges(family, borders, None)
    }

    /// Those that begin, end, or have their class because of this prefix.
    pub(super) fn parts_of(&self, net: IpNet, to: &mut Parts) {
        let net = net.trunc();
        let family = Family::of(&net.addr());
        let (first, end) = (number(net.network()), number(net.broadcast()));
        let whole = IpNet::from(net.broadcast());
        let inside = self.rows.range(net..=whole);
        let outer = self
            .around(family, net.network())
            .find(|(other, _)| other.prefix_len() < net.prefix_len());
        let rows = inside.map(|(net, class)| (*net, *class));
        let mut all = borders(family, rows, outer.map(|(_, class)| class));
        let after = end.checked_add(1).filter(|after| *after <= last(family));
        // On these two others may have a say.
        for edge in [Some(first), after].into_iter().flatten() {
            all.remove(&edge);
            if self.is_border(family, edge) {
                all.insert(edge, self.class(family, edge));
            }
        }
        if let Some(before) = self.border_before(family, first) {
            all.insert(before, self.class(family, before));
        }
        let after = after.and_then(|after| self.border_after(family, after));
        to.extend(ranges(family, all, after));
    }
}

/// Nobody is asked for the class that everybody has.
fn not_of_all(family: Family, class: ClassId) -> Option<ClassId> {
    (class != ClassId::base(family == Family::V4)).then_some(class)
}

/// Where prefixes begin and end, and the class from there on. `rows` are sorted,
/// and `outer` is the class of what is around all of them.
fn borders(
    family: Family,
    rows: impl Iterator<Item = (IpNet, ClassId)>,
    outer: Option<ClassId>,
) -> BTreeMap<u128, Option<ClassId>> {
    let mut borders = BTreeMap::new();
    // Ends and classes of the prefixes that are around the current one.
    let mut open: Vec<(u128, ClassId)> = Vec::new();
    let close = |open: &mut Vec<(u128, ClassId)>, borders: &mut BTreeMap<_, _>| {
        let closed = open.pop();
        let after = open.last().map(|(_, class)| *class).or(outer);
        if let Some((end, _)) = closed.filter(|(end, _)| *end != last(family)) {
            borders.insert(end + 1, after.and_then(|class| not_of_all(family, class)));
        }
    };
    for (net, class) in rows {
        let first = number(net.network());
        while open.last().is_some_and(|(end, _)| *end < first) {
            close(&mut open, &mut borders);
        }
        borders.insert(first, not_of_all(family, class));
        open.push((number(net.broadcast()), class));
    }
    while !open.is_empty() {
        close(&mut open, &mut borders);
    }
    borders
}

/// From each border to the next one; `end` comes after the last.
fn ranges(family: Family, borders: BTreeMap<u128, Option<ClassId>>, end: Option<u128>) -> Parts {
    let key = |at| keys::address(address(family, at));
    let ends = borders.keys().skip(1).copied().map(Some).chain([end]);
    let with_ends = borders.iter().zip(ends);
    let ranges = with_ends.filter_map(|((at, class), end)| {
        let mut part = vec![Element::pair(key(*at), id_data(class.as_ref()?.number()))];
        part.extend(end.map(|end| Element {
            ends_range: true,
            ..Element::key(key(end))
        }));
        Some((key(*at), part))
    });
    ranges.collect()
}

/// The prefixes whose first address has another class in the kernel than here.
pub(super) fn damaged(
    blocks: &Blocks,
    family: Family,
    there: &Parts,
) -> impl Iterator<Item = IpNet> {
    let wanted = blocks.parts(family);
    let nets = blocks.rows.keys().copied();
    nets.filter(move |net| {
        let key = keys::address(net.network());
        let wanted = wanted.get(&key);
        wanted.is_some_and(|wanted| {
            there
                .get(&key)
                .is_none_or(|there| !is_same_part(there, wanted))
        })
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn any_net() -> impl Strategy<Value = IpNet> {
        (any::<u32>(), 0..=32_u8).prop_map(|(bits, length)| {
            // Few addresses, so that they meet.
            let bits = (bits & 0xf000_0007) | ((bits & 8) * 0x0fff_ffff);
            IpNet::new(Ipv4Addr::from(bits).into(), length)
                .unwrap()
                .trunc()
        })
    }

    /// As the kernel finds it: the greatest key that is not behind the address.
    fn look_up(parts: &Parts, at: IpAddr) -> Option<ClassId> {
        let key = keys::address(at);
        let elements = parts.values().flatten();
        let before = elements.filter(|element| element.key <= key);
        let found = before.max_by_key(|element| (&element.key, !element.ends_range))?;
        let number = <[u8; 8]>::try_from(found.data.get(4..)?).ok()?;
        Some(ClassId::from_number(u64::from_be_bytes(number)))
    }

    /// `None`: the class of all others.
    fn longest(rows: &BTreeMap<IpNet, ClassId>, at: IpAddr) -> Option<ClassId> {
        let around = rows.iter().filter(|(net, _)| net.contains(&at));
        let longest = around.max_by_key(|(net, _)| net.prefix_len());
        longest.and_then(|(_, class)| (*class != ClassId::V4).then_some(*class))
    }

    proptest! {
        #[test]
        fn what_changes_is_what_a_prefix_says(
            history in proptest::collection::vec((any_net(), proptest::option::of(1..=ClassId::V4.number())), 1..24),
            probes in proptest::collection::vec(any::<u32>(), 4),
        ) {
            let mut classes = Blocks::default();
            let mut kernel = Parts::new();
            for (net, class) in history {
                let mut before = Parts::new();
                classes.parts_of(net, &mut before);
                classes.set(net, class.map(ClassId::from_number));
                let mut after = Parts::new();
                classes.parts_of(net, &mut after);
                for (key, part) in before {
                    prop_assert_eq!(kernel.remove(&key), Some(part));
                }
                for (key, part) in after {
                    prop_assert_eq!(kernel.insert(key, part), None);
                }
                prop_assert_eq!(&kernel, &classes.parts(Family::V4));
                let again = crate::nftables::write::parts(kernel.values().flatten().cloned());
                prop_assert_eq!(&kernel, &again);
                let edges = classes.rows.keys().flat_map(|n| [n.network(), n.broadcast()]);
                let probes = probes.iter().map(|bits| Ipv4Addr::from(*bits).into());
                for probe in edges.chain(probes) {
                    prop_assert_eq!(look_up(&kernel, probe), longest(&classes.rows, probe));
                }
            }
        }
    }
}
