//! Endpoints written by hand, for a Service without a selector -> EndpointSlices,
//! which is where everybody else looks.

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};
use k8s_openapi::jiff::Timestamp;

use super::addresses::Family;
use super::pack::{Group, Owner, pack};
use super::slices::{MANAGED_BY, SERVICE_NAME};
use super::{is_headless, labels};
use crate::controllers::controller::{Controller, managers};
use crate::controllers::object::{Change, Key, Kind, Object, annotation, controller_ref, label};
use crate::controllers::plan::Plan;
use crate::controllers::world::World;

const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Addresses of one subset that are mirrored.
const MOST: usize = 1000;

#[derive(Debug)]
pub(crate) struct MirroredEndpoints;

impl Controller for MirroredEndpoints {
    fn component(&self) -> &'static str {
        "endpoint-slice-mirroring-controller"
    }

    fn affected(&self, _world: &World, change: &Change, add: &mut dyn FnMut(Key)) {
        match change.latest() {
            Object::Service(service) => add(Key::of(&service.metadata)),
            Object::Endpoints(endpoints) => add(Key::of(&endpoints.metadata)),
            Object::EndpointSlice(_) => managers(change, Kind::Endpoints).for_each(add),
            _ => {}
        }
    }

    fn decide(&self, world: &World, key: &Key, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(endpoints) = world.objects.endpoints.get(key) else {
            return plan;
        };
        let uid = endpoints.metadata.uid.as_deref().unwrap_or_default();
        let slices = world.objects.endpoint_slices.controlled_by(uid);
        let existing: Vec<_> = slices
            .filter(|slice| label(&slice.metadata, MANAGED_BY) == Some(MANAGER))
            .cloned()
            .collect();
        let service = world
            .objects
            .services
            .get(key)
            .filter(|service| is_unmanaged(service));
        let Some(service) = service.filter(|_| wants_mirror(endpoints)) else {
            for slice in existing {
                plan.delete(&Object::EndpointSlice(slice), None);
            }
            return plan;
        };
        let mut groups = Vec::new();
        for subset in endpoints.subsets.iter().flatten() {
            mirror(subset, &mut groups);
        }
        let added = [(SERVICE_NAME, &*key.name), (MANAGED_BY, MANAGER)];
        let owner = Owner {
            key,
            labels: labels(
                endpoints.metadata.labels.as_ref(),
                is_headless(service),
                &added,
            ),
            reference: controller_ref(&**endpoints),
        };
        pack(&owner, existing, groups, &mut plan);
        plan
    }
}

fn is_unmanaged(service: &Service) -> bool {
    let selector = service
        .spec
        .as_ref()
        .and_then(|spec| spec.selector.as_ref());
    selector.is_none_or(|selector| selector.is_empty())
}

fn wants_mirror(endpoints: &Endpoints) -> bool {
    label(&endpoints.metadata, SKIP) != Some("true")
        && annotation(&endpoints.metadata, LEADER).is_none()
}

fn mirror(subset: &EndpointSubset, groups: &mut Vec<Group>) {
    let ports: Vec<EndpointPort> = subset
        .ports
        .iter()
        .flatten()
        .map(|port| EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(port.port),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
            app_protocol: port.app_protocol.clone(),
        })
        .collect();
    let ready = subset
        .addresses
        .iter()
        .flatten()
        .map(|address| (address, true));
    let unready = subset
        .not_ready_addresses
        .iter()
        .flatten()
        .map(|address| (address, false));
    for (address, is_ready) in ready.chain(unready).take(MOST) {
        let Ok(ip) = address.ip.parse() else { continue };
        let group = Group::of(groups, Family::of(ip), ports.clone());
        group.endpoints.push(endpoint(address, is_ready));
    }
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            ..EndpointConditions::default()
        }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}
