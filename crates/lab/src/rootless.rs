//! A lab without root: everything in a user namespace of one's own.
//!
//! In there the lab is root over the namespaces that it makes, and over nothing
//! else. What the machine gives to its own root alone is not available: eBPF
//! programs (the agents take the nftables engine and say so), control groups
//! (processes are found by lists of their numbers, [`crate::cgroup`]), device
//! nodes (the machine's are shown instead), and users other than oneself
//! (`runAsUser`).
//!
//! The namespaces live as long as the lab's processes; verbs join those of the
//! lab's daemon.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use ripstop_netlink::netns::RUN_NETNS;

use crate::lifecycle::{Record, State, state};
use crate::paths::LabPaths;

/// In the environment of every process of a lab without root: the directory of
/// all such labs.
const BASE: &str = "RIPSTOP_ROOTLESS";

/// Why there can be no lab without root.
#[derive(Debug, thiserror::Error)]
pub enum RootlessError {
    #[error("no directory for labs without root: neither XDG_RUNTIME_DIR nor HOME is set")]
    NoDirectory,
    #[error(
        "this machine gives no user namespace to users: {0} (see the sysctls \
         user.max_user_namespaces and kernel.unprivileged_userns_clone); \
         with root there is no need of one: use sudo"
    )]
    NoNamespace(io::Error),
    #[error("{what}: {source}")]
    Io {
        what: &'static str,
        source: io::Error,
    },
}

fn io_error<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> RootlessError {
    move |source| RootlessError::Io {
        what,
        source: source.into(),
    }
}

/// Where labs without root are kept; `None` if this process is root on the
/// machine.
pub fn base() -> Option<PathBuf> {
    if let Some(base) = std::env::var_os(BASE) {
        return Some(base.into());
    }
    if nix::unistd::geteuid().is_root() {
        return None;
    }
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    variable("XDG_RUNTIME_DIR")
        .map(|dir| PathBuf::from(dir).join("ripstop"))
        .or_else(|| variable("HOME").map(|dir| PathBuf::from(dir).join(".ripstop")))
}

/// Whether this process is in a lab's user namespace.
pub fn is_inside() -> bool {
    std::env::var_os(BASE).is_some()
}

/// What every process of such a lab has to have in its environment.
pub(crate) fn environment() -> Option<(&'static str, std::ffi::OsString)> {
    Some((BASE, std::env::var_os(BASE)?))
}

/// Becomes the same command in the namespaces of `lab`, or in new ones if it
/// does not run. Returns only for root, and for who is inside already. The
/// caller has one thread.
///
/// # Errors
/// If there can be no such namespaces.
pub fn enter(lab: &str) -> Result<(), RootlessError> {
    if is_inside() || nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let base = base().ok_or(RootlessError::NoDirectory)?;
    fs::create_dir_all(&base).map_err(io_error("the directory of labs without root"))?;
    // Joining a mount namespace leads to its root.
    let here = std::env::current_dir().map_err(io_error("this directory"))?;
    let paths = LabPaths::new(lab);
    match Record::read(&paths) {
        Ok(record) if matches!(state(&paths), Ok(State::Running)) && record.pid != 0 => {
            join(record.pid).map_err(io_error("joining the lab's namespaces"))?;
        }
        _ => begin()?,
    }
    std::env::set_current_dir(here).map_err(io_error("this directory"))?;
    let exe = std::env::current_exe().map_err(io_error("this program"))?;
    let error = Command::new(exe)
        .args(std::env::args_os().skip(1))
        .env(BASE, base)
        .exec();
    Err(io_error("starting again inside")(error))
}

fn join(pid: u32) -> io::Result<()> {
    let namespace = |kind: &str| File::open(format!("/proc/{pid}/ns/{kind}"));
    let (user, mounts) = (namespace("user")?, namespace("mnt")?);
    setns(user, CloneFlags::CLONE_NEWUSER)?;
    setns(mounts, CloneFlags::CLONE_NEWNS)?;
    Ok(())
}

/// New namespaces, in which the user is root.
fn begin() -> Result<(), RootlessError> {
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
        .map_err(|error| RootlessError::NoNamespace(error.into()))?;
    // user_namespaces(7): groups of others could be dropped to get at files.
    for (file, map) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {uid} 1")),
        ("/proc/self/gid_map", format!("0 {gid} 1")),
    ] {
        fs::write(file, map).map_err(io_error("mapping the user"))?;
    }
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .map_err(io_error("separating mounts"))?;
    own_run_netns().map_err(io_error("a directory for network namespaces"))
}

/// An empty `/run/netns` that is ours. Where there is none, `/run` becomes a
/// directory of ours with everything in it that there was.
fn own_run_netns() -> io::Result<()> {
    let netns = Path::new(RUN_NETNS);
    if !netns.exists() {
        let run = Path::new("/run");
        let entries: Vec<_> = fs::read_dir(run)?.flatten().collect();
        let staging = tempdir(&base().ok_or(io::ErrorKind::NotFound)?)?;
        memory(&staging)?;
        for entry in entries {
            let (from, to) = (entry.path(), staging.join(entry.file_name()));
            let kind = entry.file_type()?;
            if kind.is_symlink() {
                std::os::unix::fs::symlink(fs::read_link(&from)?, &to)?;
                continue;
            }
            if kind.is_dir() {
                fs::create_dir(&to)?;
            } else {
                File::create(&to)?;
            }
            // What may not be seen is left out.
            let _ = bind(&from, &to);
        }
        mount(
            Some(&staging),
            run,
            None::<&str>,
            MsFlags::MS_MOVE,
            None::<&str>,
        )?;
        fs::remove_dir(&staging)?;
        fs::create_dir(netns)?;
    }
    memory(netns)
}

fn tempdir(base: &Path) -> io::Result<PathBuf> {
    let path = base.join(format!("run.{}", std::process::id()));
    fs::create_dir_all(&path)?;
    Ok(path)
}

fn memory(at: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(
        Some("tmpfs"),
        at,
        Some("tmpfs"),
        flags,
        Some("mode=755"),
    )?)
}

fn bind(from: &Path, to: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    Ok(mount(Some(from), to, None::<&str>, flags, None::<&str>)?)
}
