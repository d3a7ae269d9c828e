//! Everything that decisions are made from: the caches, and the indexes that
//! keep a decision's cost independent of the size of the cluster.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::cache::Stale;
use super::object::{
    Cached, Caches, Change, Key, Kind, Object, controller_of, for_kind, for_object,
};
use super::scheduler::load::Loads;
use super::{pod, selector};

/// (namespace, label, value)
type Label = (String, String, String);

#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) objects: Caches,
    /// What runs where.
    pub(crate) loads: Loads,
    /// Pods that wait for a node.
    pub(crate) unscheduled: BTreeSet<Key>,
    /// Pods that no controller manages: candidates for adoption.
    orphans: BTreeSet<Key>,
    pods_by_label: HashMap<Label, BTreeSet<Key>>,
    /// Services by one of the labels that they select.
    services_by_label: HashMap<Label, BTreeSet<Key>>,
}

impl World {
    /// Takes in an object; the change, unless the cache already has it.
    pub(crate) fn put(&mut self, object: Object) -> Option<Change> {
        let old = for_object!(&object, inner => put(&mut self.objects, inner.clone())).ok()?;
        let change = Change {
            old,
            new: Some(object),
        };
        self.index(&change);
        Some(change)
    }

    pub(crate) fn remove(&mut self, kind: Kind, key: &Key) -> Option<Change> {
        let old = for_kind!(kind, K => K::cache_mut(&mut self.objects).remove(key).map(K::object))?;
        let change = Change {
            old: Some(old),
            new: None,
        };
        self.index(&change);
        Some(change)
    }

    fn index(&mut self, change: &Change) {
        match change.latest() {
            Object::Pod(_) => self.index_pod(change.before(), change.after()),
            Object::Service(_) => self.index_service(change.before(), change.after()),
            _ => {}
        }
    }

    fn index_pod(&mut self, old: Option<&Pod>, new: Option<&Pod>) {
        self.loads.replace(old, new);
        let Some(key) = new.or(old).map(|pod| Key::of(&pod.metadata)) else {
            return;
        };

        let waits = |pod: &Pod| pod::node_name(pod).is_none() && pod::is_active(pod);
        toggle(&mut self.unscheduled, &key, new.is_some_and(waits));
        let orphan = |pod: &Pod| controller_of(&pod.metadata).is_none();
        toggle(&mut self.orphans, &key, new.is_some_and(orphan));

        if old.map(|pod| &pod.metadata.labels) == new.map(|pod| &pod.metadata.labels) {
            return;
        }
        for label in old
            .into_iter()
            .flat_map(|pod| labels(&key, pod.metadata.labels.as_ref()))
        {
            take(&mut self.pods_by_label, &label, &key);
        }
        for label in new
            .into_iter()
            .flat_map(|pod| labels(&key, pod.metadata.labels.as_ref()))
        {
            self.pods_by_label
                .entry(label)
                .or_default()
                .insert(key.clone());
        }
    }

    fn index_service(&mut self, old: Option<&Service>, new: Option<&Service>) {
        if let Some((label, key)) = old.and_then(first_selected) {
            take(&mut self.services_by_label, &label, &key);
        }
        if let Some((label, key)) = new.and_then(first_selected) {
            self.services_by_label.entry(label).or_default().insert(key);
        }
    }

    /// Pods of the namespace with all of these labels.
    pub(crate) fn pods_with_labels<'a>(
        &'a self,
        namespace: &str,
        wanted: &'a BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'a Arc<Pod>> {
        let sets = wanted.iter().map(|(label, value)| {
            self.pods_by_label
                .get(&(namespace.to_owned(), label.clone(), value.clone()))
        });
        // One missing set means that nothing matches.
        let smallest = sets
            .collect::<Option<Vec<_>>>()
            .and_then(|sets| sets.into_iter().min_by_key(|set| set.len()));
        smallest
            .into_iter()
            .flatten()
            .filter_map(|key| self.objects.pods.get(key))
            .filter(move |pod| selector::contains(wanted, pod.metadata.labels.as_ref()))
    }

    /// Services whose selector the pod's labels satisfy.
    pub(crate) fn services_selecting<'a>(
        &'a self,
        pod: &'a Pod,
    ) -> impl Iterator<Item = &'a Arc<Service>> {
        let key = Key::of(&pod.metadata);
        labels(&key, pod.metadata.labels.as_ref())
            .collect::<Vec<_>>()
            .into_iter()
            .filter_map(|label| self.services_by_label.get(&label))
            .flatten()
            .filter_map(|key| self.objects.services.get(key))
            .filter(|service| {
                let wanted = service
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.selector.as_ref());
                wanted
                    .is_some_and(|wanted| selector::contains(wanted, pod.metadata.labels.as_ref()))
            })
    }

    pub(crate) fn node(&self, name: &str) -> Option<&Arc<Node>> {
        self.objects.nodes.get(&Key::new("", name))
    }

    /// Pods without a manager that the selector matches.
    pub(crate) fn orphans<'a>(
        &'a self,
        namespace: &'a str,
        wanted: &'a LabelSelector,
    ) -> impl Iterator<Item = &'a Arc<Pod>> {
        self.orphans
            .range(Key::new(namespace, "")..)
            .take_while(move |key| key.namespace == namespace)
            .filter_map(|key| self.objects.pods.get(key))
            .filter(|pod| selector::matches(wanted, pod.metadata.labels.as_ref()))
    }
}

fn put<K: Cached>(caches: &mut Caches, object: Arc<K>) -> Result<Option<Object>, Stale> {
    Ok(K::cache_mut(caches).put(object)?.map(K::object))
}

fn toggle(set: &mut BTreeSet<Key>, key: &Key, member: bool) {
    if member {
        set.insert(key.clone());
    } else {
        set.remove(key);
    }
}

fn take(index: &mut HashMap<Label, BTreeSet<Key>>, label: &Label, key: &Key) {
    if let Some(keys) = index.get_mut(label) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(label);
        }
    }
}

fn labels(key: &Key, labels: Option<&BTreeMap<String, String>>) -> impl Iterator<Item = Label> {
    labels
        .into_iter()
        .flatten()
        .map(|(label, value)| (key.namespace.clone(), label.clone(), value.clone()))
}

fn first_selected(service: &Service) -> Option<(Label, Key)> {
    let key = Key::of(&service.metadata);
    let (label, value) = service
        .spec
        .as_ref()?
        .selector
        .as_ref()?
        .first_key_value()?;
    Some(((key.namespace.clone(), label.clone(), value.clone()), key))
}
