//! What a container wants done after its start and before its end, and the end.
//! <https://kubernetes.io/docs/concepts/containers/container-lifecycle-hooks/>

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::LifecycleHandler;
use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::cgroup::Cgroup;
use super::probe::{self, Target};

/// Runs a hook, which may take until `deadline`.
///
/// # Errors
/// Why it failed, in words.
pub(super) async fn run(
    hook: &LifecycleHandler,
    target: &Target,
    deadline: Instant,
) -> Result<(), String> {
    let left = deadline.saturating_duration_since(Instant::now());
    if let Some(exec) = &hook.exec {
        let command = exec.command.as_deref().unwrap_or_default();
        let done = target
            .enter
            .output(command, left)
            .await
            .map_err(|error| error.to_string())?;
        return match done.exit_code {
            0 => Ok(()),
            // The application that the command belongs to is not there.
            _ if target.stand_in => Ok(()),
            code => Err(format!(
                "command exited with {code}: {}",
                done.output.trim_end()
            )),
        };
    }
    if let Some(get) = &hook.http_get {
        let address = probe::address(target, get.host.as_deref(), &get.port)?;
        let tls = get.scheme.as_deref() == Some("HTTPS") && !target.stand_in;
        return probe::http_get(&target.node, address, get, tls, left)
            .await
            .map(drop);
    }
    if let Some(pause) = &hook.sleep {
        let pause = Duration::from_secs(u64::try_from(pause.seconds).unwrap_or(0));
        // What does not end in time is cut off, which is no error.
        let _ = timeout_at(deadline, sleep(pause)).await;
    }
    Ok(())
}

/// Ends a container: its hook, then SIGTERM to its first process, and when the
/// grace period is over, SIGKILL to all. Returns a problem with the hook at once
/// through `failed`; to be dropped when the container has ended.
pub(super) async fn stop(
    hook: Option<&LifecycleHandler>,
    target: &Target,
    cgroup: &Arc<Cgroup>,
    pid: u32,
    grace: Duration,
    failed: impl FnOnce(String),
) {
    let deadline = Instant::now() + grace;
    if let Some(hook) = hook.filter(|_| !grace.is_zero())
        && let Err(problem) = run(hook, target, deadline).await
    {
        failed(problem);
    }
    if !grace.is_zero() {
        cgroup.signal(pid, Signal::SIGTERM);
        sleep_until(deadline).await;
    }
    // Its group goes as soon as its first process is seen to end, so this only
    // has to end that. An error leaves it to whoever removes the pod.
    let _ = cgroup.destroy().await;
}
