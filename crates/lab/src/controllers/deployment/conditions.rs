//! A Deployment's conditions: `Available`, `Progressing`, `ReplicaFailure`.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::Rollout;
use super::rollout::max_unavailable;
use crate::controllers::plan::Plan;
use crate::controllers::replica_set::{REPLICA_FAILURE, is_failure};

const PROGRESSING: &str = "Progressing";
const COMPLETE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

/// What the `Progressing` condition says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    status: &'static str,
    reason: &'static str,
    message: String,
}

impl Progress {
    pub(crate) fn created(set: &str) -> Self {
        let message = format!("Created new replica set \"{set}\"");
        Self {
            status: "True",
            reason: "NewReplicaSetCreated",
            message,
        }
    }

    pub(crate) fn found(set: &ReplicaSet) -> Self {
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let message = format!("Found new replica set \"{name}\"");
        Self {
            status: "True",
            reason: "FoundNewReplicaSet",
            message,
        }
    }

    fn of_set(
        rollout: &Rollout<'_>,
        status: &'static str,
        reason: &'static str,
        what: &str,
    ) -> Self {
        let subject = match &rollout.new {
            Some(set) => format!(
                "ReplicaSet \"{}\"",
                set.metadata.name.as_deref().unwrap_or_default()
            ),
            None => {
                let name = rollout
                    .deployment
                    .metadata
                    .name
                    .as_deref()
                    .unwrap_or_default();
                format!("Deployment \"{name}\"")
            }
        };
        Self {
            status,
            reason,
            message: format!("{subject} {what}"),
        }
    }
}

fn find<'a>(deployment: &'a Deployment, kind: &str) -> Option<&'a DeploymentCondition> {
    deployment
        .status
        .as_ref()?
        .conditions
        .iter()
        .flatten()
        .find(|one| is(one, kind))
}

fn is(condition: &DeploymentCondition, kind: &str) -> bool {
    condition.type_.as_deref() == Some(kind)
}

pub(crate) fn has_progress(deployment: &Deployment) -> bool {
    find(deployment, PROGRESSING).is_some()
}

/// Pausing stops the clock of the deadline, resuming restarts it.
pub(crate) fn note_pause(rollout: &mut Rollout<'_>, paused: bool) {
    if rollout.spec.progress_deadline_seconds.is_none() {
        return;
    }
    let told = find(rollout.deployment, PROGRESSING);
    let reason = told.and_then(|told| told.reason.as_deref());
    if reason == Some(TIMED_OUT) {
        return;
    }
    let note = |reason, message: &str| {
        Some(Progress {
            status: "Unknown",
            reason,
            message: message.to_owned(),
        })
    };
    match (paused, reason == Some(PAUSED)) {
        (true, false) => rollout.progress = note(PAUSED, "Deployment is paused"),
        (false, true) => rollout.progress = note("DeploymentResumed", "Deployment is resumed"),
        _ => {}
    }
}

/// All conditions for a status whose counts are final.
pub(crate) fn write(
    rollout: &Rollout<'_>,
    status: &DeploymentStatus,
    complete: bool,
    plan: &mut Plan,
) -> Option<Vec<DeploymentCondition>> {
    let mut conditions = Vec::new();
    conditions.push(available(rollout, status));
    conditions.extend(progressing(rollout, status, complete, plan));
    conditions.extend(failure(rollout));
    Some(conditions)
}

fn available(rollout: &Rollout<'_>, status: &DeploymentStatus) -> DeploymentCondition {
    let least = rollout.wanted - max_unavailable(rollout);
    let (state, reason, message) = if status.available_replicas.unwrap_or(0) >= least {
        (
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        )
    } else {
        (
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        )
    };
    let told = find(rollout.deployment, "Available");
    if let Some(told) = told.filter(|told| says(told, state, reason)) {
        return told.clone();
    }
    condition(
        rollout.now,
        "Available",
        state,
        reason,
        message.to_owned(),
        told,
    )
}

fn says(told: &DeploymentCondition, status: &str, reason: &str) -> bool {
    told.status.as_deref() == Some(status) && told.reason.as_deref() == Some(reason)
}

/// `told` keeps the time of the last transition while the status stays.
fn condition(
    now: Timestamp,
    kind: &str,
    status: &str,
    reason: &str,
    message: String,
    told: Option<&DeploymentCondition>,
) -> DeploymentCondition {
    let since = told.filter(|told| told.status.as_deref() == Some(status));
    DeploymentCondition {
        type_: Some(kind.to_owned()),
        status: Some(status.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: since
            .and_then(|told| told.last_transition_time.clone())
            .or(Some(Time(now))),
    }
}

fn progressing(
    rollout: &Rollout<'_>,
    status: &DeploymentStatus,
    complete: bool,
    plan: &mut Plan,
) -> Option<DeploymentCondition> {
    let deadline = rollout.spec.progress_deadline_seconds?;
    let told = find(rollout.deployment, PROGRESSING);
    let write = |progress: Progress| {
        let Progress {
            status,
            reason,
            message,
        } = progress;
        Some(condition(
            rollout.now,
            PROGRESSING,
            status,
            reason,
            message,
            told,
        ))
    };
    if let Some(progress) = rollout.progress.clone() {
        return write(progress);
    }
    if rollout.spec.paused == Some(true) {
        return told.cloned();
    }
    if complete {
        let what = "has successfully progressed.";
        let progress = Progress::of_set(rollout, "True", COMPLETE, what);
        let same = told.filter(|told| {
            says(told, "True", COMPLETE) && told.message.as_ref() == Some(&progress.message)
        });
        return same.cloned().or_else(|| write(progress));
    }
    let old = rollout.deployment.status.clone().unwrap_or_default();
    if has_progressed(&old, status) {
        return write(Progress::of_set(
            rollout,
            "True",
            "ReplicaSetUpdated",
            "is progressing.",
        ));
    }
    let told = told?;
    // A finished rollout that loses a pod is not late.
    if told.reason.as_deref() == Some(COMPLETE) || says(told, "False", TIMED_OUT) {
        return Some(told.clone());
    }
    let since = told
        .last_update_time
        .as_ref()
        .map_or(rollout.now, |time| time.0);
    let due = since
        .checked_add(SignedDuration::from_secs(deadline.into()))
        .ok()?;
    if due <= rollout.now {
        return write(Progress::of_set(
            rollout,
            "False",
            TIMED_OUT,
            "has timed out progressing.",
        ));
    }
    plan.look_again(Some(due));
    Some(told.clone())
}

/// More new pods, fewer old ones, more ready or available.
fn has_progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let n = |count: Option<i32>| count.unwrap_or(0);
    n(new.updated_replicas) > n(old.updated_replicas)
        || n(new.replicas) - n(new.updated_replicas) < n(old.replicas) - n(old.updated_replicas)
        || n(new.ready_replicas) > n(old.ready_replicas)
        || n(new.available_replicas) > n(old.available_replicas)
}

/// Why pods cannot be made, of the newest set that says so.
fn failure(rollout: &Rollout<'_>) -> Option<DeploymentCondition> {
    let sets = rollout.new.iter().chain(rollout.old.iter().rev());
    let failed = sets
        .filter_map(|set| set.status.as_ref()?.conditions.as_ref())
        .flatten()
        .find(|one| is_failure(one))?;
    let told = find(rollout.deployment, REPLICA_FAILURE);
    let reason = failed.reason.clone().unwrap_or_default();
    if let Some(told) = told.filter(|told| told.message == failed.message) {
        return Some(told.clone());
    }
    let message = failed.message.clone().unwrap_or_default();
    Some(condition(
        rollout.now,
        REPLICA_FAILURE,
        failed.status.as_deref().unwrap_or("True"),
        &reason,
        message,
        told,
    ))
}
