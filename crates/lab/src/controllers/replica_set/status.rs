//! What a ReplicaSet reports.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{
    ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::controllers::count::{count, nonzero};
use crate::controllers::plan::Plan;
use crate::controllers::{pod, selector};

/// The condition that says that pods cannot be made.
pub(crate) const REPLICA_FAILURE: &str = "ReplicaFailure";

/// Plans the status that follows from `pods`, if it is not there already.
/// `failure` is why a pod could not be made.
pub(crate) fn write(
    set: &Arc<ReplicaSet>,
    spec: &ReplicaSetSpec,
    pods: &[Arc<Pod>],
    failure: Option<&str>,
    now: Timestamp,
    plan: &mut Plan,
) {
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let active = || pods.iter().filter(|pod| pod::is_active(pod));
    let template_labels = spec
        .template
        .as_ref()
        .and_then(|template| template.metadata.as_ref())
        .and_then(|meta| meta.labels.clone())
        .unwrap_or_default();
    let old = set.status.clone().unwrap_or_default();
    let fully_labeled =
        active().filter(|pod| selector::contains(&template_labels, pod.metadata.labels.as_ref()));
    let status = ReplicaSetStatus {
        replicas: count(active()),
        fully_labeled_replicas: nonzero(count(fully_labeled)),
        ready_replicas: nonzero(count(active().filter(|pod| pod::is_ready(pod)))),
        available_replicas: nonzero(count(
            active().filter(|pod| pod::is_available(pod, min_ready, now)),
        )),
        terminating_replicas: Some(count(pods.iter().filter(|pod| pod::is_terminating(pod)))),
        observed_generation: set.metadata.generation,
        conditions: conditions(&old, failure, now),
    };
    if status != old {
        let mut set = ReplicaSet::clone(set);
        set.status = Some(status);
        plan.update_status(set);
    }
    plan.look_again(pod::next_available(
        active().map(AsRef::as_ref),
        min_ready,
        now,
    ));
}

pub(crate) fn is_failure(condition: &ReplicaSetCondition) -> bool {
    condition.type_.as_deref() == Some(REPLICA_FAILURE)
}

fn conditions(
    old: &ReplicaSetStatus,
    failure: Option<&str>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let others = old
        .conditions
        .iter()
        .flatten()
        .filter(|one| !is_failure(one));
    let mut conditions: Vec<ReplicaSetCondition> = others.cloned().collect();
    if let Some(message) = failure {
        let told = old.conditions.iter().flatten().find(|one| is_failure(one));
        conditions.push(ReplicaSetCondition {
            type_: Some(REPLICA_FAILURE.to_owned()),
            status: Some("True".to_owned()),
            reason: Some("FailedCreate".to_owned()),
            message: Some(message.to_owned()),
            last_transition_time: told
                .and_then(|told| told.last_transition_time.clone())
                .or(Some(Time(now))),
        });
    }
    (!conditions.is_empty()).then_some(conditions)
}
