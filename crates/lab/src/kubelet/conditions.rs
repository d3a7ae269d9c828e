//! The conditions of a pod.
//! <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-conditions>

use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// What the conditions follow from.
#[derive(Clone, Debug)]
pub(super) struct Readiness {
    pub(super) phase: &'static str,
    /// Names of init containers that are not through.
    pub(super) init_incomplete: Vec<String>,
    /// Names of containers that are not ready.
    pub(super) unready: Vec<String>,
    /// There is a network namespace with addresses.
    pub(super) sandbox: bool,
}

/// True, or why not.
type Verdict = Result<Option<&'static str>, (&'static str, String)>;

/// The pod's present conditions with ours brought up to date; those of others
/// (readiness gates) stay as they are.
pub(super) fn merge(pod: &Pod, readiness: &Readiness, now: &Time) -> Vec<PodCondition> {
    let present = pod
        .status
        .as_ref()
        .and_then(|s| s.conditions.clone())
        .unwrap_or_default();
    let containers_ready = containers_ready(readiness);
    let ours: [(&str, Verdict); 5] = [
        (
            "PodReadyToStartContainers",
            if readiness.sandbox {
                Ok(None)
            } else {
                no_reason()
            },
        ),
        ("Initialized", initialized(readiness)),
        (
            "Ready",
            containers_ready.clone().and_then(|_| gates(pod, &present)),
        ),
        ("ContainersReady", containers_ready),
        // We see the pod, so somebody has.
        ("PodScheduled", Ok(None)),
    ];
    let is_ours = |condition: &PodCondition| ours.iter().any(|(kind, _)| *kind == condition.type_);
    let mut merged = Vec::with_capacity(ours.len());
    for (kind, verdict) in &ours {
        let old = present.iter().find(|condition| condition.type_ == *kind);
        merged.push(condition(kind, verdict, old, pod.metadata.generation, now));
    }
    merged.extend(present.iter().filter(|c| !is_ours(c)).cloned());
    merged
}

fn no_reason() -> Verdict {
    Err(("", String::new()))
}

fn condition(
    kind: &str,
    verdict: &Verdict,
    old: Option<&PodCondition>,
    generation: Option<i64>,
    now: &Time,
) -> PodCondition {
    let (status, reason, message) = match verdict {
        Ok(reason) => ("True", reason.unwrap_or_default(), String::new()),
        Err((reason, message)) => ("False", *reason, message.clone()),
    };
    let unchanged = old.filter(|old| old.status == status);
    let since = unchanged.and_then(|old| old.last_transition_time.clone());
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: (!reason.is_empty()).then(|| reason.to_owned()),
        message: (!message.is_empty()).then_some(message),
        last_transition_time: Some(since.unwrap_or_else(|| now.clone())),
        observed_generation: generation,
        ..PodCondition::default()
    }
}

fn initialized(readiness: &Readiness) -> Verdict {
    if readiness.phase == "Succeeded" {
        return Ok(Some("PodCompleted"));
    }
    if readiness.init_incomplete.is_empty() {
        return Ok(None);
    }
    let names = readiness.init_incomplete.join(" ");
    let message = format!("containers with incomplete status: [{names}]");
    Err(("ContainersNotInitialized", message))
}

fn containers_ready(readiness: &Readiness) -> Verdict {
    match readiness.phase {
        "Succeeded" => Err(("PodCompleted", String::new())),
        "Failed" => Err(("PodFailed", String::new())),
        _ if readiness.unready.is_empty() => Ok(None),
        _ => {
            let names = readiness.unready.join(" ");
            let message = format!("containers with unready status: [{names}]");
            Err(("ContainersNotReady", message))
        }
    }
}

fn gates(pod: &Pod, present: &[PodCondition]) -> Verdict {
    let gates = pod
        .spec
        .as_ref()
        .and_then(|s| s.readiness_gates.as_deref())
        .unwrap_or_default();
    for gate in gates {
        let kind = &gate.condition_type;
        let problem = match present.iter().find(|condition| condition.type_ == *kind) {
            None => {
                format!("corresponding condition of pod readiness gate {kind:?} does not exist.")
            }
            Some(condition) if condition.status != "True" => format!(
                "the status of pod readiness gate {kind:?} is not \"True\", but {}",
                condition.status
            ),
            Some(_) => continue,
        };
        return Err(("ReadinessGatesNotReady", problem));
    }
    Ok(None)
}
