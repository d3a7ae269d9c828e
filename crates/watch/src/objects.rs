//! Objects of which only a part is read.
//!
//! Pods make up most of a cluster's bytes: what policies do not ask is skipped
//! while it is decoded. Services and ServiceCIDRs are read without their
//! conditions, as whoever may write a status can write some that do not decode
//! (`lastTransitionTime: null`). ClusterNetworkPolicies are read as plain values, so that
//! one of a later version is understood as far as it can be and otherwise fails
//! closed, as its API demands.

use std::borrow::Cow;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;
use serde_json::Value;

/// A Pod (v1) as far as policies ask.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct PodObject {
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub(crate) spec: PodSpec,
    #[serde(default)]
    pub(crate) status: PodStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodSpec {
    pub(crate) node_name: Option<String>,
    pub(crate) host_network: Option<bool>,
    pub(crate) containers: Option<Vec<Container>>,
    pub(crate) init_containers: Option<Vec<Container>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Container {
    pub(crate) restart_policy: Option<String>,
    pub(crate) ports: Option<Vec<Port>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Port {
    pub(crate) name: Option<String>,
    pub(crate) container_port: i32,
    pub(crate) protocol: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct PodStatus {
    pub(crate) phase: Option<String>,
    #[serde(rename = "podIP")]
    pub(crate) pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pub(crate) pod_ips: Option<Vec<PodIp>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct PodIp {
    #[serde(default)]
    pub(crate) ip: String,
}

/// A Service (v1) as far as the network asks.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ServiceObject {
    pub metadata: ObjectMeta,
    pub(crate) spec: Option<core::ServiceSpec>,
    pub(crate) status: Option<ServiceStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServiceStatus {
    pub(crate) load_balancer: Option<core::LoadBalancerStatus>,
}

/// A ServiceCIDR (networking.k8s.io/v1) without its status.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ServiceCidrObject {
    pub metadata: ObjectMeta,
    pub(crate) spec: Option<networking::ServiceCIDRSpec>,
}

/// A ClusterNetworkPolicy (policy.networking.k8s.io/v1alpha2).
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ClusterNetworkPolicyObject {
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub(crate) spec: Value,
}

macro_rules! resources {
    ($($type:ty: $group:literal, $version:literal, $kind:literal, $plural:literal;)+) => {$(
        impl Resource for $type {
            type DynamicType = ();
            type Scope = kube::core::DynamicResourceScope;

            fn kind((): &()) -> Cow<'_, str> {
                $kind.into()
            }
            fn group((): &()) -> Cow<'_, str> {
                $group.into()
            }
            fn version((): &()) -> Cow<'_, str> {
                $version.into()
            }
            fn plural((): &()) -> Cow<'_, str> {
                $plural.into()
            }
            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    )+};
}

resources! {
    PodObject: "", "v1", "Pod", "pods";
    ServiceObject: "", "v1", "Service", "services";
    ServiceCidrObject: "networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs";
    ClusterNetworkPolicyObject:
        "policy.networking.k8s.io", "v1alpha2", "ClusterNetworkPolicy", "clusternetworkpolicies";
}
