//! One pod's task: asks [`decide`] what to do, does it, and reports.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::cgroup::Cgroup;
use super::decide::{Action, decide};
use super::events::Level;
use super::exec::Enter;
use super::node::Node;
use super::probe::{Kind, News, Target};
use super::sandbox::{self, SandboxError};
use super::state::{PodState, Sandbox, Termination};
use super::{recover, report, run};
use crate::clock;

/// Waits between attempts at a sandbox. Short at first: the usual reason is an
/// agent that is just being restarted.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// What the API says of the pod now.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) pod: Arc<Pod>,
    /// It was removed.
    pub(super) gone: bool,
}

/// What happened to a container. The number is that of its run: news of an
/// earlier run mean nothing.
#[derive(Debug)]
pub(super) enum Message {
    InitAllowed,
    Ended {
        container: String,
        run: u64,
        termination: Termination,
    },
    Probe {
        container: String,
        run: u64,
        news: News,
    },
    /// A hook failed; after a start, the container is to be ended.
    Hook {
        container: String,
        run: u64,
        hook: &'static str,
        problem: String,
    },
}

/// A container's process as the task sees it.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) run: u64,
    pub(super) pid: u32,
    pub(super) cgroup: Arc<Cgroup>,
    pub(super) target: Target,
    /// Hooks, probes; ended with the container.
    pub(super) helpers: Vec<AbortHandle>,
}

impl Drop for Running {
    fn drop(&mut self) {
        for helper in &self.helpers {
            helper.abort();
        }
    }
}

/// A pod on a node.
#[derive(Debug)]
pub(super) struct PodTask {
    pub(super) node: Arc<Node>,
    pub(super) wanted: watch::Receiver<Wanted>,
    pub(super) pod: Arc<Pod>,
    pub(super) uid: String,
    pub(super) state: PodState,
    pub(super) sandbox: Option<sandbox::Sandbox>,
    pub(super) running: HashMap<String, Running>,
    pub(super) runs: u64,
    readiness: watch::Receiver<bool>,
    pub(super) messages: mpsc::UnboundedReceiver<Message>,
    pub(super) sender: mpsc::UnboundedSender<Message>,
}

impl PodTask {
    pub(super) fn new(node: Arc<Node>, wanted: watch::Receiver<Wanted>) -> Self {
        let pod = wanted.borrow().pod.clone();
        let (sender, messages) = mpsc::unbounded_channel();
        Self {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            state: recover::state(&pod, clock::now()),
            wanted,
            pod,
            sandbox: None,
            running: HashMap::new(),
            runs: 0,
            readiness: node.readiness(),
            node,
            messages,
            sender,
        }
    }

    /// Runs the pod until it is gone.
    pub(super) async fn run(mut self) {
        if self.state.init_allowed {
            self.node.context.batch.arrived(&self.uid);
        }
        loop {
            let decision = decide(&self.pod, &self.state, Instant::now());
            // One at a time: what it did may change what comes next.
            if let Some(action) = decision.actions.into_iter().next() {
                if self.perform(action).await.is_break() {
                    return;
                }
                while let Ok(message) = self.messages.try_recv() {
                    self.learn(message);
                }
                self.refresh();
            } else {
                report::publish(&self);
                self.wait(decision.wake).await;
            }
        }
    }

    /// Lets the init containers start when it is time.
    fn wait_for_batch(&self) {
        let (context, sender) = (self.node.context.clone(), self.sender.clone());
        tokio::spawn(async move {
            if !context.real_timing {
                context.batch.wait().await;
            }
            // The pod may be gone by now.
            let _ = sender.send(Message::InitAllowed);
        });
    }

    /// Waits until something happens.
    async fn wait(&mut self, wake: Option<Instant>) {
        let at = wake.map(tokio::time::Instant::from_std);
        tokio::select! {
            Some(message) = self.messages.recv() => self.learn(message),
            // Nothing more is said about a pod that is gone.
            changed = self.wanted.changed(), if !self.state.gone => {
                if changed.is_err() {
                    // Nobody can want anything any more: the node loop ends.
                    std::future::pending::<()>().await;
                }
            }
            () = tokio::time::sleep_until(at.unwrap_or_else(tokio::time::Instant::now)),
                if at.is_some() => {}
            Ok(()) = self.readiness.changed() => self.node_changed().await,
        }
        self.refresh();
    }

    /// The node's network works again, or no longer.
    async fn node_changed(&mut self) {
        if !*self.readiness.borrow_and_update() {
            return;
        }
        if let Sandbox::Absent { retry, .. } = &mut self.state.sandbox {
            // No need to sit out the back-off.
            *retry = None;
        }
        // Whoever restarted it may have found things different.
        if let Some(sandbox) = &self.sandbox
            && let Err(error) = sandbox.check(&self.node).await
        {
            self.event(
                None,
                Level::Warning,
                "NetworkCheckFailed",
                &error.to_string(),
            );
        }
    }

    fn refresh(&mut self) {
        let wanted = self.wanted.borrow_and_update();
        self.pod = Arc::clone(&wanted.pod);
        self.state.gone |= wanted.gone;
    }

    fn learn(&mut self, message: Message) {
        match message {
            Message::InitAllowed => self.state.init_allowed = true,
            Message::Ended {
                container,
                run,
                termination,
            } => {
                if self.is_current(&container, run) {
                    run::ended(self, &container, termination);
                }
            }
            Message::Probe {
                container,
                run,
                news,
            } => {
                if self.is_current(&container, run) {
                    self.probed(&container, news);
                }
            }
            Message::Hook {
                container,
                run,
                hook,
                problem,
            } => {
                if self.is_current(&container, run) {
                    self.hook_failed(&container, hook, &problem);
                }
            }
        }
    }

    fn is_current(&self, container: &str, run: u64) -> bool {
        self.running
            .get(container)
            .is_some_and(|running| running.run == run)
    }

    fn probed(&mut self, name: &str, news: News) {
        match news {
            News::Failed(kind, problem) => {
                let message = format!("{kind} probe failed: {problem}");
                self.event(Some(name), Level::Warning, "Unhealthy", &message);
            }
            News::Verdict(kind, passed) => {
                let Some(container) = self.state.containers.get_mut(name) else {
                    return;
                };
                match kind {
                    Kind::Startup if passed => container.started = true,
                    Kind::Readiness => container.ready = passed,
                    Kind::Liveness | Kind::Startup if !passed && !container.stopping => {
                        let failed = format!("{kind}").to_lowercase();
                        let message =
                            format!("Container {name} failed {failed} probe, will be restarted");
                        run::stop(self, name, &message);
                    }
                    Kind::Liveness | Kind::Startup => {}
                }
            }
        }
    }

    fn hook_failed(&mut self, name: &str, hook: &'static str, problem: &str) {
        let reason = format!("Failed{hook}Hook");
        self.event(
            Some(name),
            Level::Warning,
            &reason,
            &format!("{hook}Hook failed: {problem}"),
        );
        if hook == run::POST_START {
            run::stop(
                self,
                name,
                &format!("Container {name} failed its {hook} hook"),
            );
        }
    }

    async fn perform(&mut self, action: Action) -> ControlFlow<()> {
        match action {
            Action::MakeSandbox => self.make_sandbox().await,
            Action::RemoveSandbox => self.remove_sandbox().await,
            Action::Start(name) => run::start(self, &name).await,
            Action::HoldBack(name) => self.hold_back(&name),
            Action::Stop(name) => run::stop(self, &name, &format!("Stopping container {name}")),
            Action::Finish => {
                report::finish(self);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    async fn make_sandbox(&mut self) {
        let made = sandbox::Sandbox::make(&self.node, &self.pod).await;
        let Sandbox::Absent {
            failures,
            problem: before,
            ..
        } = &self.state.sandbox
        else {
            return;
        };
        match made {
            Ok(sandbox) => {
                for volume in &sandbox.substituted {
                    let message = format!(
                        "Volume {volume:?} is of a kind that the lab does not have; it is an \
                         empty directory"
                    );
                    self.event(None, Level::Warning, "VolumeSubstituted", &message);
                }
                self.state.sandbox = Sandbox::Ready {
                    ips: sandbox.ips.clone(),
                };
                self.sandbox = Some(sandbox);
                if !self.state.init_allowed {
                    self.wait_for_batch();
                }
            }
            Err(error) => {
                let problem = error.to_string();
                let failures = failures.saturating_add(1);
                let wait = FIRST_RETRY
                    .saturating_mul(1 << failures.min(10))
                    .min(LONGEST_RETRY);
                // A node that is not ready yet is no news.
                let of_pod = !matches!(error, SandboxError::NodeNotReady(_));
                if of_pod && before.as_ref() != Some(&problem) {
                    let message = match &error {
                        SandboxError::Volume(_) => problem.clone(),
                        _ => format!("Failed to create pod sandbox: {problem}"),
                    };
                    self.event(None, Level::Warning, error.reason(), &message);
                }
                if of_pod {
                    // Others need not wait for a pod that cannot start.
                    self.node.context.batch.settled(&self.uid);
                }
                let retry = Some(Instant::now() + wait);
                self.state.sandbox = Sandbox::Absent {
                    problem: Some(problem),
                    retry,
                    failures,
                };
            }
        }
    }

    async fn remove_sandbox(&mut self) {
        if let Some(sandbox) = self.sandbox.take() {
            sandbox.remove(&self.node).await;
        }
        // All containers' groups are gone from it.
        let path = self.node.spec.cgroup.join(&self.uid);
        match std::fs::remove_dir(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "cannot remove cgroup");
            }
            _ => {}
        }
        self.state.sandbox = Sandbox::Removed {
            ips: self.state.sandbox.ips().to_vec(),
        };
    }

    fn hold_back(&mut self, name: &str) {
        let Some(container) = self.state.containers.get_mut(name) else {
            return;
        };
        let meta = &self.pod.metadata;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let pod = format!(
            "{}_{}({})",
            text(&meta.name),
            text(&meta.namespace),
            self.uid
        );
        let wait = container.backoff.held();
        container.hold_back(format!(
            "back-off {wait:?} restarting failed container={name} pod={pod}"
        ));
        let message = format!("Back-off restarting failed container {name} in pod {pod}");
        self.event(Some(name), Level::Warning, "BackOff", &message);
        self.node.context.batch.settled(&self.uid);
    }

    /// The container of that name in the specification.
    pub(super) fn container(&self, name: &str) -> Option<&Container> {
        let spec = self.pod.spec.as_ref()?;
        let mut all = spec
            .init_containers
            .iter()
            .flatten()
            .chain(&spec.containers);
        all.find(|container| container.name == name)
    }

    pub(super) fn event(&self, container: Option<&str>, level: Level, reason: &str, message: &str) {
        self.node
            .recorder
            .pod(&self.pod, container, level, reason, message);
    }

    /// What the way into a container needs to be found by.
    pub(super) fn target(
        &self,
        container: &Container,
        enter: &Arc<Enter>,
        stand_in: bool,
    ) -> Target {
        Target {
            container: Arc::new(container.clone()),
            pod_ip: self.state.sandbox.ips().first().copied(),
            node: Arc::clone(&self.node.netns),
            enter: Arc::clone(enter),
            stand_in,
            real_timing: self.node.context.real_timing,
        }
    }
}
