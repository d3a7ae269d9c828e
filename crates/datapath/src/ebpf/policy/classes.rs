//! Classes against the kernel's, in slices: a hundred thousand rows of a trie take
//! some tenths of a second to read.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use ripstop_abi::ClassKey;
use ripstop_plan::policy::{ClassId, PolicyChange, PolicyTables, kernel};

use super::Policies;
use super::audit::is_wanted_class;
use super::maps::PolicyMaps;
use crate::Error;
use crate::ebpf::maps::Maps;
use crate::engine::{Part, Place};

/// Classes that are read with all the rest.
const FEW: usize = 4096;
/// Rows in a slice: 10 to 20 ms.
const SLICE: usize = 8192;
/// The first of the slices.
pub(crate) const FIRST: Part = Part(Place::Keys(None));

/// Whether all classes are known but for what others do to them, and many.
pub(crate) fn goes_in_parts(policies: &Policies, desired: &PolicyTables) -> bool {
    desired.classes.len() > FEW && !policies.lacks_classes && !policies.nothing_is_known
}

/// The planned rows of a slice, and where the next one begins.
fn planned(desired: &PolicyTables, from: IpNet) -> (Vec<(IpNet, ClassId)>, Option<Part>) {
    let mut rows = desired.classes.range(from..);
    let slice = rows.by_ref().take(SLICE);
    let slice = slice.map(|(net, class)| (*net, *class)).collect();
    let next = rows.next().map(|(net, _)| Part(Place::Classes(*net)));
    (slice, next)
}

/// Keys of the kernel in a slice, those of nobody among them, and where the next
/// one begins.
fn strays(
    maps: &PolicyMaps,
    desired: &PolicyTables,
    after: Option<ClassKey>,
) -> Result<(Vec<ClassKey>, Option<Part>), Error> {
    let planned = Some(Part(Place::Classes(first())));
    if after.is_some_and(|after| !maps.classes.rows().contains_key(&after)) {
        // It has gone since, and with it the place: the next audit sees the others.
        return Ok((Vec::new(), planned));
    }
    let keys = maps.classes.keys_after(after, SLICE)?;
    let (wanted, strays): (Vec<_>, Vec<_>) = keys
        .iter()
        .copied()
        .partition(|key| is_wanted_class(key, desired));
    let next = match wanted.last() {
        Some(last) if keys.len() == SLICE => Some(Part(Place::Keys(Some(*last)))),
        _ => planned,
    };
    Ok((strays, next))
}

fn first() -> IpNet {
    let lowest = IpAddr::from(Ipv4Addr::UNSPECIFIED);
    IpNet::new(lowest, 0).unwrap_or(IpNet::from(lowest))
}

/// Makes the kernel's rows of a slice those of the plan. Gives what was not so.
///
/// # Errors
/// What the kernel said.
pub(crate) fn audit_classes(
    policies: &mut Policies,
    maps: &mut Maps,
    desired: &PolicyTables,
    place: Place,
) -> Result<(Vec<String>, Option<Part>), Error> {
    let mut lines = Vec::new();
    match place {
        Place::Rest => Ok((lines, None)),
        Place::Keys(after) => {
            let (strays, next) = strays(&maps.policy, desired, after)?;
            for key in strays {
                lines.push(format!("{} (removed)", name(key)));
                maps.policy.classes.remove_unknown(&key)?;
            }
            Ok((lines, next))
        }
        Place::Classes(from) => {
            let (rows, next) = planned(desired, from);
            let mut change = PolicyChange::default();
            for (net, class) in rows {
                let key = kernel::class_key(net);
                if !maps.policy.classes.holds(&key, &class.number())? {
                    lines.push(format!("class of {net}"));
                    maps.policy.classes.forget(&key);
                    change.classes.insert(net, Some(class));
                }
            }
            policies.apply(maps, &change)?;
            Ok((lines, next))
        }
    }
}

/// The same without changing anything.
///
/// # Errors
/// What the kernel said.
pub(crate) fn verify_classes(
    maps: &PolicyMaps,
    desired: &PolicyTables,
    place: Place,
) -> Result<(Vec<String>, Option<Part>), Error> {
    match place {
        Place::Rest => Ok((Vec::new(), None)),
        Place::Keys(after) => {
            let (strays, next) = strays(maps, desired, after)?;
            let line = |key| format!("{}: not planned", name(key));
            Ok((strays.into_iter().map(line).collect(), next))
        }
        Place::Classes(from) => {
            let (rows, next) = planned(desired, from);
            let mut lines = Vec::new();
            for (net, class) in rows {
                // Without its row, that of a shorter prefix is found.
                let found = maps.classes.get(&kernel::class_key(net))?;
                if found != Some(class.number()) {
                    let found = found.map(ClassId::from_number);
                    lines.push(format!("class of {net}: {found:?}, planned {class:?}"));
                }
            }
            Ok((lines, next))
        }
    }
}

fn name(key: ClassKey) -> String {
    match kernel::class_net(key) {
        Some(net) => format!("class of {net}"),
        None => format!("class of {key:?}"),
    }
}
