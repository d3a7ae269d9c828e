//! The history of pod templates that StatefulSets and DaemonSets keep, as
//! ControllerRevisions: `kubectl rollout history` and `undo` read them.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};

use super::hash::template_hash;
use super::object::{Cached, Object, controller_ref};
use super::plan::Plan;
use super::world::World;

/// On pods and revisions: which template they are of.
pub(crate) const HASH: &str = "controller-revision-hash";

/// One owner's revisions.
#[derive(Debug)]
pub(crate) struct History {
    /// Oldest first.
    all: Vec<Arc<ControllerRevision>>,
    /// The name of the one that is the template as it is now.
    pub(crate) latest: String,
    template: PodTemplateSpec,
}

impl History {
    /// Reads the owner's history. Plans a new revision, or an old one's return
    /// to the top, if the template is not the last revision.
    pub(crate) fn sync<O: Cached>(
        world: &World,
        owner: &O,
        template: &PodTemplateSpec,
        plan: &mut Plan,
    ) -> Self {
        let meta = owner.metadata();
        let uid = meta.uid.as_deref().unwrap_or_default();
        let mut all: Vec<_> = world
            .objects
            .revisions
            .controlled_by(uid)
            .cloned()
            .collect();
        all.sort_by_key(|revision| (revision.revision, revision.metadata.name.clone()));
        let top = all
            .last()
            .and_then(|revision| revision.revision)
            .unwrap_or(0);
        let data = patch_of(template);
        // The API may have decoded and encoded the data: equal means the same template.
        let same = all
            .iter()
            .rev()
            .find(|revision| revision.data.0 == data)
            .cloned();
        let latest = match same {
            Some(revision) => {
                if revision.revision.unwrap_or(0) < top {
                    let mut raised = ControllerRevision::clone(&revision);
                    raised.revision = Some(top + 1);
                    plan.update(raised);
                }
                revision.metadata.name.clone().unwrap_or_default()
            }
            None => {
                let created = new_revision(owner, template, data, top + 1);
                let name = created.metadata.name.clone().unwrap_or_default();
                all.push(Arc::new(created.clone()));
                plan.create(created, None);
                name
            }
        };
        Self {
            all,
            latest,
            template: template.clone(),
        }
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.all
            .iter()
            .any(|revision| revision.metadata.name.as_deref() == Some(name))
    }

    /// The template of a revision; the present one if the revision is unknown.
    pub(crate) fn template(&self, name: &str) -> PodTemplateSpec {
        let revision = self.all.iter().find(|revision| {
            revision.metadata.name.as_deref() == Some(name) && name != self.latest
        });
        revision
            .and_then(|revision| template_of(&revision.data.0))
            .unwrap_or_else(|| self.template.clone())
    }

    /// Plans the deletion of the oldest revisions that nothing uses, beyond the limit.
    pub(crate) fn truncate(
        &self,
        limit: Option<i32>,
        used: impl Fn(&str) -> bool,
        plan: &mut Plan,
    ) {
        let limit = usize::try_from(limit.unwrap_or(10)).unwrap_or(0);
        let unused: Vec<_> = self
            .all
            .iter()
            .filter(|revision| {
                let name = revision.metadata.name.as_deref().unwrap_or_default();
                name != self.latest && !used(name)
            })
            .collect();
        let surplus = unused.len().saturating_sub(limit);
        for revision in unused.into_iter().take(surplus) {
            plan.delete(&Object::ControllerRevision(revision.clone()), None);
        }
    }
}

fn new_revision<O: Cached>(
    owner: &O,
    template: &PodTemplateSpec,
    data: Value,
    revision: i64,
) -> ControllerRevision {
    let meta = owner.metadata();
    let hash = template_hash(template, None);
    let mut labels = template
        .metadata
        .clone()
        .unwrap_or_default()
        .labels
        .unwrap_or_default();
    labels.insert(HASH.to_owned(), hash.clone());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!(
                "{}-{hash}",
                meta.name.as_deref().unwrap_or_default()
            )),
            namespace: meta.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![controller_ref(owner)]),
            ..ObjectMeta::default()
        },
        data: RawExtension(data),
        revision: Some(revision),
    }
}

/// The strategic merge patch that restores the template, as kubectl applies it.
fn patch_of(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).unwrap_or_default();
    template["$patch"] = json!("replace");
    json!({ "spec": { "template": template } })
}

fn template_of(data: &Value) -> Option<PodTemplateSpec> {
    let mut template = data.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}
