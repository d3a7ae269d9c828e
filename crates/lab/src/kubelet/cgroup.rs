//! The control group of one container: how all its processes are found again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cgroup::{destroy, processes};

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

    /// Sends a signal to `pid`, if it is one of the group's: after its end the
    /// number may be somebody else's.
    pub(super) fn signal(&self, pid: u32, signal: Signal) {
        let pid = pid.cast_signed();
        if processes(&self.0).contains(&pid) {
            // It may end in this moment, which is what was wanted.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Kills every process in the group, and removes it. One that is not there
    /// is no error.
    ///
    /// # Errors
    /// If processes do not end.
    pub(super) async fn destroy(&self) -> io::Result<()> {
        let path = self.0.clone();
        let destroyed = tokio::task::spawn_blocking(move || destroy(&path));
        destroyed.await.map_err(io::Error::other)?.map(drop)
    }
}
