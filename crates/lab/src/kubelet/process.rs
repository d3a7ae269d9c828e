//! The first process of a container: started, watched, and cleaned up after.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::task::JoinHandle;

use super::cgroup::Cgroup;
use super::exec::{exit_code, launcher, write_spec};
use super::log::{Log, pump};
use crate::container::notify::Report;
use crate::container::spec::ProcessSpec;

/// How long output may still come after all processes were killed.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// How long a container may take from its process to its program; it needs a
/// few milliseconds.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// A process that was started.
#[derive(Debug)]
pub(super) struct Process {
    /// The one that the lab started: signals go to it.
    pub(super) pid: u32,
    /// What it said about the start. With a problem it ends by itself.
    pub(super) report: Report,
    child: Child,
    pumps: [JoinHandle<()>; 2],
}

impl Process {
    /// Starts what `spec` says, and returns when the program runs (a stand-in:
    /// when it listens) or is known not to.
    ///
    /// # Errors
    /// If there is not even a process.
    pub(super) async fn start(
        exe: &Path,
        dir: &Path,
        spec: &ProcessSpec,
        log: &Arc<Log>,
    ) -> io::Result<Self> {
        // See container::notify for the other end.
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut notice = UnixStream::from_std(ours)?;
        let mut command = launcher(exe, &write_spec(dir, spec)?);
        command
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn()?;
        // The command holds our copy of the child's end.
        drop(command);
        let pid = child
            .id()
            .ok_or_else(|| io::Error::other("the process ended at once"))?;
        let pumps = [
            spawn_pump(child.stdout.take(), "stdout", log),
            spawn_pump(child.stderr.take(), "stderr", log),
        ];
        let mut text = String::new();
        let said = notice.read_to_string(&mut text);
        // An error is an end too.
        let in_time = tokio::time::timeout(START_PATIENCE, said).await.is_ok();
        let mut report = Report::parse(&text);
        if !in_time {
            // It hangs, in the kernel or in a file system.
            child.start_kill()?;
            let problem = format!("the container did not start within {START_PATIENCE:?}");
            report.problem.get_or_insert(problem);
        }
        Ok(Self {
            pid,
            report,
            child,
            pumps,
        })
    }

    /// Waits for its end, ends whatever it left behind, and gives its exit code.
    pub(super) async fn wait(mut self, cgroup: &Cgroup) -> i32 {
        let status = self.child.wait().await;
        // A container ends with its first process, and all others with it.
        if let Err(error) = cgroup.destroy().await {
            tracing::warn!(cgroup = %cgroup.path().display(), %error, "cannot remove cgroup");
        }
        for pump in &mut self.pumps {
            let _ = tokio::time::timeout(LAST_OUTPUT, pump).await;
        }
        status.map_or(255, exit_code)
    }
}

fn spawn_pump(
    stream: Option<impl tokio::io::AsyncRead + Unpin + Send + 'static>,
    name: &'static str,
    log: &Arc<Log>,
) -> JoinHandle<()> {
    let log = Arc::clone(log);
    tokio::spawn(async move {
        if let Some(stream) = stream {
            pump(stream, name, &log).await;
        }
    })
}
