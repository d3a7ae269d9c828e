//! The cluster that a set of manifests makes, as far as policies ask.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Result, bail, ensure};
use ipnet::IpNet;
use ripstop_lab::manifest::{self, Object, Resource};
use ripstop_model::{Labels, Namespace, ObjectKey, Pod};
use ripstop_plan::policy::{PolicyPlanner, PolicyTables};
use ripstop_watch::Converted;
use serde_json::{Value, json};

use super::Input;
use super::service::Service;

/// Label that the API gives every namespace.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// Second pod of what makes pods: that to which the first one talks. No object
/// can have such a name.
const ANOTHER: &str = " (another)";

/// Pods with the rows of their policies, each as if it were on this node.
#[derive(Debug)]
pub(super) struct World {
    /// What people name: one for each pod and for each object that makes pods.
    pub(super) pods: BTreeMap<ObjectKey, Pod>,
    pub(super) services: BTreeMap<ObjectKey, Service>,
    pub(super) planner: PolicyPlanner,
    pub(super) tables: PolicyTables,
    pub(super) namespace: String,
}

impl World {
    pub(super) fn read(input: &Input) -> Result<Self> {
        ensure!(
            !input.filenames.is_empty(),
            "which manifests? Name files or folders with -f"
        );
        let sources = manifest::read_all(&input.filenames).map_err(Errors)?;
        let manifests = manifest::check(&sources, vec![cluster_policies()]).map_err(Errors)?;
        let mut world = Self {
            pods: BTreeMap::new(),
            services: BTreeMap::new(),
            planner: PolicyPlanner::new(""),
            tables: PolicyTables::default(),
            namespace: input.namespace.clone(),
        };
        let mut addresses = Addresses::new(&input.pod_cidr);
        let mut namespaces = BTreeMap::new();
        for object in &manifests.objects {
            world.add(object, &mut namespaces, &mut addresses)?;
        }
        for pod in world.pods.keys() {
            let labels = namespaces.entry(pod.namespace.clone()).or_default();
            let name = [(NAME_LABEL, pod.namespace.as_str())];
            let labels: Labels = labels.iter().chain(name).collect();
            let name = pod.namespace.clone();
            world.planner.upsert_namespace(Namespace { name, labels });
        }
        while !world.planner.is_settled() {
            world.planner.take_change(&mut world.tables);
        }
        Ok(world)
    }

    /// A pod's addresses as another one sees them: of a pod that stands for
    /// several, that of another one of them.
    pub(super) fn seen_by(&self, pod: &Pod, by: &ObjectKey) -> Vec<IpAddr> {
        let twin = ObjectKey::new(&pod.key.namespace, format!("{}{ANOTHER}", pod.key.name));
        match self.planner.pod(&twin) {
            Some(twin) if pod.key == *by => twin.addresses.to_vec(),
            _ => pod.addresses.to_vec(),
        }
    }

    fn add(
        &mut self,
        object: &Object,
        namespaces: &mut BTreeMap<String, Labels>,
        addresses: &mut Addresses,
    ) -> Result<()> {
        let namespace = object.namespace.as_ref().unwrap_or(&self.namespace);
        let mut value = object.value.clone();
        let template = match object.kind.as_str() {
            "CronJob" => "/spec/jobTemplate/spec/template",
            "Deployment"
            | "ReplicaSet"
            | "StatefulSet"
            | "DaemonSet"
            | "Job"
            | "ReplicationController" => "/spec/template",
            "Pod" => "",
            "Namespace" => {
                let read = ripstop_watch::namespace(&serde_json::from_value(value)?);
                if let Some(one) = read.model {
                    namespaces.insert(one.name, one.labels);
                }
                return Ok(());
            }
            "Node" => {
                let node = ripstop_watch::node_identity(&serde_json::from_value(value)?);
                self.planner.upsert_node(node);
                return Ok(());
            }
            "Service" => {
                let key = ObjectKey::new(namespace, &object.name);
                self.services.insert(key, Service::read(&value)?);
                return Ok(());
            }
            "NetworkPolicy" => {
                value["metadata"]["namespace"] = json!(namespace);
                let read = ripstop_watch::network_policy(&serde_json::from_value(value)?);
                if let Some(policy) = sound(object, read)? {
                    self.planner.upsert_policy(policy);
                }
                return Ok(());
            }
            "ClusterNetworkPolicy" => {
                let read = ripstop_watch::cluster_network_policy(&serde_json::from_value(value)?);
                if let Some(policy) = sound(object, read)? {
                    self.planner.upsert_cluster_policy(policy);
                }
                return Ok(());
            }
            _ => return Ok(()),
        };
        let Some(template_value) = value.pointer(template) else {
            return Ok(());
        };
        let pod = json!({
            "metadata": {
                "name": object.name,
                "namespace": namespace,
                "labels": template_value.pointer("/metadata/labels").unwrap_or(&Value::Null),
            },
            "spec": template_value.get("spec").unwrap_or(&Value::Null),
            "status": template_value.get("status").unwrap_or(&json!({})),
        });
        let Some(pod) = sound(object, ripstop_watch::pod(&serde_json::from_value(pod)?))? else {
            return Ok(());
        };
        if let Some(other) = self.pods.get(&pod.key) {
            bail!(
                "{}: {} and another object both make pods called {}",
                object.place(),
                object.label(),
                other.key
            );
        }
        if !template.is_empty() {
            let key = ObjectKey::new(&pod.key.namespace, format!("{}{ANOTHER}", pod.key.name));
            self.add_pod(Pod { key, ..pod.clone() }, addresses)?;
        }
        let pod = self.add_pod(pod, addresses)?;
        self.pods.insert(pod.key.clone(), pod);
        Ok(())
    }

    fn add_pod(&mut self, mut pod: Pod, addresses: &mut Addresses) -> Result<Pod> {
        if pod.addresses.is_empty() {
            pod.addresses = addresses.next()?.into();
        }
        if pod.is_subject() {
            let local = pod.addresses.to_vec();
            self.planner.add_local_pod(&pod.key, None, local);
        }
        self.planner.upsert_pod(pod.clone());
        Ok(pod)
    }
}

/// What an object means, if all of it means something.
fn sound<T>(object: &Object, read: Converted<T>) -> Result<Option<T>> {
    if let Some(problem) = read.problems.first() {
        let field = problem.message.split(':').next().unwrap_or_default();
        bail!(
            "{}",
            object.error(field, format!("{}: {}", object.label(), problem.message))
        );
    }
    Ok(read.model)
}

pub(super) fn cluster_policies() -> Resource {
    Resource {
        api_version: "policy.networking.k8s.io/v1alpha2".to_owned(),
        kind: "ClusterNetworkPolicy".to_owned(),
        plural: "clusternetworkpolicies".to_owned(),
        namespaced: false,
    }
}

/// Everything that is wrong with the manifests.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub(super) struct Errors(pub(super) Vec<manifest::ManifestError>);

/// Addresses for pods that have none.
struct Addresses(Vec<(IpNet, u32)>);

impl Addresses {
    fn new(ranges: &[IpNet]) -> Self {
        Self(ranges.iter().map(|range| (*range, 0)).collect())
    }

    fn next(&mut self) -> Result<Vec<IpAddr>> {
        let mut addresses = Vec::new();
        for (range, used) in &mut self.0 {
            *used += 1;
            let base = range.network();
            let address: IpAddr = match base {
                IpAddr::V4(v4) => u32::from(v4).saturating_add(*used).to_be_bytes().into(),
                IpAddr::V6(v6) => u128::from(v6)
                    .saturating_add((*used).into())
                    .to_be_bytes()
                    .into(),
            };
            ensure!(
                range.contains(&address) && address != range.broadcast(),
                "--pod-cidr {range}: not enough addresses for all pods"
            );
            addresses.push(address);
        }
        Ok(addresses)
    }
}
