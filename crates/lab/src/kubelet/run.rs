//! A container's run, from its start to its end, in its pod's task.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};
use k8s_openapi::jiff::Timestamp;

use super::events::Level;
use super::image::Program;
use super::log;
use super::registry::Entry;
use super::start::{Started, container_dir, termination_log};
use super::state::Termination;
use super::task::{Message, PodTask, Running};
use super::{hooks, probe, start as starting};
use crate::clock;

/// Name of the hook after a start, as events have it.
pub(super) const POST_START: &str = "PostStart";
const PRE_STOP: &str = "PreStop";

/// kubelet's, for pods that do not say.
const DEFAULT_GRACE: i64 = 30;

/// How long a hook after a start may take; kubelet sets no limit.
const POST_START_PATIENCE: Duration = Duration::from_secs(3600);

/// Between attempts to start what could not be configured.
const RETRY: Duration = Duration::from_secs(1);

/// Limits of a termination message taken from the log.
/// <https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/>
const LOG_LINES: usize = 80;
const LOG_BYTES: usize = 2048;
/// Limit of a message that the container wrote itself.
const MESSAGE_BYTES: usize = 4096;

/// Starts a container, or notes why that cannot be.
pub(super) async fn start(task: &mut PodTask, name: &str) {
    let Some(container) = task.container(name).cloned() else {
        return;
    };
    let Some(sandbox) = &task.sandbox else { return };
    let known = task.state.containers.get(name);
    let restarts = known.map_or(0, |known| {
        known.restarts + i32::from(known.ended().is_some())
    });
    match starting::start(&task.node, &task.pod, &container, sandbox, restarts).await {
        Ok(started) => begin(task, &container, started, restarts),
        Err(refused) => {
            let problem = refused.to_string();
            task.event(
                Some(name),
                Level::Warning,
                "Failed",
                &format!("Error: {problem}"),
            );
            if let Some(known) = task.state.containers.get_mut(name) {
                known.refuse(refused.reason(), problem, Instant::now() + RETRY);
            }
            task.node.context.batch.settled(&task.uid);
        }
    }
}

fn begin(task: &mut PodTask, container: &Container, started: Started, restarts: i32) {
    let name = &container.name;
    let image = container.image.as_deref().unwrap_or_default();
    task.event(
        Some(name),
        Level::Normal,
        "Pulled",
        &started.program.describe(image),
    );
    task.event(
        Some(name),
        Level::Normal,
        "Created",
        &format!("Created container: {name}"),
    );
    let Started {
        id,
        process,
        cgroup,
        program,
        log,
        enter,
    } = started;
    let problem = process.report.problem.clone();
    match &problem {
        None => {
            task.event(
                Some(name),
                Level::Normal,
                "Started",
                &format!("Started container {name}"),
            );
        }
        Some(problem) => {
            let message = format!("Error: failed to start container {name:?}: {problem}");
            task.event(Some(name), Level::Warning, "Failed", &message);
        }
    }
    let now = clock::now();
    if let Some(known) = task.state.containers.get_mut(name) {
        known.begin(id.clone(), program.image_id(), now);
    }
    let is_main = |main: &Container| main.name == *name;
    task.state.begun |= task
        .pod
        .spec
        .as_ref()
        .is_some_and(|s| s.containers.iter().any(is_main));
    let stand_in = matches!(program, Program::StandIn(_));
    let target = task.target(container, &enter, stand_in);
    task.runs += 1;
    let run = task.runs;
    let dir = task
        .sandbox
        .as_ref()
        .map(|s| container_dir(&s.dir, name))
        .unwrap_or_default();
    let mut running = Running {
        run,
        pid: process.pid,
        cgroup: Arc::clone(&cgroup),
        target: target.clone(),
        helpers: Vec::new(),
    };
    if problem.is_none() {
        let helper = tokio::spawn(accompany(target, task.sender.clone(), run));
        running.helpers.push(helper.abort_handle());
        let entry = Entry {
            dir: dir.clone(),
            run: restarts,
            running: Some((enter, log)),
        };
        task.node.context.registry.started(&task.uid, name, entry);
    }
    task.running.insert(name.clone(), running);
    let (container, sender) = (container.clone(), task.sender.clone());
    tokio::spawn(async move {
        let exit_code = process.wait(&cgroup).await;
        let problem = problem.map(|problem| format!("failed to create containerd task: {problem}"));
        let last = LastWords {
            container: &container,
            dir: &dir,
            run: restarts,
        };
        let termination = last.termination(exit_code, problem, now, id);
        // The task lives as long as its containers.
        let _ = sender.send(Message::Ended {
            container: container.name,
            run,
            termination,
        });
    });
}

/// The hook after the start, then the probes.
async fn accompany(
    target: probe::Target,
    sender: tokio::sync::mpsc::UnboundedSender<Message>,
    run: u64,
) {
    let container = target.container.clone();
    let send = |message| {
        // Without its task the container is ending.
        let _ = sender.send(message);
    };
    let hook = container
        .lifecycle
        .as_ref()
        .and_then(|hooks| hooks.post_start.as_ref());
    if let Some(hook) = hook {
        let deadline = tokio::time::Instant::now() + POST_START_PATIENCE;
        if let Err(problem) = hooks::run(hook, &target, deadline).await {
            send(Message::Hook {
                container: container.name.clone(),
                run,
                hook: POST_START,
                problem,
            });
            return;
        }
    }
    let name = container.name.clone();
    probe::run(target, |news| {
        send(Message::Probe {
            container: name.clone(),
            run,
            news,
        })
    })
    .await;
}

/// Ends a container; its end is told by [`Message::Ended`].
pub(super) fn stop(task: &mut PodTask, name: &str, why: &str) {
    let grace = grace(task, name);
    let Some(known) = task.state.containers.get_mut(name) else {
        return;
    };
    known.stopping = true;
    let Some(running) = task.running.get_mut(name) else {
        return;
    };
    let (target, cgroup, sender) = (
        running.target.clone(),
        running.cgroup.clone(),
        task.sender.clone(),
    );
    let (pid, run) = (running.pid, running.run);
    let helper = tokio::spawn(async move {
        let container = target.container.clone();
        let hook: Option<&LifecycleHandler> = container
            .lifecycle
            .as_ref()
            .and_then(|hooks| hooks.pre_stop.as_ref());
        hooks::stop(hook, &target, &cgroup, pid, grace, |problem| {
            let container = container.name.clone();
            // Only for the record.
            let _ = sender.send(Message::Hook {
                container,
                run,
                hook: PRE_STOP,
                problem,
            });
        })
        .await;
    });
    running.helpers.push(helper.abort_handle());
    task.event(Some(name), Level::Normal, "Killing", why);
}

/// How long a container may take to end.
fn grace(task: &PodTask, name: &str) -> Duration {
    if task.state.gone {
        return Duration::ZERO;
    }
    let deleting = task.pod.metadata.deletion_timestamp.is_some();
    let of_pod = task
        .pod
        .spec
        .as_ref()
        .and_then(|spec| spec.termination_grace_period_seconds);
    // A probe may have its own for what it condemns.
    let of_probe = task.container(name).and_then(|container| {
        let probe = container
            .liveness_probe
            .as_ref()
            .or(container.startup_probe.as_ref())?;
        probe.termination_grace_period_seconds
    });
    let seconds = match deleting {
        true => task.pod.metadata.deletion_grace_period_seconds.or(of_pod),
        false => of_probe.or(of_pod),
    };
    Duration::from_secs(u64::try_from(seconds.unwrap_or(DEFAULT_GRACE)).unwrap_or(0))
}

/// A container has ended.
pub(super) fn ended(task: &mut PodTask, name: &str, termination: Termination) {
    task.running.remove(name);
    task.node.context.registry.ended(&task.uid, name);
    let Some(known) = task.state.containers.get_mut(name) else {
        return;
    };
    let expected = known.stopping;
    known.end(termination.clone(), Instant::now());
    if let Some(message) = termination
        .message
        .filter(|_| termination.exit_code != 0 && !expected)
    {
        let code = termination.exit_code;
        let message = format!("Container {name} exited with code {code}: {message}");
        task.event(Some(name), Level::Warning, "Failed", &message);
    }
}

/// What a container leaves behind.
struct LastWords<'a> {
    container: &'a Container,
    dir: &'a std::path::Path,
    run: i32,
}

impl LastWords<'_> {
    fn termination(
        &self,
        exit_code: i32,
        problem: Option<String>,
        started: Timestamp,
        id: String,
    ) -> Termination {
        let reason = match (&problem, exit_code) {
            (Some(_), _) => "StartError",
            (_, 0) => "Completed",
            _ => "Error",
        };
        let message = problem.or_else(|| self.message(exit_code));
        Termination {
            exit_code,
            reason: reason.to_owned(),
            message,
            started,
            finished: clock::now(),
            id,
        }
    }

    /// What it wrote to its termination log; if it failed without a word there,
    /// the end of its log. (Kubernetes does the latter only when asked to; here
    /// it is how a program that found its port taken shows why.)
    fn message(&self, exit_code: i32) -> Option<String> {
        let written = std::fs::read(termination_log(self.dir)).unwrap_or_default();
        let written = String::from_utf8_lossy(&written[..written.len().min(MESSAGE_BYTES)]);
        if !written.is_empty() {
            return Some(written.into_owned());
        }
        let from_log =
            self.container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
        let lines = if from_log { LOG_LINES } else { 1 };
        let last = log::last_lines(self.dir, self.run, lines, LOG_BYTES);
        (exit_code != 0 && !last.is_empty()).then_some(last)
    }
}
