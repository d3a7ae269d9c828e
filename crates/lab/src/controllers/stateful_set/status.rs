//! What a StatefulSet reports.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;

use super::identity;
use super::update::Members;
use crate::controllers::count::{count, nonzero};
use crate::controllers::plan::Plan;
use crate::controllers::pod;

/// Plans the status that follows from the pods, if it is not there already.
pub(crate) fn write(members: &Members<'_>, plan: &mut Plan) {
    let Members {
        set,
        history,
        current,
        ..
    } = members;
    let pods = || members.pods.values().map(AsRef::as_ref);
    let is_ready = |pod: &&Pod| pod::phase(pod) == "Running" && pod::is_ready(pod);
    let of = |revision: &str| {
        count(pods().filter(|pod| !pod::is_terminating(pod) && identity::revision(pod) == revision))
    };
    let ready = count(pods().filter(is_ready));
    let available = pods()
        .filter(is_ready)
        .filter(|pod| pod::is_available(pod, members.min_ready_seconds(), members.now));
    let replicas = count(pods());
    let updated = of(&history.latest);
    // All pods are of the new template: it is the current one from now on.
    let done =
        updated == replicas && ready == replicas && replicas == members.spec.replicas.unwrap_or(1);
    let current = if done { &history.latest } else { current };
    let status = StatefulSetStatus {
        replicas,
        ready_replicas: nonzero(ready),
        available_replicas: Some(count(available)),
        current_replicas: nonzero(of(current)),
        updated_replicas: nonzero(updated),
        current_revision: Some(current.clone()),
        update_revision: Some(history.latest.clone()),
        observed_generation: set.metadata.generation,
        collision_count: set
            .status
            .as_ref()
            .and_then(|status| status.collision_count)
            .or(Some(0)),
        conditions: None,
    };
    if Some(&status) != set.status.as_ref() {
        let mut set = StatefulSet::clone(set);
        set.status = Some(status);
        plan.update_status(set);
    }
}
