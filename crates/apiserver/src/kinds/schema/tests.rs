//! The fields of our types against those of `k8s-openapi`, which is generated
//! from Kubernetes' own description.

use std::collections::BTreeSet;
use std::fmt;

use k8s_openapi::api::apps::v1 as apps;
use k8s_openapi::api::batch::v1 as batch;
use k8s_openapi::api::coordination::v1 as coordination;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::api::rbac::v1 as rbac;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as extensions;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use serde::de::{Deserialize, Deserializer, Error, Visitor};

use super::*;

/// Asks a type for its fields and ends.
struct Ask;

#[derive(Debug)]
struct Fields(Vec<&'static str>);

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl std::error::Error for Fields {}

impl Error for Fields {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self(Vec::new())
    }
}

impl<'de> Deserializer<'de> for Ask {
    type Error = Fields;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Fields> {
        Err(Fields(fields.to_vec()))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Fields> {
        Err(Fields(Vec::new()))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

fn fields<'de, T: Deserialize<'de> + fmt::Debug>() -> BTreeSet<&'static str> {
    T::deserialize(Ask).unwrap_err().0.into_iter().collect()
}

/// Fields that came after Kubernetes 1.36, or that newer clients leave out.
const OTHERS: &[&str] = &[
    "bindMountOptions",
    "defaultUser",
    "evictionResponders",
    "podPreemptionPolicy",
    "scheduling",
    "selfLink",
    "volumeHealth",
];

macro_rules! same {
    ($($group:literal: $($module:ident :: $type:ident),+ $(,)?);+ $(;)?) => {
        let mut wrong = Vec::new();
        $($({
            let ours = object($group, stringify!($type));
            let ours: BTreeSet<&str> = ours.fields.keys().map(String::as_str).collect();
            let theirs = fields::<$module::$type>();
            assert!(!theirs.is_empty(), "{}", stringify!($type));
            let odd: Vec<_> = ours
                .symmetric_difference(&theirs)
                .filter(|field| !OTHERS.contains(field))
                .collect();
            if !odd.is_empty() {
                wrong.push(format!("{}: {odd:?}", stringify!($type)));
            }
        })+)+
        assert_eq!(wrong, Vec::<String>::new());
    };
}

#[test]
fn types_have_the_fields_of_kubernetes() {
    same! {
        "": meta::ObjectMeta, meta::LabelSelector, meta::OwnerReference, meta::Condition,
            core::Namespace, core::Node, core::NodeSpec, core::NodeStatus, core::Pod,
            core::PodSpec, core::PodStatus, core::PodTemplateSpec, core::Container,
            core::ContainerPort, core::ContainerStatus, core::EnvVar, core::EnvVarSource,
            core::Probe, core::ExecAction, core::Lifecycle, core::SecurityContext,
            core::PodSecurityContext, core::ResourceRequirements, core::Volume,
            core::VolumeMount, core::ConfigMapVolumeSource, core::SecretVolumeSource,
            core::ProjectedVolumeSource, core::PodDNSConfig, core::Toleration,
            core::TopologySpreadConstraint, core::Affinity, core::Service,
            core::ServiceSpec, core::ServicePort, core::ServiceStatus,
            core::LoadBalancerIngress, core::Endpoints, core::EndpointSubset,
            core::EndpointAddress, core::ConfigMap, core::Secret, core::ServiceAccount,
            core::Event, core::ObjectReference, core::EphemeralContainer;
        "apps": apps::Deployment, apps::DeploymentSpec, apps::DeploymentStatus,
            apps::ReplicaSetSpec, apps::ReplicaSetStatus, apps::StatefulSetSpec,
            apps::StatefulSetStatus, apps::DaemonSetSpec, apps::DaemonSetStatus;
        "batch": batch::Job, batch::JobSpec, batch::JobStatus;
        "discovery.k8s.io": discovery::EndpointSlice, discovery::Endpoint,
            discovery::EndpointPort, discovery::EndpointConditions;
        "networking.k8s.io": networking::NetworkPolicySpec, networking::NetworkPolicyPort,
            networking::NetworkPolicyPeer, networking::IPBlock, networking::IngressSpec,
            networking::IngressBackend, networking::HTTPIngressPath,
            networking::IngressClassSpec;
        "coordination.k8s.io": coordination::LeaseSpec;
        "rbac.authorization.k8s.io": rbac::ClusterRole, rbac::ClusterRoleBinding, rbac::Role,
            rbac::RoleBinding, rbac::PolicyRule, rbac::RoleRef, rbac::Subject,
            rbac::AggregationRule;
        "apiextensions.k8s.io": extensions::CustomResourceDefinitionSpec,
            extensions::CustomResourceDefinitionVersion,
            extensions::CustomResourceDefinitionNames;
    }
}

#[test]
fn patch_and_apply_agree_on_lists() {
    let spec = object("", "PodSpec");
    let list = |name: &str| match &spec.field(name).unwrap().type_ {
        Type::List(list) => Arc::clone(list),
        other => panic!("{name} is {other:?}"),
    };
    let merges = |key: &str| ListPatch::Merge(Some(key.to_owned()));
    for (name, patch, kind) in [
        (
            "containers",
            merges("name"),
            ListKind::Map(vec!["name".to_owned()]),
        ),
        (
            "hostAliases",
            merges("ip"),
            ListKind::Map(vec!["ip".to_owned()]),
        ),
        ("tolerations", ListPatch::Replace, ListKind::Atomic),
        (
            "topologySpreadConstraints",
            merges("topologyKey"),
            ListKind::Map(vec![
                "topologyKey".to_owned(),
                "whenUnsatisfiable".to_owned(),
            ]),
        ),
    ] {
        let list = list(name);
        assert_eq!((&list.patch, &list.kind), (&patch, &kind), "{name}");
    }
}
