//! What controllers ask about pods, and how they make them.

use k8s_openapi::api::core::v1::{Pod, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

/// All containers have ended for good.
pub(crate) fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

pub(crate) fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Counts towards the replicas that its owner wants.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !is_terminating(pod)
}

pub(crate) fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status
        .as_ref()?
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == kind)
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

/// When the pod last became ready, if it is.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|ready| ready.status == "True")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

/// Whether a pod has been ready for as long as its owner asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Availability {
    Available,
    /// Ready, but only then for long enough.
    From(Timestamp),
    NotReady,
}

pub(crate) fn availability(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Availability {
    if !is_ready(pod) {
        return Availability::NotReady;
    }
    if min_ready_seconds <= 0 {
        return Availability::Available;
    }
    // A condition without a time cannot be waited for: it counts from now.
    let since = ready_since(pod).unwrap_or(now);
    match since.checked_add(SignedDuration::from_secs(min_ready_seconds.into())) {
        Ok(due) if due > now => Availability::From(due),
        _ => Availability::Available,
    }
}

pub(crate) fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    availability(pod, min_ready_seconds, now) == Availability::Available
}

/// The earliest time at which a ready pod becomes available, if one is waiting.
pub(crate) fn next_available<'a>(
    pods: impl IntoIterator<Item = &'a Pod>,
    min_ready_seconds: i32,
    now: Timestamp,
) -> Option<Timestamp> {
    pods.into_iter()
        .filter_map(|pod| match availability(pod, min_ready_seconds, now) {
            Availability::From(due) => Some(due),
            Availability::Available | Availability::NotReady => None,
        })
        .min()
}

pub(crate) fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec
        .as_ref()?
        .node_name
        .as_deref()
        .filter(|name| !name.is_empty())
}

pub(crate) fn created(meta: &ObjectMeta) -> Option<Timestamp> {
    meta.creation_timestamp.as_ref().map(|time| time.0)
}

/// Restarts of all containers together; the largest of one container is what
/// ranks a pod for deletion.
pub(crate) fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|status| {
        status
            .container_statuses
            .iter()
            .chain(&status.init_container_statuses)
            .flatten()
    });
    statuses.map(|container| container.restart_count).sum()
}

/// A pod as the template says, managed by `owner`. The name is still to be
/// given (`generate_name`, unless the caller sets `name`).
pub(crate) fn from_template(
    template: &PodTemplateSpec,
    namespace: &str,
    owner: OwnerReference,
) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", owner.name)),
            namespace: Some(namespace.to_owned()),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_after_min_ready_seconds() {
        let pod: Pod = serde_saphyr::from_str(
            "{metadata: {name: a}, status: {conditions: [{type: Ready, status: 'True', \
             lastTransitionTime: '2024-01-01T00:00:00Z'}]}}",
        )
        .unwrap();
        let ready: Timestamp = "2024-01-01T00:00:00Z".parse().unwrap();
        let after = |seconds| ready + SignedDuration::from_secs(seconds);
        assert_eq!(availability(&pod, 0, ready), Availability::Available);
        assert_eq!(
            availability(&pod, 10, after(9)),
            Availability::From(after(10))
        );
        assert_eq!(availability(&pod, 10, after(10)), Availability::Available);
        assert_eq!(
            availability(&Pod::default(), 0, ready),
            Availability::NotReady
        );
    }
}
