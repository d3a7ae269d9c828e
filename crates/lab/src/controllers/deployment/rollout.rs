//! From the old ReplicaSets to the new one, step by step.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Rollout;
use super::replica_sets::{available, create_new, refresh_new, replicas, resize};
use crate::controllers::int_or_percent::{Round, scaled};
use crate::controllers::plan::Plan;
use crate::controllers::pod;
use crate::controllers::world::World;

/// Ends all old pods, then starts the new ones.
pub(crate) fn recreate(world: &World, rollout: &mut Rollout<'_>, plan: &mut Plan) {
    let refreshed = refresh_new(rollout, plan);
    let mut scaled_down = false;
    for set in rollout.old.iter().filter(|set| replicas(set) > 0) {
        scaled_down |= resize(rollout, set, 0, plan);
    }
    if refreshed || scaled_down || old_pods_live(world, rollout) {
        return;
    }
    match rollout.new.clone() {
        None => create_new(world, rollout, plan),
        Some(set) => {
            resize(rollout, &set, rollout.wanted, plan);
        }
    }
}

fn old_pods_live(world: &World, rollout: &Rollout<'_>) -> bool {
    rollout.old.iter().any(|set| {
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        world
            .objects
            .pods
            .controlled_by(uid)
            .any(|pod| !pod::is_terminal(pod))
    })
}

/// One step of a rolling update: first up, then down.
pub(crate) fn roll(world: &World, rollout: &mut Rollout<'_>, plan: &mut Plan) {
    let Some(new) = rollout.new.clone() else {
        create_new(world, rollout, plan);
        return;
    };
    if refresh_new(rollout, plan) {
        return;
    }
    let total: i32 = rollout.sets().map(|set| replicas(set)).sum();
    let size = next_size(total, replicas(&new), rollout.wanted, max_surge(rollout));
    if resize(rollout, &new, size, plan) {
        return;
    }
    for (set, size) in shrink_old(rollout, &new, total) {
        resize(rollout, &set, size, plan);
    }
}

/// Replicas of the new set when `total` pods are wanted now by all sets.
fn next_size(total: i32, new: i32, wanted: i32, surge: i32) -> i32 {
    if new >= wanted {
        return wanted;
    }
    let room = (wanted + surge - total).max(0);
    new + room.min(wanted - new)
}

/// Replicas with which the new set is made.
pub(crate) fn first_size(rollout: &Rollout<'_>) -> i32 {
    if rollout.is_recreate() {
        return rollout.wanted;
    }
    let total = rollout.old.iter().map(|set| replicas(set)).sum();
    next_size(total, 0, rollout.wanted, max_surge(rollout))
}

/// New sizes of the old sets: pods that are not available anyway go first, then
/// as many as availability allows, from the oldest set on.
fn shrink_old(
    rollout: &Rollout<'_>,
    new: &Arc<ReplicaSet>,
    total: i32,
) -> Vec<(Arc<ReplicaSet>, i32)> {
    let least = rollout.wanted - max_unavailable(rollout);
    let new_unavailable = replicas(new) - available(new);
    let mut spare = total - least - new_unavailable;
    let mut sizes: Vec<i32> = rollout.old.iter().map(|set| replicas(set)).collect();
    if spare <= 0 || sizes.iter().all(|size| *size == 0) {
        return Vec::new();
    }
    for (set, size) in rollout.old.iter().zip(&mut sizes) {
        let unhealthy = (*size - available(set)).clamp(0, spare);
        *size -= unhealthy;
        spare -= unhealthy;
    }
    let all_available: i32 = rollout.sets().map(|set| available(set)).sum();
    let mut healthy = (all_available - least).max(0);
    for size in &mut sizes {
        let down = healthy.min(*size);
        *size -= down;
        healthy -= down;
    }
    let sized = rollout.old.iter().cloned().zip(sizes);
    sized.filter(|(set, size)| *size != replicas(set)).collect()
}

/// Pods that may exist beyond the wanted number.
pub(crate) fn max_surge(rollout: &Rollout<'_>) -> i32 {
    if rollout.is_recreate() {
        0
    } else {
        bounds(rollout).0
    }
}

/// Pods that may be missing from the wanted number.
pub(crate) fn max_unavailable(rollout: &Rollout<'_>) -> i32 {
    if rollout.is_recreate() || rollout.wanted == 0 {
        return 0;
    }
    bounds(rollout).1.min(rollout.wanted)
}

/// (surge, unavailable). Both at nothing would be a rollout that cannot move:
/// then one may be missing.
fn bounds(rollout: &Rollout<'_>) -> (i32, i32) {
    let strategy = rollout.spec.strategy.as_ref();
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let quarter = IntOrString::String("25%".to_owned());
    let part = |value: Option<&IntOrString>, round| {
        scaled(value.unwrap_or(&quarter), rollout.wanted, round)
    };
    let surge = part(
        rolling.and_then(|rolling| rolling.max_surge.as_ref()),
        Round::Up,
    );
    let missing = part(
        rolling.and_then(|rolling| rolling.max_unavailable.as_ref()),
        Round::Down,
    );
    if surge == 0 && missing == 0 {
        (0, 1)
    } else {
        (surge, missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_set_grows_into_the_room_there_is() {
        for (total, new, wanted, surge, expected) in [
            (0, 0, 3, 1, 3),
            (3, 0, 3, 1, 1),
            (4, 1, 3, 1, 1),
            (3, 1, 3, 1, 2),
            (3, 3, 3, 1, 3),
            (5, 5, 3, 1, 3),
            (10, 0, 5, 0, 0),
        ] {
            assert_eq!(
                next_size(total, new, wanted, surge),
                expected,
                "{total} {new} {wanted}"
            );
        }
    }
}
