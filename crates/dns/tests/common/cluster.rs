//! The cluster of `cluster.yaml`, read by the code that reads the API's objects.

use k8s_openapi::api::discovery::v1::EndpointSlice;
use ripstop_dns::Zone;
use ripstop_plan::{PlanConfig, Planner};
use ripstop_watch::ServiceObject;
use serde_json::{Value, json};

use crate::common::config;

/// The cluster's DNS service, as the lab has it.
fn kube_dns() -> Value {
    json!({"kind": "Service", "metadata": {"name": "kube-dns", "namespace": "kube-system"},
        "spec": {"clusterIPs": ["10.96.0.10", "fd00:96::a"], "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]}})
}

pub(crate) fn zone() -> Zone {
    let zone = Zone::new(config()).unwrap();
    let mut planner = Planner::new(PlanConfig::default());
    let cluster: Vec<Value> = serde_saphyr::from_multiple(include_str!("../cluster.yaml")).unwrap();
    for object in cluster.into_iter().chain([kube_dns()]) {
        match object["kind"].as_str() {
            Some("Service") => {
                let object: ServiceObject = serde_json::from_value(object).unwrap();
                planner.upsert_service(ripstop_watch::service(&object).model.unwrap());
            }
            Some("EndpointSlice") => {
                let object: EndpointSlice = serde_json::from_value(object).unwrap();
                planner.upsert_slice(ripstop_watch::slice(&object).model.unwrap());
            }
            _ => {}
        }
    }
    zone.update(planner.take_update().names);
    zone.set_known();
    zone
}
