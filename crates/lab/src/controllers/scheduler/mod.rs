//! Gives every pod a node.
//!
//! Filters are those of kube-scheduler that this lab can mean: readiness,
//! `unschedulable`, taints, node selector and required node affinity, pod
//! (anti-)affinity, host ports, the number of pods. Requests of processor and
//! memory are not counted: the lab's nodes share one machine and its stand-ins
//! use next to nothing. Of the nodes that fit, the one with the fewest pods of
//! the same owner wins, then the one with the fewest pods.

mod affinity;
mod filter;
pub(crate) mod load;
mod node_affinity;
mod score;
pub(crate) mod taints;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::controller::Controller;
use super::object::{Change, Key};
use super::plan::{Action, Event, Plan};
use super::pod;
use super::world::World;

pub(crate) use node_affinity::matches_node;

/// The name under which kube-scheduler writes events, and which
/// `spec.schedulerName` names.
const COMPONENT: &str = "default-scheduler";

#[derive(Debug)]
pub(crate) struct Scheduler;

impl Controller for Scheduler {
    fn component(&self) -> &'static str {
        COMPONENT
    }

    fn affected(&self, world: &World, change: &Change, add: &mut dyn FnMut(Key)) {
        if let Some(pod) = change.of::<Pod>().last() {
            let key = Key::of(&pod.metadata);
            if world.unscheduled.contains(&key) {
                add(key);
            }
            let held = |pod: &Pod| !pod::is_terminal(pod) && pod::node_name(pod).is_some();
            let (before, after) = (
                change.before().is_some_and(held),
                change.after().is_some_and(held),
            );
            match (before, after) {
                // Room for one more.
                (true, false) => refused(world).cloned().for_each(add),
                // Company that somebody may be waiting for.
                (false, true) => {
                    let wants_company = |key: &&Key| {
                        world
                            .objects
                            .pods
                            .get(key)
                            .is_some_and(|pod| affinity::is_affine(pod))
                    };
                    refused(world).filter(wants_company).cloned().for_each(add);
                }
                _ => {}
            }
        } else if may_admit_more(change) {
            refused(world).cloned().for_each(add);
        }
    }

    fn decide(&self, world: &World, key: &Key, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(pod) = world.objects.pods.get(key) else {
            return plan;
        };
        let spec = pod.spec.clone().unwrap_or_default();
        let ours = spec
            .scheduler_name
            .as_deref()
            .is_none_or(|name| name == COMPONENT);
        if !ours || pod::node_name(pod).is_some() || !pod::is_active(pod) {
            return plan;
        }
        if spec.scheduling_gates.is_some_and(|gates| !gates.is_empty()) {
            let message = "Scheduling is blocked due to non-empty scheduling gates";
            refuse(&mut plan, pod, "SchedulingGated", message.to_owned(), now);
            return plan;
        }
        match choose(world, pod) {
            Ok(node) => {
                let message = format!(
                    "Successfully assigned {}/{} to {node}",
                    key.namespace, key.name
                );
                plan.actions.push(Action::Bind {
                    pod: key.clone(),
                    node,
                });
                plan.record(Event::normal(COMPONENT, &**pod, "Scheduled", message));
            }
            Err(message) => {
                if refuse(&mut plan, pod, "Unschedulable", message.clone(), now) {
                    plan.record(Event::warning(
                        COMPONENT,
                        &**pod,
                        "FailedScheduling",
                        message,
                    ));
                }
            }
        }
        plan
    }
}

/// Pods that no node did for. (Those without a verdict are still in the queue.)
fn refused(world: &World) -> impl Iterator<Item = &Key> {
    world.unscheduled.iter().filter(|key| {
        let pod = world.objects.pods.get(key);
        pod.is_some_and(|pod| pod::condition(pod, "PodScheduled").is_some())
    })
}

/// The best node for the pod, or why there is none.
fn choose(world: &World, pod: &Pod) -> Result<String, String> {
    let mut best: Option<(score::Score, &str)> = None;
    let mut misfits: BTreeMap<String, usize> = BTreeMap::new();
    let company = affinity::Company::of(world, pod);
    for node in world.objects.nodes.iter() {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let load = world.loads.of(name);
        match filter::fits(pod, node, load).and_then(|()| company.accepts(node)) {
            Ok(()) => {
                let score = score::score(pod, node, load);
                if best.as_ref().is_none_or(|(lowest, _)| score < *lowest) {
                    best = Some((score, name));
                }
            }
            Err(misfit) => *misfits.entry(misfit.to_string()).or_default() += 1,
        }
    }
    match best {
        Some((_, name)) => Ok(name.to_owned()),
        None => Err(no_node(world.objects.nodes.len(), &misfits)),
    }
}

/// kube-scheduler's sentence (`FitError`), reasons sorted by their text.
fn no_node(nodes: usize, misfits: &BTreeMap<String, usize>) -> String {
    if nodes == 0 {
        return "no nodes available to schedule pods".to_owned();
    }
    let mut reasons: Vec<String> = misfits
        .iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    reasons.sort();
    format!("0/{nodes} nodes are available: {}.", reasons.join(", "))
}

/// Says on the pod why it waits; `false` if it says so already.
fn refuse(plan: &mut Plan, pod: &Arc<Pod>, reason: &str, message: String, now: Timestamp) -> bool {
    let told = pod::condition(pod, "PodScheduled");
    if told.is_some_and(|condition| {
        condition.reason.as_deref() == Some(reason) && condition.message.as_ref() == Some(&message)
    }) {
        return false;
    }
    let mut pod = Pod::clone(pod);
    let since = told.and_then(|condition| condition.last_transition_time.clone());
    let condition = PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: since.or(Some(Time(now))),
        ..PodCondition::default()
    };
    let status = pod.status.get_or_insert_with(PodStatus::default);
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != "PodScheduled");
    conditions.push(condition);
    plan.update_status(pod);
    true
}

/// Whether a node came, or changed in something that filters look at.
fn may_admit_more(change: &Change) -> bool {
    let Some(new) = change.after::<Node>() else {
        return false;
    };
    let Some(old) = change.before::<Node>() else {
        return true;
    };
    let allocatable = |node: &Node| node.status.as_ref().and_then(|s| s.allocatable.clone());
    old.metadata.labels != new.metadata.labels
        || taints::effective(old) != taints::effective(new)
        || allocatable(old) != allocatable(new)
}
