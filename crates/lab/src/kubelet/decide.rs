//! What to do next about a pod. A pure function of what is wanted and what is
//! known; [`super::task`] carries it out and asks again when something happened.

use std::time::Instant;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::state::{ContainerState, Phase, PodState, Restart, Sandbox, is_sidecar, restart_policy};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Network namespace, addresses, files, volumes.
    MakeSandbox,
    RemoveSandbox,
    Start(String),
    /// Tell people that this container's next start is some time away.
    HoldBack(String),
    /// The pod ends, or has no use for the container any more.
    Stop(String),
    /// Everything has ended: the API may remove the object.
    Finish,
}

/// What to do now, in order, and when to ask again though nothing happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) actions: Vec<Action>,
    pub(super) wake: Option<Instant>,
}

impl Decision {
    fn now(action: Action) -> Self {
        Self {
            actions: vec![action],
            wake: None,
        }
    }

    fn wake_at(&mut self, at: Instant) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}

/// One container's turn.
enum Turn {
    Start,
    WaitUntil(Instant),
    Running,
    Done { failed: bool },
}

pub(super) fn decide(pod: &Pod, state: &PodState, now: Instant) -> Decision {
    let Some(spec) = &pod.spec else {
        return Decision::default();
    };
    if state.gone || pod.metadata.deletion_timestamp.is_some() {
        return end(pod, state);
    }
    if is_over(pod, state) {
        return wind_up(pod, state);
    }
    match &state.sandbox {
        Sandbox::Ready { .. } => {}
        Sandbox::Absent {
            retry: Some(at), ..
        } if *at > now => {
            return Decision {
                actions: Vec::new(),
                wake: Some(*at),
            };
        }
        Sandbox::Absent { .. } => return Decision::now(Action::MakeSandbox),
        Sandbox::Removed { .. } => return Decision::default(),
    }
    let mut decision = Decision::default();
    let policy = restart_policy(pod);
    let begun = state.begun;
    for container in spec.init_containers.iter().flatten() {
        if !state.init_allowed {
            return decision;
        }
        let Some(known) = state.containers.get(&container.name) else {
            continue;
        };
        if is_sidecar(container) {
            take_turn(&mut decision, container, known, Restart::Always, now);
            // The next one waits until this one is up.
            if !begun && !known.started {
                return decision;
            }
        } else if !begun {
            // An init container runs until it succeeds once.
            let again = if policy == Restart::Never {
                policy
            } else {
                Restart::OnFailure
            };
            match take_turn(&mut decision, container, known, again, now) {
                Turn::Done { failed: false } => {}
                _ => return decision,
            }
        }
    }
    for container in &spec.containers {
        let Some(known) = state.containers.get(&container.name) else {
            continue;
        };
        take_turn(&mut decision, container, known, policy, now);
    }
    decision
}

fn take_turn(
    decision: &mut Decision,
    container: &Container,
    known: &ContainerState,
    policy: Restart,
    now: Instant,
) -> Turn {
    let turn = turn(known, policy, now);
    match &turn {
        Turn::Start => decision.actions.push(Action::Start(container.name.clone())),
        Turn::WaitUntil(at) => {
            if matches!(known.phase, Phase::Terminated(_)) {
                decision
                    .actions
                    .push(Action::HoldBack(container.name.clone()));
            }
            decision.wake_at(*at);
        }
        Turn::Running | Turn::Done { .. } => {}
    }
    turn
}

fn turn(known: &ContainerState, policy: Restart, now: Instant) -> Turn {
    if known.running() {
        return Turn::Running;
    }
    if let Some(retry) = known.retry.filter(|&at| at > now) {
        return Turn::WaitUntil(retry);
    }
    match known.ended() {
        Some(ended) if !policy.after(ended.exit_code) => Turn::Done {
            failed: ended.exit_code != 0,
        },
        Some(_) => known.backoff.wait(now).map_or(Turn::Start, Turn::WaitUntil),
        None => Turn::Start,
    }
}

/// Whether all that was to run has run (a Job's pod), or will never.
pub(super) fn is_over(pod: &Pod, state: &PodState) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let policy = restart_policy(pod);
    let of = |container: &Container| state.containers.get(&container.name);
    let init_failed = policy == Restart::Never
        && spec
            .init_containers
            .iter()
            .flatten()
            .filter(|c| !is_sidecar(c))
            .any(|container| {
                of(container)
                    .and_then(|c| c.ended())
                    .is_some_and(|ended| ended.exit_code != 0)
            });
    let ended_for_good = |container: &Container| {
        of(container)
            .and_then(|c| c.ended())
            .is_some_and(|ended| !policy.after(ended.exit_code))
    };
    init_failed || spec.containers.iter().all(ended_for_good)
}

/// After the end of a pod's work: its sidecars and its network.
fn wind_up(pod: &Pod, state: &PodState) -> Decision {
    if state.any_running() {
        return Decision {
            actions: stops(pod, state),
            wake: None,
        };
    }
    match state.sandbox {
        Sandbox::Ready { .. } => Decision::now(Action::RemoveSandbox),
        Sandbox::Absent { .. } | Sandbox::Removed { .. } => Decision::default(),
    }
}

/// The pod is being deleted.
fn end(pod: &Pod, state: &PodState) -> Decision {
    if state.any_running() {
        return Decision {
            actions: stops(pod, state),
            wake: None,
        };
    }
    let mut decision = Decision::default();
    if matches!(state.sandbox, Sandbox::Ready { .. }) {
        decision.actions.push(Action::RemoveSandbox);
    }
    decision.actions.push(Action::Finish);
    decision
}

/// Whom to stop next: all containers at once, then the sidecars, last one first.
/// <https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/>
fn stops(pod: &Pod, state: &PodState) -> Vec<Action> {
    let Some(spec) = &pod.spec else {
        return Vec::new();
    };
    let running = |container: &&Container| {
        state
            .containers
            .get(&container.name)
            .is_some_and(ContainerState::running)
    };
    let stop = |container: &Container| {
        let stopping = state
            .containers
            .get(&container.name)
            .is_some_and(|c| c.stopping);
        (!stopping).then(|| Action::Stop(container.name.clone()))
    };
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let (sidecars, plain): (Vec<_>, Vec<_>) = init.iter().partition(|c| is_sidecar(c));
    let first: Vec<&Container> = spec
        .containers
        .iter()
        .chain(plain)
        .filter(running)
        .collect();
    if !first.is_empty() {
        return first.into_iter().filter_map(stop).collect();
    }
    sidecars
        .into_iter()
        .rev()
        .find(running)
        .and_then(stop)
        .into_iter()
        .collect()
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
