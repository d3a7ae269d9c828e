//! The kernel's rows of policies against the plan's.

use std::collections::HashMap;
use std::net::IpAddr;

use ripstop_abi::{Address, ClassKey, PairKey};
use ripstop_plan::policy::{ClassId, PolicyChange, PolicyId, PolicyTables, PortsId, kernel};

use super::Policies;
use crate::Error;
use crate::ebpf::maps::Maps;
use crate::ebpf::policy::BASES;
use crate::ebpf::readback::Scope;

/// Makes the kernel's rows, as they were just read, those of the plan. Gives what
/// was not so.
///
/// # Errors
/// The first; the other rows are in place.
pub(crate) fn audit(
    policies: &mut Policies,
    maps: &mut Maps,
    desired: &PolicyTables,
    scope: Scope,
) -> (Vec<String>, Result<(), Error>) {
    let (change, mut lines) = difference(policies, maps, desired, scope);
    let mut result = policies.apply(maps, &change);
    policies.nothing_is_known = false;
    let mut removed = remove_stale(maps, desired);
    if scope == Scope::All {
        removed = removed.and(remove_stale_classes(maps, desired));
    }
    if matches!(result, Err(Error::TableFull { .. })) {
        // What was not wanted had the room.
        policies.incomplete.clear();
        policies.lacks_classes = false;
        let (change, _) = difference(policies, maps, desired, scope);
        result = policies.apply(maps, &change);
    }
    result = result.and(removed);
    // Marks of endpoints, which the change of a pod's row would have set.
    let addresses: Vec<Address> = maps.endpoints.rows().keys().copied().collect();
    for address in addresses {
        match policies.track(maps, address) {
            Ok(true) => lines.push(format!("mark of endpoint {}", IpAddr::from(address))),
            Ok(false) => {}
            Err(error) => result = result.and(Err(error)),
        }
    }
    (lines, result)
}

/// Removes pairs of which the plan knows nothing.
fn remove_stale(maps: &mut Maps, desired: &PolicyTables) -> Result<(), Error> {
    let tables = &mut maps.policy;
    let mut result = Ok(());
    let is_wanted = |key: &PairKey| {
        let policy = PolicyId::from_number(key.policy);
        let pair = (policy, ClassId::from_number(key.class));
        desired.rules.contains_key(&pair)
    };
    let rows = tables.pairs.rows().keys();
    let stale: Vec<_> = rows.filter(|key| !is_wanted(key)).copied().collect();
    for key in stale {
        result = result.and(tables.pairs.remove(&key).map(drop));
    }
    result
}

/// The same of classes.
fn remove_stale_classes(maps: &mut Maps, desired: &PolicyTables) -> Result<(), Error> {
    let classes = &mut maps.policy.classes;
    let mut result = Ok(());
    let rows = classes.rows().keys();
    let stale = rows.filter(|key| !is_wanted_class(key, desired));
    for key in stale.copied().collect::<Vec<_>>() {
        result = result.and(classes.remove(&key).map(drop));
    }
    result
}

/// A key that is no prefix is nobody's, nor is one with bits beyond its prefix.
pub(super) fn is_wanted_class(key: &ClassKey, desired: &PolicyTables) -> bool {
    let net = kernel::class_net(*key).filter(|net| kernel::class_key(*net) == *key);
    net.is_some_and(|net| desired.classes.contains_key(&net))
        || BASES.iter().any(|(base, _)| base == key)
}

/// What is to change, and a line for each row.
fn difference(
    policies: &Policies,
    maps: &Maps,
    desired: &PolicyTables,
    scope: Scope,
) -> (PolicyChange, Vec<String>) {
    let tables = &maps.policy;
    let mut change = PolicyChange::default();
    let mut lines = Vec::new();
    for (id, table) in &desired.ports {
        let known = policies
            .ports
            .root(*id)
            .and_then(|root| kernel::port_table(root, |at| tables.ports.rows().get(&at).copied()));
        if known.is_none_or(|(known, _)| known != **table) {
            lines.push(format!("ports {:x}", id.number()));
            change.ports.insert(*id, Some(table.clone()));
        }
    }
    let stale = policies
        .ports
        .ids()
        .filter(|id| !desired.ports.contains_key(id));
    for id in stale.collect::<Vec<PortsId>>() {
        lines.push(format!("ports {:x} (removed)", id.number()));
        change.ports.insert(id, None);
    }
    let ports = desired.ports.keys();
    let roots = ports.filter_map(|id| Some((policies.ports.root(*id)?, *id)));
    let by_root: HashMap<u32, PortsId> = roots.collect();
    for (pair, row) in &desired.rules {
        let known = tables.pairs.rows().get(&kernel::pair_key(*pair));
        let known =
            known.and_then(|known| kernel::read_pair(known, |root| by_root.get(&root).copied()));
        if known.as_ref() != Some(&**row) {
            lines.push(format!("rule of {:?} for {:?}", pair.0, pair.1));
            change.rules.insert(*pair, Some(row.clone()));
        }
    }
    if scope == Scope::All {
        class_difference(maps, desired, &mut change, &mut lines);
    }
    for (address, row) in &desired.pods {
        if tables.pods.rows().get(&Address::from(*address)) != Some(&kernel::pod(*row)) {
            lines.push(format!("policies of pod {address}"));
            change.pods.insert(*address, Some(*row));
        }
    }
    for address in tables.pods.rows().keys().copied().map(IpAddr::from) {
        if !desired.pods.contains_key(&address) {
            lines.push(format!("policies of pod {address} (removed)"));
            change.pods.insert(address, None);
        }
    }
    (change, lines)
}

fn class_difference(
    maps: &Maps,
    desired: &PolicyTables,
    change: &mut PolicyChange,
    lines: &mut Vec<String>,
) {
    let tables = &maps.policy;
    for (net, class) in &desired.classes {
        if tables.classes.rows().get(&kernel::class_key(*net)) != Some(&class.number()) {
            lines.push(format!("class of {net}"));
            change.classes.insert(*net, Some(*class));
        }
    }
    for key in tables.classes.rows().keys() {
        if let Some(net) = kernel::class_net(*key)
            && !desired.classes.contains_key(&net)
            && !BASES.iter().any(|(base, _)| base == key)
        {
            lines.push(format!("class of {net} (removed)"));
            change.classes.insert(net, None);
        }
    }
}
