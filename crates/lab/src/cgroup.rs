//! The control groups of a lab: they say which processes are whose, and the
//! agent attaches its socket programs to them.
//!
//! `ripstop.LAB/` holds `daemon`, and per node `NODE/agent` and `NODE/POD_UID`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long killed processes may take to end: the kernel tears down their
/// namespaces on the way.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Where cgroup2 is mounted: /sys/fs/cgroup, or /sys/fs/cgroup/unified on
/// machines that have version 1 beside it.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] if it is not mounted.
pub fn mount_point() -> io::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    find_mount(&mounts).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            "no cgroup2 file system is mounted; mount one: \
             mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified",
        )
    })
}

/// Of `/proc/PID/mountinfo` (proc(5)): the mount point is field 5, the file
/// system type the one after the separator `-`.
fn find_mount(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let point = mount.split(' ').nth(4)?;
        filesystem
            .starts_with("cgroup2 ")
            .then(|| PathBuf::from(point))
    })
}

/// Kills every process in `dir` and below, then removes the groups. Gives the
/// number of processes; a group that is not there has none.
///
/// # Errors
/// If processes do not end in time, or a group cannot be removed.
pub fn destroy(dir: &Path) -> io::Result<usize> {
    if !dir.exists() {
        return Ok(0);
    }
    let count = processes(dir).len();
    let deadline = Instant::now() + KILL_TIMEOUT;
    // Kernels before 5.14 have no cgroup.kill.
    let atomic = fs::write(dir.join("cgroup.kill"), "1").is_ok();
    loop {
        let left = processes(dir);
        if left.is_empty() && !is_populated(dir) {
            break;
        }
        if Instant::now() > deadline {
            let message = format!("processes {left:?} in {} do not end", dir.display());
            return Err(io::Error::new(io::ErrorKind::TimedOut, message));
        }
        if !atomic {
            // One that forks while we read is found in the next round.
            for pid in left {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    remove(dir, deadline)?;
    Ok(count)
}

/// Process ids in `dir` and below.
pub fn processes(dir: &Path) -> Vec<i32> {
    let mut pids: Vec<i32> = fs::read_to_string(dir.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect();
    pids.extend(children(dir).iter().flat_map(|child| processes(child)));
    pids
}

/// Whether a process is left, zombies included (cgroup-v2.rst, "cgroup.events").
fn is_populated(dir: &Path) -> bool {
    fs::read_to_string(dir.join("cgroup.events"))
        .is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Deepest first: a group with children cannot be removed.
fn remove(dir: &Path, deadline: Instant) -> io::Result<()> {
    for child in children(dir) {
        remove(&child, deadline)?;
    }
    loop {
        match fs::remove_dir(dir) {
            // The last process is just being reaped.
            Err(error)
                if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let message = format!("remove cgroup {}: {error}", dir.display());
                return Err(io::Error::new(error.kind(), message));
            }
            _ => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_found_by_its_type() {
        let hybrid = "\
36 25 0:32 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
37 36 0:33 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu
38 36 0:34 / /sys/fs/cgroup/unified rw,relatime shared:10 master:2 - cgroup2 cgroup2 rw
";
        let unified =
            "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        let none = "36 25 0:32 / /cgroup2 ro - tmpfs tmpfs ro\n";
        for (mountinfo, expect) in [
            (hybrid, Some("/sys/fs/cgroup/unified")),
            (unified, Some("/sys/fs/cgroup")),
            (none, None),
        ] {
            assert_eq!(find_mount(mountinfo), expect.map(PathBuf::from));
        }
    }
}
