//! The few devices that every container has.

use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::Path;

use crate::rootless;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

/// Name, major, minor: what OCI runtimes give every container.
/// <https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#default-devices>
const DEVICES: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// The machine's own device, where nobody may make one.
fn show(name: &str, at: &Path) -> io::Result<()> {
    std::fs::File::create(at)?;
    let from = super::root::outside(&Path::new("/dev").join(name));
    let flags = MsFlags::MS_BIND;
    Ok(mount(Some(&from), at, None::<&str>, flags, None::<&str>)?)
}

/// Fills `dev`, which is empty; `pts` stays an empty directory.
///
/// # Errors
/// What the kernel said; device nodes need root outside a user namespace.
pub(super) fn populate(dev: &Path) -> io::Result<()> {
    for (name, major, minor) in DEVICES {
        let path = dev.join(name);
        if rootless::is_inside() {
            show(name, &path)?;
            continue;
        }
        mknod(
            &path,
            SFlag::S_IFCHR,
            Mode::from_bits_truncate(0o666),
            makedev(major, minor),
        )?;
        // Again, past the umask.
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666))?;
    }
    for (name, target) in LINKS {
        symlink(target, dev.join(name))?;
    }
    std::fs::create_dir(dev.join("pts"))?;
    std::fs::DirBuilder::new()
        .mode(0o777)
        .create(dev.join("shm"))?;
    std::fs::set_permissions(dev.join("shm"), PermissionsExt::from_mode(0o1777))
}
