//! The next step of a StatefulSet: create upwards, delete downwards, replace
//! downwards.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{RollingUpdateStatefulSetStrategy, StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use super::{identity, report};
use crate::controllers::int_or_percent::{Round, scaled};
use crate::controllers::object::Object;
use crate::controllers::plan::{Event, Plan};
use crate::controllers::pod;
use crate::controllers::revisions::History;

/// A StatefulSet's pods while a decision is made.
#[derive(Debug)]
pub(crate) struct Members<'a> {
    pub(crate) set: &'a Arc<StatefulSet>,
    pub(crate) spec: &'a StatefulSetSpec,
    pub(crate) history: &'a History,
    /// The revision that pods below the partition are of.
    pub(crate) current: String,
    /// By ordinal; as they will be when the plan is done.
    pub(crate) pods: BTreeMap<i32, Arc<Pod>>,
    pub(crate) now: Timestamp,
}

/// Whether the next ordinal may be looked at.
enum Turn {
    Next,
    Wait,
}

impl<'a> Members<'a> {
    pub(crate) fn new(
        set: &'a Arc<StatefulSet>,
        spec: &'a StatefulSetSpec,
        history: &'a History,
        pods: Vec<Arc<Pod>>,
        now: Timestamp,
    ) -> Self {
        let told = set
            .status
            .as_ref()
            .and_then(|status| status.current_revision.clone());
        let current = told.filter(|name| history.contains(name));
        let numbered = pods
            .into_iter()
            .filter_map(|pod| Some((identity::ordinal(set, &pod)?, pod)));
        Self {
            set,
            spec,
            history,
            current: current.unwrap_or_else(|| history.latest.clone()),
            pods: numbered.collect(),
            now,
        }
    }

    pub(crate) fn uses(&self, revision: &str) -> bool {
        self.current == revision
            || self
                .pods
                .values()
                .any(|pod| identity::revision(pod) == revision)
    }

    pub(crate) fn min_ready_seconds(&self) -> i32 {
        self.spec.min_ready_seconds.unwrap_or(0)
    }

    fn ordinals(&self) -> std::ops::Range<i32> {
        let start = self
            .spec
            .ordinals
            .as_ref()
            .and_then(|ordinals| ordinals.start)
            .unwrap_or(0);
        start..start.saturating_add(self.spec.replicas.unwrap_or(1).max(0))
    }

    fn in_order(&self) -> bool {
        self.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    fn is_healthy(&self, pod: &Pod) -> bool {
        pod::phase(pod) == "Running"
            && pod::is_available(pod, self.min_ready_seconds(), self.now)
            && !pod::is_terminating(pod)
    }

    /// Plans what may be done now. With ordered management that is one pod.
    pub(crate) fn advance(&mut self, plan: &mut Plan) {
        let ready = pod::next_available(
            self.pods.values().map(AsRef::as_ref),
            self.min_ready_seconds(),
            self.now,
        );
        plan.look_again(ready);
        for ordinal in self.ordinals() {
            if let (Turn::Wait, true) = (self.fill(ordinal, plan), self.in_order()) {
                return;
            }
        }
        if let (Turn::Wait, true) = (self.condemn(plan), self.in_order()) {
            return;
        }
        self.replace(plan);
    }

    fn fill(&mut self, ordinal: i32, plan: &mut Plan) -> Turn {
        match self.pods.get(&ordinal).cloned() {
            None => {
                let revision = self.revision_for(ordinal).to_owned();
                let template = self.history.template(&revision);
                let pod = identity::new_pod(self.set, self.spec, &template, &revision, ordinal);
                self.pods.insert(ordinal, Arc::new(pod.clone()));
                plan.create(pod, report(self.set));
                Turn::Wait
            }
            Some(pod) if pod::is_terminal(&pod) && !pod::is_terminating(&pod) => {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                let message = format!(
                    "StatefulSet {}/{} is recreating failed Pod {name}",
                    self.set.metadata.namespace.as_deref().unwrap_or_default(),
                    self.set.metadata.name.as_deref().unwrap_or_default(),
                );
                plan.record(Event::warning(
                    super::COMPONENT,
                    &**self.set,
                    "RecreatingFailedPod",
                    message,
                ));
                plan.delete(&Object::Pod(pod), report(self.set));
                self.pods.remove(&ordinal);
                Turn::Wait
            }
            Some(pod) if self.is_healthy(&pod) => Turn::Next,
            Some(_) => Turn::Wait,
        }
    }

    /// The revision that a new pod of this ordinal is made of.
    fn revision_for(&self, ordinal: i32) -> &str {
        let partition = self
            .rolling()
            .and_then(|rolling| rolling.partition)
            .unwrap_or(0);
        if self.is_on_delete() || ordinal >= self.ordinals().start + partition {
            &self.history.latest
        } else {
            &self.current
        }
    }

    /// Pods beyond the wanted ordinals, the highest first.
    fn condemn(&mut self, plan: &mut Plan) -> Turn {
        let wanted = self.ordinals();
        let condemned: Vec<(i32, Arc<Pod>)> = self
            .pods
            .iter()
            .rev()
            .filter(|(ordinal, _)| !wanted.contains(ordinal))
            .map(|(ordinal, pod)| (*ordinal, pod.clone()))
            .collect();
        let lowest_sick = condemned
            .iter()
            .rev()
            .find(|(_, pod)| !self.is_healthy(pod))
            .map(|(ordinal, _)| *ordinal);
        let mut turn = Turn::Next;
        for (ordinal, pod) in condemned {
            turn = Turn::Wait;
            if pod::is_terminating(&pod) {
                if self.in_order() {
                    return turn;
                }
                continue;
            }
            // An unhealthy pod blocks those above it, unless it is the only one.
            if self.in_order() && !self.is_healthy(&pod) && lowest_sick != Some(ordinal) {
                return turn;
            }
            plan.delete(&Object::Pod(pod), report(self.set));
            if self.in_order() {
                return turn;
            }
        }
        turn
    }

    /// Deletes pods of older revisions, from the highest ordinal down to the
    /// partition, as many at a time as may be unavailable.
    fn replace(&mut self, plan: &mut Plan) {
        if self.is_on_delete() {
            return;
        }
        let rolling = self.rolling();
        let ordinals = self.ordinals();
        let partition = rolling.and_then(|rolling| rolling.partition).unwrap_or(0);
        let replicas = ordinals.end - ordinals.start;
        let most = rolling
            .and_then(|rolling| rolling.max_unavailable.as_ref())
            .map_or(1, |value| scaled(value, replicas, Round::Up).max(1));
        let first = ordinals.start + partition;
        let mut unavailable = ordinals
            .clone()
            .filter(|ordinal| {
                !self
                    .pods
                    .get(ordinal)
                    .is_some_and(|pod| self.is_healthy(pod))
            })
            .count();
        let most = usize::try_from(most).unwrap_or(1);
        for ordinal in (first..ordinals.end).rev() {
            let Some(pod) = self.pods.get(&ordinal).cloned() else {
                return;
            };
            if identity::revision(&pod) != self.history.latest && !pod::is_terminating(&pod) {
                // One that is out of order already costs nothing to replace.
                let healthy = self.is_healthy(&pod);
                if healthy && unavailable >= most {
                    return;
                }
                unavailable += usize::from(healthy);
                plan.delete(&Object::Pod(pod), report(self.set));
                if unavailable >= most {
                    return;
                }
            } else if !self.is_healthy(&pod) && unavailable >= most {
                return;
            }
        }
    }

    fn rolling(&self) -> Option<&RollingUpdateStatefulSetStrategy> {
        self.spec.update_strategy.as_ref()?.rolling_update.as_ref()
    }

    fn is_on_delete(&self) -> bool {
        let strategy = self.spec.update_strategy.as_ref();
        strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete")
    }
}
