//! How many old ReplicaSets are kept to roll back to.

use super::Rollout;
use super::replica_sets::{actual, replicas, revision};
use crate::controllers::object::Object;
use crate::controllers::plan::Plan;

/// Plans the deletion of empty old sets beyond `revisionHistoryLimit`, those of
/// the lowest revisions first.
pub(crate) fn clean_up(rollout: &Rollout<'_>, plan: &mut Plan) {
    let limit = usize::try_from(rollout.spec.revision_history_limit.unwrap_or(10)).unwrap_or(0);
    let mut sets: Vec<_> = rollout
        .old
        .iter()
        .filter(|set| set.metadata.deletion_timestamp.is_none())
        .collect();
    sets.sort_by_key(|set| revision(set));
    let surplus = sets.len().saturating_sub(limit);
    for set in sets.into_iter().take(surplus) {
        let observed = set
            .status
            .as_ref()
            .and_then(|status| status.observed_generation);
        if replicas(set) == 0 && actual(set) == 0 && observed >= set.metadata.generation {
            plan.delete(&Object::ReplicaSet(set.clone()), None);
        }
    }
}
