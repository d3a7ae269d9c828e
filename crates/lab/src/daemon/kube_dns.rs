//! The Service that tools look for when they want to know where names are
//! answered. Nobody stands behind it: every node has its addresses itself.

use k8s_openapi::api::core::v1::Service;
use ripstop_apiserver::Client;
use serde_json::json;

use crate::plan::LabPlan;

/// Annotation of a service whose addresses every node has itself.
pub(crate) const ANSWERED_BY_NODES: &str = "ripstop.dev/answered-by-nodes";
const NAMESPACE: &str = "kube-system";
/// As kubeadm and others call it, whatever server they have.
const NAME: &str = "kube-dns";

/// Makes it, unless a lab before this one has.
pub(super) fn create(client: &Client, plan: &LabPlan) {
    if client.get::<Service>(Some(NAMESPACE), NAME).is_some() {
        return;
    }
    let dual = plan.cluster_dns.len() > 1;
    let object = json!({
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "annotations": {ANSWERED_BY_NODES: "its agent"},
            "labels": {"k8s-app": NAME, "kubernetes.io/name": "CoreDNS"},
        },
        "spec": {
            "clusterIP": plan.cluster_dns.first(),
            "clusterIPs": plan.cluster_dns,
            "ipFamilyPolicy": if dual { "RequireDualStack" } else { "SingleStack" },
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP"},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
            ],
        },
    });
    let created = serde_json::from_value(object)
        .map_err(|error| error.to_string())
        .and_then(|object: Service| client.create(&object).map_err(|status| status.to_string()));
    if let Err(error) = created {
        tracing::warn!(%error, "there is no Service {NAMESPACE}/{NAME}");
    }
}
