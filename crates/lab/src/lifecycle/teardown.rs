//! How a lab ends: everything is found by the lab's name, so that it does not
//! matter how much of it was made or which of its processes live.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};
use ripstop_netlink::netns::{Netns, RUN_NETNS};

use crate::cgroup;
use crate::paths::LabPaths;

/// What a teardown leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    Nothing,
    /// Objects and certificates, for an `up` that goes on with them.
    Objects,
}

/// What was there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    pub processes: usize,
    pub namespaces: usize,
    pub mounts: usize,
    pub cgroup: bool,
    pub directory: bool,
}

impl Removed {
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Something that could not be removed. The rest was.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct TeardownError {
    pub what: String,
    pub source: io::Error,
}

/// Removes everything of the lab at `paths`. Doing it again does nothing.
///
/// # Errors
/// All that could not be removed; the rest is.
pub fn tear_down(paths: &LabPaths, keep: Keep) -> Result<Removed, Vec<TeardownError>> {
    let mut removed = Removed::default();
    let mut errors = Vec::new();
    let mut note = |what: String, result: io::Result<()>| match result {
        Ok(()) => true,
        Err(source) => {
            errors.push(TeardownError { what, source });
            false
        }
    };
    // Processes first: they hold everything else open.
    if let Ok(mount) = cgroup::mount_point() {
        let dir = mount.join(paths.cgroup());
        removed.cgroup = dir.exists();
        let destroyed = cgroup::destroy(&dir);
        removed.processes = *destroyed.as_ref().unwrap_or(&0);
        note("processes".to_owned(), destroyed.map(drop));
    }
    for name in namespaces(paths) {
        let what = format!("network namespace {name}");
        removed.namespaces += usize::from(note(what, Netns::remove(&name)));
    }
    for mount in mounts_below(paths.root()) {
        let result = umount2(&mount, MntFlags::MNT_DETACH).map_err(io::Error::from);
        let what = format!("unmount {}", mount.display());
        removed.mounts += usize::from(note(what, result));
    }
    let kept: &[PathBuf] = match keep {
        Keep::Nothing => &[],
        // The lock as well: it is held by who is tearing down.
        Keep::Objects => &[paths.journal(), paths.pki(), paths.lock()],
    };
    removed.directory = paths.root().exists();
    let what = paths.root().display().to_string();
    note(what, remove_directory(paths.root(), kept));
    if keep == Keep::Nothing {
        // Not ours alone: they go only when they are empty.
        let base = LabPaths::base();
        let _ = fs::remove_dir(&base).and_then(|()| base.parent().map_or(Ok(()), fs::remove_dir));
    }
    if errors.is_empty() {
        Ok(removed)
    } else {
        Err(errors)
    }
}

/// Names of the lab's network namespaces. A dot ends the lab's name in them, and
/// no name of a lab has one.
pub(super) fn namespaces(paths: &LabPaths) -> Vec<String> {
    let prefix = paths.netns_prefix();
    let entries = fs::read_dir(RUN_NETNS).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(&prefix))
        .collect()
}

/// Mount points under `root`, the innermost first.
fn mounts_below(root: &Path) -> Vec<PathBuf> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut mounts: Vec<_> = mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .filter(|mount| mount.starts_with(root))
        .collect();
    mounts.reverse();
    mounts
}

fn remove_directory(root: &Path, kept: &[PathBuf]) -> io::Result<()> {
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    if kept.is_empty() {
        return gone(fs::remove_dir_all(root));
    }
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if kept.contains(&path) {
            continue;
        }
        gone(if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_stays() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("lab");
        fs::create_dir_all(root.join("nodes/node1")).unwrap();
        for file in ["api.journal", "lab.json"] {
            fs::write(root.join(file), "x").unwrap();
        }
        remove_directory(&root, &[root.join("api.journal")]).unwrap();
        let left: Vec<_> = fs::read_dir(&root)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(left, ["api.journal"]);
        remove_directory(&root, &[]).unwrap();
        assert!(!root.exists());
        remove_directory(&root, &[]).unwrap();
        remove_directory(&root, &[root.join("api.journal")]).unwrap();
    }
}
