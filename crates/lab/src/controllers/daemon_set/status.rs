//! What a DaemonSet reports.

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};

use super::Daemons;
use crate::controllers::count::{count, nonzero};
use crate::controllers::plan::Plan;
use crate::controllers::pod;

/// Plans the status that follows from the pods, if it is not there already.
pub(crate) fn write(daemons: &Daemons<'_>, plan: &mut Plan) {
    let wanted = || {
        daemons
            .nodes
            .values()
            .filter(|place| place.wanted.should_run)
    };
    let pods = |place: &super::Place<'_>| {
        place
            .pods
            .iter()
            .filter(|pod| pod::is_active(pod))
            .cloned()
            .collect::<Vec<_>>()
    };
    let desired = count(wanted());
    let available =
        count(wanted().filter(|place| pods(place).iter().any(|pod| daemons.is_available(pod))));
    let ready = wanted().filter(|place| pods(place).iter().any(|pod| pod::is_ready(pod)));
    let updated = wanted().filter(|place| pods(place).iter().any(|pod| daemons.is_updated(pod)));
    let misplaced = daemons.nodes.values().filter(|place| {
        place.node.is_some() && !place.wanted.should_run && !pods(place).is_empty()
    });
    let status = DaemonSetStatus {
        current_number_scheduled: count(wanted().filter(|place| !pods(place).is_empty())),
        desired_number_scheduled: desired,
        number_misscheduled: count(misplaced),
        number_ready: count(ready),
        number_available: nonzero(available),
        number_unavailable: nonzero(desired - available),
        updated_number_scheduled: nonzero(count(updated)),
        observed_generation: daemons.set.metadata.generation,
        collision_count: daemons
            .set
            .status
            .as_ref()
            .and_then(|status| status.collision_count),
        conditions: None,
    };
    if Some(&status) != daemons.set.status.as_ref() {
        let mut set = DaemonSet::clone(daemons.set);
        set.status = Some(status);
        plan.update_status(set);
    }
    let all = daemons
        .nodes
        .values()
        .flat_map(|place| &place.pods)
        .map(AsRef::as_ref);
    let min_ready = daemons.spec.min_ready_seconds.unwrap_or(0);
    plan.look_again(pod::next_available(all, min_ready, daemons.now));
}
