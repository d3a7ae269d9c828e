//! The kernel against the plan.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ripstop_model::LocalPod;
use ripstop_netlink::nftables::Family;
use ripstop_plan::{Frontend, FrontendRow, Tables};

use super::class::Class;
use super::readback::{self, Raw, Scope};
use super::rows::Placed;
use super::rules::{self, Chain};
use super::sets::{FAMILIES, Set};
use super::write::{Changes, id};
use super::{NftEngine, TABLE, keys, pods, policy, refused, sources};
use crate::engine::{Drift, Error};

/// Reads sets back and makes them what they should be.
pub(super) fn audit(
    engine: &mut NftEngine,
    desired: &Tables,
    local: &[LocalPod],
    scope: Scope,
) -> Result<Drift, Error> {
    let mut repaired = BTreeSet::new();
    engine.pods = local
        .iter()
        .map(|pod| (pod.container_id.clone(), pod.clone()))
        .collect();
    let wanted = wanted(engine, desired);
    let (mut changes, raw) = begin(engine, scope, &mut repaired)?;

    // What is there that no row accounts for, first of all: it may be in the way.
    let expected = expected(engine);
    for (set, elements) in &raw {
        for (id, element) in elements {
            let known = expected.get(set).is_some_and(|ids| ids.contains(id));
            let by_themselves = set.0 == Set::Classes
                || super::ranges::SETS.contains(&set.0)
                || policy::SETS.contains(&set.0)
                || sources::is_set(set.0)
                || set.0 == Set::Segments;
            if !known && !by_themselves {
                changes.delete(*set, element.clone());
                repaired.insert(name(&wanted, set.0, set.1, &element.key));
            }
        }
    }
    // Rows of which the kernel has something else than they say.
    let damaged: Vec<Frontend> = engine
        .frontends
        .iter()
        .filter(|(frontend, placed)| is_damaged(&raw, frontend, placed))
        .map(|(frontend, _)| *frontend)
        .collect();
    for frontend in damaged {
        // As if only that was there which is.
        let placed = engine.frontends.remove(&frontend);
        let family = Family::of(&frontend.address);
        for (set, element) in placed.iter().flat_map(|p| p.elements(&frontend)) {
            let there = raw.get(&(set, family)).and_then(|e| e.get(&id(&element)));
            if let Some(there) = there {
                changes.delete((set, family), there.clone());
            }
        }
        if let Some(placed) = placed
            && let Some(count) = engine.classes.get_mut(&(family, placed.class()))
        {
            *count = count.saturating_sub(1);
        }
    }

    let before: BTreeSet<IpAddr> = engine.addresses.keys().copied().collect();
    let mut addresses: BTreeMap<IpAddr, &str> = BTreeMap::new();
    for pod in local {
        addresses.extend(
            pod.addresses
                .iter()
                .map(|ip| (*ip, pod.container_id.as_str())),
        );
    }
    for address in before.iter().chain(addresses.keys()) {
        let now = addresses.get(address).copied();
        if engine.addresses.get(address).map(String::as_str) != now {
            let removed = if now.is_none() { " (removed)" } else { "" };
            repaired.insert(format!("endpoint {address}{removed}"));
            engine.change_address(&mut changes, *address, now);
        }
    }
    engine.policies.audit(
        &mut changes,
        &raw,
        &desired.policy,
        addresses.keys().copied(),
        &mut repaired,
    );
    for family in FAMILIES {
        engine.segments.write(&mut changes, family);
    }
    engine.sources.audit(&mut changes, local, &mut repaired);
    engine.ranges.clone_from(&desired.ranges);
    for (set, family) in engine.write_ranges(&mut changes) {
        repaired.insert(format!("ranges {}", set.name(family)));
    }

    let stale: Vec<Frontend> = engine
        .frontends
        .keys()
        .filter(|frontend| !wanted.contains_key(frontend))
        .copied()
        .collect();
    let rows = wanted
        .into_iter()
        .map(|(frontend, row)| (frontend, Some(row)))
        .chain(stale.into_iter().map(|frontend| (frontend, None)));
    let mut pending = Vec::new();
    for (frontend, row) in rows {
        let before = engine.frontends.get(&frontend);
        let after = row.map(|(row, port)| Placed::new(row, port, before, &mut engine.known));
        if before == after.as_ref() {
            continue;
        }
        let removed = if after.is_none() { " (removed)" } else { "" };
        repaired.insert(format!("frontend {frontend}{removed}"));
        pending.push(engine.gather(&mut changes, frontend, after));
        if engine.is_large(&changes) && !changes.is_anew() {
            engine.finish(&mut changes, std::mem::take(&mut pending))?;
        }
    }
    engine.finish(&mut changes, pending)?;
    engine.takeover_pending = false;
    let frontends = &engine.frontends;
    super::state::forget_counted(engine.nftables.get_mut(), |frontend, backend| {
        let placed = frontends.get(frontend);
        placed.is_some_and(|placed| placed.backends().any(|b| b == backend))
    })?;
    Ok(Drift {
        repaired: repaired.into_iter().collect(),
    })
}

/// Every row that there is to be: services, and ports of pods before them.
fn wanted(engine: &mut NftEngine, desired: &Tables) -> BTreeMap<Frontend, (FrontendRow, bool)> {
    let mut wanted: BTreeMap<_, _> = desired
        .frontends
        .iter()
        .map(|(frontend, row)| (*frontend, (row.clone(), false)))
        .collect();
    engine.hidden.clear();
    for pod in engine.pods.values() {
        for (frontend, row) in pods::host_ports(pod, &engine.config.node_addresses) {
            let hidden = wanted.insert(frontend, (row, true));
            if let Some((row, false)) = hidden {
                engine.hidden.insert(frontend, row);
            }
        }
    }
    wanted
}

/// Chains as they should be, and what the kernel has in its sets.
fn begin(
    engine: &mut NftEngine,
    scope: Scope,
    repaired: &mut BTreeSet<String>,
) -> Result<(Changes, Raw), Error> {
    let schema = engine.schema();
    let comment = engine.nftables.get_mut().table(TABLE).map_err(refused)?;
    let is_ours = comment.is_some_and(|comment| comment.starts_with(&schema));
    if !is_ours || !base_is_whole(engine)? {
        repaired.insert(format!("table {TABLE}"));
        return Ok((engine.anew()?, Raw::new()));
    }
    let mut changes = Changes::default();
    let raw = engine.read_back(scope)?;
    let rules = rules(engine)?;
    let led_to = readback::classes(&raw);
    let broken: Vec<(Family, Class)> = engine
        .classes
        .keys()
        .copied()
        .filter(|(family, class)| {
            let chains = rules::class(*family, *class);
            !led_to.contains(&(*family, *class))
                || !chains.iter().all(|chain| is_whole(chain, &rules))
        })
        .collect();
    // Who leads there is led there again.
    for (family, class) in broken {
        repaired.insert(format!("chain {}", class.chain(family)));
        changes.repair_class(family, class, &raw);
    }
    let known: BTreeSet<String> = engine
        .classes
        .keys()
        .flat_map(|(family, class)| {
            let chains = rules::class(*family, *class);
            chains.into_iter().map(|chain| chain.name)
        })
        .chain(base(engine).into_iter().map(|chain| chain.name))
        .collect();
    for chain in rules.keys().filter(|chain| !known.contains(*chain)) {
        repaired.insert(format!("chain {chain} (removed)"));
        changes.remove_chain(chain.clone());
    }
    Ok((changes, raw))
}

fn base(engine: &NftEngine) -> Vec<Chain> {
    let policies = &engine.policies;
    let policies = policy::base(policies.settings.deny, policies.generation);
    rules::base(&engine.config.node_addresses, policies)
}

/// What rules are for, by chain.
fn rules(engine: &mut NftEngine) -> Result<BTreeMap<String, Vec<String>>, Error> {
    let nftables = engine.nftables.get_mut();
    let mut rules: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for chain in nftables.chains(TABLE).map_err(refused)? {
        rules.insert(chain, Vec::new());
    }
    for rule in nftables.rules(TABLE).map_err(refused)? {
        rules.entry(rule.chain).or_default().push(rule.comment);
    }
    Ok(rules)
}

fn is_whole(chain: &Chain, rules: &BTreeMap<String, Vec<String>>) -> bool {
    let there = rules.get(&chain.name);
    there.is_some_and(|there| chain.rules.iter().map(|rule| &rule.what).eq(there))
}

/// Base chains with all rules, and all sets.
fn base_is_whole(engine: &mut NftEngine) -> Result<bool, Error> {
    let rules = rules(engine)?;
    let sets = engine.nftables.get_mut().sets(TABLE).map_err(refused)?;
    let has_sets = FAMILIES.iter().all(|family| {
        let mut names = super::sets::ALL.iter().map(|set| set.name(*family));
        names.all(|name| sets.iter().any(|set| set == name))
    });
    let has_sets = has_sets && {
        let mut names = super::pressure::SETS.iter().map(|set| set.name);
        names.all(|name| sets.iter().any(|set| set == name))
    };
    Ok(has_sets && base(engine).iter().all(|chain| is_whole(chain, &rules)))
}

/// The elements that the rows and pods account for.
fn expected(
    engine: &NftEngine,
) -> BTreeMap<super::write::SetOf, BTreeSet<super::write::ElementId>> {
    let mut expected: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for (frontend, placed) in &engine.frontends {
        let family = Family::of(&frontend.address);
        for (set, element) in placed.elements(frontend) {
            expected
                .entry((set, family))
                .or_default()
                .insert(id(&element));
        }
    }
    for (address, container) in &engine.addresses {
        for (set, element) in pods::elements(*address, container) {
            expected
                .entry((set, Family::of(address)))
                .or_default()
                .insert(id(&element));
        }
    }
    expected
}

fn is_damaged(raw: &Raw, frontend: &Frontend, placed: &Placed) -> bool {
    let family = Family::of(&frontend.address);
    placed.elements(frontend).iter().any(|(set, wanted)| {
        let there = raw.get(&(*set, family)).and_then(|e| e.get(&id(wanted)));
        !there.is_some_and(|there| super::write::is_same(there, wanted))
    })
}

/// What an element is of that has no business there.
fn name(
    wanted: &BTreeMap<Frontend, (FrontendRow, bool)>,
    set: Set,
    family: Family,
    key: &[u8],
) -> String {
    let frontend = key.get(set.frontend_at(family)..);
    match frontend.and_then(|frontend| keys::read_frontend(family, frontend)) {
        // There is to be such a row, but not with this.
        Some((frontend, _)) if wanted.contains_key(&frontend) => format!("frontend {frontend}"),
        Some((frontend, _)) => format!("frontend {frontend} (removed)"),
        None => match key.get(..keys::length(family)).and_then(keys::read_address) {
            Some(address) => format!("endpoint {address} (removed)"),
            None => format!("element of {} (removed)", set.name(family)),
        },
    }
}
