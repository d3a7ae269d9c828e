//! What admission adds to a new Pod.

use serde_json::{Value, json};

use super::super::get::{self, at, default, entries, list};
use super::super::values;

/// How long a pod stays on a node that is not ready.
const TOLERATION_SECONDS: i64 = 300;
const NOT_READY: [&str; 2] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
];

/// The plugins ServiceAccount, Priority and DefaultTolerationSeconds; and the
/// quality-of-service class.
pub(super) fn pod(pod: &mut Value) {
    let class = qos_class(&pod["spec"]);
    let status = get::object_mut(pod, "status");
    default(status, "phase", "Pending");
    default(status, "qosClass", class);
    let Some(spec) = pod.get_mut("spec") else {
        return;
    };
    default(spec, "serviceAccountName", "default");
    default(spec, "serviceAccount", "default");
    default(spec, "priority", 0);
    default(spec, "preemptionPolicy", "PreemptLowerPriority");
    tolerations(spec);
}

/// Every pod tolerates an unreachable node for a while.
pub(super) fn tolerations(spec: &mut Value) {
    default(spec, "tolerations", json!([]));
    for key in NOT_READY {
        if !list(spec, "tolerations").iter().any(|t| tolerates(t, key))
            && let Some(tolerations) = spec["tolerations"].as_array_mut()
        {
            tolerations.push(json!({
                "key": key,
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": TOLERATION_SECONDS,
            }));
        }
    }
}

fn tolerates(toleration: &Value, key: &str) -> bool {
    let given = toleration["key"].as_str().unwrap_or_default();
    let effect = toleration["effect"].as_str().unwrap_or_default();
    (given.is_empty() || given == key) && matches!(effect, "" | "NoExecute")
}

/// `Guaranteed` if each container's limits of cpu and memory are its requests,
/// `BestEffort` if none has any, else `Burstable`.
fn qos_class(spec: &Value) -> &'static str {
    const NAMES: [&str; 2] = ["cpu", "memory"];
    let containers = || {
        let regular = list(spec, "containers").iter();
        regular.chain(list(spec, "initContainers"))
    };
    let amount = |container: &Value, which: &str, name: &str| {
        let text = at(container, &["resources", which, name]).as_str()?;
        values::amount(text).filter(|amount| *amount > 0.0)
    };
    let asks = |container: &Value| {
        ["limits", "requests"].into_iter().any(|which| {
            entries(&container["resources"], which)
                .any(|(name, _)| NAMES.contains(&name) && amount(container, which, name).is_some())
        })
    };
    let guaranteed = |container: &Value| {
        NAMES.into_iter().all(|name| {
            let limit = amount(container, "limits", name);
            limit.is_some() && limit == amount(container, "requests", name)
        })
    };
    if !containers().any(asks) {
        "BestEffort"
    } else if containers().all(guaranteed) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}
