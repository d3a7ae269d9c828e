//! What the machine must have, checked all at once and before anything is made.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::cgroup;

/// What the checks found out on the way.
#[derive(Clone, Debug)]
pub struct Preflight {
    /// Where cgroup2 is mounted.
    pub cgroups: PathBuf,
    /// Folder of the CNI plugin.
    pub plugins: PathBuf,
}

/// A reason why there can be no lab here.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error(
        "a lab makes namespaces (CAP_SYS_ADMIN, CAP_NET_ADMIN): it is to be started \
         as root, or in a user namespace, which `ripstop lab` makes"
    )]
    NotRoot,
    #[error("cgroups: {0}")]
    Cgroups(io::Error),
    #[error("the kernel has no {what}: {need}")]
    Kernel {
        what: &'static str,
        need: &'static str,
    },
    #[error("the CNI plugin ripstop-cni is not beside {exe}; build both: cargo build --release")]
    NoPlugin { exe: PathBuf },
    #[error("cannot tell where this program is: {0}")]
    NoExecutable(io::Error),
}

/// Checks everything; makes nothing.
///
/// # Errors
/// Everything that is missing.
pub fn check_machine() -> Result<Preflight, Vec<Problem>> {
    let mut problems = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        // The other checks would only say the same again.
        return Err(vec![Problem::NotRoot]);
    }
    let cgroups = cgroup::mount_point()
        .map_err(|error| problems.push(Problem::Cgroups(error)))
        .ok();
    let plugins = plugin_folder().map_err(|error| problems.push(error)).ok();
    problems.extend(kernel());
    match (cgroups, plugins) {
        (Some(cgroups), Some(plugins)) if problems.is_empty() => Ok(Preflight { cgroups, plugins }),
        _ => Err(problems),
    }
}

fn plugin_folder() -> Result<PathBuf, Problem> {
    let exe = std::env::current_exe().map_err(Problem::NoExecutable)?;
    match exe.parent() {
        Some(folder) if folder.join("ripstop-cni").is_file() => Ok(folder.to_owned()),
        _ => Err(Problem::NoPlugin { exe }),
    }
}

fn kernel() -> Vec<Problem> {
    let missing = |what, need| Problem::Kernel { what, need };
    let mut problems = Vec::new();
    if !Path::new("/proc/self/ns/net").exists() {
        problems.push(missing("network namespaces", "CONFIG_NET_NS"));
    }
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !filesystems.lines().any(|line| line.ends_with("\tbpf")) {
        problems.push(missing("BPF file system", "CONFIG_BPF_SYSCALL"));
    }
    problems
}
