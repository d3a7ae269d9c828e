//! What the table in the kernel says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::{Ipv4Subnets, Ipv6Subnets};
use ripstop_netlink::nftables::{Element, Family, Nftables};
use ripstop_plan::Frontend;

use super::class::Class;
use super::ranges::{self, Interval};
use super::rows::{Placed, Read};
use super::sets::{ALL, FAMILIES, Set};
use super::write::{ElementId, SetOf, id};
use super::{TABLE, keys, refused, spread};
use crate::engine::Error;

/// Elements as they are, without those that packets made.
pub(super) type Raw = BTreeMap<SetOf, BTreeMap<ElementId, Element>>;

/// Which sets are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    All,
    /// All but the blocks of policies, which may be very many.
    ButBlocks,
}

/// Reads sets; one that is not there is empty.
pub(super) fn raw(nftables: &mut Nftables, scope: Scope) -> Result<Raw, Error> {
    let there: BTreeSet<String> = nftables.sets(TABLE).map_err(refused)?.into_iter().collect();
    let mut raw = Raw::new();
    for family in FAMILIES {
        let is_read =
            |set: &Set| !set.is_dynamic() && (scope == Scope::All || *set != Set::PolicyBlocks);
        for set in ALL.into_iter().filter(is_read) {
            if !there.contains(set.name(family)) {
                continue;
            }
            let elements = nftables
                .elements(TABLE, set.name(family))
                .map_err(refused)?;
            let by_id = elements.into_iter().map(|element| (id(&element), element));
            raw.insert((set, family), by_id.collect());
        }
    }
    Ok(raw)
}

/// What the elements say of each frontend.
pub(super) fn frontends(raw: &Raw) -> BTreeMap<Frontend, Read> {
    let mut found: BTreeMap<Frontend, Read> = BTreeMap::new();
    for ((set, family), elements) in raw {
        for element in elements.values() {
            take(&mut found, *set, *family, element);
        }
    }
    found
}

fn take(
    found: &mut BTreeMap<Frontend, Read>,
    set: Set,
    family: Family,
    element: &Element,
) -> Option<()> {
    if !matches!(
        set,
        Set::Services | Set::Slots | Set::Outer | Set::Members | Set::Clients
    ) {
        return None;
    }
    let (slot, key) = element.key.split_at_checked(set.frontend_at(family))?;
    let (frontend, rest) = keys::read_frontend(family, key)?;
    let read = found.entry(frontend).or_default();
    match set {
        Set::Services => {
            read.class = keys::read_result(&frontend, &element.data).and_then(Class::decode);
            read.comment.clone_from(&element.comment);
            read.asked = element.packets;
        }
        Set::Slots | Set::Outer => {
            let slots = match set {
                Set::Slots => &mut read.slots,
                _ => &mut read.outer,
            };
            let backend = keys::read_backend(family, keys::read_result(&frontend, &element.data)?)?;
            slots.insert(keys::read_slot(slot)?, (backend, element.packets));
        }
        Set::Members => {
            let backend = keys::read_backend(family, rest)?;
            read.members.insert(backend, element.packets);
        }
        _ => {
            let end = element.key_end.as_ref()?;
            let first = keys::read_address(rest)?;
            let last = keys::read_address(end.get(keys::length(family) + 8..)?)?;
            match (first, last) {
                (IpAddr::V4(first), IpAddr::V4(last)) => {
                    let nets = Ipv4Subnets::new(first, last, 0);
                    read.clients.extend(nets.map(ipnet::IpNet::from));
                }
                (IpAddr::V6(first), IpAddr::V6(last)) => {
                    let nets = Ipv6Subnets::new(first, last, 0);
                    read.clients.extend(nets.map(ipnet::IpNet::from));
                }
                _ => {}
            }
        }
    }
    Some(())
}

/// The frontends of which the kernel has a whole row.
pub(super) fn placed(
    read: &BTreeMap<Frontend, Read>,
    tables: &mut spread::Tables,
) -> BTreeMap<Frontend, Placed> {
    read.iter()
        .filter_map(|(frontend, read)| Some((*frontend, read.placed(tables)?)))
        .collect()
}

/// The classes that packets find their way to.
pub(super) fn classes(raw: &Raw) -> BTreeSet<(Family, Class)> {
    let mut classes = BTreeSet::new();
    for family in FAMILIES {
        let elements = raw.get(&(Set::Classes, family)).into_iter().flatten();
        classes.extend(elements.filter_map(|(_, element)| {
            let class = Class::decode(&element.key)?;
            Some((family, class))
        }));
    }
    classes
}

pub(super) fn intervals(raw: &Raw, set: SetOf) -> BTreeSet<Interval> {
    let elements = raw.get(&set).into_iter().flatten();
    ranges::read(
        set.1,
        elements.map(|(_, element)| element.clone()).collect(),
    )
}

/// Pods' addresses, with the container that has each.
pub(super) fn pods(raw: &Raw) -> BTreeMap<IpAddr, String> {
    let of = |family| raw.get(&(Set::Pods, family)).into_iter().flatten();
    FAMILIES
        .into_iter()
        .flat_map(of)
        .filter_map(|(_, element)| {
            let address = keys::read_address(&element.key)?;
            Some((address, element.comment.clone()))
        })
        .collect()
}

/// Connections to each backend of a list of slots.
pub(super) fn connections(
    slots: &BTreeMap<u32, (ripstop_plan::Backend, u64)>,
) -> BTreeMap<ripstop_plan::Backend, u64> {
    let mut connections = BTreeMap::new();
    for (backend, count) in slots.values() {
        *connections.entry(*backend).or_default() += count;
    }
    connections
}
