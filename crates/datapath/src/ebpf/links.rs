//! Programs on their places, held there by pinned links.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use aya_obj::generated::bpf_attach_type::{self, BPF_TCX_INGRESS};

use super::pins::Pins;
use super::programs::{
    FROM_OUTSIDE, FROM_POD, FROM_POD_PORTS, Program, Programs, SOCKET_HOOKS, refused,
};
use super::sys::{self, LinkInfo};
use crate::Error;

const UPLINK: &str = "link_uplink_";
const POD: &str = "link_pod_";

/// The cgroup whose sockets are translated.
#[derive(Debug)]
pub(crate) struct Cgroup {
    directory: File,
    id: u64,
}

impl Cgroup {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let open = || {
            let directory = File::open(path)?;
            // A cgroup's number is that of its directory.
            let id = directory.metadata()?.ino();
            Ok(Self { directory, id })
        };
        open().map_err(|source| Error::Kernel {
            operation: format!("open cgroup {}", path.display()),
            source,
        })
    }
}

/// Whether anything was attached before this start.
pub(crate) fn are_there(pins: &Pins) -> Result<bool, Error> {
    Ok(!pins.with_prefix("link_")?.is_empty())
}

/// Puts the socket programs on the cgroup. Gives what was not as it should be.
pub(crate) fn sockets(
    pins: &Pins,
    programs: &Programs,
    cgroup: &Cgroup,
) -> Result<Vec<String>, Error> {
    let mut attached = Vec::new();
    for (name, attach) in SOCKET_HOOKS {
        let link = Link {
            pin: format!("link_{name}"),
            program: name,
            target: cgroup.directory.as_raw_fd() as u32,
            attach,
        };
        if link.ensure(pins, programs, |info| info.cgroup() == cgroup.id)? {
            attached.push(format!("program {name} on the cgroup"));
        }
    }
    Ok(attached)
}

/// Puts the program for what comes in on an uplink. True if it was not there.
pub(crate) fn uplink(pins: &Pins, programs: &Programs, ifindex: u32) -> Result<bool, Error> {
    packets(
        pins,
        programs,
        format!("{UPLINK}{ifindex}"),
        FROM_OUTSIDE,
        ifindex,
    )
}

/// Puts the program for what a pod sends on the host's end of its link. True if
/// it was not there.
pub(crate) fn pod(
    pins: &Pins,
    programs: &Programs,
    ifname: &str,
    ifindex: u32,
    host_ports: bool,
) -> Result<bool, Error> {
    let program = if host_ports { FROM_POD_PORTS } else { FROM_POD };
    packets(pins, programs, format!("{POD}{ifname}"), program, ifindex)
}

/// True if a pod's program is kept on this interface.
pub(crate) fn has_pod(pins: &Pins, ifname: &str, ifindex: u32) -> Result<bool, Error> {
    let pin = format!("{POD}{ifname}");
    let Some(link) = pins.get(&pin)? else {
        return Ok(false);
    };
    let info = sys::link_info(link.as_fd()).map_err(|source| Error::Kernel {
        operation: format!("look at {pin}"),
        source,
    })?;
    Ok(info.ifindex() == ifindex)
}

pub(crate) fn remove_pod(pins: &Pins, ifname: &str) -> Result<(), Error> {
    pins.remove(&format!("{POD}{ifname}"))
}

/// Names of the interfaces that have a pod's program.
pub(crate) fn pods(pins: &Pins) -> Result<Vec<String>, Error> {
    pins.with_prefix(POD)
}

/// Forgets uplinks that are gone, or not among `ifindexes`.
pub(crate) fn retain_uplinks(pins: &Pins, ifindexes: &[u32]) -> Result<(), Error> {
    for ifindex in pins.with_prefix(UPLINK)? {
        if !ifindexes.iter().any(|kept| kept.to_string() == ifindex) {
            pins.remove(&format!("{UPLINK}{ifindex}"))?;
        }
    }
    Ok(())
}

fn packets(
    pins: &Pins,
    programs: &Programs,
    pin: String,
    program: &'static str,
    ifindex: u32,
) -> Result<bool, Error> {
    let link = Link {
        pin,
        program,
        target: ifindex,
        attach: BPF_TCX_INGRESS,
    };
    link.ensure(pins, programs, |info| info.ifindex() == ifindex)
}

/// Refuses kernels without tcx, before anything depends on it.
pub(crate) fn check_tcx() -> Result<(), Error> {
    const LOOPBACK: u32 = 1;
    match sys::can_query(LOOPBACK, BPF_TCX_INGRESS) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            let release = std::fs::read_to_string("/proc/sys/kernel/osrelease");
            Err(Error::Unsupported {
                reason: format!(
                    "it has no tcx links, which came with Linux 6.6 (CONFIG_NET_XGRESS); this is {}",
                    release.as_deref().unwrap_or("of unknown version").trim()
                ),
            })
        }
        Err(error) => Err(refused("look for tcx links", error, "")),
        Ok(()) => Ok(()),
    }
}

/// A program at its place, and the name under which it is kept there.
struct Link {
    pin: String,
    program: &'static str,
    target: u32,
    attach: bpf_attach_type,
}

impl Link {
    /// Makes the link what it should be: left alone, given another program in
    /// the place of its own, or made. True if it had to be changed.
    fn ensure(
        &self,
        pins: &Pins,
        programs: &Programs,
        is_target: impl FnOnce(&LinkInfo) -> bool,
    ) -> Result<bool, Error> {
        let program = programs.get(self.program);
        if let Some(link) = pins.get(&self.pin)? {
            let info = sys::link_info(link.as_fd()).map_err(|e| self.failed("look at", e))?;
            if is_target(&info) {
                if info.program == program.id {
                    return Ok(false);
                }
                sys::link_update(link.as_fd(), program.as_fd())
                    .map_err(|e| self.failed("update", e))?;
                return Ok(true);
            }
            // The interface or cgroup of that name was another one.
            pins.remove(&self.pin)?;
        }
        let link = self.create(program).map_err(|e| self.failed("attach", e))?;
        // If this fails the link ends here, and with it the attachment.
        pins.put(&self.pin, &link)?;
        Ok(true)
    }

    /// A link whose pin was taken away is attached for a moment longer: the
    /// kernel frees it in the background.
    fn create(&self, program: &Program) -> io::Result<OwnedFd> {
        const ATTEMPTS: u32 = 100;
        for _ in 0..ATTEMPTS {
            match sys::link_create(program.as_fd(), self.target, self.attach) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                other => return other,
            }
        }
        sys::link_create(program.as_fd(), self.target, self.attach)
    }

    fn failed(&self, what: &str, source: io::Error) -> Error {
        let operation = format!("{what} program {} ({})", self.program, self.pin);
        Error::Kernel { operation, source }
    }
}
