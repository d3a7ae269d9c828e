//! What the node loop knows about a pod's containers. Plain values: changed by
//! what happens ([`super::task`]), read by what decides ([`super::decide`]) and
//! by what reports ([`super::status`]).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::jiff::Timestamp;

use super::backoff::Backoff;

/// A pod on this node.
#[derive(Clone, Debug)]
pub(super) struct PodState {
    /// When the node loop first saw it.
    pub(super) since: Timestamp,
    pub(super) sandbox: Sandbox,
    /// Init containers may start: see [`super::batch`].
    pub(super) init_allowed: bool,
    /// A container other than an init container has run: the init containers
    /// are done with.
    pub(super) begun: bool,
    /// The pod was removed from the API without waiting for us.
    pub(super) gone: bool,
    /// By name; init containers too.
    pub(super) containers: BTreeMap<String, ContainerState>,
}

/// The pod's network.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Sandbox {
    /// Not made yet; `problem` is why the last try failed.
    Absent {
        problem: Option<String>,
        retry: Option<Instant>,
        failures: u32,
    },
    Ready {
        ips: Vec<IpAddr>,
    },
    /// Taken down after all containers ended for good. The addresses stay in
    /// the status.
    Removed {
        ips: Vec<IpAddr>,
    },
}

impl Sandbox {
    pub(super) fn ips(&self) -> &[IpAddr] {
        match self {
            Self::Absent { .. } => &[],
            Self::Ready { ips } | Self::Removed { ips } => ips,
        }
    }
}

/// One container.
#[derive(Clone, Debug, Default)]
pub(super) struct ContainerState {
    pub(super) phase: Phase,
    /// How it ended the time before.
    pub(super) last: Option<Termination>,
    pub(super) restarts: i32,
    /// Of the run that is, or was last.
    pub(super) id: Option<String>,
    pub(super) image_id: String,
    /// Its startup probe has passed (or it has none).
    pub(super) started: bool,
    pub(super) ready: bool,
    /// It has been told to end.
    pub(super) stopping: bool,
    pub(super) backoff: Backoff,
    /// When to try again what failed before there was a process.
    pub(super) retry: Option<Instant>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Phase {
    Waiting {
        reason: String,
        message: Option<String>,
    },
    Running {
        since: Timestamp,
    },
    Terminated(Termination),
}

impl Default for Phase {
    fn default() -> Self {
        Self::Waiting {
            reason: String::new(),
            message: None,
        }
    }
}

/// How a run of a container ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Termination {
    pub(super) exit_code: i32,
    pub(super) reason: String,
    pub(super) message: Option<String>,
    pub(super) started: Timestamp,
    pub(super) finished: Timestamp,
    pub(super) id: String,
}

/// Whether a container is to be started again after it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restart {
    Always,
    OnFailure,
    Never,
}

impl Restart {
    pub(super) fn after(self, exit_code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => exit_code != 0,
            Self::Never => false,
        }
    }
}

/// An init container with `restartPolicy: Always` runs beside the others.
pub(super) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

pub(super) fn restart_policy(pod: &Pod) -> Restart {
    match pod
        .spec
        .as_ref()
        .and_then(|spec| spec.restart_policy.as_deref())
    {
        Some("Never") => Restart::Never,
        Some("OnFailure") => Restart::OnFailure,
        _ => Restart::Always,
    }
}

impl PodState {
    pub(super) fn new(pod: &Pod, since: Timestamp) -> Self {
        let spec = pod.spec.as_ref();
        let all = spec.into_iter().flat_map(|spec| {
            spec.init_containers
                .iter()
                .flatten()
                .chain(&spec.containers)
                .map(|c| c.name.clone())
        });
        Self {
            since,
            sandbox: Sandbox::Absent {
                problem: None,
                retry: None,
                failures: 0,
            },
            init_allowed: spec.is_none_or(|spec| spec.init_containers.is_none()),
            begun: false,
            gone: false,
            containers: all.map(|name| (name, ContainerState::default())).collect(),
        }
    }

    pub(super) fn any_running(&self) -> bool {
        self.containers.values().any(ContainerState::running)
    }
}

impl ContainerState {
    pub(super) fn running(&self) -> bool {
        matches!(self.phase, Phase::Running { .. })
    }

    /// How the last run ended, unless one is under way.
    pub(super) fn ended(&self) -> Option<&Termination> {
        match &self.phase {
            Phase::Terminated(termination) => Some(termination),
            Phase::Waiting { .. } => self.last.as_ref(),
            Phase::Running { .. } => None,
        }
    }

    /// A process runs.
    pub(super) fn begin(&mut self, id: String, image_id: String, now: Timestamp) {
        if let Some(ended) = self.ended().cloned() {
            self.last = Some(ended);
            self.restarts += 1;
        }
        self.phase = Phase::Running { since: now };
        self.id = Some(id);
        self.image_id = image_id;
        (self.started, self.ready, self.stopping, self.retry) = (false, false, false, None);
    }

    /// Its process ended.
    pub(super) fn end(&mut self, termination: Termination, now: Instant) {
        let ran = termination.finished.duration_since(termination.started);
        self.backoff
            .ended(now, Duration::try_from(ran).unwrap_or_default());
        self.phase = Phase::Terminated(termination);
        (self.started, self.ready, self.stopping) = (false, false, false);
    }

    /// It could not even be tried; once more at `retry`.
    pub(super) fn refuse(&mut self, reason: &str, message: String, retry: Instant) {
        if let Phase::Terminated(ended) = &self.phase {
            self.last = Some(ended.clone());
        }
        self.phase = Phase::Waiting {
            reason: reason.to_owned(),
            message: Some(message),
        };
        self.retry = Some(retry);
    }

    /// It ended and has to wait before its next start.
    pub(super) fn hold_back(&mut self, message: String) {
        if let Phase::Terminated(ended) = &self.phase {
            self.last = Some(ended.clone());
        }
        let reason = "CrashLoopBackOff".to_owned();
        self.phase = Phase::Waiting {
            reason,
            message: Some(message),
        };
    }
}
