//! A pod's status, as kubelet reports it. Pure.
//! <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/>

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    Container, ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::conditions::{self, Readiness};
use super::decide::is_over;
use super::state::{
    ContainerState, Phase, PodState, Restart, Sandbox, Termination, is_sidecar, restart_policy,
};

/// The status to publish. `now` is the time of changes that it shows; what has
/// not changed since the pod's present status keeps its time.
pub(super) fn pod_status(
    pod: &Pod,
    state: &PodState,
    host_ips: &[IpAddr],
    now: &Time,
) -> PodStatus {
    let old = pod.status.clone().unwrap_or_default();
    let spec = pod.spec.as_ref();
    let init: &[Container] = spec
        .and_then(|s| s.init_containers.as_deref())
        .unwrap_or_default();
    let containers: &[Container] = spec.map_or(&[], |s| &s.containers);
    let phase = phase(pod, state);
    // What an app container waits for before it was ever tried.
    let default_reason = if init.is_empty() {
        "ContainerCreating"
    } else {
        "PodInitializing"
    };
    let init_statuses: Vec<_> = init
        .iter()
        .map(|container| {
            let mut status = container_status(container, state, "PodInitializing");
            // A plain init container is "ready" when it has succeeded.
            status.ready |= succeeded(container, state);
            status
        })
        .collect();
    let statuses: Vec<_> = containers
        .iter()
        .map(|c| container_status(c, state, default_reason))
        .collect();
    let readiness = Readiness {
        phase,
        init_incomplete: incomplete(init, state),
        unready: unready(containers, init, state),
        sandbox: matches!(state.sandbox, Sandbox::Ready { .. }),
    };
    let ips = state.sandbox.ips();
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(conditions::merge(pod, &readiness, now)),
        host_ip: host_ips.first().map(ToString::to_string),
        host_ips: Some(
            host_ips
                .iter()
                .map(|ip| HostIP { ip: ip.to_string() })
                .collect(),
        ),
        pod_ip: ips.first().map(ToString::to_string),
        pod_ips: (!ips.is_empty())
            .then(|| ips.iter().map(|ip| PodIP { ip: ip.to_string() }).collect()),
        start_time: old
            .start_time
            .clone()
            .or_else(|| Some(seconds(state.since))),
        qos_class: old
            .qos_class
            .clone()
            .or_else(|| Some(qos_class(containers, init).to_owned())),
        init_container_statuses: (!init.is_empty()).then_some(init_statuses),
        container_statuses: Some(statuses),
        observed_generation: pod.metadata.generation,
        ..old
    }
}

fn seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

/// `getPhase` of kubelet.
fn phase(pod: &Pod, state: &PodState) -> &'static str {
    let Some(spec) = &pod.spec else {
        return "Pending";
    };
    let of = |container: &Container| state.containers.get(&container.name);
    let policy = restart_policy(pod);
    let (sidecars, init): (Vec<_>, Vec<_>) = spec
        .init_containers
        .iter()
        .flatten()
        .partition(|c| is_sidecar(c));
    let mut pending = false;
    for container in init.into_iter().filter_map(of) {
        match container.ended() {
            Some(ended) if ended.exit_code != 0 && policy == Restart::Never => return "Failed",
            Some(ended) if ended.exit_code == 0 => {}
            // Failed before and waiting is no longer pending, to kubelet.
            Some(_) => {}
            None => pending = true,
        }
        pending |= container.running();
    }
    pending |= sidecars
        .iter()
        .copied()
        .filter_map(of)
        .any(|c| !c.started && c.ended().is_none());
    let mains: Vec<&ContainerState> = spec.containers.iter().filter_map(of).collect();
    let never_ran = mains.iter().any(|c| !c.running() && c.ended().is_none());
    let running = mains.iter().any(|c| c.running())
        || (!is_over(pod, state) && sidecars.into_iter().filter_map(of).any(|c| c.running()));
    if pending || never_ran {
        return "Pending";
    }
    if running {
        return "Running";
    }
    let ends: Vec<&Termination> = mains.iter().filter_map(|c| c.ended()).collect();
    let succeeded = ends.iter().all(|end| end.exit_code == 0);
    let for_good = state.gone || pod.metadata.deletion_timestamp.is_some();
    match policy {
        // Between two runs.
        Restart::Always if !for_good => "Running",
        _ if succeeded => "Succeeded",
        Restart::OnFailure if !for_good => "Running",
        _ => "Failed",
    }
}

/// Init containers that have not done their work yet.
fn incomplete(init: &[Container], state: &PodState) -> Vec<String> {
    let done = |container: &&Container| match is_sidecar(container) {
        true => state
            .containers
            .get(&container.name)
            .is_some_and(|c| c.started),
        false => succeeded(container, state),
    };
    init.iter()
        .filter(|c| !done(c))
        .map(|c| c.name.clone())
        .collect()
}

fn succeeded(container: &Container, state: &PodState) -> bool {
    let ended = state
        .containers
        .get(&container.name)
        .and_then(|c| c.ended());
    ended.is_some_and(|ended| ended.exit_code == 0) && !is_sidecar(container)
}

/// Containers that are not ready; sidecars count.
fn unready(containers: &[Container], init: &[Container], state: &PodState) -> Vec<String> {
    let sidecars = init.iter().filter(|c| is_sidecar(c));
    let ready = |c: &&Container| state.containers.get(&c.name).is_some_and(|c| c.ready);
    sidecars
        .chain(containers)
        .filter(|c| !ready(c))
        .map(|c| c.name.clone())
        .collect()
}

fn container_status(
    container: &Container,
    state: &PodState,
    default_reason: &str,
) -> ContainerStatus {
    let unknown = ContainerState::default();
    let known = state.containers.get(&container.name).unwrap_or(&unknown);
    let current = match &known.phase {
        Phase::Waiting { reason, message } => {
            // Nothing about the container itself: then the sandbox's problem.
            let problem = match &state.sandbox {
                Sandbox::Absent {
                    problem: Some(problem),
                    ..
                } if reason.is_empty() => Some(("FailedCreatePodSandBox", problem.clone())),
                _ => None,
            };
            let reason = if reason.is_empty() {
                default_reason
            } else {
                reason
            };
            let (reason, message) = match problem {
                Some((reason, message)) => (reason, Some(message)),
                None => (reason, message.clone()),
            };
            let waiting = ContainerStateWaiting {
                reason: Some(reason.to_owned()),
                message,
            };
            ApiState {
                waiting: Some(waiting),
                ..ApiState::default()
            }
        }
        Phase::Running { since } => {
            let running = ContainerStateRunning {
                started_at: Some(seconds(*since)),
            };
            ApiState {
                running: Some(running),
                ..ApiState::default()
            }
        }
        Phase::Terminated(termination) => terminated(termination),
    };
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        image_id: known.image_id.clone(),
        container_id: known.id.as_deref().map(container_id),
        ready: known.ready,
        started: Some(known.started),
        restart_count: known.restarts,
        state: Some(current),
        last_state: Some(known.last.as_ref().map(terminated).unwrap_or_default()),
        ..ContainerStatus::default()
    }
}

fn terminated(termination: &Termination) -> ApiState {
    ApiState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(container_id(&termination.id)),
            exit_code: termination.exit_code,
            reason: Some(termination.reason.clone()),
            message: termination.message.clone(),
            started_at: Some(seconds(termination.started)),
            finished_at: Some(seconds(termination.finished)),
            signal: None,
        }),
        ..ApiState::default()
    }
}

fn container_id(id: &str) -> String {
    format!("ripstop://{id}")
}

/// <https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/>
fn qos_class(containers: &[Container], init: &[Container]) -> &'static str {
    let all = || containers.iter().chain(init);
    let amounts = |container: &Container| {
        let resources = container.resources.clone().unwrap_or_default();
        (
            resources.requests.unwrap_or_default(),
            resources.limits.unwrap_or_default(),
        )
    };
    if all().all(|c| amounts(c).0.is_empty() && amounts(c).1.is_empty()) {
        return "BestEffort";
    }
    let guaranteed = all().all(|container| {
        let (requests, limits) = amounts(container);
        ["cpu", "memory"].iter().all(|&resource| {
            limits.get(resource).is_some_and(|limit| {
                requests
                    .get(resource)
                    .is_none_or(|request| request == limit)
            })
        })
    });
    if guaranteed {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
