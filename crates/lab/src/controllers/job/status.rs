//! What a Job reports.

use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus, UncountedTerminatedPods};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::outcome::{Verdict, judge};
use super::{Work, event, indexes};
use crate::controllers::count::{count, nonzero};
use crate::controllers::plan::Plan;
use crate::controllers::pod;

fn condition<'a>(job: &'a Job, kind: &str) -> Option<&'a JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .find(|one| one.type_ == kind && one.status == "True")
}

/// When the Job completed or failed for good.
pub(crate) fn finished_at(job: &Job) -> Option<Timestamp> {
    let finished = condition(job, "Complete").or_else(|| condition(job, "Failed"))?;
    finished.last_transition_time.as_ref().map(|time| time.0)
}

/// Why the Job is to fail as soon as its pods have ended.
pub(crate) fn failure_target(job: &Job) -> Option<&str> {
    condition(job, "FailureTarget")?.reason.as_deref()
}

/// The Job is complete as soon as its surplus pods have ended.
pub(crate) fn has_met_criteria(job: &Job) -> bool {
    condition(job, "SuccessCriteriaMet").is_some()
}

/// Plans the status that follows from the pods, and the events of its turns.
pub(crate) fn write(work: &Work<'_>, plan: &mut Plan) {
    let old = work.job.status.clone().unwrap_or_default();
    let mut conditions = Conditions {
        list: old.conditions.clone().unwrap_or_default(),
        now: work.now,
    };
    let mut status = JobStatus {
        active: nonzero(count(work.active())),
        ready: Some(count(work.active().filter(|pod| pod::is_ready(pod)))),
        terminating: Some(count(work.terminating())),
        succeeded: nonzero(work.succeeded()),
        failed: nonzero(work.failed()),
        completed_indexes: work
            .is_indexed()
            .then(|| indexes::completed(work).to_string())
            .filter(|text| !text.is_empty()),
        start_time: old.start_time.clone().or(Some(Time(work.now))),
        uncounted_terminated_pods: Some(UncountedTerminatedPods::default()),
        ..old.clone()
    };
    let all_ended = work.active().chain(work.terminating()).next().is_none();
    match judge(work, &mut Plan::default()) {
        Verdict::Running => {
            if conditions.is_true("Suspended") {
                conditions.set("Suspended", "False", "JobResumed", "Job resumed");
                status.start_time = Some(Time(work.now));
                plan.record(event(work, false, "Resumed", "Job resumed"));
            }
        }
        Verdict::Suspended => {
            status.start_time = None;
            if !conditions.is_true("Suspended") {
                conditions.set("Suspended", "True", "JobSuspended", "Job suspended");
                plan.record(event(work, false, "Suspended", "Job suspended"));
            }
        }
        Verdict::Succeeded => {
            let message = "Reached expected number of succeeded pods";
            conditions.set("SuccessCriteriaMet", "True", "CompletionsReached", message);
            if all_ended {
                conditions.set("Complete", "True", "CompletionsReached", message);
                status.completion_time = Some(Time(work.now));
                plan.record(event(work, false, "Completed", "Job completed"));
            }
        }
        Verdict::Failed { reason, message } => {
            conditions.set("FailureTarget", "True", reason, message);
            if all_ended {
                conditions.set("Failed", "True", reason, message);
                plan.record(event(work, true, reason, message));
            }
        }
    }
    status.conditions = (!conditions.list.is_empty()).then_some(conditions.list);
    if Some(&status) != work.job.status.as_ref() {
        let mut job = Job::clone(work.job);
        job.status = Some(status);
        plan.update_status(job);
    }
}

struct Conditions {
    list: Vec<JobCondition>,
    now: Timestamp,
}

impl Conditions {
    fn is_true(&self, kind: &str) -> bool {
        self.list
            .iter()
            .any(|one| one.type_ == kind && one.status == "True")
    }

    fn set(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        if self
            .list
            .iter()
            .any(|one| one.type_ == kind && one.status == status)
        {
            return;
        }
        self.list.retain(|one| one.type_ != kind);
        self.list.push(JobCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_probe_time: Some(Time(self.now)),
            last_transition_time: Some(Time(self.now)),
        });
    }
}
