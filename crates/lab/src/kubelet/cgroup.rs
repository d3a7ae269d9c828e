//! The cgroup of one container: how all its processes are found again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long the kernel is given to let go of processes that were killed.
const PATIENCE: Duration = Duration::from_secs(2);

/// A directory of the cgroup2 hierarchy, made by us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes the group and those above it, if they are not there.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn create(path: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The processes in this group itself.
    fn processes(&self) -> Vec<Pid> {
        let text = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        text.lines()
            .filter_map(|line| line.parse().ok().map(Pid::from_raw))
            .collect()
    }

    /// Sends a signal to `pid`, if it is one of the group's: after its end the
    /// number may be somebody else's.
    pub(super) fn signal(&self, pid: u32, signal: Signal) {
        let pid = Pid::from_raw(pid.cast_signed());
        if self.processes().contains(&pid) {
            // It may end in this moment, which is what was wanted.
            let _ = kill(pid, signal);
        }
    }

    /// Kills every process in the group and below it.
    pub(super) fn kill(&self) {
        if fs::write(self.0.join("cgroup.kill"), "1").is_ok() {
            return;
        }
        // Kernels before 5.14.
        for below in self.below() {
            below.kill();
        }
        for pid in self.processes() {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }

    fn below(&self) -> Vec<Self> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| Self(entry.path()))
            .collect()
    }

    /// Kills what is left, waits for it to be gone and removes the group and
    /// those below it. One that is not there is no error.
    ///
    /// # Errors
    /// If processes survive for two seconds.
    pub(super) async fn remove(&self) -> io::Result<()> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let mut wait = Duration::from_millis(1);
        loop {
            match self.try_remove() {
                Err(error) if tokio::time::Instant::now() >= deadline => return Err(error),
                Err(_) => {
                    self.kill();
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(Duration::from_millis(50));
                }
                Ok(()) => return Ok(()),
            }
        }
    }

    fn try_remove(&self) -> io::Result<()> {
        for below in self.below() {
            below.try_remove()?;
        }
        match fs::remove_dir(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
