//! What this machine has that containers use: its file systems and a busybox.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::image::Machine;
use crate::container::spec::{Applets, Bind};

const BUSYBOX: &str = "/bin/busybox";

/// File systems that hold programs and data, as opposed to what the kernel or
/// container engines mount.
const WITH_FILES: [&str; 12] = [
    "bcachefs", "btrfs", "erofs", "ext2", "ext3", "ext4", "f2fs", "nfs4", "virtiofs", "xfs", "zfs",
    "9p",
];

/// Places whose mounts are not for containers.
const NOT_FOR_CONTAINERS: [&str; 6] = ["/proc", "/sys", "/dev", "/run", "/tmp", "/var/lib"];

/// The machine's file systems other than its root, as containers get them: the
/// overlay that is their root does not reach into other mounts.
pub(super) fn file_systems() -> Vec<Bind> {
    parse_mounts(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
}

/// <https://docs.kernel.org/filesystems/proc.html>, section 3.5.
fn parse_mounts(mountinfo: &str) -> Vec<Bind> {
    let mount = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let target = PathBuf::from(unescape(before.split(' ').nth(4)?));
        let kind = after.split(' ').next()?;
        let hidden = NOT_FOR_CONTAINERS
            .iter()
            .any(|place| target.starts_with(place));
        let wanted = WITH_FILES.contains(&kind) && !hidden && target != Path::new("/");
        wanted.then(|| Bind {
            source: target.clone(),
            target,
            // The machine's own files: theirs to read only.
            read_only: true,
            optional: true,
        })
    };
    mountinfo.lines().filter_map(mount).collect()
}

/// Spaces and the like are octal there.
fn unescape(text: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (code, char)| {
        text.replace(code, char)
    })
}

/// Looks for busybox and what it can do.
pub(super) fn find() -> Machine {
    let Ok(output) = Command::new(BUSYBOX).arg("--list").output() else {
        return Machine::default();
    };
    let mut names: BTreeSet<String> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect();
    names.remove("busybox");
    // Where /bin is a link, links belong into what it points to.
    let dirs = ["/bin", "/sbin"]
        .iter()
        .filter_map(|dir| fs::canonicalize(dir).ok())
        .collect();
    let applets = Applets {
        program: BUSYBOX.into(),
        dirs,
        names,
    };
    Machine {
        busybox: (!applets.names.is_empty()).then_some(applets),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_with_files() {
        let mountinfo = "\
22 1 254:0 / / rw - ext4 /dev/vda rw
23 22 0:5 / /proc rw - proc proc rw
24 22 254:1 / /home/a\\040b rw shared:1 - xfs /dev/vdb rw
25 22 0:6 / /mnt rw - tmpfs tmpfs rw
26 22 254:2 / /var/lib/docker rw - ext4 /dev/vdc rw
";
        let targets: Vec<_> = parse_mounts(mountinfo)
            .into_iter()
            .map(|bind| bind.target)
            .collect();
        assert_eq!(targets, [PathBuf::from("/home/a b")]);
    }
}
