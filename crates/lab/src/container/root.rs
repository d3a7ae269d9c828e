//! The container's root: the machine's root, with everything that is written
//! kept in memory (overlayfs over tmpfs), so that a program finds the machine's
//! tools and nothing that it does reaches the machine's files.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{pivot_root, sethostname};

use crate::rootless;

use super::spec::{Applets, Bind, Root};
use super::{SetupError, dev};

/// Where the machine's root is inside the container's while that is being made.
const OUTSIDE: &str = "/.outside";

/// Directories that are empty in a container, with their modes: what the
/// machine's programs left there is no business of an image.
const EMPTY: [(&str, u32); 3] = [("dev", 0o755), ("run", 0o755), ("tmp", 0o1777)];

/// Moves the process into mount and host name namespaces of its own, with `root`
/// as its root. The network namespace must have been entered before: `/sys`
/// shows the links of the one in which it is mounted.
///
/// # Errors
/// [`SetupError::Root`], [`SetupError::Mount`] or [`SetupError::Hostname`].
/// What was made goes with the process.
pub(super) fn enter(root: &Root) -> Result<(), SetupError> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)
        .map_err(|e| failed("new namespaces", e))?;
    if let Some(name) = &root.hostname {
        sethostname(name).map_err(|e| SetupError::Hostname {
            name: name.clone(),
            source: e.into(),
        })?;
    }
    // What the machine unmounts goes here too; nothing goes the other way.
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_SLAVE,
        None::<&str>,
    )
    .map_err(|e| failed("separating mounts", e))?;
    pivot_into(&overlay(root)?)?;
    // From here on links lead nowhere but into the new root, also those in the
    // machine's own directories (/var/run, /etc/resolv.conf).
    system(&outside(&root.scratch))?;
    for bind in &root.mounts {
        match show(bind) {
            Ok(()) => {}
            Err(_) if bind.optional => {}
            Err(source) => {
                let (source_path, target) = (bind.source.clone(), bind.target.clone());
                return Err(SetupError::Mount {
                    source_path,
                    target,
                    source,
                });
            }
        }
    }
    umount2(OUTSIDE, MntFlags::MNT_DETACH)
        .map_err(io::Error::from)
        .and_then(|()| fs::remove_dir(OUTSIDE))
        .map_err(|e| failed("leaving the machine's root", e))?;
    if root.read_only {
        remount_read_only(Path::new("/")).map_err(|e| failed("making it read-only", e))?;
    }
    Ok(())
}

fn failed(step: &str, source: impl Into<io::Error>) -> SetupError {
    SetupError::Root {
        step: step.to_owned(),
        source: source.into(),
    }
}

/// Path of the machine's `path` until the machine's root is let go.
pub(super) fn outside(path: &Path) -> PathBuf {
    let mut seen = PathBuf::from(OUTSIDE);
    seen.extend(path.components().skip(1));
    seen
}

/// Mounts the layers with a writable one in memory on top; returns where.
fn overlay(root: &Root) -> Result<PathBuf, SetupError> {
    // Enough for what programs write, and a bound on it. Devices are allowed.
    let options = Some("size=256m,mode=755");
    mount(
        Some("tmpfs"),
        &root.scratch,
        Some("tmpfs"),
        MsFlags::MS_NOSUID,
        options,
    )
    .map_err(|e| failed("memory file system", e))?;
    let [upper, work, merged] = ["upper", "work", "merged"].map(|name| root.scratch.join(name));
    for dir in [&upper, &work, &merged] {
        fs::create_dir(dir).map_err(|e| failed("directories", e))?;
    }
    if let Some(applets) = &root.applets {
        link_applets(&upper, applets).map_err(|e| failed("applets", e))?;
    }
    let done = match rootless::is_inside() {
        true => each(&upper, &work, &merged),
        false => layer(Path::new("/"), &upper, &work, &merged),
    };
    done.map_err(|e| failed("overlay of the machine's root", e))?;
    Ok(merged)
}

/// `lower` at `merged`, with what is written in `upper`.
fn layer(lower: &Path, upper: &Path, work: &Path, merged: &Path) -> io::Result<()> {
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.display(),
        work.display()
    );
    Ok(mount(
        Some("overlay"),
        merged,
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )?)
}

/// A layer on each directory of the machine's root: in a user namespace there
/// can be none on a directory with the machine's mounts below it. What has such
/// is shown as it is.
fn each(upper: &Path, work: &Path, merged: &Path) -> io::Result<()> {
    const MADE_LATER: [&str; 5] = ["proc", "sys", "dev", "run", "tmp"];
    // A root is a mount (pivot_root(2)).
    bind(merged, merged)?;
    for entry in fs::read_dir("/")? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        let [upper, work, merged] = [upper, work, merged].map(|dir| dir.join(&name));
        let is_made_later = MADE_LATER.iter().any(|made| name == *made);
        // Applets may be in a directory to which the machine has a link.
        if kind.is_symlink() && !upper.exists() {
            symlink(fs::read_link(entry.path())?, &merged)?;
            continue;
        }
        let Ok(lower) = fs::canonicalize(entry.path()) else {
            continue;
        };
        if !lower.is_dir() {
            continue;
        }
        fs::create_dir(&merged)?;
        if is_made_later {
            continue;
        }
        fs::create_dir_all(&upper)?;
        fs::create_dir(&work)?;
        if layer(&lower, &upper, &work, &merged).is_err() {
            // Some may not be seen at all; a program does not miss them.
            let _ = bind(&lower, &merged);
        }
    }
    Ok(())
}

/// Writes the links to the layer that hides the machine's programs.
fn link_applets(upper: &Path, applets: &Applets) -> io::Result<()> {
    for dir in &applets.dirs {
        let dir = upper.join(dir.strip_prefix("/").unwrap_or(dir));
        fs::create_dir_all(&dir)?;
        for name in &applets.names {
            symlink(&applets.program, dir.join(name))?;
        }
    }
    Ok(())
}

/// Makes `merged` the root, with the machine's at [`OUTSIDE`].
fn pivot_into(merged: &Path) -> Result<(), SetupError> {
    let old = merged.join(OUTSIDE.trim_start_matches('/'));
    fs::create_dir(&old)
        .and_then(|()| Ok(pivot_root(merged, &old)?))
        .and_then(|()| std::env::set_current_dir("/"))
        .map_err(|e| failed("changing the root", e))
}

/// `/proc`, `/sys`, `/dev`, and an empty `/run` and `/tmp`, kept in `memory`.
fn system(memory: &Path) -> Result<(), SetupError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>)
        .map_err(|e| failed("/proc", e))?;
    let flags = flags | MsFlags::MS_RDONLY;
    mount(Some("sysfs"), "/sys", Some("sysfs"), flags, None::<&str>)
        .map_err(io::Error::from)
        // A user namespace may see no more than the machine's, with its links.
        .or_else(|error| match rootless::is_inside() {
            true => bind(&outside(Path::new("/sys")), Path::new("/sys")),
            false => Err(error),
        })
        .map_err(|e| failed("/sys", e))?;
    for (name, mode) in EMPTY {
        let (source, target) = (memory.join(name), Path::new("/").join(name));
        fs::create_dir(&source)
            .and_then(|()| fs::set_permissions(&source, PermissionsExt::from_mode(mode)))
            .and_then(|()| fs::create_dir_all(&target))
            .and_then(|()| bind(&source, &target))
            .map_err(|e| failed(name, e))?;
    }
    dev::populate(Path::new("/dev")).map_err(|e| failed("/dev", e))?;
    bind(&outside(Path::new("/dev/pts")), Path::new("/dev/pts")).map_err(|e| failed("/dev/pts", e))
}

/// Mounts a file or directory of the machine, making its mount point.
fn show(wanted: &Bind) -> io::Result<()> {
    let (source, target) = (outside(&wanted.source), wanted.target.as_path());
    if source.is_dir() {
        fs::create_dir_all(target)?;
    } else {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        // Often a link (/etc/resolv.conf), to a place that is empty here.
        if !target.symlink_metadata().is_ok_and(|m| m.is_file()) {
            let _ = fs::remove_file(target);
            File::create(target)?;
        }
    }
    bind(&source, target)?;
    if wanted.read_only {
        remount_read_only(target)
    } else {
        Ok(())
    }
}

fn bind(source: &Path, target: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    Ok(mount(
        Some(source),
        target,
        None::<&str>,
        flags,
        None::<&str>,
    )?)
}

fn remount_read_only(target: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    Ok(mount(
        None::<&str>,
        target,
        None::<&str>,
        flags,
        None::<&str>,
    )?)
}
