//! Another number of replicas, also in the middle of a rollout.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;

use super::Rollout;
use super::replica_sets::{DESIRED, replicas, resize};
use super::rollout::max_surge;
use crate::controllers::object::annotation;
use crate::controllers::plan::Plan;

/// Whether the wanted number has changed since the sets were last sized.
pub(crate) fn is_due(rollout: &Rollout<'_>) -> bool {
    rollout.sets().filter(|set| replicas(set) > 0).any(|set| {
        let desired = annotation(&set.metadata, DESIRED).and_then(|text| text.parse().ok());
        desired.is_some_and(|desired: i32| desired != rollout.wanted)
    })
}

/// Shares the difference among the sets that have replicas, in proportion to
/// their sizes, so that a rollout that stands still keeps its mixture.
pub(crate) fn proportionally(rollout: &Rollout<'_>, plan: &mut Plan) {
    let active: Vec<&Arc<ReplicaSet>> = rollout.sets().filter(|set| replicas(set) > 0).collect();
    // A single set, or nothing but the newest, takes all.
    let only = match active[..] {
        [] => rollout.new.as_ref().or(rollout.old.last()),
        [one] => Some(one),
        _ => None,
    };
    if let Some(set) = only {
        resize(rollout, set, rollout.wanted, plan);
        return;
    }
    if rollout
        .new
        .as_ref()
        .is_some_and(|new| is_saturated(new, rollout.wanted))
    {
        for set in rollout.old.iter().filter(|set| replicas(set) > 0) {
            resize(rollout, set, 0, plan);
        }
        return;
    }
    if rollout.is_recreate() {
        return;
    }
    let most = if rollout.wanted > 0 {
        rollout.wanted + max_surge(rollout)
    } else {
        0
    };
    let sizes: Vec<i32> = active.iter().map(|set| replicas(set)).collect();
    for (set, size) in active.into_iter().zip(shares(&sizes, most)) {
        resize(rollout, set, size, plan);
    }
}

fn is_saturated(set: &ReplicaSet, wanted: i32) -> bool {
    let desired = annotation(&set.metadata, DESIRED).and_then(|text| text.parse().ok());
    let available = super::replica_sets::available(set);
    replicas(set) == wanted && desired == Some(wanted) && available == wanted
}

/// New sizes with the sum `most`, each near its share; the largest takes what
/// rounding leaves.
fn shares(sizes: &[i32], most: i32) -> Vec<i32> {
    let total: i64 = sizes.iter().map(|size| i64::from(*size)).sum();
    let share = |size: i32| {
        let exact = 2 * i64::from(size) * i64::from(most) + total;
        i32::try_from(exact.div_euclid(2 * total.max(1))).unwrap_or(i32::MAX)
    };
    let mut shares: Vec<i32> = sizes.iter().map(|size| share(*size)).collect();
    let rest = most - shares.iter().sum::<i32>();
    let largest = (0..sizes.len()).max_by_key(|index| (sizes[*index], usize::MAX - index));
    if let Some(share) = largest.and_then(|index| shares.get_mut(index)) {
        *share = (*share + rest).max(0);
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_keep_proportion() {
        for (sizes, most, expected) in [
            (vec![5, 5], 20, vec![10, 10]),
            (vec![8, 2], 15, vec![12, 3]),
            (vec![3, 3, 3], 10, vec![4, 3, 3]),
            (vec![10, 1], 5, vec![5, 0]),
            (vec![3, 1], 0, vec![0, 0]),
        ] {
            let shares = shares(&sizes, most);
            assert_eq!(shares, expected, "{sizes:?} to {most}");
            assert_eq!(shares.iter().sum::<i32>(), most);
        }
    }
}
