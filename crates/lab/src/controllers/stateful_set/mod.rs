//! Pods with names that stay: ordinals, in order.
//!
//! Follows Kubernetes' `pkg/controller/statefulset` (`stateful_set_control.go`).
//! The lab has no volumes that outlive a pod: each `volumeClaimTemplate` becomes
//! an `emptyDir`, and an event says so.

mod identity;
mod status;
mod update;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use super::claim::{claim, suitors};
use super::controller::{Controller, managers};
use super::object::{Change, Key, Kind, Object};
use super::plan::{Event, Plan, Report, Style};
use super::revisions::History;
use super::world::World;

const COMPONENT: &str = "statefulset-controller";

#[derive(Debug)]
pub(crate) struct StatefulSets;

impl Controller for StatefulSets {
    fn component(&self) -> &'static str {
        COMPONENT
    }

    fn affected(&self, world: &World, change: &Change, add: &mut dyn FnMut(Key)) {
        match change.latest() {
            Object::StatefulSet(set) => add(Key::of(&set.metadata)),
            Object::Pod(pod) => {
                managers(change, Kind::StatefulSet).for_each(&mut *add);
                let sets = &world.objects.stateful_sets;
                suitors(sets, |set| &set.spec.selector, &pod.metadata, add);
            }
            _ => {}
        }
    }

    fn decide(&self, world: &World, key: &Key, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(set) = world.objects.stateful_sets.get(key) else {
            return plan;
        };
        let spec = &set.spec;
        let pods = pods(world, set, spec, &mut plan);
        let leaves = set.metadata.deletion_timestamp.is_some();
        let mut unwritten = Plan::default();
        let history = History::sync(
            world,
            &**set,
            &spec.template,
            if leaves { &mut unwritten } else { &mut plan },
        );
        let mut members = update::Members::new(set, spec, &history, pods, now);
        if !leaves {
            warn_of_claims(set, spec, &mut plan);
            members.advance(&mut plan);
        }
        status::write(&members, &mut plan);
        if !leaves {
            let used = |name: &str| members.uses(name);
            history.truncate(spec.revision_history_limit, used, &mut plan);
        }
        plan
    }
}

/// The set's pods; orphans only if they have a name of the set's.
fn pods(
    world: &World,
    set: &StatefulSet,
    spec: &StatefulSetSpec,
    plan: &mut Plan,
) -> Vec<Arc<Pod>> {
    let uid = set.metadata.uid.as_deref().unwrap_or_default();
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let orphans = world
        .orphans(namespace, &spec.selector)
        .filter(|pod| identity::ordinal(set, pod).is_some());
    claim(
        plan,
        set,
        &spec.selector,
        world.objects.pods.controlled_by(uid),
        orphans,
    )
}

fn report(set: &StatefulSet) -> Option<Report> {
    Some(Report {
        style: Style::StatefulSet,
        ..Report::on(COMPONENT, set)
    })
}

/// Once for each version of the spec.
fn warn_of_claims(set: &StatefulSet, spec: &StatefulSetSpec, plan: &mut Plan) {
    let claims = spec.volume_claim_templates.as_deref().unwrap_or_default();
    let seen = set
        .status
        .as_ref()
        .and_then(|status| status.observed_generation);
    if claims.is_empty() || seen == set.metadata.generation {
        return;
    }
    let names: Vec<&str> = claims
        .iter()
        .filter_map(|one| one.metadata.name.as_deref())
        .collect();
    let message = format!(
        "volumeClaimTemplates {} become emptyDir volumes: the lab keeps no volumes beyond a pod's life",
        names.join(", ")
    );
    plan.record(Event::warning(
        COMPONENT,
        set,
        "VolumeClaimsIgnored",
        message,
    ));
}
