//! Programs on their places: on sockets by pinned links, on interfaces as
//! filters that stay with the interface.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use aya_obj::generated::bpf_attach_type;

use ripstop_netlink::Netlink;
use ripstop_netlink::traffic::{self, Hook};

use super::pins::Pins;
use super::programs::{
    FROM_OUTSIDE, FROM_POD, PACKET_HOOKS, Program, Programs, SOCKET_HOOKS, TO_OUTSIDE, TO_POD,
};
use super::sys::{self, LinkInfo};
use crate::Error;

/// Where on interfaces programs are.
pub(crate) const HOOKS: [Hook; 2] = [Hook::Ingress, Hook::Egress];

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
    sockets_of(pins, programs, cgroup, |_| true)
}

/// Likewise, those that lead sockets to backends, each at once in the place of
/// another one.
pub(crate) fn sockets_that_lead(
    pins: &Pins,
    programs: &Programs,
    cgroup: &Cgroup,
) -> Result<(), Error> {
    sockets_of(pins, programs, cgroup, leads).map(drop)
}

fn sockets_of(
    pins: &Pins,
    programs: &Programs,
    cgroup: &Cgroup,
    is_meant: impl Fn(&str) -> bool,
) -> Result<Vec<String>, Error> {
    let mut attached = Vec::new();
    for (name, attach) in SOCKET_HOOKS.into_iter().filter(|(name, _)| is_meant(name)) {
        let link = Link {
            pin: pin(name),
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

/// Takes the programs away that lead sockets to backends; those that say from
/// whom answers are stay.
pub(crate) fn release_sockets(pins: &Pins) -> Result<(), Error> {
    for (name, _) in SOCKET_HOOKS.into_iter().filter(|(name, _)| leads(name)) {
        pins.remove(&pin(name))?;
    }
    Ok(())
}

/// Whether a program leads sockets to backends.
pub(crate) fn leads(name: &str) -> bool {
    name.starts_with("connect") || name.starts_with("sendmsg")
}

/// Under which name the link of a program on the cgroup is kept.
pub(crate) fn pin(program: &str) -> String {
    format!("link_{program}")
}

/// Puts the programs for what comes in and goes out on an uplink. True if one
/// was not there.
pub(crate) fn uplink(
    netlink: &mut Netlink,
    programs: &Programs,
    ifindex: u32,
) -> Result<bool, Error> {
    let came = filter(netlink, programs, FROM_OUTSIDE, ifindex, Hook::Ingress)?;
    let goes = filter(netlink, programs, TO_OUTSIDE, ifindex, Hook::Egress)?;
    Ok(came || goes)
}

/// Puts the programs for what a pod sends, and for what the host's stack sends
/// to it, on the host's end of its link. True if one was not there.
pub(crate) fn pod(netlink: &mut Netlink, programs: &Programs, ifindex: u32) -> Result<bool, Error> {
    let sends = filter(netlink, programs, FROM_POD, ifindex, Hook::Ingress)?;
    let gets = filter(netlink, programs, TO_POD, ifindex, Hook::Egress)?;
    Ok(sends || gets)
}

/// Puts other programs of the same names wherever these are on interfaces.
pub(crate) fn replace(netlink: &mut Netlink, old: &Programs, new: &Programs) -> Result<(), Error> {
    for link in netlink.links().map_err(failed)? {
        for hook in HOOKS {
            let Some(id) = netlink.program(link.index, hook).map_err(failed)? else {
                continue;
            };
            if let Some(name) = PACKET_HOOKS.into_iter().find(|n| old.get(n).id == id) {
                filter(netlink, new, name, link.index, hook)?;
            }
        }
    }
    Ok(())
}

/// True if a pod's programs are on this interface.
pub(crate) fn has_pod(programs: &Programs, ifindex: u32) -> Result<bool, Error> {
    let mut netlink = Netlink::new().map_err(failed)?;
    let mut has = |hook, name| {
        let found = netlink.program(ifindex, hook).map_err(failed)?;
        Ok(found == Some(programs.get(name).id))
    };
    Ok(has(Hook::Ingress, FROM_POD)? && has(Hook::Egress, TO_POD)?)
}

/// Takes a program away; that it or its interface is gone is no error.
pub(crate) fn detach(netlink: &mut Netlink, ifindex: u32) -> Result<(), Error> {
    for hook in HOOKS {
        match netlink.execute([traffic::detach(ifindex, hook).if_exists()]) {
            // No clsact there, hence no program.
            Err(error) if error.errno() == Some(libc::EINVAL) => {}
            other => other.map_err(failed)?,
        }
    }
    Ok(())
}

/// Takes programs of ours away from interfaces that are not among `ifindexes`.
/// Gives the names of those that had one.
pub(crate) fn retain(
    netlink: &mut Netlink,
    ifindexes: &BTreeSet<u32>,
) -> Result<Vec<String>, Error> {
    let mut detached = Vec::new();
    for link in netlink.links().map_err(failed)? {
        if ifindexes.contains(&link.index) {
            continue;
        }
        let mut has_any = false;
        for hook in HOOKS {
            has_any |= netlink.program(link.index, hook).map_err(failed)?.is_some();
        }
        if has_any {
            detach(netlink, link.index)?;
            detached.push(format!("program on {} (removed)", link.name));
        }
    }
    Ok(detached)
}

/// Takes away what programs were attached by, unless others have theirs there.
/// Only to leave the node for good: the kernel stops an interface for a moment to
/// do it (`qdisc_graft` in net/sched/sch_api.c), and what is sent by it meanwhile
/// is lost.
///
/// # Errors
/// The first interface that the kernel refuses; one that is gone is no error.
pub fn unprepare(ifindexes: &[u32]) -> Result<(), Error> {
    let mut netlink = Netlink::new().map_err(failed)?;
    'interfaces: for ifindex in ifindexes {
        for hook in HOOKS {
            if netlink.has_filters(*ifindex, hook).map_err(failed)? {
                continue 'interfaces;
            }
        }
        let unprepared = netlink.execute([traffic::unprepare(*ifindex).if_exists()]);
        unprepared.map_err(failed)?;
    }
    Ok(())
}

fn filter(
    netlink: &mut Netlink,
    programs: &Programs,
    name: &str,
    ifindex: u32,
    hook: Hook,
) -> Result<bool, Error> {
    let program = programs.get(name);
    let found = netlink.program(ifindex, hook).map_err(failed)?;
    if found == Some(program.id) {
        return Ok(false);
    }
    // Links are prepared when they are made, but not those of others.
    if put(netlink, programs, name, ifindex, hook).is_err() {
        netlink
            .execute([traffic::prepare(ifindex).unless_exists()])
            .map_err(failed)?;
        put(netlink, programs, name, ifindex, hook)?;
    }
    Ok(true)
}

/// Puts a program on an interface that is prepared for it, in the place of any
/// other of ours.
pub(crate) fn put(
    netlink: &mut Netlink,
    programs: &Programs,
    name: &str,
    ifindex: u32,
    hook: Hook,
) -> Result<(), Error> {
    let shown = format!("ripstop {name}");
    let program = programs.get(name).as_fd();
    let attach = traffic::attach(ifindex, hook, program, &shown);
    netlink.execute([attach]).map_err(failed)
}

/// True if a program of ours or of another version is on this interface.
pub(crate) fn has_any(netlink: &mut Netlink, ifindex: u32) -> Result<bool, Error> {
    let found = netlink.program(ifindex, Hook::Ingress).map_err(failed)?;
    Ok(found.is_some())
}

/// A link of the cgroup beside any other of that program's name. It ends with its
/// descriptor, unless that is pinned.
pub(crate) fn create(
    programs: &Programs,
    cgroup: &Cgroup,
    program: &'static str,
    attach: bpf_attach_type,
) -> Result<OwnedFd, Error> {
    let fd = programs.get(program).as_fd();
    let target = cgroup.directory.as_raw_fd() as u32;
    sys::link_create(fd, target, attach).map_err(|source| Error::Kernel {
        operation: format!("attach program {program} beside that of another version"),
        source,
    })
}

pub(super) fn failed(error: ripstop_netlink::Error) -> Error {
    // CONFIG_NET_CLS_ACT, CONFIG_NET_CLS_BPF.
    if matches!(error.errno(), Some(libc::ENOENT | libc::EOPNOTSUPP)) {
        let reason = format!("it has no clsact qdisc or BPF filters: {error}");
        return Error::Unsupported { reason };
    }
    Error::Kernel {
        operation: "programs on interfaces".into(),
        source: std::io::Error::other(error),
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
