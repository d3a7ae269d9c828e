//! What a Deployment reports.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus};

use super::Rollout;
use super::conditions;
use super::replica_sets::{actual, available, replicas};
use crate::controllers::count::nonzero;
use crate::controllers::plan::{Action, Plan};

fn counts(rollout: &Rollout<'_>) -> DeploymentStatus {
    let sum = |of: &dyn Fn(&_) -> i32| rollout.sets().map(of).sum::<i32>();
    let reported = |of: fn(&k8s_openapi::api::apps::v1::ReplicaSetStatus) -> Option<i32>| {
        let statuses = rollout.sets().filter_map(|set| set.status.as_ref());
        statuses.filter_map(of).sum::<i32>()
    };
    let available = sum(&|set| available(set));
    let wanted = sum(&|set| replicas(set));
    DeploymentStatus {
        replicas: nonzero(sum(&|set| actual(set))),
        updated_replicas: nonzero(rollout.new.as_ref().map_or(0, |set| actual(set))),
        ready_replicas: nonzero(reported(|status| status.ready_replicas)),
        available_replicas: nonzero(available),
        unavailable_replicas: nonzero((wanted - available).max(0)),
        terminating_replicas: Some(reported(|status| status.terminating_replicas)),
        observed_generation: rollout.deployment.metadata.generation,
        collision_count: rollout
            .deployment
            .status
            .as_ref()
            .and_then(|s| s.collision_count),
        conditions: None,
    }
}

/// All pods are new and available.
pub(crate) fn is_complete(rollout: &Rollout<'_>) -> bool {
    complete(rollout, &counts(rollout))
}

fn complete(rollout: &Rollout<'_>, status: &DeploymentStatus) -> bool {
    rollout.new.is_some()
        && [
            status.updated_replicas,
            status.replicas,
            status.available_replicas,
        ]
        .iter()
        .all(|count| count.unwrap_or(0) == rollout.wanted)
}

/// Plans the status that follows from the sets, if it is not there already.
pub(crate) fn write(rollout: &Rollout<'_>, plan: &mut Plan) {
    let collides = plan
        .actions
        .iter()
        .any(|action| matches!(action, Action::UpdateStatus(_)));
    if collides {
        return;
    }
    let mut status = counts(rollout);
    let complete = complete(rollout, &status);
    status.conditions = conditions::write(rollout, &status, complete, plan);
    if Some(&status) != rollout.deployment.status.as_ref() {
        let mut deployment = Deployment::clone(rollout.deployment);
        deployment.status = Some(status);
        plan.update_status(deployment);
    }
}
