//! Whether a Job goes on, is done, or has failed.

use k8s_openapi::jiff::SignedDuration;

use super::{Work, status};
use crate::controllers::plan::Plan;
use crate::controllers::pod;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Running,
    Suspended,
    Succeeded,
    Failed {
        reason: &'static str,
        message: &'static str,
    },
}

const BACKOFF: Verdict = Verdict::Failed {
    reason: "BackoffLimitExceeded",
    message: "Job has reached the specified backoff limit",
};
const DEADLINE: Verdict = Verdict::Failed {
    reason: "DeadlineExceeded",
    message: "Job was active longer than specified deadline",
};

/// What was decided once (and is only waiting for pods to end) stays decided.
pub(crate) fn judge(work: &Work<'_>, plan: &mut Plan) -> Verdict {
    if let Some(reason) = status::failure_target(work.job) {
        return if reason == "DeadlineExceeded" {
            DEADLINE
        } else {
            BACKOFF
        };
    }
    if status::has_met_criteria(work.job) || has_succeeded(work) {
        return Verdict::Succeeded;
    }
    if past_backoff_limit(work) {
        return BACKOFF;
    }
    if work.spec.suspend == Some(true) {
        return Verdict::Suspended;
    }
    let started = work
        .job
        .status
        .as_ref()
        .and_then(|status| status.start_time.as_ref());
    if let Some(seconds) = work.spec.active_deadline_seconds {
        let start = started.map_or(work.now, |time| time.0);
        match start.checked_add(SignedDuration::from_secs(seconds)) {
            Ok(due) if due <= work.now => return DEADLINE,
            Ok(due) => plan.look_again(Some(due)),
            Err(_) => {}
        }
    }
    Verdict::Running
}

fn has_succeeded(work: &Work<'_>) -> bool {
    let succeeded = work.succeeded();
    match work.spec.completions {
        Some(completions) => succeeded >= completions,
        // A work queue is empty when one worker says so and all have ended.
        None => succeeded > 0 && work.active().next().is_none(),
    }
}

fn past_backoff_limit(work: &Work<'_>) -> bool {
    let limit = work.spec.backoff_limit.unwrap_or(6);
    let template = work.spec.template.spec.as_ref();
    let restarts_in_place =
        template.and_then(|spec| spec.restart_policy.as_deref()) == Some("OnFailure");
    let restarts: i32 = if restarts_in_place {
        work.active().map(|pod| pod::restarts(pod)).sum()
    } else {
        0
    };
    work.failed() > limit || (restarts > 0 && restarts >= limit)
}
