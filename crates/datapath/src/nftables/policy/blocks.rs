//! Classes of blocks as the kernel has them: in the plan the longest prefix
//! counts, in a map of ranges none may overlap. So there is a border wherever a
//! prefix begins, and after its end, and a range from each to the next one. What
//! has the class of all others, as exceptions have, is in none: there a packet is
//! judged as by everybody's class, and the map is half as large.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use ripstop_netlink::nftables::{Element, Family};
use ripstop_plan::policy::ClassId;

use super::super::keys;
use super::super::ranges::{address, last, number};
use super::super::write::{Parts, id, is_same, is_same_part};
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
        ranges(family, self.borders(family), None)
    }

    fn borders(&self, family: Family) -> BTreeMap<u128, Option<ClassId>> {
        let rows = self.rows.range(all(family));
        let rows = rows.map(|(net, class)| (*net, *class));
        borders(family, Vec::new(), rows, None)
    }

    /// How many ranges of a family the kernel counts.
    pub(super) fn count(&self, family: Family) -> usize {
        let borders = self.borders(family);
        let open = borders.last_key_value();
        // Half of its elements, and one that goes to the last address has no end.
        let open = usize::from(open.is_some_and(|(_, class)| class.is_some()));
        borders.into_values().flatten().count() - open
    }

    /// Stretches of addresses of one class each: from one address on so many
    /// prefixes, and where the next ones begin.
    pub(super) fn stretches(
        &self,
        from: IpAddr,
        prefixes: usize,
    ) -> (Vec<Stretch>, Option<IpAddr>) {
        let family = Family::of(&from);
        let first = number(from);
        let mut open: Vec<(u128, ClassId)> = self
            .around(family, from)
            .map(|(net, class)| (number(net.broadcast()), class))
            .collect();
        open.reverse();
        let class = open.last().map(|(_, class)| *class);
        let class = class.and_then(|class| not_of_all(family, class));
        let after = first.checked_add(1).filter(|after| *after <= last(family));
        let after = after.and_then(|after| IpNet::new(address(family, after), 0).ok());
        let later = after.map(|after| self.rows.range(after..=*all(family).end()));
        let mut later = later.into_iter().flatten();
        let rows: Vec<_> = later
            .by_ref()
            .take(prefixes)
            .map(|(net, class)| (*net, *class))
            .collect();
        let next = later.next().map(|(net, _)| net.network());
        let mut borders = borders(family, open, rows.into_iter(), None);
        borders.insert(first, class);
        let end = next.map_or(last(family), |next| number(next) - 1);
        let mut stretches: Vec<Stretch> = Vec::with_capacity(borders.len());
        for (at, class) in borders.range(first..=end) {
            match stretches.last_mut() {
                // Others' class is nobody's range.
                Some(before) if before.class.is_none() && class.is_none() => continue,
                Some(before) => before.last = address(family, at - 1),
                None => {}
            }
            stretches.push(Stretch {
                first: address(family, *at),
                last: address(family, end),
                class: *class,
            });
        }
        (stretches, next)
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
        let outer = outer.map(|(_, class)| class);
        let mut all = borders(family, Vec::new(), rows, outer);
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

/// Addresses of one class; `None`: that of all others, which has no ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) first: IpAddr,
    pub(super) last: IpAddr,
    pub(super) class: Option<ClassId>,
}

impl Stretch {
    /// Addresses that show it to be as it is here, given that the others are as
    /// they are, and that there are as many ranges as there should be.
    fn probes(&self) -> impl Iterator<Item = IpAddr> {
        let last = (self.class.is_some() && self.last != self.first).then_some(self.last);
        [self.first].into_iter().chain(last)
    }

    /// Keys of its probes.
    pub(super) fn keys(&self) -> impl Iterator<Item = Vec<u8>> {
        self.probes().map(keys::address)
    }

    /// Whether this is what the kernel finds for a probe.
    pub(super) fn is_found(&self, found: Option<&Element>) -> bool {
        let wanted = self.class.map(|class| {
            let key = keys::address(self.first);
            Element::pair(key, id_data(class.number()))
        });
        match (found, wanted) {
            (None, None) => true,
            (Some(found), Some(wanted)) => id(found) == id(&wanted) && is_same(found, &wanted),
            _ => false,
        }
    }
}

/// All prefixes of a family.
fn all(family: Family) -> RangeInclusive<IpNet> {
    let lowest = address(family, 0);
    let lowest = IpNet::new(lowest, 0).unwrap_or(IpNet::from(lowest));
    lowest..=IpNet::from(address(family, last(family)))
}

/// Nobody is asked for the class that everybody has.
fn not_of_all(family: Family, class: ClassId) -> Option<ClassId> {
    (class != ClassId::base(family == Family::V4)).then_some(class)
}

/// Where prefixes begin and end, and the class from there on. `rows` are sorted;
/// `open` are ends and classes of prefixes that begin before them, the outermost
/// first, and `outer` is the class of what is around all of them.
fn borders(
    family: Family,
    mut open: Vec<(u128, ClassId)>,
    rows: impl Iterator<Item = (IpNet, ClassId)>,
    outer: Option<ClassId>,
) -> BTreeMap<u128, Option<ClassId>> {
    let mut borders = BTreeMap::new();
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
                let mut at = Some(Ipv4Addr::UNSPECIFIED.into());
                let mut stretches = Vec::new();
                while let Some(from) = at {
                    let (some, next) = classes.stretches(from, 2);
                    stretches.extend(some);
                    at = next;
                }
                let ranges = stretches.iter().filter(|stretch| stretch.class.is_some());
                let open = classes.parts(Family::V4).values().filter(|part| part.len() == 1).count();
                prop_assert_eq!(ranges.count(), classes.count(Family::V4) + open);
                let mut next = 0;
                for stretch in stretches {
                    prop_assert_eq!(number(stretch.first), next);
                    next = number(stretch.last) + 1;
                    for probe in [stretch.first, stretch.last] {
                        prop_assert_eq!(longest(&classes.rows, probe), stretch.class);
                    }
                }
                prop_assert_eq!(next, last(Family::V4) + 1);
                let edges = classes.rows.keys().flat_map(|n| [n.network(), n.broadcast()]);
                let probes = probes.iter().map(|bits| Ipv4Addr::from(*bits).into());
                for probe in edges.chain(probes) {
                    prop_assert_eq!(look_up(&kernel, probe), longest(&classes.rows, probe));
                }
            }
        }
    }
}
