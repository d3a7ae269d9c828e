//! Endpoints into slices, with as few and small writes as will do: an endpoint
//! stays in the slice that it is in, and full slices are not touched because
//! others change.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::addresses::Family;
use crate::controllers::object::{Key, Object};
use crate::controllers::plan::Plan;

/// Endpoints in one slice (`--max-endpoints-per-slice`).
pub(crate) const MOST: usize = 100;

/// Endpoints that can share slices: one family, the same ports.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Group {
    pub(crate) family: Family,
    pub(crate) ports: Vec<EndpointPort>,
    pub(crate) endpoints: Vec<Endpoint>,
}

impl Group {
    /// The group of a family without endpoints: there is always a slice, so that
    /// "no endpoints" can be told from "not looked at yet".
    pub(crate) fn placeholder(family: Family) -> Self {
        Self {
            family,
            ports: Vec::new(),
            endpoints: Vec::new(),
        }
    }

    pub(crate) fn of(
        groups: &mut Vec<Self>,
        family: Family,
        ports: Vec<EndpointPort>,
    ) -> &mut Self {
        let found = groups
            .iter()
            .position(|one| one.family == family && one.ports == ports);
        let index = found.unwrap_or_else(|| {
            groups.push(Self {
                family,
                ports,
                endpoints: Vec::new(),
            });
            groups.len() - 1
        });
        &mut groups[index]
    }
}

/// What all slices of one owner have in common.
#[derive(Debug)]
pub(crate) struct Owner<'a> {
    pub(crate) key: &'a Key,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) reference: OwnerReference,
}

/// A slice while it is being changed.
struct Draft {
    slice: EndpointSlice,
    before: Option<Arc<EndpointSlice>>,
}

impl Draft {
    fn endpoints(&mut self) -> &mut Vec<Endpoint> {
        self.slice.endpoints.get_or_insert_default()
    }

    fn is_changed(&self) -> bool {
        self.before.as_deref() != Some(&self.slice)
    }
}

/// Plans what turns the `existing` slices into those of the `groups`.
pub(crate) fn pack(
    owner: &Owner<'_>,
    existing: Vec<Arc<EndpointSlice>>,
    groups: Vec<Group>,
    plan: &mut Plan,
) {
    let mut unused = existing;
    let families: Vec<Family> = {
        let mut families: Vec<Family> = groups.iter().map(|group| group.family).collect();
        families.dedup();
        families
    };
    let mut drafts = Vec::new();
    for group in groups
        .into_iter()
        .filter(|group| !group.endpoints.is_empty())
    {
        let fits = |slice: &Arc<EndpointSlice>| {
            slice.address_type == group.family.name()
                && slice.ports.as_deref().unwrap_or_default() == group.ports
                && slice.metadata.deletion_timestamp.is_none()
        };
        let own: Vec<_> = unused.extract_if(.., |slice| fits(slice)).collect();
        drafts.extend(fill(owner, own, group));
    }
    let (empty, mut kept): (Vec<Draft>, Vec<Draft>) = drafts
        .into_iter()
        .partition(|draft| draft.slice.endpoints.as_ref().is_none_or(Vec::is_empty));
    unused.extend(empty.into_iter().filter_map(|draft| draft.before));
    for family in families {
        let has_one = kept
            .iter()
            .any(|draft| draft.slice.address_type == family.name());
        if !has_one {
            kept.push(placeholder(owner, family, &mut unused));
        }
    }
    // First what is new, then what goes: nobody sees less than there is.
    for draft in kept.into_iter().filter(Draft::is_changed) {
        match draft.before {
            Some(_) => plan.update(draft.slice),
            None => plan.create(draft.slice, None),
        }
    }
    for slice in unused {
        plan.delete(&Object::EndpointSlice(slice), None);
    }
}

fn fill(owner: &Owner<'_>, existing: Vec<Arc<EndpointSlice>>, group: Group) -> Vec<Draft> {
    let mut wanted: HashMap<String, Endpoint> = HashMap::new();
    let mut order = Vec::new();
    for endpoint in group.endpoints {
        let identity = identity(&endpoint);
        order.push(identity.clone());
        wanted.insert(identity, endpoint);
    }
    let mut drafts: Vec<Draft> = existing
        .into_iter()
        .map(|slice| draft_of(owner, slice))
        .collect();
    for draft in &mut drafts {
        let kept = draft
            .endpoints()
            .iter()
            .filter_map(|old| wanted.remove(&identity(old)));
        *draft.endpoints() = kept.collect();
    }
    let mut fresh = order
        .into_iter()
        .filter_map(|identity| wanted.remove(&identity))
        .peekable();
    // Slices that are written anyway take the new ones first.
    drafts.sort_by_key(|draft| !draft.is_changed());
    for draft in &mut drafts {
        while fresh.peek().is_some() && draft.endpoints().len() < MOST {
            draft.endpoints().extend(fresh.next());
        }
    }
    while fresh.peek().is_some() {
        let mut draft = new_draft(owner, group.family, group.ports.clone());
        draft.endpoints().extend(fresh.by_ref().take(MOST));
        drafts.push(draft);
    }
    drafts
}

/// Same address of the same pod.
fn identity(endpoint: &Endpoint) -> String {
    let uid = endpoint
        .target_ref
        .as_ref()
        .and_then(|target| target.uid.as_deref());
    format!(
        "{} {}",
        endpoint.addresses.join(","),
        uid.unwrap_or_default()
    )
}

fn draft_of(owner: &Owner<'_>, before: Arc<EndpointSlice>) -> Draft {
    let mut slice = EndpointSlice::clone(&before);
    slice.metadata.labels = Some(owner.labels.clone());
    slice.endpoints.get_or_insert_default();
    Draft {
        slice,
        before: Some(before),
    }
}

fn new_draft(owner: &Owner<'_>, family: Family, ports: Vec<EndpointPort>) -> Draft {
    let slice = EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", owner.key.name)),
            namespace: Some(owner.key.namespace.clone()),
            labels: Some(owner.labels.clone()),
            owner_references: Some(vec![owner.reference.clone()]),
            ..ObjectMeta::default()
        },
        address_type: family.name().to_owned(),
        endpoints: Some(Vec::new()),
        ports: Some(ports),
    };
    Draft {
        slice,
        before: None,
    }
}

/// An empty slice: one that is no longer needed, or a new one.
fn placeholder(owner: &Owner<'_>, family: Family, unused: &mut Vec<Arc<EndpointSlice>>) -> Draft {
    let reusable = unused.iter().position(|slice| {
        slice.address_type == family.name() && slice.metadata.deletion_timestamp.is_none()
    });
    match reusable {
        Some(index) => {
            let mut draft = draft_of(owner, unused.swap_remove(index));
            draft.slice.endpoints = Some(Vec::new());
            draft.slice.ports = None;
            // What the API holds for "none" is a matter of its encoding.
            if let Some(before) = &draft.before {
                if before.ports.as_ref().is_none_or(Vec::is_empty) {
                    draft.slice.ports.clone_from(&before.ports);
                }
                if before.endpoints.as_ref().is_none_or(Vec::is_empty) {
                    draft.slice.endpoints.clone_from(&before.endpoints);
                }
            }
            draft
        }
        None => {
            let mut draft = new_draft(owner, family, Vec::new());
            draft.slice.ports = None;
            draft
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::plan::Action;

    fn owner(key: &Key) -> Owner<'_> {
        Owner {
            key,
            labels: BTreeMap::new(),
            reference: OwnerReference::default(),
        }
    }

    fn group(addresses: impl Iterator<Item = usize>) -> Vec<Group> {
        let endpoints = addresses.map(|n| Endpoint {
            addresses: vec![format!("10.0.{}.{}", n / 250, n % 250 + 1)],
            ..Endpoint::default()
        });
        vec![Group {
            family: Family::V4,
            ports: Vec::new(),
            endpoints: endpoints.collect(),
        }]
    }

    /// What the API would hold after the plan.
    fn apply(slices: &mut Vec<Arc<EndpointSlice>>, plan: Plan) -> (usize, usize, usize) {
        let mut counts = (0, 0, 0);
        for action in plan.actions {
            match action {
                Action::Create {
                    object: Object::EndpointSlice(slice),
                    ..
                } => {
                    counts.0 += 1;
                    let mut slice = EndpointSlice::clone(&slice);
                    slice.metadata.name = Some(format!("s{}", slices.len() + 100 * counts.0));
                    slices.push(Arc::new(slice));
                }
                Action::Update(Object::EndpointSlice(slice)) => {
                    counts.1 += 1;
                    let name = &slice.metadata.name;
                    let old = slices
                        .iter_mut()
                        .find(|one| one.metadata.name == *name)
                        .unwrap();
                    *old = slice;
                }
                Action::Delete { target, .. } => {
                    counts.2 += 1;
                    slices.retain(|one| one.metadata.name.as_ref() != Some(&target.key.name));
                }
                other => panic!("{other:?}"),
            }
        }
        counts
    }

    fn sizes(slices: &[Arc<EndpointSlice>]) -> Vec<usize> {
        let mut sizes: Vec<usize> = slices
            .iter()
            .map(|slice| slice.endpoints.as_ref().map_or(0, Vec::len))
            .collect();
        sizes.sort_unstable();
        sizes
    }

    #[test]
    fn a_change_touches_one_slice() {
        let key = Key::new("a", "web");
        let owner = owner(&key);
        let mut slices = Vec::new();
        let mut step = |groups| {
            let mut plan = Plan::default();
            pack(&owner, slices.clone(), groups, &mut plan);
            let counts = apply(&mut slices, plan);
            (counts, sizes(&slices))
        };
        // (created, updated, deleted), endpoints in each slice
        assert_eq!(
            step(vec![Group::placeholder(Family::V4)]),
            ((1, 0, 0), vec![0])
        );
        assert_eq!(
            step(vec![Group::placeholder(Family::V4)]),
            ((0, 0, 0), vec![0])
        );
        assert_eq!(step(group(0..250)), ((2, 1, 0), vec![50, 100, 100]));
        assert_eq!(step(group(0..250)), ((0, 0, 0), vec![50, 100, 100]));
        assert_eq!(step(group(1..251)), ((0, 1, 0), vec![50, 100, 100]));
        assert_eq!(step(group(1..252)), ((0, 1, 0), vec![51, 100, 100]));
        assert_eq!(step(group(251..252)).0.0, 0);
        let (_, sizes) = step(vec![Group::placeholder(Family::V4)]);
        assert_eq!(sizes, [0]);
    }

    #[test]
    fn families_and_port_sets_have_slices_of_their_own() {
        let key = Key::new("a", "web");
        let mut groups = vec![
            Group::placeholder(Family::V4),
            Group::placeholder(Family::V6),
        ];
        let port = |number| {
            vec![EndpointPort {
                port: Some(number),
                ..EndpointPort::default()
            }]
        };
        for (family, number) in [(Family::V4, 80), (Family::V4, 81), (Family::V6, 80)] {
            let endpoint = Endpoint {
                addresses: vec![number.to_string()],
                ..Endpoint::default()
            };
            Group::of(&mut groups, family, port(number))
                .endpoints
                .push(endpoint);
        }
        let mut plan = Plan::default();
        pack(&owner(&key), Vec::new(), groups, &mut plan);
        assert_eq!(plan.actions.len(), 3);
    }
}
