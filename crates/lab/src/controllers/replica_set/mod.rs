//! Keeps as many pods of a template running as its ReplicaSet says.

mod rank;
mod status;

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use super::claim::{claim, suitors};
use super::controller::{Controller, managers};
use super::object::{Change, Key, Kind, Object, controller_of, controller_ref};
use super::plan::{Plan, Report};
use super::pod;
use super::world::World;

pub(crate) use status::{REPLICA_FAILURE, is_failure};

const COMPONENT: &str = "replicaset-controller";

#[derive(Debug)]
pub(crate) struct ReplicaSets;

impl Controller for ReplicaSets {
    fn component(&self) -> &'static str {
        COMPONENT
    }

    fn affected(&self, world: &World, change: &Change, add: &mut dyn FnMut(Key)) {
        match change.latest() {
            Object::ReplicaSet(set) => add(Key::of(&set.metadata)),
            Object::Pod(pod) => {
                managers(change, Kind::ReplicaSet).for_each(&mut *add);
                let sets = &world.objects.replica_sets;
                suitors(sets, |set| &set.spec.selector, &pod.metadata, add);
            }
            _ => {}
        }
    }

    fn decide(&self, world: &World, key: &Key, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(set) = world.objects.replica_sets.get(key) else {
            return plan;
        };
        let spec = &set.spec;
        let mut pods = pods(world, set, spec, &mut plan);
        if set.metadata.deletion_timestamp.is_none() {
            manage(world, set, spec, &mut pods, &mut plan);
        }
        status::write(set, spec, &pods, None, now, &mut plan);
        plan
    }

    fn refused(&self, world: &World, key: &Key, why: &str, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(set) = world.objects.replica_sets.get(key) else {
            return plan;
        };
        let spec = &set.spec;
        let pods = pods(world, set, spec, &mut Plan::default());
        status::write(set, spec, &pods, Some(why), now, &mut plan);
        plan
    }
}

/// The set's pods; those that have ended count no more.
fn pods(world: &World, set: &ReplicaSet, spec: &ReplicaSetSpec, plan: &mut Plan) -> Vec<Arc<Pod>> {
    let uid = set.metadata.uid.as_deref().unwrap_or_default();
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let managed = world.objects.pods.controlled_by(uid);
    let orphans = world
        .orphans(namespace, &spec.selector)
        .filter(|pod| pod::is_active(pod));
    let mut pods = claim(plan, set, &spec.selector, managed, orphans);
    pods.retain(|pod| !pod::is_terminal(pod));
    pods
}

/// Plans the pods that are missing or too many, and leaves in `pods` what there
/// will be when the plan is done.
fn manage(
    world: &World,
    set: &ReplicaSet,
    spec: &ReplicaSetSpec,
    pods: &mut Vec<Arc<Pod>>,
    plan: &mut Plan,
) {
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    let mut active: Vec<Arc<Pod>> = pods
        .iter()
        .filter(|pod| pod::is_active(pod))
        .cloned()
        .collect();
    let report = || Some(Report::on(COMPONENT, set));
    for _ in active.len()..wanted {
        let template = spec.template.clone().unwrap_or_default();
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let pod = pod::from_template(&template, namespace, controller_ref(set));
        pods.push(Arc::new(pod.clone()));
        plan.create(pod, report());
    }
    if active.len() > wanted {
        let crowds = crowds(world, set);
        rank::sort(&mut active, &crowds);
        for victim in active.iter().take(active.len() - wanted) {
            plan.delete(&Object::Pod(victim.clone()), report());
            pods.retain(|pod| !Arc::ptr_eq(pod, victim));
        }
    }
}

/// Active pods per node, of this set and of the others of the same Deployment:
/// where replicas are doubled up, one goes first.
fn crowds(world: &World, set: &ReplicaSet) -> HashMap<String, usize> {
    let own = set.metadata.uid.as_deref().unwrap_or_default();
    let family: Vec<&str> = match controller_of(&set.metadata) {
        Some(owner) => world
            .objects
            .replica_sets
            .controlled_by(&owner.uid)
            .filter_map(|sibling| sibling.metadata.uid.as_deref())
            .collect(),
        None => vec![own],
    };
    let mut crowds = HashMap::new();
    for uid in family {
        for pod in world
            .objects
            .pods
            .controlled_by(uid)
            .filter(|pod| pod::is_active(pod))
        {
            if let Some(node) = pod::node_name(pod) {
                *crowds.entry(node.to_owned()).or_default() += 1;
            }
        }
    }
    crowds
}

/// Sorts active pods, the one that is missed least first.
pub(crate) fn sort_for_deletion(pods: &mut [Arc<Pod>]) {
    rank::sort(pods, &HashMap::new());
}
