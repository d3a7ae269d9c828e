//! Rolls pod templates out: one ReplicaSet per template, scaled up as the older
//! ones are scaled down, never below the wanted availability.
//!
//! The steps are those of Kubernetes' deployment controller
//! (`pkg/controller/deployment`); each decision is one step, the change that it
//! makes brings the next.

mod conditions;
mod history;
mod replica_sets;
mod rollout;
mod scale;
mod status;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet};
use k8s_openapi::jiff::Timestamp;

use super::claim::{claim, suitors};
use super::controller::{Controller, managers};
use super::object::{Change, Key, Kind, Object, controller_of};
use super::plan::Plan;
use super::world::World;
use super::{pod, selector};

const COMPONENT: &str = "deployment-controller";

#[derive(Debug)]
pub(crate) struct Deployments;

impl Controller for Deployments {
    fn component(&self) -> &'static str {
        COMPONENT
    }

    fn affected(&self, world: &World, change: &Change, add: &mut dyn FnMut(Key)) {
        match change.latest() {
            Object::Deployment(deployment) => add(Key::of(&deployment.metadata)),
            Object::ReplicaSet(set) => {
                managers(change, Kind::Deployment).for_each(&mut *add);
                let all = &world.objects.deployments;
                suitors(all, |one| &one.spec.selector, &set.metadata, add);
            }
            // `Recreate` waits for the last old pod to be gone.
            Object::Pod(_) if change.after().is_none_or(pod::is_terminal) => {
                for set in managers(change, Kind::ReplicaSet) {
                    let set = world.objects.replica_sets.get(&set);
                    let owner = set.and_then(|set| controller_of(&set.metadata));
                    if let (Some(set), Some(owner)) = (set, owner) {
                        add(Key::new(
                            set.metadata.namespace.clone().unwrap_or_default(),
                            &*owner.name,
                        ));
                    }
                }
            }
            _ => {}
        }
    }

    fn decide(&self, world: &World, key: &Key, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(deployment) = world.objects.deployments.get(key) else {
            return plan;
        };
        let spec = &deployment.spec;
        let sets = sets(world, deployment, spec, &mut plan);
        let mut rollout = Rollout::new(deployment, spec, sets, now);
        if deployment.metadata.deletion_timestamp.is_none() {
            step(world, &mut rollout, &mut plan);
        }
        status::write(&rollout, &mut plan);
        plan
    }
}

/// One Deployment and its ReplicaSets, while a decision is made.
#[derive(Debug)]
struct Rollout<'a> {
    deployment: &'a Arc<Deployment>,
    spec: &'a DeploymentSpec,
    /// Number of replicas wanted.
    wanted: i32,
    /// The set of the template as it is now, if it exists.
    new: Option<Arc<ReplicaSet>>,
    /// All others, oldest first.
    old: Vec<Arc<ReplicaSet>>,
    /// What the `Progressing` condition is to say, when a step knows better.
    progress: Option<conditions::Progress>,
    now: Timestamp,
}

impl<'a> Rollout<'a> {
    fn new(
        deployment: &'a Arc<Deployment>,
        spec: &'a DeploymentSpec,
        mut sets: Vec<Arc<ReplicaSet>>,
        now: Timestamp,
    ) -> Self {
        sets.sort_by_key(|set| (pod::created(&set.metadata), set.metadata.name.clone()));
        let current = sets
            .iter()
            .position(|set| replica_sets::same_template(set, spec));
        let new = current.map(|index| sets.remove(index));
        let wanted = spec.replicas.unwrap_or(1);
        Self {
            deployment,
            spec,
            wanted,
            new,
            old: sets,
            progress: None,
            now,
        }
    }

    fn sets(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.old.iter().chain(&self.new)
    }

    fn is_recreate(&self) -> bool {
        let strategy = self
            .spec
            .strategy
            .as_ref()
            .and_then(|strategy| strategy.type_.as_deref());
        strategy == Some("Recreate")
    }
}

fn sets(
    world: &World,
    deployment: &Deployment,
    spec: &DeploymentSpec,
    plan: &mut Plan,
) -> Vec<Arc<ReplicaSet>> {
    let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
    let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
    let all = &world.objects.replica_sets;
    let orphans = all.in_namespace(namespace).filter(|set| {
        controller_of(&set.metadata).is_none()
            && selector::matches(&spec.selector, set.metadata.labels.as_ref())
    });
    claim(
        plan,
        deployment,
        &spec.selector,
        all.controlled_by(uid),
        orphans,
    )
}

/// Plans the next step.
fn step(world: &World, rollout: &mut Rollout<'_>, plan: &mut Plan) {
    let paused = rollout.spec.paused == Some(true);
    conditions::note_pause(rollout, paused);
    if paused || scale::is_due(rollout) {
        if !replica_sets::refresh_new(rollout, plan) {
            scale::proportionally(rollout, plan);
        }
        return;
    }
    if rollout.is_recreate() {
        rollout::recreate(world, rollout, plan);
    } else {
        rollout::roll(world, rollout, plan);
    }
    if status::is_complete(rollout) {
        history::clean_up(rollout, plan);
    }
}
