//! One pod of a template on every node that it fits.

mod nodes;
mod status;
mod update;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;

use super::claim::{claim, suitors};
use super::controller::{Controller, managers};
use super::object::{Change, Key, Kind, Object};
use super::plan::{Event, Plan, Report};
use super::revisions::{self, History};
use super::scheduler::taints;
use super::world::World;
use super::{object, pod};

const COMPONENT: &str = "daemonset-controller";

#[derive(Debug)]
pub(crate) struct DaemonSets;

impl Controller for DaemonSets {
    fn component(&self) -> &'static str {
        COMPONENT
    }

    fn affected(&self, world: &World, change: &Change, add: &mut dyn FnMut(Key)) {
        match change.latest() {
            Object::DaemonSet(set) => add(Key::of(&set.metadata)),
            Object::Node(_) if changes_where_to_run(change) => {
                world.objects.daemon_sets.keys().cloned().for_each(add);
            }
            Object::Pod(pod) => {
                managers(change, Kind::DaemonSet).for_each(&mut *add);
                let sets = &world.objects.daemon_sets;
                suitors(sets, |set| &set.spec.selector, &pod.metadata, add);
            }
            _ => {}
        }
    }

    fn decide(&self, world: &World, key: &Key, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(set) = world.objects.daemon_sets.get(key) else {
            return plan;
        };
        let spec = &set.spec;
        let leaves = set.metadata.deletion_timestamp.is_some();
        let mut unwritten = Plan::default();
        let into = if leaves { &mut unwritten } else { &mut plan };
        let history = History::sync(world, &**set, &spec.template, into);
        let pods = pods(world, set, spec, &mut plan);
        let mut daemons = Daemons::new(world, set, spec, &history, pods, now);
        if !leaves {
            daemons.place(&mut plan);
            update::replace(&daemons, &mut plan);
        }
        status::write(&daemons, &mut plan);
        if !leaves {
            let used = |name: &str| daemons.uses(name);
            history.truncate(spec.revision_history_limit, used, &mut plan);
        }
        plan
    }
}

fn changes_where_to_run(change: &Change) -> bool {
    let facts = |node: &Node| {
        (
            node.metadata.labels.clone(),
            taints::effective(node),
            node.metadata.deletion_timestamp.is_some(),
        )
    };
    change.before().map(facts) != change.after().map(facts)
}

fn pods(world: &World, set: &DaemonSet, spec: &DaemonSetSpec, plan: &mut Plan) -> Vec<Arc<Pod>> {
    let uid = set.metadata.uid.as_deref().unwrap_or_default();
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let orphans = world.orphans(namespace, &spec.selector);
    claim(
        plan,
        set,
        &spec.selector,
        world.objects.pods.controlled_by(uid),
        orphans,
    )
}

/// A DaemonSet's pods by node, while a decision is made.
#[derive(Debug)]
struct Daemons<'a> {
    set: &'a Arc<DaemonSet>,
    spec: &'a DaemonSetSpec,
    history: &'a History,
    /// Label value of the pods of the present template.
    hash: String,
    nodes: BTreeMap<String, Place<'a>>,
    now: Timestamp,
}

/// One node's share.
#[derive(Debug)]
struct Place<'a> {
    node: Option<&'a Arc<Node>>,
    wanted: nodes::Wanted,
    /// Oldest first; as they will be when the plan is done.
    pods: Vec<Arc<Pod>>,
}

impl<'a> Daemons<'a> {
    fn new(
        world: &'a World,
        set: &'a Arc<DaemonSet>,
        spec: &'a DaemonSetSpec,
        history: &'a History,
        pods: Vec<Arc<Pod>>,
        now: Timestamp,
    ) -> Self {
        let sample = nodes::sample(&spec.template);
        let mut places: BTreeMap<String, Place<'a>> = world
            .objects
            .nodes
            .iter()
            .map(|node| {
                let name = node.metadata.name.clone().unwrap_or_default();
                let wanted = nodes::wanted(&sample, node);
                (
                    name,
                    Place {
                        node: Some(node),
                        wanted,
                        pods: Vec::new(),
                    },
                )
            })
            .collect();
        for pod in pods {
            let Some(node) = nodes::target(&pod) else {
                continue;
            };
            let place = places.entry(node.to_owned()).or_insert_with(|| Place {
                node: None,
                wanted: nodes::Wanted::NO,
                pods: Vec::new(),
            });
            place.pods.push(pod);
        }
        for place in places.values_mut() {
            place
                .pods
                .sort_by_key(|pod| (pod::created(&pod.metadata), pod.metadata.name.clone()));
        }
        let owner = set.metadata.name.as_deref().unwrap_or_default();
        let hash = history
            .latest
            .strip_prefix(owner)
            .and_then(|rest| rest.strip_prefix('-'));
        let hash = hash.unwrap_or(&history.latest).to_owned();
        Self {
            set,
            spec,
            history,
            hash,
            nodes: places,
            now,
        }
    }

    fn is_updated(&self, pod: &Pod) -> bool {
        object::label(&pod.metadata, revisions::HASH) == Some(&self.hash)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        pod::is_active(pod)
            && pod::is_available(pod, self.spec.min_ready_seconds.unwrap_or(0), self.now)
    }

    fn uses(&self, revision: &str) -> bool {
        let pods = self.nodes.values().flat_map(|place| &place.pods);
        pods.filter_map(|pod| object::label(&pod.metadata, revisions::HASH))
            .any(|hash| revision.ends_with(hash))
    }

    fn report(&self) -> Option<Report> {
        Some(Report::on(COMPONENT, &**self.set))
    }

    fn new_pod(&self, node: &str) -> Pod {
        let template = self.history.template(&self.history.latest);
        let namespace = self.set.metadata.namespace.as_deref().unwrap_or_default();
        let mut pod = pod::from_template(&template, namespace, object::controller_ref(&**self.set));
        let labels = pod.metadata.labels.get_or_insert_default();
        labels.insert(revisions::HASH.to_owned(), self.hash.clone());
        nodes::pin(&mut pod, node);
        pod
    }

    /// Plans pods for nodes that lack one, and the end of those that are too
    /// many, have failed, or are where they should not be.
    fn place(&mut self, plan: &mut Plan) {
        for name in self.nodes.keys().cloned().collect::<Vec<_>>() {
            let fresh = self.new_pod(&name);
            let report = self.report();
            let surges = update::surges(self);
            let updated =
                |pod: &Pod| object::label(&pod.metadata, revisions::HASH) == Some(&self.hash);
            let Some(place) = self.nodes.get_mut(&name) else {
                continue;
            };
            let mut kept = Vec::new();
            let mut kept_generations = Vec::new();
            for pod in std::mem::take(&mut place.pods) {
                let object = Object::Pod(pod.clone());
                if pod::is_terminating(&pod) {
                    kept.push(pod);
                } else if pod::is_terminal(&pod) {
                    let what = pod.metadata.name.as_deref().unwrap_or_default();
                    let message = format!(
                        "Found failed daemon pod {what} on node {name}, will try to kill it"
                    );
                    plan.record(Event::warning(
                        COMPONENT,
                        &**self.set,
                        "FailedDaemonPod",
                        message,
                    ));
                    plan.delete(&object, report.clone());
                } else if !place.wanted.may_stay
                    || kept_generations.contains(&updated(&pod))
                    || (!surges && !kept_generations.is_empty())
                {
                    plan.delete(&object, report.clone());
                } else {
                    // While one is surging, an old and a new pod share the node.
                    kept_generations.push(updated(&pod));
                    kept.push(pod);
                }
            }
            // A pod on its way out still holds the node's ports.
            if place.wanted.should_run && kept.is_empty() {
                kept.push(Arc::new(fresh.clone()));
                plan.create(fresh, report);
            }
            place.pods = kept;
        }
    }
}
