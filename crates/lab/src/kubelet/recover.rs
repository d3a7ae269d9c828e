//! A pod that ran before this node loop did, as after the reboot of a node: its
//! processes are gone, its restarts are not forgotten.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use k8s_openapi::jiff::Timestamp;

use super::state::{ContainerState, Phase, PodState, Sandbox, Termination};

/// kubelet's, for a container whose end it did not see.
const UNKNOWN_EXIT: i32 = 137;

/// What is known of a pod from its status alone.
pub(super) fn state(pod: &Pod, now: Timestamp) -> PodState {
    let mut state = PodState::new(pod, now);
    let Some(status) = &pod.status else {
        return state;
    };
    let over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    for reported in status.init_container_statuses.iter().flatten() {
        if let Some(known) = state.containers.get_mut(&reported.name) {
            recover(known, reported, now);
            if !over {
                // They run again, in a new sandbox.
                (known.phase, known.last) = (Phase::default(), None);
            }
        }
    }
    for reported in status.container_statuses.iter().flatten() {
        if let Some(known) = state.containers.get_mut(&reported.name) {
            recover(known, reported, now);
        }
    }
    if over {
        let ips = status.pod_ips.iter().flatten();
        let ips = ips.filter_map(|ip| ip.ip.parse().ok()).collect();
        state.sandbox = Sandbox::Removed { ips };
    }
    state
}

fn recover(known: &mut ContainerState, reported: &ContainerStatus, now: Timestamp) {
    known.restarts = reported.restart_count;
    known.image_id.clone_from(&reported.image_id);
    let prefix = "ripstop://";
    let id = reported.container_id.as_deref().unwrap_or_default();
    known.id = id.strip_prefix(prefix).map(str::to_owned);
    let (current, last) = (reported.state.clone(), reported.last_state.clone());
    let current = current.unwrap_or_default();
    let ended = |terminated: ContainerStateTerminated| Termination {
        exit_code: terminated.exit_code,
        reason: terminated.reason.unwrap_or_default(),
        message: terminated.message,
        started: terminated.started_at.map_or(now, |time| time.0),
        finished: terminated.finished_at.map_or(now, |time| time.0),
        id: terminated
            .container_id
            .unwrap_or_default()
            .trim_start_matches(prefix)
            .to_owned(),
    };
    known.last = last.unwrap_or_default().terminated.map(ended);
    if let Some(running) = current.running {
        known.phase = Phase::Terminated(Termination {
            exit_code: UNKNOWN_EXIT,
            reason: "ContainerStatusUnknown".to_owned(),
            message: Some(
                "The container could not be located when the pod was started again".to_owned(),
            ),
            started: running.started_at.map_or(now, |time| time.0),
            finished: now,
            id: known.id.clone().unwrap_or_default(),
        });
    } else if let Some(terminated) = current.terminated {
        known.phase = Phase::Terminated(ended(terminated));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_reboot_counts_as_a_restart() {
        let pod = json!({
            "metadata": {"name": "p"},
            "spec": {"initContainers": [{"name": "i"}], "containers": [{"name": "a"}]},
            "status": {
                "phase": "Running",
                "initContainerStatuses": [{"name": "i", "image": "", "imageID": "", "ready": true,
                    "restartCount": 0, "state": {"terminated": {"exitCode": 0}}}],
                "containerStatuses": [{"name": "a", "image": "", "imageID": "", "ready": true,
                    "restartCount": 2, "containerID": "ripstop://x",
                    "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}],
            },
        });
        let mut state = state(&serde_json::from_value(pod).unwrap(), Timestamp::UNIX_EPOCH);
        assert_eq!(state.containers["i"].ended(), None);
        let container = state.containers.get_mut("a").unwrap();
        assert_eq!(container.ended().unwrap().exit_code, UNKNOWN_EXIT);
        assert_eq!(container.ended().unwrap().id, "x");
        container.begin("y".to_owned(), String::new(), Timestamp::UNIX_EPOCH);
        assert_eq!(container.restarts, 3);
    }

    #[test]
    fn what_is_over_stays_over() {
        let pod = json!({
            "metadata": {"name": "p"},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "a"}]},
            "status": {
                "phase": "Succeeded", "podIPs": [{"ip": "10.0.0.1"}],
                "containerStatuses": [{"name": "a", "image": "", "imageID": "", "ready": false,
                    "restartCount": 0, "state": {"terminated": {"exitCode": 0}}}],
            },
        });
        let state = state(&serde_json::from_value(pod).unwrap(), Timestamp::UNIX_EPOCH);
        assert_eq!(
            state.sandbox,
            Sandbox::Removed {
                ips: vec!["10.0.0.1".parse().unwrap()]
            }
        );
        assert_eq!(state.containers["a"].ended().unwrap().exit_code, 0);
    }
}
