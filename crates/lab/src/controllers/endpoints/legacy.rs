//! Service with a selector -> Endpoints, the older form: one object, the
//! service's first family only.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;

use super::addresses::{self, Family};
use super::{is_headless, labels, selected_pods, services_of};
use crate::controllers::controller::Controller;
use crate::controllers::object::{Change, Key, Object, label};
use crate::controllers::plan::Plan;
use crate::controllers::pod;
use crate::controllers::world::World;

pub(crate) const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
/// Addresses in one Endpoints object; more than that are cut off and said so.
const MOST: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

#[derive(Debug)]
pub(crate) struct LegacyEndpoints;

impl Controller for LegacyEndpoints {
    fn component(&self) -> &'static str {
        "endpoint-controller"
    }

    fn affected(&self, world: &World, change: &Change, add: &mut dyn FnMut(Key)) {
        match change.latest() {
            Object::Service(service) => add(Key::of(&service.metadata)),
            Object::Endpoints(endpoints) => add(Key::of(&endpoints.metadata)),
            _ => services_of(world, change, add),
        }
    }

    fn decide(&self, world: &World, key: &Key, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let existing = world.objects.endpoints.get(key);
        let Some(service) = world.objects.services.get(key) else {
            // Nothing owns Endpoints, so nobody else removes them.
            let ours = |one: &Endpoints| label(&one.metadata, MANAGED_BY) == Some(MANAGER);
            if let Some(left) = existing.filter(|left| ours(left)) {
                plan.delete(&Object::Endpoints(left.clone()), None);
            }
            return plan;
        };
        let Some(pods) = selected_pods(world, service) else {
            return plan;
        };
        if service.metadata.deletion_timestamp.is_some() {
            return plan;
        }
        let (subsets, cut) = subsets(service, &pods);
        let added = [(MANAGED_BY, MANAGER)];
        let labels = labels(
            service.metadata.labels.as_ref(),
            is_headless(service),
            &added,
        );
        let mut wanted = existing.map_or_else(|| new(key), |existing| Endpoints::clone(existing));
        wanted.metadata.labels = Some(labels);
        if wanted.subsets.as_deref().unwrap_or_default() != subsets {
            wanted.subsets = Some(subsets);
        }
        let annotations = wanted.metadata.annotations.get_or_insert_default();
        annotations.remove(OVER_CAPACITY);
        if cut {
            annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
        }
        if annotations.is_empty() {
            wanted.metadata.annotations = None;
        }
        match existing {
            Some(existing) if **existing == wanted => {}
            Some(_) => plan.update(wanted),
            None => plan.create(wanted, None),
        }
        plan
    }
}

fn new(key: &Key) -> Endpoints {
    Endpoints {
        metadata: ObjectMeta {
            name: Some(key.name.clone()),
            namespace: Some(key.namespace.clone()),
            ..ObjectMeta::default()
        },
        subsets: None,
    }
}

/// Ports in a form that can be compared: name, number, protocol, application
/// protocol.
type Ports = Vec<(Option<String>, i32, String, Option<String>)>;

/// Addresses grouped by their ports, and whether some had to be left out.
fn subsets(service: &Service, pods: &[&std::sync::Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let publish = service
        .spec
        .as_ref()
        .and_then(|spec| spec.publish_not_ready_addresses);
    let publish = publish == Some(true);
    let family = Family::of_service(service)
        .first()
        .copied()
        .unwrap_or(Family::V4);
    let mut groups: BTreeMap<Ports, [BTreeMap<IpAddr, EndpointAddress>; 2]> = BTreeMap::new();
    let mut count = 0;
    let serving = pods
        .iter()
        .filter(|pod| addresses::can_serve(pod) && (publish || !pod::is_terminating(pod)));
    for pod in serving {
        let Some(address) = addresses::address(pod, family) else {
            continue;
        };
        let Some(ports) = ports(service, pod) else {
            continue;
        };
        count += 1;
        if count > MOST {
            continue;
        }
        let unready = usize::from(!(publish || pod::is_ready(pod)));
        let entry = EndpointAddress {
            ip: address.to_string(),
            hostname: addresses::hostname(pod, service),
            node_name: pod::node_name(pod).map(str::to_owned),
            target_ref: Some(addresses::target_ref(pod)),
        };
        groups.entry(ports).or_default()[unready].insert(address, entry);
    }
    let subsets = groups
        .into_iter()
        .map(|(ports, [ready, unready])| EndpointSubset {
            addresses: listed(ready.into_values().collect()),
            not_ready_addresses: listed(unready.into_values().collect()),
            ports: listed(ports.into_iter().map(endpoint_port).collect()),
        });
    (subsets.collect(), count > MOST)
}

fn listed<T>(items: Vec<T>) -> Option<Vec<T>> {
    (!items.is_empty()).then_some(items)
}

fn endpoint_port(
    (name, port, protocol, app_protocol): (Option<String>, i32, String, Option<String>),
) -> EndpointPort {
    EndpointPort {
        name,
        port,
        protocol: Some(protocol),
        app_protocol,
    }
}

/// `None` if the service has ports and the pod has none of them.
fn ports(service: &Service, pod: &Pod) -> Option<Ports> {
    let wanted = service.spec.as_ref()?.ports.as_deref().unwrap_or_default();
    let ports: Ports = wanted
        .iter()
        .filter_map(|port| {
            let number = addresses::target_port(pod, port)?;
            let protocol = addresses::protocol(port.protocol.as_deref()).to_owned();
            let name = port.name.clone().filter(|name| !name.is_empty());
            Some((name, number, protocol, port.app_protocol.clone()))
        })
        .collect();
    (wanted.is_empty() || !ports.is_empty()).then_some(ports)
}
