//! A lab with its network namespaces.

use std::net::IpAddr;
use std::path::PathBuf;

use ripstop_netlink::netns::Netns;
use ripstop_tests::{Lab, eventually, write_manifest};
use serde_json::Value;

/// Somewhere that packets come from and go to.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) netns: Netns,
    pub(crate) addresses: Vec<IpAddr>,
}

/// A pod of a lab, which is on a node's own network if `host` says so.
pub(crate) fn pod(lab: &Lab, namespace: &str, name: &str) -> Place {
    let object = lab.get(&["pod", "-n", namespace, name]);
    let addresses = object["status"]["podIPs"].as_array().expect("addresses");
    let addresses = addresses.iter().map(|ip| parse(&ip["ip"])).collect();
    let node = text(&object["spec"]["nodeName"]);
    let path = match object["spec"]["hostNetwork"].as_bool() {
        Some(true) => node_netns(lab, node),
        _ => recorded_netns(lab, node, namespace, name),
    };
    Place {
        name: format!("{namespace}/{name}"),
        netns: Netns::open(path).expect("the pod's namespace"),
        addresses,
    }
}

/// A node.
pub(crate) fn node(lab: &Lab, name: &str) -> Place {
    let object = lab.get(&["node", name]);
    let all = object["status"]["addresses"].as_array().expect("addresses");
    let internal = all.iter().filter(|one| one["type"] == "InternalIP");
    Place {
        name: format!("node/{name}"),
        netns: Netns::open(node_netns(lab, name)).expect("the node's namespace"),
        addresses: internal.map(|one| parse(&one["address"])).collect(),
    }
}

/// The machine that is not of the cluster.
pub(crate) fn outside(lab: &Lab) -> Place {
    let netns = Netns::open(format!("/run/netns/{}.outside", lab.name()));
    let netns = netns.expect("the namespace outside");
    let shown = std::process::Command::new("ip")
        .args(["-n", &format!("{}.outside", lab.name())])
        .args(["-j", "addr", "show", "scope", "global"])
        .output()
        .expect("run ip (iproute2)");
    let links: Value = serde_json::from_slice(&shown.stdout).expect("JSON from ip");
    let infos = links.as_array().expect("links").iter();
    let infos = infos.flat_map(|link| link["addr_info"].as_array().cloned().unwrap_or_default());
    Place {
        name: "outside".to_owned(),
        netns,
        addresses: infos
            .filter(|info| info["local"].is_string())
            .map(|info| parse(&info["local"]))
            .collect(),
    }
}

fn node_netns(lab: &Lab, node: &str) -> PathBuf {
    format!("/run/netns/{}.{node}", lab.name()).into()
}

/// The agent's record of the pod says where it is.
fn recorded_netns(lab: &Lab, node: &str, namespace: &str, name: &str) -> PathBuf {
    let records = lab.root().join("nodes").join(node).join("agent/pods");
    let files = std::fs::read_dir(records).expect("records of pods");
    let records = files.flatten().filter_map(|file| {
        let bytes = std::fs::read(file.path()).ok()?;
        serde_json::from_slice::<Value>(&bytes).ok()
    });
    let is_it = |record: &Value| {
        record["pod"]["pod"]["namespace"] == namespace && record["pod"]["pod"]["name"] == name
    };
    let record = records
        .into_iter()
        .find(is_it)
        .expect("a record of the pod");
    text(&record["netns"]).into()
}

pub(crate) fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"))
}

fn parse(value: &Value) -> IpAddr {
    text(value).parse().expect("an address")
}

/// Applies manifests and waits until all agents have planned so many
/// NetworkPolicies and ClusterNetworkPolicies.
pub(crate) fn apply(lab: &Lab, yaml: &str, policies: (usize, usize)) {
    let file = write_manifest(yaml);
    lab.kubectl(&["apply", "-f", file.path().to_str().unwrap()]);
    planned(lab, policies);
}

/// Deletes the policies of a namespace, which has all that there are.
pub(crate) fn no_policies(lab: &Lab, namespace: &str) {
    lab.kubectl(&["delete", "networkpolicies", "-n", namespace, "--all"]);
    planned(lab, (0, 0));
}

/// Waits until all agents have planned so many policies: what is in force on a
/// pod is in the kernel then.
pub(crate) fn planned(lab: &Lab, (network, cluster): (usize, usize)) {
    for node in nodes(lab) {
        eventually("the agents know the policies", || {
            let status = lab.agent(&node, &["status", "-o", "json"]);
            let status: Value = serde_json::from_str(&status.stdout).ok()?;
            let policies = &status["policies"];
            (policies["networkPolicies"] == network
                && policies["clusterNetworkPolicies"] == cluster)
                .then_some(())
        });
    }
}

pub(crate) fn nodes(lab: &Lab) -> Vec<String> {
    let nodes = std::fs::read_dir(lab.root().join("nodes")).expect("nodes");
    let names = nodes
        .flatten()
        .filter_map(|one| one.file_name().into_string().ok());
    names.collect()
}

/// Makes the API know ClusterNetworkPolicies.
pub(crate) fn know_cluster_policies(lab: &Lab) {
    let crd = write_manifest(CLUSTER_NETWORK_POLICY);
    lab.kubectl(&["apply", "-f", crd.path().to_str().unwrap()]);
    eventually("the API has the kind", || {
        lab.try_kubectl(&["get", "clusternetworkpolicies"])
            .ok
            .then_some(())
    });
}

/// The kind without its schema: what the agent does with a policy is the agent's.
const CLUSTER_NETWORK_POLICY: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: clusternetworkpolicies.policy.networking.k8s.io
  annotations: {api-approved.kubernetes.io: 'https://github.com/kubernetes-sigs/network-policy-api/pull/300'}
spec:
  group: policy.networking.k8s.io
  scope: Cluster
  names: {kind: ClusterNetworkPolicy, plural: clusternetworkpolicies, singular: clusternetworkpolicy, shortNames: [cnp]}
  versions:
  - name: v1alpha2
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";
