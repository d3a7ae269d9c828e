//! The table of built-in kinds.

use std::sync::{Arc, LazyLock};

use super::rules::{Builtin, PLAIN, Rules};
use super::spec::{KindSpec, ScalePaths};
use super::{cluster, config, network, pod, schema, service, workload};

struct Row {
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    short_names: &'static [&'static str],
    category: &'static str,
    namespaced: bool,
    status: bool,
    scale: bool,
    generation: bool,
    rules: &'static Builtin,
}

/// Stored and given back, no more: there is one user, who may do everything.
const RBAC: &str = "rbac.authorization.k8s.io";

static NO_RULES: Builtin = PLAIN;

/// Namespaced, no subresources, no generation: what a row says otherwise.
const ROW: Row = Row {
    group: "",
    kind: "",
    plural: "",
    short_names: &[],
    category: "",
    namespaced: true,
    status: false,
    scale: false,
    generation: false,
    rules: &NO_RULES,
};

const ROWS: &[Row] = &[
    Row {
        kind: "Namespace",
        plural: "namespaces",
        short_names: &["ns"],
        namespaced: false,
        status: true,
        rules: &cluster::NAMESPACE,
        ..ROW
    },
    Row {
        kind: "Node",
        plural: "nodes",
        short_names: &["no"],
        namespaced: false,
        status: true,
        rules: &cluster::NODE,
        ..ROW
    },
    Row {
        kind: "Pod",
        plural: "pods",
        short_names: &["po"],
        category: "all",
        status: true,
        generation: true,
        rules: &pod::RULES,
        ..ROW
    },
    Row {
        kind: "Service",
        plural: "services",
        short_names: &["svc"],
        category: "all",
        status: true,
        rules: &service::RULES,
        ..ROW
    },
    Row {
        kind: "Endpoints",
        plural: "endpoints",
        short_names: &["ep"],
        rules: &network::ENDPOINTS,
        ..ROW
    },
    Row {
        kind: "ConfigMap",
        plural: "configmaps",
        short_names: &["cm"],
        rules: &config::CONFIG_MAP,
        ..ROW
    },
    Row {
        kind: "Secret",
        plural: "secrets",
        rules: &config::SECRET,
        ..ROW
    },
    Row {
        kind: "ServiceAccount",
        plural: "serviceaccounts",
        short_names: &["sa"],
        ..ROW
    },
    Row {
        kind: "Event",
        plural: "events",
        short_names: &["ev"],
        rules: &cluster::EVENT,
        ..ROW
    },
    Row {
        group: "discovery.k8s.io",
        kind: "EndpointSlice",
        plural: "endpointslices",
        generation: true,
        rules: &network::ENDPOINT_SLICE,
        ..ROW
    },
    Row {
        group: "apps",
        kind: "Deployment",
        plural: "deployments",
        short_names: &["deploy"],
        category: "all",
        status: true,
        scale: true,
        generation: true,
        rules: &workload::DEPLOYMENT,
        ..ROW
    },
    Row {
        group: "apps",
        kind: "ReplicaSet",
        plural: "replicasets",
        short_names: &["rs"],
        category: "all",
        status: true,
        scale: true,
        generation: true,
        rules: &workload::REPLICA_SET,
        ..ROW
    },
    Row {
        group: "apps",
        kind: "StatefulSet",
        plural: "statefulsets",
        short_names: &["sts"],
        category: "all",
        status: true,
        scale: true,
        generation: true,
        rules: &workload::STATEFUL_SET,
        ..ROW
    },
    Row {
        group: "apps",
        kind: "DaemonSet",
        plural: "daemonsets",
        short_names: &["ds"],
        category: "all",
        status: true,
        generation: true,
        rules: &workload::DAEMON_SET,
        ..ROW
    },
    Row {
        group: "apps",
        kind: "ControllerRevision",
        plural: "controllerrevisions",
        ..ROW
    },
    Row {
        group: "batch",
        kind: "Job",
        plural: "jobs",
        category: "all",
        status: true,
        generation: true,
        rules: &workload::JOB,
        ..ROW
    },
    Row {
        group: "networking.k8s.io",
        kind: "NetworkPolicy",
        plural: "networkpolicies",
        short_names: &["netpol"],
        generation: true,
        rules: &network::NETWORK_POLICY,
        ..ROW
    },
    Row {
        group: "networking.k8s.io",
        kind: "Ingress",
        plural: "ingresses",
        short_names: &["ing"],
        status: true,
        generation: true,
        rules: &network::INGRESS,
        ..ROW
    },
    Row {
        group: "networking.k8s.io",
        kind: "IngressClass",
        plural: "ingressclasses",
        namespaced: false,
        generation: true,
        rules: &network::INGRESS_CLASS,
        ..ROW
    },
    Row {
        group: "networking.k8s.io",
        kind: "ServiceCIDR",
        plural: "servicecidrs",
        namespaced: false,
        status: true,
        rules: &network::SERVICE_CIDR,
        ..ROW
    },
    Row {
        group: "coordination.k8s.io",
        kind: "Lease",
        plural: "leases",
        rules: &cluster::LEASE,
        ..ROW
    },
    Row {
        group: RBAC,
        kind: "Role",
        plural: "roles",
        ..ROW
    },
    Row {
        group: RBAC,
        kind: "ClusterRole",
        plural: "clusterroles",
        namespaced: false,
        ..ROW
    },
    Row {
        group: RBAC,
        kind: "RoleBinding",
        plural: "rolebindings",
        ..ROW
    },
    Row {
        group: RBAC,
        kind: "ClusterRoleBinding",
        plural: "clusterrolebindings",
        namespaced: false,
        ..ROW
    },
    Row {
        group: "apiextensions.k8s.io",
        kind: "CustomResourceDefinition",
        plural: "customresourcedefinitions",
        short_names: &["crd", "crds"],
        category: "api-extensions",
        namespaced: false,
        status: true,
        generation: true,
        ..ROW
    },
];

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn spec(row: &Row) -> KindSpec {
    let scale = row.scale.then(|| ScalePaths {
        spec_replicas: "spec.replicas".to_owned(),
        status_replicas: "status.replicas".to_owned(),
        selector: Some("spec.selector".to_owned()),
    });
    KindSpec {
        group: row.group.to_owned(),
        version: "v1".to_owned(),
        kind: row.kind.to_owned(),
        plural: row.plural.to_owned(),
        singular: row.kind.to_lowercase(),
        short_names: owned(row.short_names),
        categories: if row.category.is_empty() {
            Vec::new()
        } else {
            owned(&[row.category])
        },
        namespaced: row.namespaced,
        status: row.status,
        scale,
        generation: row.generation,
        schema: schema::object(row.group, row.kind),
        columns: Vec::new(),
        rules: Rules::Builtin(row.rules),
    }
}

static KINDS: LazyLock<Vec<Arc<KindSpec>>> =
    LazyLock::new(|| ROWS.iter().map(|row| Arc::new(spec(row))).collect());

/// Every built-in kind.
pub fn builtin() -> &'static [Arc<KindSpec>] {
    &KINDS
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique() {
        let mut seen = BTreeSet::new();
        for kind in builtin() {
            let names = [&kind.plural, &kind.singular].into_iter();
            let names: BTreeSet<&String> = names.chain(&kind.short_names).collect();
            for name in names {
                assert!(seen.insert(name), "{name}");
            }
        }
    }

    #[test]
    fn every_kind_has_its_fields() {
        for kind in builtin() {
            assert_eq!(kind.schema.name, kind.kind);
            for field in ["apiVersion", "kind", "metadata"] {
                assert!(kind.schema.field(field).is_some(), "{} {field}", kind.kind);
            }
            assert_eq!(
                kind.status,
                kind.schema.field("status").is_some(),
                "{}",
                kind.kind
            );
        }
    }
}
