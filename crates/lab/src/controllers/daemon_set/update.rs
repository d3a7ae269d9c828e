//! From the old template to the new one, node by node.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Daemons;
use crate::controllers::count::count;
use crate::controllers::int_or_percent::{Round, scaled};
use crate::controllers::object::Object;
use crate::controllers::plan::Plan;
use crate::controllers::pod;

/// New pods start beside the old ones.
pub(crate) fn surges(daemons: &Daemons<'_>) -> bool {
    max_surge(daemons) > 0
}

fn rolling(daemons: &Daemons<'_>, pick: Pick, default: i32) -> i32 {
    let strategy = daemons.spec.update_strategy.as_ref();
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let value = rolling.and_then(|rolling| match pick {
        Pick::Surge => rolling.max_surge.clone(),
        Pick::Unavailable => rolling.max_unavailable.clone(),
    });
    let wanted = count(
        daemons
            .nodes
            .values()
            .filter(|place| place.wanted.should_run),
    );
    scaled(
        &value.unwrap_or(IntOrString::Int(default)),
        wanted,
        Round::Up,
    )
}

enum Pick {
    Surge,
    Unavailable,
}

fn max_surge(daemons: &Daemons<'_>) -> i32 {
    rolling(daemons, Pick::Surge, 0)
}

/// Plans the end of old pods, as many at a time as the strategy allows.
pub(crate) fn replace(daemons: &Daemons<'_>, plan: &mut Plan) {
    let strategy = daemons.spec.update_strategy.as_ref();
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
        return;
    }
    if surges(daemons) {
        surge(daemons, plan);
        return;
    }
    let wanted = || {
        daemons
            .nodes
            .values()
            .filter(|place| place.wanted.should_run)
    };
    let is_up = |pods: &[Arc<Pod>]| pods.iter().any(|pod| daemons.is_available(pod));
    let down = count(wanted().filter(|place| !is_up(&place.pods)));
    let mut budget = rolling(daemons, Pick::Unavailable, 1).max(1) - down;
    for pod in wanted().flat_map(|place| &place.pods) {
        if daemons.is_updated(pod) || !pod::is_active(pod) {
            continue;
        }
        let costs = daemons.is_available(pod);
        if costs && budget <= 0 {
            continue;
        }
        budget -= i32::from(costs);
        plan.delete(&Object::Pod(pod.clone()), daemons.report());
    }
}

fn surge(daemons: &Daemons<'_>, plan: &mut Plan) {
    let is_surging = |pods: &[Arc<Pod>]| {
        pods.iter().any(|pod| daemons.is_updated(pod))
            && pods.iter().any(|pod| !daemons.is_updated(pod))
    };
    let surging = daemons
        .nodes
        .values()
        .filter(|place| is_surging(&place.pods));
    let mut budget = max_surge(daemons) - count(surging);
    for (name, place) in daemons
        .nodes
        .iter()
        .filter(|(_, place)| place.wanted.should_run)
    {
        let fresh = place.pods.iter().find(|pod| daemons.is_updated(pod));
        let Some(old) = place
            .pods
            .iter()
            .find(|pod| !daemons.is_updated(pod) && pod::is_active(pod))
        else {
            continue;
        };
        match fresh {
            Some(fresh) if daemons.is_available(fresh) => {
                plan.delete(&Object::Pod(old.clone()), daemons.report());
            }
            Some(_) => {}
            // One that does not work need not be waited for.
            None if !daemons.is_available(old) || budget > 0 => {
                budget -= 1;
                plan.create(daemons.new_pod(name), daemons.report());
            }
            None => {}
        }
    }
}
