//! The control groups of a lab: they say which processes are whose, and the
//! agent attaches its socket programs to them.
//!
//! `ripstop.LAB/` holds `daemon`, and per node `NODE/agent` and `NODE/POD_UID`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::rootless;

/// How long killed processes may take to end: the kernel tears down their
/// namespaces on the way.
const KILL_TIMEOUT: Duration = Duration::from_secs(60);

/// The file that lists a group's processes.
const PROCS: &str = "cgroup.procs";

/// Without root there are no control groups. Plain directories stand for them,
/// with lists of process numbers in which who joins writes itself, and when it
/// began: a number may be somebody else's later. Who is started by such a
/// process belongs to it.
fn is_plain() -> bool {
    rootless::is_inside()
}

/// Puts the calling process into a group.
///
/// # Errors
/// If there is no such group.
pub fn join(dir: &Path) -> io::Result<()> {
    if is_plain() {
        return add(dir, std::process::id());
    }
    // "0" is whoever writes it (cgroup-v2.rst).
    fs::write(dir.join(PROCS), "0")
}

/// Puts a process into a plain group; in real ones processes put themselves.
///
/// # Errors
/// If there is no such group.
pub(crate) fn add(dir: &Path, pid: u32) -> io::Result<()> {
    if !is_plain() {
        return Ok(());
    }
    let Some((began, _)) = stat(pid.cast_signed()) else {
        // It ended already.
        return Ok(());
    };
    let mut file = fs::File::options()
        .create(true)
        .append(true)
        .open(dir.join(PROCS))?;
    // One write: others do not come in between.
    file.write_all(format!("{pid} {began}\n").as_bytes())
}

/// What a new process is to write into so that it is in the group from its
/// beginning; for a plain group nobody reads it, see [`add`].
///
/// # Errors
/// If there is no such group.
pub(crate) fn procs(dir: &Path) -> io::Result<fs::File> {
    let path = match is_plain() {
        true => PathBuf::from("/dev/null"),
        false => dir.join(PROCS),
    };
    fs::File::options().write(true).open(path)
}

/// When a process began, in ticks since the machine did, and whether it has
/// ended but for its status (proc_pid_stat(5), fields 22 and 3).
fn stat(pid: i32) -> Option<(u64, bool)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may contain anything.
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let ended = matches!(fields.next()?, "Z" | "X");
    Some((fields.nth(18)?.parse().ok()?, ended))
}

/// The living processes of a plain group, with all that they started.
fn listed(dir: &Path) -> Vec<i32> {
    let text = fs::read_to_string(dir.join(PROCS)).unwrap_or_default();
    let mut pids: Vec<i32> = text
        .lines()
        .filter_map(|line| {
            let (pid, began) = line.split_once(' ')?;
            let (pid, began) = (pid.parse().ok()?, began.parse().ok()?);
            (stat(pid) == Some((began, false))).then_some(pid)
        })
        .collect();
    let mut next = 0;
    while let Some(pid) = pids.get(next).copied() {
        next += 1;
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        for child in children.unwrap_or_default().split_whitespace() {
            if let Ok(child) = child.parse()
                && !pids.contains(&child)
            {
                pids.push(child);
            }
        }
    }
    pids
}

/// Where cgroup2 is mounted: /sys/fs/cgroup, or /sys/fs/cgroup/unified on
/// machines that have version 1 beside it.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] if it is not mounted.
pub fn mount_point() -> io::Result<PathBuf> {
    if let Some(base) = rootless::base() {
        let groups = base.join("groups");
        fs::create_dir_all(&groups)?;
        return Ok(groups);
    }
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
    let atomic = !is_plain() && fs::write(dir.join("cgroup.kill"), "1").is_ok();
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
    let mut pids: Vec<i32> = match is_plain() {
        true => listed(dir),
        false => fs::read_to_string(dir.join(PROCS))
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.parse().ok())
            .collect(),
    };
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
    if is_plain() {
        // Real groups' files go with the directory.
        let _ = fs::remove_file(dir.join(PROCS));
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
