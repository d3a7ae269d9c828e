//! Required affinity and anti-affinity between pods.

use std::collections::{BTreeMap, HashSet};

use k8s_openapi::api::core::v1::{Node, Pod, PodAffinityTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::filter::Misfit;
use crate::controllers::world::World;
use crate::controllers::{pod, selector};

/// (topology key, value): a node, a zone, whatever the label names.
type Domain = (String, String);

/// Where the pods are that this one wants near, or far, and that want it far.
#[derive(Debug, Default)]
pub(crate) struct Company {
    wanted: Vec<Wanted>,
    avoided: Vec<(String, HashSet<Domain>)>,
    avoiding: HashSet<Domain>,
}

#[derive(Debug)]
struct Wanted {
    topology: String,
    domains: HashSet<Domain>,
    /// Nobody of that kind is there yet, and the pod is of that kind itself:
    /// the first of a group may go anywhere.
    first_of_its_kind: bool,
}

impl Company {
    pub(crate) fn of(world: &World, pod: &Pod) -> Self {
        let near = required(pod, Side::Near);
        let far = required(pod, Side::Far);
        let mut company = Self {
            wanted: near
                .iter()
                .map(|term| Wanted {
                    topology: term.topology_key.clone(),
                    domains: HashSet::new(),
                    first_of_its_kind: selects(world, term, pod, pod),
                })
                .collect(),
            avoided: far
                .iter()
                .map(|term| (term.topology_key.clone(), HashSet::new()))
                .collect(),
            avoiding: HashSet::new(),
        };
        if near.is_empty() && far.is_empty() && world.loads.anti_affine == 0 {
            return company;
        }
        for other in world
            .objects
            .pods
            .iter()
            .filter(|other| !pod::is_terminal(other))
        {
            let node = pod::node_name(other).and_then(|node| world.node(node));
            let Some(node) = node else { continue };
            let domain = |topology: &str| {
                let value = node.metadata.labels.as_ref()?.get(topology)?;
                Some((topology.to_owned(), value.clone()))
            };
            for (term, wanted) in near.iter().zip(&mut company.wanted) {
                if selects(world, term, pod, other) {
                    wanted.domains.extend(domain(&term.topology_key));
                }
            }
            for (term, (_, domains)) in far.iter().zip(&mut company.avoided) {
                if selects(world, term, pod, other) {
                    domains.extend(domain(&term.topology_key));
                }
            }
            for term in required(other, Side::Far) {
                if selects(world, term, other, pod) {
                    company.avoiding.extend(domain(&term.topology_key));
                }
            }
        }
        company
    }

    pub(crate) fn accepts(&self, node: &Node) -> Result<(), Misfit> {
        let label = |topology: &String| node.metadata.labels.as_ref().and_then(|l| l.get(topology));
        let inside = |topology: &String, domains: &HashSet<Domain>| {
            label(topology)
                .is_some_and(|value| domains.contains(&(topology.clone(), value.clone())))
        };
        for Wanted {
            topology,
            domains,
            first_of_its_kind,
        } in &self.wanted
        {
            let may_start = domains.is_empty() && *first_of_its_kind && label(topology).is_some();
            if !may_start && !inside(topology, domains) {
                return Err(Misfit::PodAffinity);
            }
        }
        if self
            .avoided
            .iter()
            .any(|(topology, domains)| inside(topology, domains))
        {
            return Err(Misfit::PodAntiAffinity);
        }
        if self
            .avoiding
            .iter()
            .any(|(topology, value)| label(topology) == Some(value))
        {
            return Err(Misfit::ExistingAntiAffinity);
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
enum Side {
    Near,
    Far,
}

fn required(pod: &Pod, side: Side) -> &[PodAffinityTerm] {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
    let terms = match side {
        Side::Near => affinity
            .and_then(|affinity| affinity.pod_affinity.as_ref())
            .and_then(|affinity| {
                affinity
                    .required_during_scheduling_ignored_during_execution
                    .as_deref()
            }),
        Side::Far => affinity
            .and_then(|affinity| affinity.pod_anti_affinity.as_ref())
            .and_then(|affinity| {
                affinity
                    .required_during_scheduling_ignored_during_execution
                    .as_deref()
            }),
    };
    terms.unwrap_or_default()
}

/// The pod keeps others away: everyone's placement must look at it.
pub(crate) fn is_anti_affine(pod: &Pod) -> bool {
    !required(pod, Side::Far).is_empty()
}

/// The pod waits for others to be near to.
pub(crate) fn is_affine(pod: &Pod) -> bool {
    !required(pod, Side::Near).is_empty()
}

/// Whether `owner`'s term speaks of `other`.
fn selects(world: &World, term: &PodAffinityTerm, owner: &Pod, other: &Pod) -> bool {
    let Some(wanted) = &term.label_selector else {
        return false;
    };
    let labels = other.metadata.labels.as_ref();
    selector::matches(wanted, labels)
        && matches_label_keys(term, owner, labels)
        && in_namespaces(world, term, owner, other)
}

/// `matchLabelKeys`: the same value as the owner has.
fn matches_label_keys(
    term: &PodAffinityTerm,
    owner: &Pod,
    labels: Option<&BTreeMap<String, String>>,
) -> bool {
    let own = owner.metadata.labels.as_ref();
    let value = |labels: Option<&BTreeMap<String, String>>, key: &str| {
        labels.and_then(|labels| labels.get(key).cloned())
    };
    let same = term.match_label_keys.iter().flatten();
    let different = term.mismatch_label_keys.iter().flatten();
    same.into_iter()
        .all(|key| value(own, key).is_none() || value(own, key) == value(labels, key))
        && different
            .into_iter()
            .all(|key| value(own, key) != value(labels, key))
}

/// No list and no selector means the owner's namespace.
fn in_namespaces(world: &World, term: &PodAffinityTerm, owner: &Pod, other: &Pod) -> bool {
    let listed = term.namespaces.as_deref().unwrap_or_default();
    let namespace = other.metadata.namespace.as_deref().unwrap_or_default();
    match &term.namespace_selector {
        None if listed.is_empty() => owner.metadata.namespace == other.metadata.namespace,
        None => listed.iter().any(|one| one == namespace),
        Some(selector) => {
            listed.iter().any(|one| one == namespace)
                || namespace_matches(world, selector, namespace)
        }
    }
}

fn namespace_matches(world: &World, selector: &LabelSelector, namespace: &str) -> bool {
    let key = crate::controllers::object::Key::new("", namespace);
    let namespace = world.objects.namespaces.get(&key);
    namespace.is_some_and(|one| selector::matches(selector, one.metadata.labels.as_ref()))
}
