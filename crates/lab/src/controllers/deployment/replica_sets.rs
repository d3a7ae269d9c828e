//! A Deployment's ReplicaSets: which is the current one, making it, what is
//! written on it.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::conditions::Progress;
use super::{COMPONENT, Rollout, rollout};
use crate::controllers::hash::template_hash;
use crate::controllers::object::{Key, annotation, controller_ref};
use crate::controllers::plan::{Event, Plan};
use crate::controllers::world::World;

pub(crate) const HASH: &str = "pod-template-hash";
pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(crate) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// Annotations of the Deployment that are not its ReplicaSets' business.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

pub(crate) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.replicas.unwrap_or(1)
}

pub(crate) fn available(set: &ReplicaSet) -> i32 {
    set.status
        .as_ref()
        .and_then(|status| status.available_replicas)
        .unwrap_or(0)
}

/// Pods that the set has now.
pub(crate) fn actual(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |status| status.replicas)
}

pub(crate) fn revision(set: &ReplicaSet) -> i64 {
    annotation(&set.metadata, REVISION)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// Equal but for the label that the controller itself adds.
pub(crate) fn same_template(set: &ReplicaSet, spec: &DeploymentSpec) -> bool {
    let Some(template) = &set.spec.template else {
        return false;
    };
    if template.spec != spec.template.spec {
        return false;
    }
    let without_hash = |template: &PodTemplateSpec| {
        let mut meta = template.metadata.clone().unwrap_or_default();
        let labels = meta.labels.get_or_insert_default();
        labels.remove(HASH);
        meta.annotations.get_or_insert_default();
        meta
    };
    without_hash(template) == without_hash(&spec.template)
}

/// What the API holds, of a set as it shall be: the deployment's annotations,
/// the revision, the numbers that scaling needs.
fn annotations(rollout: &Rollout<'_>, set: Option<&ReplicaSet>) -> BTreeMap<String, String> {
    let mut annotations = set
        .and_then(|set| set.metadata.annotations.clone())
        .unwrap_or_default();
    for (key, value) in rollout.deployment.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    let next = rollout
        .old
        .iter()
        .map(|set| revision(set))
        .max()
        .unwrap_or(0)
        + 1;
    let previous = set.map_or(0, revision);
    if previous < next {
        if previous > 0 {
            let history = annotations.remove(REVISION_HISTORY).into_iter();
            let history: Vec<String> = history.chain([previous.to_string()]).collect();
            annotations.insert(REVISION_HISTORY.to_owned(), history.join(","));
        }
        annotations.insert(REVISION.to_owned(), next.to_string());
    }
    if set.is_none() {
        write_sizes(rollout, &mut annotations);
    }
    annotations
}

/// Notes on a set for how many replicas it was last scaled.
pub(crate) fn write_sizes(rollout: &Rollout<'_>, annotations: &mut BTreeMap<String, String>) {
    annotations.insert(DESIRED.to_owned(), rollout.wanted.to_string());
    let most = rollout.wanted + rollout::max_surge(rollout);
    annotations.insert(MAX.to_owned(), most.to_string());
}

/// Brings annotations and `minReadySeconds` of the current set up to date, and
/// the Deployment's revision. Whether that planned a change of the set.
pub(crate) fn refresh_new(rollout: &mut Rollout<'_>, plan: &mut Plan) -> bool {
    let Some(set) = rollout.new.clone() else {
        return false;
    };
    if rollout.progress.is_none() && !super::conditions::has_progress(rollout.deployment) {
        rollout.progress = Some(Progress::found(&set));
    }
    let annotations = annotations(rollout, Some(&set));
    let revision = annotations.get(REVISION).cloned();
    let min_ready = rollout.spec.min_ready_seconds;
    let old_min_ready = set.spec.min_ready_seconds;
    let changed = Some(&annotations) != set.metadata.annotations.as_ref()
        || min_ready.unwrap_or(0) != old_min_ready.unwrap_or(0);
    if changed {
        let mut set = ReplicaSet::clone(&set);
        set.metadata.annotations = Some(annotations);
        set.spec.min_ready_seconds = min_ready;
        plan.update(set);
    }
    write_revision(rollout, revision, plan);
    changed
}

fn write_revision(rollout: &Rollout<'_>, revision: Option<String>, plan: &mut Plan) {
    if annotation(&rollout.deployment.metadata, REVISION) == revision.as_deref() {
        return;
    }
    if let Some(revision) = revision {
        let mut deployment = Deployment::clone(rollout.deployment);
        let annotations = deployment.metadata.annotations.get_or_insert_default();
        annotations.insert(REVISION.to_owned(), revision);
        plan.update(deployment);
    }
}

/// Plans the set of the current template, with as many replicas as the rollout
/// allows at once.
pub(crate) fn create_new(world: &World, rollout: &mut Rollout<'_>, plan: &mut Plan) {
    let deployment = rollout.deployment;
    let collisions = deployment
        .status
        .as_ref()
        .and_then(|status| status.collision_count);
    let hash = template_hash(&rollout.spec.template, collisions);
    let owner = deployment.metadata.name.as_deref().unwrap_or_default();
    let name = format!("{owner}-{hash}");
    let namespace = deployment.metadata.namespace.clone().unwrap_or_default();
    if world
        .objects
        .replica_sets
        .get(&Key::new(&*namespace, &*name))
        .is_some()
    {
        // Somebody else has this name: another one next time.
        let mut deployment = Deployment::clone(deployment);
        let status = deployment.status.get_or_insert_default();
        status.collision_count = Some(collisions.unwrap_or(0) + 1);
        plan.update_status(deployment);
        return;
    }

    let size = rollout::first_size(rollout);
    let mut template = rollout.spec.template.clone();
    let labels = template
        .metadata
        .get_or_insert_default()
        .labels
        .get_or_insert_default();
    labels.insert(HASH.to_owned(), hash.clone());
    let mut selector = rollout.spec.selector.clone();
    selector
        .match_labels
        .get_or_insert_default()
        .insert(HASH.to_owned(), hash);
    let annotations = annotations(rollout, None);
    let revision = annotations.get(REVISION).cloned();
    let set = ReplicaSet {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace),
            labels: Some(labels.clone()),
            annotations: Some(annotations),
            owner_references: Some(vec![controller_ref(&**deployment)]),
            ..ObjectMeta::default()
        },
        spec: ReplicaSetSpec {
            replicas: Some(size),
            min_ready_seconds: rollout.spec.min_ready_seconds,
            selector,
            template: Some(template),
        },
        status: None,
    };
    rollout.progress = Some(Progress::created(&name));
    rollout.new = Some(Arc::new(set.clone()));
    plan.create(set, None);
    if size > 0 {
        let message = format!("Scaled up replica set {name} from 0 to {size}");
        plan.record(Event::normal(
            COMPONENT,
            &**deployment,
            "ScalingReplicaSet",
            message,
        ));
    }
    write_revision(rollout, revision, plan);
}

/// Plans another number of replicas for a set; nothing if it has that already.
pub(crate) fn resize(
    rollout: &Rollout<'_>,
    set: &Arc<ReplicaSet>,
    size: i32,
    plan: &mut Plan,
) -> bool {
    let before = replicas(set);
    let mut changed = ReplicaSet::clone(set);
    write_sizes(
        rollout,
        changed.metadata.annotations.get_or_insert_default(),
    );
    changed.spec.replicas = Some(size);
    if changed == **set {
        return false;
    }
    plan.update(changed);
    if size != before {
        let direction = if size > before { "up" } else { "down" };
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let message = format!("Scaled {direction} replica set {name} from {before} to {size}");
        plan.record(Event::normal(
            COMPONENT,
            &**rollout.deployment,
            "ScalingReplicaSet",
            message,
        ));
    }
    size != before
}
