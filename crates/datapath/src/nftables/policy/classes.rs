//! Classes of addresses. A pod's address has its own, in a hash table; only what
//! is a block in the plan is a range in the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use ripstop_netlink::nftables::{Element, Family};
use ripstop_plan::policy::ClassId;

use super::super::sets::{FAMILIES, Set};
use super::super::write::{Parts, is_same_part};
use super::blocks::{self, Blocks};
use super::chains::{address_key, id_data};
use super::{Sets, part_of};

/// Prefixes and their classes, of both families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Classes {
    listed: BTreeMap<IpAddr, ClassId>,
    blocks: Blocks,
}

pub(super) fn is_address(net: &IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

fn element(address: IpAddr, class: ClassId) -> Element {
    Element::pair(address_key(address), id_data(class.number()))
}

impl Classes {
    pub(super) fn new(rows: impl IntoIterator<Item = (IpNet, ClassId)>) -> Self {
        let mut classes = Self::default();
        for (net, class) in rows {
            classes.set(net, Some(class));
        }
        classes
    }

    /// Other addresses with classes of their own; the blocks stay.
    pub(super) fn set_listed<'r>(&mut self, rows: impl Iterator<Item = (&'r IpNet, &'r ClassId)>) {
        let listed = rows.filter(|(net, _)| is_address(net));
        self.listed = listed.map(|(net, class)| (net.addr(), *class)).collect();
    }

    pub(super) fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    pub(super) fn len(&self) -> usize {
        self.listed.len() + self.blocks.rows().len()
    }

    /// Gives what was there.
    pub(super) fn set(&mut self, net: IpNet, class: Option<ClassId>) -> Option<ClassId> {
        match class {
            _ if !is_address(&net) => self.blocks.set(net, class),
            Some(class) => self.listed.insert(net.addr(), class),
            None => self.listed.remove(&net.addr()),
        }
    }

    /// Those of a family's addresses that have their own.
    pub(super) fn listed_parts(&self, family: Family) -> Parts {
        let of_family = |(address, _): &(&IpAddr, _)| Family::of(address) == family;
        let listed = self.listed.iter().filter(of_family);
        let listed = listed.map(|(address, class)| part_of(element(*address, *class)));
        listed.collect()
    }

    /// Whether it is cheaper to look at all blocks than at those of these prefixes.
    pub(super) fn are_many<'n>(&self, nets: impl Iterator<Item = &'n IpNet>) -> bool {
        nets.filter(|net| !is_address(net)).count() > self.blocks.rows().len() / 4
    }

    /// What there is because of these prefixes; if `all_blocks`, that of all blocks.
    pub(super) fn parts_of<'n>(
        &self,
        nets: impl Iterator<Item = &'n IpNet>,
        all_blocks: bool,
        to: &mut Sets,
    ) {
        for net in nets {
            let family = Family::of(&net.addr());
            if !is_address(net) {
                if !all_blocks {
                    let set = (Set::PolicyBlocks, family);
                    self.blocks.parts_of(*net, to.entry(set).or_default());
                }
            } else if let Some(class) = self.listed.get(&net.addr()) {
                let parts = to.entry((Set::PolicyAddresses, family)).or_default();
                parts.extend([part_of(element(net.addr(), *class))]);
            }
        }
        for family in FAMILIES.into_iter().filter(|_| all_blocks) {
            to.insert((Set::PolicyBlocks, family), self.blocks.parts(family));
        }
    }

    /// Those that the kernel has as they are here, of addresses.
    pub(super) fn whole_listed(
        &self,
        there: &Sets,
        families: &BTreeSet<Family>,
    ) -> impl Iterator<Item = (IpNet, ClassId)> {
        let is_whole = |(address, class): &(&IpAddr, &ClassId)| {
            let family = Family::of(address);
            if !families.contains(&family) {
                return true;
            }
            let (key, wanted) = part_of(element(**address, **class));
            let there = there.get(&(Set::PolicyAddresses, family));
            let there = there.and_then(|there| there.get(&key));
            there.is_some_and(|there| is_same_part(there, &wanted))
        };
        let listed = self.listed.iter().filter(is_whole);
        listed.map(|(address, class)| (IpNet::from(*address), *class))
    }

    /// Those of blocks.
    pub(super) fn whole_blocks(
        &self,
        there: &Sets,
        families: &BTreeSet<Family>,
    ) -> BTreeMap<IpNet, ClassId> {
        let none = Parts::new();
        let mut rows: BTreeMap<IpNet, ClassId> = self.blocks.rows().clone();
        for family in families {
            let there = there.get(&(Set::PolicyBlocks, *family)).unwrap_or(&none);
            for net in blocks::damaged(&self.blocks, *family, there) {
                rows.remove(&net);
            }
        }
        rows
    }
}
