//! Ranges without overlaps: in the plan the longest prefix counts, in the
//! kernel's sets of ranges none may overlap.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, IpSubnets, Ipv4Subnets, Ipv6Subnets};
use ripstop_netlink::nftables::{Element, Family};
use ripstop_plan::Range;

use super::keys;
use super::sets::Set;

/// First and last address.
pub(super) type Interval = (IpAddr, IpAddr);

/// The sets that [`flatten`] fills.
pub(super) const SETS: [Set; 3] = [Set::PodRanges, Set::ServiceRanges, Set::ClusterRanges];

pub(super) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

pub(super) fn address(family: Family, number: u128) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        Family::V6 => Ipv6Addr::from(number).into(),
    }
}

pub(super) fn last(family: Family) -> u128 {
    match family {
        Family::V4 => u32::MAX.into(),
        Family::V6 => u128::MAX,
    }
}

fn belongs(set: Set, range: Range) -> bool {
    match set {
        Set::PodRanges => range == Range::Pods,
        Set::ServiceRanges => range == Range::Services,
        _ => true,
    }
}

/// What is in one of [`SETS`]: sorted, neither overlapping nor adjacent.
pub(super) fn flatten(
    family: Family,
    ranges: &BTreeMap<IpNet, Range>,
    set: Set,
) -> BTreeSet<Interval> {
    let of_family: BTreeMap<IpNet, Range> = ranges
        .iter()
        .filter(|(net, _)| Family::of(&net.addr()) == family)
        .map(|(net, range)| (net.trunc(), *range))
        .collect();
    let mut lengths: Vec<u8> = of_family.keys().map(IpNet::prefix_len).collect();
    lengths.sort_unstable();
    lengths.dedup();
    let mut edges = BTreeSet::new();
    for net in of_family.keys() {
        edges.insert(number(net.network()));
        edges.extend(number(net.broadcast()).checked_add(1));
    }
    let longest = |at: u128| {
        let address = address(family, at);
        let of_length = |length: &u8| {
            let net = IpNet::new(address, *length).ok()?.trunc();
            of_family.get(&net).copied()
        };
        lengths.iter().rev().find_map(of_length)
    };
    let mut found = BTreeSet::new();
    let mut open = None;
    for edge in edges.into_iter().filter(|edge| *edge <= last(family)) {
        let inside = longest(edge).is_some_and(|range| belongs(set, range));
        match open {
            None if inside => open = Some(edge),
            Some(from) if !inside => {
                found.insert((address(family, from), address(family, edge - 1)));
                open = None;
            }
            _ => {}
        }
    }
    if let Some(from) = open {
        found.insert((address(family, from), address(family, last(family))));
    }
    found
}

/// An interval as the kernel has it: where it begins, and where it no longer is.
pub(super) fn elements((first, end): &Interval) -> Vec<Element> {
    let family = Family::of(first);
    let mut elements = vec![Element::key(keys::address(*first))];
    if number(*end) != last(family) {
        let after = address(family, number(*end) + 1);
        elements.push(Element {
            ends_range: true,
            ..Element::key(keys::address(after))
        });
    }
    elements
}

/// Intervals of what the kernel has; the reverse of [`elements`].
pub(super) fn read(family: Family, mut elements: Vec<Element>) -> BTreeSet<Interval> {
    elements.sort_by(|a, b| (&a.key, !a.ends_range).cmp(&(&b.key, !b.ends_range)));
    let mut found = BTreeSet::new();
    let mut open = None;
    for element in elements {
        let Some(at) = keys::read_address(&element.key) else {
            continue;
        };
        if !element.ends_range {
            open = Some(at);
        } else if let Some(first) = open.take() {
            found.insert((first, address(family, number(at) - 1)));
        }
    }
    if let Some(first) = open {
        found.insert((first, address(family, last(family))));
    }
    found
}

/// Rows that say the same as the sets do.
pub(super) fn rows(sets: &BTreeMap<Set, BTreeSet<Interval>>) -> BTreeMap<IpNet, Range> {
    let of = |set| sets.get(&set).into_iter().flatten();
    let rest = |range| move |net: IpNet| (net, range);
    let mut rows = BTreeMap::new();
    // Shorter prefixes say less than longer ones, equal ones are overwritten.
    rows.extend(
        of(Set::ClusterRanges)
            .flat_map(subnets)
            .map(rest(Range::Excluded)),
    );
    rows.extend(
        of(Set::ServiceRanges)
            .flat_map(subnets)
            .map(rest(Range::Services)),
    );
    rows.extend(of(Set::PodRanges).flat_map(subnets).map(rest(Range::Pods)));
    rows
}

fn subnets((first, last): &Interval) -> IpSubnets {
    match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => Ipv4Subnets::new(*first, *last, 0).into(),
        (IpAddr::V6(first), IpAddr::V6(last)) => Ipv6Subnets::new(*first, *last, 0).into(),
        _ => unreachable!("both ends are of one family"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn show(intervals: &BTreeSet<Interval>) -> Vec<String> {
        intervals.iter().map(|(a, b)| format!("{a}-{b}")).collect()
    }

    #[test]
    fn the_longest_prefix_counts() {
        let ranges = BTreeMap::from([
            (net("10.0.0.0/8"), Range::Excluded),
            (net("10.244.0.0/16"), Range::Pods),
            (net("10.244.7.0/24"), Range::Services),
            (net("172.30.1.11/32"), Range::Node),
            (net("fd00::/64"), Range::Pods),
        ]);
        let of = |set| show(&flatten(Family::V4, &ranges, set));
        assert_eq!(
            of(Set::PodRanges),
            ["10.244.0.0-10.244.6.255", "10.244.8.0-10.244.255.255"]
        );
        assert_eq!(of(Set::ServiceRanges), ["10.244.7.0-10.244.7.255"]);
        assert_eq!(
            of(Set::ClusterRanges),
            ["10.0.0.0-10.255.255.255", "172.30.1.11-172.30.1.11"]
        );
        assert_eq!(flatten(Family::V6, &ranges, Set::PodRanges).len(), 1);
    }

    #[test]
    fn everything_has_no_end() {
        let ranges = BTreeMap::from([(net("0.0.0.0/0"), Range::Excluded)]);
        let all = flatten(Family::V4, &ranges, Set::ClusterRanges);
        assert_eq!(show(&all), ["0.0.0.0-255.255.255.255"]);
        let elements: Vec<_> = all.iter().flat_map(elements).collect();
        assert_eq!(elements.len(), 1);
        assert_eq!(read(Family::V4, elements), all);
    }

    fn any_net() -> impl Strategy<Value = IpNet> {
        (any::<u32>(), 0..=32_u8).prop_map(|(bits, length)| {
            // Few addresses, so that they meet.
            let bits = bits & 0xf000_000f;
            IpNet::new(Ipv4Addr::from(bits).into(), length)
                .unwrap()
                .trunc()
        })
    }

    proptest! {
        #[test]
        fn sets_say_what_the_rows_say(
            nets in proptest::collection::btree_map(any_net(), 0..4_u8, 0..12),
            probes in proptest::collection::vec(any::<u32>(), 8)
        ) {
            let kinds = [Range::Pods, Range::Node, Range::Services, Range::Excluded];
            let ranges: BTreeMap<IpNet, Range> = nets
                .into_iter()
                .map(|(net, kind)| (net, kinds[usize::from(kind)]))
                .collect();
            let edges = ranges.keys().flat_map(|n| [n.network(), n.broadcast()]);
            let probes = probes.into_iter().map(|bits| Ipv4Addr::from(bits).into());
            let mut sets = BTreeMap::new();
            for probe in edges.chain(probes).collect::<Vec<IpAddr>>() {
                let longest = ranges
                    .iter()
                    .filter(|(net, _)| net.contains(&probe))
                    .max_by_key(|(net, _)| net.prefix_len());
                for set in SETS {
                    let flat = flatten(Family::V4, &ranges, set);
                    let found = flat.iter().any(|(a, b)| *a <= probe && probe <= *b);
                    let wanted = longest.is_some_and(|(_, range)| belongs(set, *range));
                    prop_assert_eq!(found, wanted);
                    let elements = flat.iter().flat_map(elements).collect();
                    prop_assert_eq!(&read(Family::V4, elements), &flat);
                    sets.insert(set, flat);
                }
            }
            let again = rows(&sets);
            for (set, flat) in sets {
                prop_assert_eq!(flatten(Family::V4, &again, set), flat);
            }
        }
    }
}
