//! Which addresses are inside of the cluster, and which are not.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use ripstop_abi::{
    Address, RANGE_EXCLUDED, RANGE_NODE, RANGE_OUTSIDE, RANGE_PODS, RANGE_SERVICES, RouteKey,
};
use ripstop_plan::Range;

use super::maps::Maps;
use super::route_key;
use crate::Error;

/// Writes the ranges that changed.
///
/// # Errors
/// The first; the other ranges are in place.
pub(crate) fn apply(
    maps: &mut Maps,
    changed: &BTreeMap<IpNet, Option<Range>>,
) -> Result<(), Error> {
    if changed.is_empty() {
        return Ok(());
    }
    let mut result = Ok(());
    for (net, range) in changed {
        let key = route_key(net);
        let outcome = match range {
            Some(range) => maps
                .ranges
                .put(key, number(*range), || format!("range {net}")),
            None => maps.ranges.remove(&key),
        };
        result = result.and(outcome.map(drop));
    }
    for (_, outcome) in everything_else(maps) {
        result = result.and(outcome.map(drop));
    }
    result
}

/// Makes the kernel have these ranges. Gives each row with whether it was
/// repaired.
pub(crate) fn audit(
    maps: &mut Maps,
    desired: &BTreeMap<IpNet, Range>,
) -> Vec<(String, Result<bool, Error>)> {
    let mut done = Vec::new();
    for (net, range) in desired {
        let row = || format!("range {net}");
        let outcome = maps.ranges.put(route_key(net), number(*range), row);
        done.push((row(), outcome));
    }
    let wanted: BTreeSet<RouteKey> = desired.keys().map(route_key).chain(families()).collect();
    let known = maps.ranges.rows().keys();
    let stale: Vec<RouteKey> = known.filter(|key| !wanted.contains(key)).copied().collect();
    for key in stale {
        done.push((format!("range {key:?} (removed)"), maps.ranges.remove(&key)));
    }
    done.extend(everything_else(maps));
    done
}

/// All IPv4 addresses, and all others.
fn families() -> [RouteKey; 2] {
    [(96, Address::v4(0)), (0, Address::default())].map(|(prefix_len, address)| RouteKey {
        prefix_len,
        address,
    })
}

/// What is in no range is outside, but only of a family that the cluster has
/// pods of: before it is known where pods are, nobody can tell.
fn everything_else(maps: &mut Maps) -> [(String, Result<bool, Error>); 2] {
    families().map(|family| {
        let of_family = |key: &RouteKey| key.address.is_v4() == (family.prefix_len != 0);
        let mut rows = maps.ranges.rows().iter();
        let has_pods = rows.any(|(key, range)| *range == RANGE_PODS && of_family(key));
        let name = || format!("range of everything else, {} bits", family.prefix_len);
        let outcome = match maps.ranges.rows().get(&family) {
            // The plan has a range of its own for everything.
            Some(range) if *range != RANGE_OUTSIDE => Ok(false),
            _ if has_pods => maps.ranges.put(family, RANGE_OUTSIDE, name),
            _ => maps.ranges.remove(&family),
        };
        (name(), outcome)
    })
}

const fn number(range: Range) -> u32 {
    match range {
        Range::Pods => RANGE_PODS,
        Range::Node => RANGE_NODE,
        Range::Services => RANGE_SERVICES,
        Range::Excluded => RANGE_EXCLUDED,
    }
}
