//! Service with a selector -> EndpointSlices
//! (Kubernetes: `staging/src/k8s.io/endpointslice/reconciler.go`).

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone,
};
use k8s_openapi::jiff::Timestamp;

use super::addresses::{self, Family};
use super::pack::{Group, Owner, pack};
use super::{is_headless, labels, selected_pods, services_of};
use crate::controllers::controller::{Controller, managers};
use crate::controllers::object::{Change, Key, Kind, Object, controller_ref, label};
use crate::controllers::plan::Plan;
use crate::controllers::pod;
use crate::controllers::world::World;

pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";

#[derive(Debug)]
pub(crate) struct EndpointSlices;

impl Controller for EndpointSlices {
    fn component(&self) -> &'static str {
        "endpoint-slice-controller"
    }

    fn affected(&self, world: &World, change: &Change, add: &mut dyn FnMut(Key)) {
        match change.latest() {
            Object::Service(service) => add(Key::of(&service.metadata)),
            Object::EndpointSlice(_) => managers(change, Kind::Service).for_each(add),
            _ => services_of(world, change, add),
        }
    }

    fn decide(&self, world: &World, key: &Key, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(service) = world.objects.services.get(key) else {
            return plan;
        };
        let Some(pods) = selected_pods(world, service) else {
            return plan;
        };
        if service.metadata.deletion_timestamp.is_some() {
            return plan;
        }
        let mut groups: Vec<Group> = Vec::new();
        for family in Family::of_service(service) {
            groups.push(Group::placeholder(family));
            for pod in pods.iter().filter(|pod| addresses::can_serve(pod)) {
                if let Some(endpoint) = endpoint(world, service, pod, family) {
                    Group::of(&mut groups, family, ports(service, pod))
                        .endpoints
                        .push(endpoint);
                }
            }
        }
        let uid = service.metadata.uid.as_deref().unwrap_or_default();
        let slices = world.objects.endpoint_slices.controlled_by(uid);
        let existing = slices
            .filter(|slice| label(&slice.metadata, MANAGED_BY) == Some(MANAGER))
            .cloned()
            .collect();
        let added = [(SERVICE_NAME, &*key.name), (MANAGED_BY, MANAGER)];
        let owner = Owner {
            key,
            labels: labels(
                service.metadata.labels.as_ref(),
                is_headless(service),
                &added,
            ),
            reference: controller_ref(&**service),
        };
        pack(&owner, existing, groups, &mut plan);
        plan
    }
}

fn endpoint(world: &World, service: &Service, pod: &Pod, family: Family) -> Option<Endpoint> {
    let address = addresses::address(pod, family)?;
    let spec = service.spec.as_ref()?;
    let node = pod::node_name(pod).and_then(|name| world.node(name));
    let serving = pod::is_ready(pod);
    let terminating = pod::is_terminating(pod);
    let publish = spec.publish_not_ready_addresses == Some(true);
    let zone = node
        .and_then(|node| addresses::zone(node))
        .map(str::to_owned);
    Some(Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(EndpointConditions {
            // A terminating pod is never ready, unless even unready ones are published.
            ready: Some(publish || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hints: hints(
            spec.traffic_distribution.as_deref(),
            zone.as_deref(),
            pod::node_name(pod),
        ),
        hostname: addresses::hostname(pod, service),
        node_name: pod::node_name(pod).map(str::to_owned),
        target_ref: Some(addresses::target_ref(pod)),
        zone,
        deprecated_topology: None,
    })
}

/// `spec.trafficDistribution`: an endpoint is for clients of its own zone (or node).
fn hints(wish: Option<&str>, zone: Option<&str>, node: Option<&str>) -> Option<EndpointHints> {
    let zones = || {
        Some(vec![ForZone {
            name: zone?.to_owned(),
        }])
    };
    let hints = match wish? {
        "PreferClose" | "PreferSameZone" => EndpointHints {
            for_zones: zones(),
            for_nodes: None,
        },
        "PreferSameNode" => EndpointHints {
            for_zones: zones(),
            for_nodes: node.map(|node| {
                vec![ForNode {
                    name: node.to_owned(),
                }]
            }),
        },
        _ => return None,
    };
    (hints != EndpointHints::default()).then_some(hints)
}

/// The service's ports as this pod has them; those that it lacks are left out.
fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    ports
        .into_iter()
        .flatten()
        .filter_map(|port| {
            Some(EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                protocol: Some(addresses::protocol(port.protocol.as_deref()).to_owned()),
                port: Some(addresses::target_port(pod, port)?),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect()
}
