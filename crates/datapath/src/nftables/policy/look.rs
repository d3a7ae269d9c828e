//! Blocks against the kernel's ranges, in slices. A list of a hundred thousand
//! ranges takes the kernel seconds: for each part of it the kernel goes through
//! all that it has listed (net/netfilter/nft_set_rbtree.c, `nft_rbtree_do_walk`).
//! To ask for single addresses takes the same time for each, and what packets
//! would find is what is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use ripstop_netlink::nftables::{Family, Nftables};
use ripstop_plan::policy::{ClassId, PolicyTables};

use super::super::readback::Raw;
use super::super::sets::{FAMILIES, Set};
use super::super::write::{Changes, id};
use super::super::{TABLE, refused};
use super::blocks::Stretch;
use super::{Policies, Sets, classes, repair};
use crate::engine::Error;

/// Prefixes in a slice: 10 to 20 ms.
const SLICE: usize = 2048;

/// Of one slice.
#[derive(Debug, Default)]
pub(in super::super) struct Look {
    /// What is not so in the kernel, for people.
    pub(in super::super) damaged: Vec<String>,
    /// Rows that are not those of the plan: the kernel did not take them.
    pub(in super::super) other: BTreeMap<IpNet, Option<ClassId>>,
    /// Where the next one begins.
    pub(in super::super) next: Option<IpAddr>,
}

impl Policies {
    /// Holds a slice of the blocks, from an address on, against the kernel and the
    /// plan.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub(in super::super) fn look(
        &self,
        nftables: &mut Nftables,
        desired: &PolicyTables,
        from: IpAddr,
    ) -> Result<Look, Error> {
        let family = Family::of(&from);
        let mut look = Look::default();
        let (stretches, next) = self.classes.blocks().stretches(from, SLICE);
        look.other = self.other_than_planned(desired, from, next);
        if self.families.contains(&family) {
            look.damaged = damaged(nftables, family, &stretches)?;
            if next.is_none() {
                look.damaged.extend(self.miscounted(nftables, family)?);
            }
        }
        look.next = next.or_else(|| first_of_family_after(family));
        Ok(look)
    }

    /// Blocks that are known from one address to another, but not as planned.
    fn other_than_planned(
        &self,
        desired: &PolicyTables,
        from: IpAddr,
        next: Option<IpAddr>,
    ) -> BTreeMap<IpNet, Option<ClassId>> {
        let is_here = |net: &IpNet| {
            let same_family = Family::of(&net.addr()) == Family::of(&from);
            same_family && next.is_none_or(|next| net.network() < next)
        };
        let from = IpNet::new(from, 0).unwrap_or(IpNet::from(from));
        let known = self.classes.blocks().rows();
        let mut other = BTreeMap::new();
        for (net, class) in desired
            .classes
            .range(from..)
            .take_while(|(net, _)| is_here(net))
        {
            if !classes::is_address(net) && known.get(net) != Some(class) {
                other.insert(*net, Some(*class));
            }
        }
        for (net, _) in known.range(from..).take_while(|(net, _)| is_here(net)) {
            if !desired.classes.contains_key(net) {
                other.insert(*net, None);
            }
        }
        other
    }

    /// A range between those of ours would be found by nobody who asks for ours.
    fn miscounted(&self, nftables: &mut Nftables, family: Family) -> Result<Option<String>, Error> {
        let set = Set::PolicyBlocks.name(family);
        let Some(there) = nftables.count(TABLE, set).map_err(refused)? else {
            return Ok(None);
        };
        let wanted = self.classes.blocks().count(family);
        let differs = usize::try_from(there) != Ok(wanted);
        Ok(differs.then(|| format!("policy classes: {there} ranges in {set}, planned {wanted}")))
    }

    /// Makes of what the kernel has of blocks what is known of them.
    pub(in super::super) fn repair_blocks(
        &self,
        changes: &mut Changes,
        raw: &Raw,
        repaired: &mut BTreeSet<String>,
    ) {
        let mut wanted = Sets::new();
        for family in &self.families {
            self.block_parts(*family, &mut wanted);
        }
        for family in FAMILIES {
            let set = (Set::PolicyBlocks, family);
            let wanted = wanted.remove(&set).unwrap_or_default();
            repair(set, raw, wanted, changes, repaired);
        }
    }
}

/// What the kernel has of blocks.
///
/// # Errors
/// If it cannot be read.
pub(in super::super) fn read_blocks(nftables: &mut Nftables) -> Result<Raw, Error> {
    let mut raw = Raw::new();
    for family in FAMILIES {
        let set = (Set::PolicyBlocks, family);
        let elements = nftables
            .elements(TABLE, set.0.name(family))
            .map_err(refused)?;
        let by_id = elements.into_iter().map(|element| (id(&element), element));
        raw.insert(set, by_id.collect());
    }
    Ok(raw)
}

fn damaged(
    nftables: &mut Nftables,
    family: Family,
    stretches: &[Stretch],
) -> Result<Vec<String>, Error> {
    let keys: Vec<_> = stretches.iter().flat_map(Stretch::keys).collect();
    let found = nftables
        .find(TABLE, Set::PolicyBlocks.name(family), &keys)
        .map_err(refused)?;
    let mut found = found.iter();
    let mut damaged = Vec::new();
    for stretch in stretches {
        let mut whole = true;
        for found in found.by_ref().take(stretch.keys().count()) {
            whole &= stretch.is_found(found.as_ref());
        }
        if !whole {
            damaged.push(format!("policy class from {} on", stretch.first));
        }
    }
    Ok(damaged)
}

fn first_of_family_after(family: Family) -> Option<IpAddr> {
    let mut families = FAMILIES.into_iter().skip_while(|other| *other != family);
    families
        .nth(1)
        .map(|family| super::super::ranges::address(family, 0))
}
