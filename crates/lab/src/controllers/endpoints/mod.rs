//! Which addresses stand behind a Service: EndpointSlices, and the older
//! Endpoints that some programs still read.

mod addresses;
mod legacy;
mod mirror;
mod pack;
mod slices;

pub(crate) use legacy::LegacyEndpoints;
pub(crate) use mirror::MirroredEndpoints;
pub(crate) use slices::EndpointSlices;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};

use super::object::{Change, Key};
use super::pod;
use super::world::World;

/// On slices of headless services.
const HEADLESS: &str = "service.kubernetes.io/headless";

/// Services whose endpoints a change of a pod or node may concern.
fn services_of(world: &World, change: &Change, add: &mut dyn FnMut(Key)) {
    let mut add_selecting = |pod: &Pod| {
        world
            .services_selecting(pod)
            .for_each(|service| add(Key::of(&service.metadata)));
    };
    if change.of::<Pod>().next().is_some() {
        if change.before().map(facts) != change.after().map(facts) {
            change.of::<Pod>().for_each(add_selecting);
        }
    } else if let Some(node) = change.of::<Node>().last() {
        if change.before().and_then(addresses::zone) == change.after().and_then(addresses::zone) {
            return;
        }
        let load = world
            .loads
            .of(node.metadata.name.as_deref().unwrap_or_default());
        let pods = load.into_iter().flat_map(|load| &load.pods);
        pods.filter_map(|key| world.objects.pods.get(key))
            .for_each(|pod| add_selecting(pod));
    }
}

/// What of a pod is seen through its services.
fn facts(pod: &Pod) -> impl PartialEq + use<> {
    let status = pod.status.as_ref();
    (
        pod.metadata.uid.clone(),
        pod.metadata.labels.clone(),
        pod::is_ready(pod),
        pod::is_terminating(pod),
        pod::is_terminal(pod),
        pod::node_name(pod).map(str::to_owned),
        status.and_then(|status| status.pod_ips.clone()),
        status.and_then(|status| status.pod_ip.clone()),
    )
}

/// The service's pods in the order of their names, if it has a selector and
/// addresses of its own.
fn selected_pods<'a>(world: &'a World, service: &'a Service) -> Option<Vec<&'a Arc<Pod>>> {
    let spec = service.spec.as_ref()?;
    let selector = spec
        .selector
        .as_ref()
        .filter(|selector| !selector.is_empty())?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    Some(world.pods_with_labels(namespace, selector).collect())
}

fn is_headless(service: &Service) -> bool {
    service
        .spec
        .as_ref()
        .and_then(|spec| spec.cluster_ip.as_deref())
        == Some("None")
}

/// The service's own labels, and those that this project's controllers add.
fn labels(
    own: Option<&BTreeMap<String, String>>,
    headless: bool,
    added: &[(&str, &str)],
) -> BTreeMap<String, String> {
    let mut labels = own.cloned().unwrap_or_default();
    labels.remove(HEADLESS);
    if headless {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    for (key, value) in added {
        labels.insert((*key).to_owned(), (*value).to_owned());
    }
    labels
}
