//! Audits in parts: blocks of policies in slices, where they are many, and all the
//! rest at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use ripstop_model::LocalPod;
use ripstop_plan::Tables;
use ripstop_plan::policy::{ClassId, PolicyChange};

use super::policy::{Look, read_blocks};
use super::readback::{self, Scope};
use super::write::Changes;
use super::{NftEngine, audit};
use crate::compare_policies::{class_difference, difference_but_classes};
use crate::engine::{Drift, Error, Part, Place};

/// Classes that are looked at with all the rest: the kernel lists them in some
/// milliseconds.
const FEW: usize = 4096;

impl NftEngine {
    /// Whether the table is one of which all is known but for what others do to it.
    fn goes_in_parts(&self, desired: &Tables) -> bool {
        desired.policy.classes.len() > FEW && !self.takeover_pending && self.policies.known
    }

    fn look(&self, desired: &Tables, from: IpAddr) -> Result<Look, Error> {
        let nftables = &mut self.nftables.borrow_mut();
        self.policies.look(nftables, &desired.policy, from)
    }
}

fn first() -> Part {
    Part(Place::Classes(IpAddr::from(Ipv4Addr::UNSPECIFIED).into()))
}

fn after(look: &Look) -> Option<Part> {
    look.next.map(|next| Part(Place::Classes(next.into())))
}

/// Those that are no blocks.
fn addresses(classes: &BTreeMap<IpNet, ClassId>) -> BTreeMap<IpNet, ClassId> {
    let is_address = |(net, _): &(&IpNet, _)| net.prefix_len() == net.max_prefix_len();
    let addresses = classes.iter().filter(is_address);
    addresses.map(|(net, class)| (*net, *class)).collect()
}

/// See [`crate::Datapath::audit_part`].
pub(super) fn audit(
    engine: &mut NftEngine,
    desired: &Tables,
    pods: &[LocalPod],
    part: Part,
) -> Result<(Drift, Option<Part>), Error> {
    let from = match part.0 {
        Place::Rest if engine.goes_in_parts(desired) => {
            engine.gives_way = false;
            let drift = audit::audit(engine, desired, pods, Scope::ButBlocks)?;
            return Ok((drift, Some(first())));
        }
        Place::Rest => {
            engine.gives_way = false;
            return Ok((audit::audit(engine, desired, pods, Scope::All)?, None));
        }
        Place::Classes(from) => from.addr(),
        Place::Keys(_) => return Ok((Drift::default(), None)),
    };
    let look = engine.look(desired, from)?;
    let next = after(&look);
    let mut repaired = BTreeSet::new();
    if !(look.damaged.is_empty() && look.other.is_empty()) {
        // Rare enough to be thorough. What is in the way of one change may be in any
        // slice.
        let raw = read_blocks(engine.nftables.get_mut())?;
        let mut changes = Changes::default();
        let policies = &engine.policies;
        policies.repair_blocks(&mut changes, &raw, &mut repaired);
        engine.commit(&mut changes)?;
        repaired.extend(look.other.keys().map(|net| format!("class of {net}")));
        engine.apply_policies(&PolicyChange {
            classes: look.other,
            ..PolicyChange::default()
        })?;
    }
    let repaired = repaired.into_iter().collect();
    Ok((Drift { repaired }, next))
}

/// See [`crate::Datapath::verify_part`].
pub(super) fn verify(
    engine: &NftEngine,
    desired: &Tables,
    part: Part,
) -> Result<(Vec<String>, Option<Part>), Error> {
    let in_parts = engine.goes_in_parts(desired);
    match part.0 {
        Place::Rest => {
            let scope = if in_parts {
                Scope::ButBlocks
            } else {
                Scope::All
            };
            let raw = readback::raw(&mut engine.nftables.borrow_mut(), scope)?;
            let found = engine.policies.read(&raw);
            let mut lines = difference_but_classes(&desired.policy, &found);
            lines.extend(match in_parts {
                true => class_difference(&addresses(&desired.policy.classes), &found.classes),
                false => class_difference(&desired.policy.classes, &found.classes),
            });
            Ok((lines, in_parts.then(first)))
        }
        Place::Classes(from) => {
            let look = engine.look(desired, from.addr())?;
            let next = after(&look);
            let mut lines = look.damaged;
            lines.extend(look.other.iter().map(|(net, class)| match class {
                Some(class) => format!("class of {net:?}: not {class:?} as planned"),
                None => format!("class of {net:?}: not planned"),
            }));
            Ok((lines, next))
        }
        Place::Keys(_) => Ok((Vec::new(), None)),
    }
}
