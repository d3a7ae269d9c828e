//! Runs pods until enough of them have succeeded.
//!
//! Unlike Kubernetes, pods carry no tracking finalizer: a pod that is deleted by
//! hand between its end and the next decision is not counted. Counts of a Job's
//! status never go down, so pods deleted later stay counted.

mod indexes;
mod outcome;
mod pods;
mod status;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::controller::{Controller, managers};
use super::object::{Change, Key, Kind, Object};
use super::plan::{Event, Plan, Report};
use super::world::World;
use super::{pod, replica_set};
use outcome::Verdict;

const COMPONENT: &str = "job-controller";
/// The longest pause between a failure and the next attempt
/// (`MaxJobPodFailureBackOff`).
const LONGEST_BACKOFF: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(crate) struct Jobs {
    /// The pause after the first failure (`DefaultJobPodFailureBackOff`);
    /// doubled with each in a row.
    pub(crate) first_backoff: Duration,
}

impl Controller for Jobs {
    fn component(&self) -> &'static str {
        COMPONENT
    }

    fn affected(&self, _world: &World, change: &Change, add: &mut dyn FnMut(Key)) {
        match change.latest() {
            Object::Job(job) => add(Key::of(&job.metadata)),
            Object::Pod(_) => managers(change, Kind::Job).for_each(add),
            _ => {}
        }
    }

    fn decide(&self, world: &World, key: &Key, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(job) = world.objects.jobs.get(key) else {
            return plan;
        };
        let Some(spec) = &job.spec else { return plan };
        if job.metadata.deletion_timestamp.is_some() {
            return plan;
        }
        if let Some(finished) = status::finished_at(job) {
            expire(job, spec, finished, now, &mut plan);
            return plan;
        }
        let mut work = Work::new(world, job, spec, now);
        match outcome::judge(&work, &mut plan) {
            Verdict::Running => self.run(&mut work, &mut plan),
            Verdict::Suspended => work.stop(&mut plan),
            Verdict::Succeeded | Verdict::Failed { .. } if work.active().next().is_some() => {
                work.stop(&mut plan);
            }
            Verdict::Succeeded | Verdict::Failed { .. } => {}
        }
        status::write(&work, &mut plan);
        plan
    }
}

/// Deletes a finished Job when its time to live is over.
fn expire(job: &Arc<Job>, spec: &JobSpec, finished: Timestamp, now: Timestamp, plan: &mut Plan) {
    let Some(ttl) = spec.ttl_seconds_after_finished else {
        return;
    };
    match finished.checked_add(SignedDuration::from_secs(ttl.into())) {
        Ok(due) if due > now => plan.look_again(Some(due)),
        _ => plan.delete(&Object::Job(job.clone()), None),
    }
}

/// A Job and its pods while a decision is made.
#[derive(Debug)]
struct Work<'a> {
    job: &'a Arc<Job>,
    spec: &'a JobSpec,
    /// As they will be when the plan is done.
    pods: Vec<Arc<Pod>>,
    now: Timestamp,
}

impl<'a> Work<'a> {
    fn new(world: &World, job: &'a Arc<Job>, spec: &'a JobSpec, now: Timestamp) -> Self {
        let uid = job.metadata.uid.as_deref().unwrap_or_default();
        let pods = world.objects.pods.controlled_by(uid).cloned().collect();
        Self {
            job,
            spec,
            pods,
            now,
        }
    }

    fn active(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.iter().filter(|pod| pod::is_active(pod))
    }

    fn terminating(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods
            .iter()
            .filter(|pod| pod::is_terminating(pod) && !pod::is_terminal(pod))
    }

    fn in_phase<'b>(&'b self, phase: &'b str) -> impl Iterator<Item = &'b Arc<Pod>> {
        self.pods.iter().filter(move |pod| pod::phase(pod) == phase)
    }

    fn is_indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    /// Pods that have succeeded, or indexes of which one has.
    fn succeeded(&self) -> i32 {
        if self.is_indexed() {
            return indexes::completed(self).len();
        }
        let told = self
            .job
            .status
            .as_ref()
            .and_then(|status| status.succeeded)
            .unwrap_or(0);
        super::count::count(self.in_phase("Succeeded")).max(told)
    }

    fn failed(&self) -> i32 {
        let told = self
            .job
            .status
            .as_ref()
            .and_then(|status| status.failed)
            .unwrap_or(0);
        super::count::count(self.in_phase("Failed")).max(told)
    }

    fn report(&self) -> Option<Report> {
        Some(Report::on(COMPONENT, &**self.job))
    }

    fn end(&mut self, victims: &[Arc<Pod>], plan: &mut Plan) {
        for victim in victims {
            plan.delete(&Object::Pod(victim.clone()), self.report());
            for pod in self.pods.iter_mut().filter(|pod| Arc::ptr_eq(pod, victim)) {
                Arc::make_mut(pod).metadata.deletion_timestamp = Some(Time(self.now));
            }
        }
    }

    /// Plans the end of all pods that still run.
    fn stop(&mut self, plan: &mut Plan) {
        let victims: Vec<Arc<Pod>> = self.active().cloned().collect();
        self.end(&victims, plan);
    }
}

impl Jobs {
    /// Plans as many pods as should run now.
    fn run(&self, work: &mut Work<'_>, plan: &mut Plan) {
        let parallelism = work.spec.parallelism.unwrap_or(1).max(0);
        let succeeded = work.succeeded();
        let mut active: Vec<Arc<Pod>> = work.active().cloned().collect();
        let running = i32::try_from(active.len()).unwrap_or(i32::MAX);
        let wanted = match work.spec.completions {
            Some(completions) => parallelism.min(completions - succeeded),
            // A work queue: after the first success no more workers start.
            None if succeeded > 0 => running.min(parallelism),
            None => parallelism,
        };
        let surplus = usize::try_from(running - wanted).unwrap_or(0);
        if surplus > 0 {
            replica_set::sort_for_deletion(&mut active);
            work.end(&active[..surplus], plan);
            return;
        }
        let only_failed = work.spec.pod_replacement_policy.as_deref() == Some("Failed");
        let leaving = if only_failed {
            super::count::count(work.terminating())
        } else {
            0
        };
        let missing = usize::try_from(wanted - running - leaving).unwrap_or(0);
        if missing == 0 {
            return;
        }
        if let Some(due) = self.next_attempt(work).filter(|due| *due > work.now) {
            plan.look_again(Some(due));
            return;
        }
        let fresh: Vec<Pod> = if work.is_indexed() {
            let missing = indexes::missing(work).take(missing);
            missing
                .map(|index| pods::new(work.job, work.spec, Some(index)))
                .collect()
        } else {
            (0..missing)
                .map(|_| pods::new(work.job, work.spec, None))
                .collect()
        };
        for pod in fresh {
            work.pods.push(Arc::new(pod.clone()));
            plan.create(pod, work.report());
        }
    }

    /// When the pause after the latest failures is over.
    fn next_attempt(&self, work: &Work<'_>) -> Option<Timestamp> {
        let last_success = work
            .in_phase("Succeeded")
            .filter_map(|pod| pods::finished(pod))
            .max();
        let failures: Vec<Timestamp> = work
            .in_phase("Failed")
            .filter_map(|pod| pods::finished(pod))
            .filter(|failed| last_success.is_none_or(|success| *failed > success))
            .collect();
        let last = failures.iter().max()?;
        let doublings = u32::try_from(failures.len() - 1)
            .unwrap_or(u32::MAX)
            .min(16);
        let pause = self
            .first_backoff
            .saturating_mul(1 << doublings)
            .min(LONGEST_BACKOFF);
        last.checked_add(pause).ok()
    }
}

fn event(work: &Work<'_>, warning: bool, reason: &'static str, message: &str) -> Event {
    Event {
        warning,
        ..Event::normal(COMPONENT, &**work.job, reason, message)
    }
}
