//! Which pods go first when there are too many.

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::controllers::object::annotation;
use crate::controllers::pod;

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Sorts by the order in which Kubernetes deletes (`ActivePodsWithRanks`):
/// without a node, not running, not ready, cheap, doubled up on a node, ready
/// for the shortest time, restarted most, youngest.
///
/// Ages are compared exactly; Kubernetes compares them by powers of two and
/// breaks ties by uid, that is, at random.
pub(crate) fn sort(pods: &mut [Arc<Pod>], crowds: &HashMap<String, usize>) {
    pods.sort_by(|a, b| compare(a, b, crowds));
}

fn compare(a: &Pod, b: &Pod, crowds: &HashMap<String, usize>) -> Ordering {
    let crowd = |pod: &Pod| {
        pod::node_name(pod)
            .and_then(|node| crowds.get(node))
            .copied()
    };
    let first = |pod: &Pod| {
        (
            pod::node_name(pod).is_some(),
            progress(pod::phase(pod)),
            pod::is_ready(pod),
            cost(pod),
            Reverse(crowd(pod)),
        )
    };
    let last = |pod: &Pod| {
        (
            Reverse(pod::ready_since(pod)),
            Reverse(pod::restarts(pod)),
            Reverse(pod::created(&pod.metadata)),
        )
    };
    // By name at last: the same pods in the same order, always.
    first(a)
        .cmp(&first(b))
        .then_with(|| last(a).cmp(&last(b)))
        .then_with(|| b.metadata.name.cmp(&a.metadata.name))
}

fn progress(phase: &str) -> u8 {
    match phase {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    }
}

fn cost(pod: &Pod) -> i32 {
    annotation(&pod.metadata, DELETION_COST)
        .and_then(|cost| cost.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(
        name: &str,
        spec: &str,
        created: &str,
        phase: &str,
        ready: Option<&str>,
        extra: &str,
    ) -> Arc<Pod> {
        let ready = ready.map_or(String::new(), |since| {
            format!("conditions: [{{type: Ready, status: 'True', lastTransitionTime: '{since}'}}],")
        });
        let yaml = format!(
            "{{metadata: {{name: {name}, creationTimestamp: '{created}', annotations: {{{extra}}}}}, \
             spec: {{{spec} containers: []}}, status: {{{ready} phase: {phase}}}}}"
        );
        Arc::new(serde_saphyr::from_str(&yaml).unwrap())
    }

    #[test]
    fn the_least_useful_pod_goes_first() {
        let day = |day: u8| format!("2024-01-{day:02}T00:00:00Z");
        let on = "nodeName: a,";
        let mut pods = vec![
            pod(
                "dear",
                on,
                &day(1),
                "Running",
                Some(&day(2)),
                &format!("{DELETION_COST}: '5'"),
            ),
            pod("old", on, &day(1), "Running", Some(&day(2)), ""),
            pod("young", on, &day(3), "Running", Some(&day(2)), ""),
            pod("just-ready", on, &day(1), "Running", Some(&day(4)), ""),
            pod(
                "crowded",
                "nodeName: b,",
                &day(1),
                "Running",
                Some(&day(2)),
                "",
            ),
            pod(
                "cheap",
                on,
                &day(1),
                "Running",
                Some(&day(2)),
                &format!("{DELETION_COST}: '-1'"),
            ),
            pod("not-ready", on, &day(1), "Running", None, ""),
            pod("pending", on, &day(1), "Pending", None, ""),
            pod("homeless", "", &day(1), "Pending", None, ""),
        ];
        sort(
            &mut pods,
            &HashMap::from([("a".into(), 1), ("b".into(), 2)]),
        );
        let names: Vec<&str> = pods
            .iter()
            .map(|pod| pod.metadata.name.as_deref().unwrap())
            .collect();
        assert_eq!(
            names,
            [
                "homeless",
                "pending",
                "not-ready",
                "cheap",
                "crowded",
                "just-ready",
                "young",
                "old",
                "dear"
            ]
        );
    }
}
