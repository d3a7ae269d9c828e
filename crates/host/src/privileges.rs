//! What a process, or a thread, may not do any more (capabilities(7)).

use std::io;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::geteuid;

/// A capability, by its number in the kernel's interface
/// (`include/uapi/linux/capability.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Capability {
    DacOverride = 1,
    SetGid = 6,
    SetUid = 7,
    SetPcap = 8,
    NetBindService = 10,
    NetAdmin = 12,
    NetRaw = 13,
    SysPtrace = 19,
    SysAdmin = 21,
    Perfmon = 38,
    Bpf = 39,
}

impl Capability {
    /// As capabilities(7) has it, without `CAP_`.
    pub fn name(self) -> &'static str {
        match self {
            Self::DacOverride => "DAC_OVERRIDE",
            Self::SetGid => "SETGID",
            Self::SetUid => "SETUID",
            Self::SetPcap => "SETPCAP",
            Self::NetBindService => "NET_BIND_SERVICE",
            Self::NetAdmin => "NET_ADMIN",
            Self::NetRaw => "NET_RAW",
            Self::SysPtrace => "SYS_PTRACE",
            Self::SysAdmin => "SYS_ADMIN",
            Self::Perfmon => "PERFMON",
            Self::Bpf => "BPF",
        }
    }

    fn bit(self) -> u64 {
        1 << (self as u32)
    }
}

/// User and group of a thread or process that may do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Id {
    /// Of processes (user_namespaces(7): also of ids that a user namespace does
    /// not have).
    Nobody = 65534,
    /// Of threads of a process that may do more: nobody else is to have it, because
    /// whoever has it may end the whole process by a signal to such a thread. It is
    /// among those that neither systemd nor distributions give (systemd's
    /// `UIDS-GIDS`: 65520 to 65533 are unused).
    Thread = 65529,
}

/// `_LINUX_CAPABILITY_VERSION_3`: sets of 64 bits.
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    /// 0: the calling thread.
    thread: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Leaves this thread, those that it starts and the programs that they execute
/// with `wanted` at most, for ever. Other threads keep what they have: to be
/// called before there are any.
///
/// # Errors
/// If the kernel refuses, which it does not without reason.
pub fn keep_only(wanted: &[Capability]) -> io::Result<()> {
    let wanted = wanted.iter().fold(0, |all, one| all | one.bit());
    let had = permitted()?;
    // Without it the bounding set stays: of somebody who is not root.
    if had & Capability::SetPcap.bit() != 0 {
        bound(wanted)?;
    }
    prctl::set_no_new_privs()?;
    set(had & wanted)
}

/// Makes the calling thread, and those that it starts from now on, somebody who
/// may do nothing but with the files that the process has open, for ever. Other
/// threads keep what they have. Without other user ids (in a user namespace that
/// has just one) the id stays.
///
/// Who is like this shares the memory of the process all the same: to be done by
/// its own threads what it may not do itself, it has to change that.
///
/// # Errors
/// If the kernel refuses.
pub fn become_powerless(id: Id) -> io::Result<()> {
    if geteuid().is_root() {
        bound(0)?;
        match change_id(id as u32) {
            // setresuid(2): "not valid in this user namespace"; setgroups(2): EPERM
            // where user_namespaces(7) denies it.
            Ok(()) | Err(Errno::EINVAL | Errno::EPERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    prctl::set_no_new_privs()?;
    set(0)
}

/// By system calls that are about one thread: the C library's change all threads of
/// the process.
fn change_id(id: u32) -> nix::Result<()> {
    // SAFETY: no groups, for which there need be no list.
    let done = unsafe { libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()) };
    Errno::result(done)?;
    // SAFETY: takes numbers only.
    let done = unsafe { libc::syscall(libc::SYS_setresgid, id, id, id) };
    Errno::result(done)?;
    // SAFETY: likewise.
    let done = unsafe { libc::syscall(libc::SYS_setresuid, id, id, id) };
    Errno::result(done).map(drop)
}

/// Takes all capabilities from the calling thread and those that it starts.
///
/// # Errors
/// If the kernel refuses.
pub fn drop_in_thread() -> io::Result<()> {
    set(0)
}

/// Takes from the bounding set what is not wanted.
fn bound(wanted: u64) -> io::Result<()> {
    for number in 0..u64::BITS {
        if wanted >> number & 1 == 1 {
            continue;
        }
        // SAFETY: takes numbers only.
        let done = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) };
        match Errno::result(done) {
            Ok(_) => {}
            // The kernel has no more of them.
            Err(Errno::EINVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn permitted() -> io::Result<u64> {
    let mut header = Header {
        version: VERSION,
        thread: 0,
    };
    let mut sets = [Sets::default(); 2];
    // SAFETY: both are as capget(2) has them for this version, and live on.
    let done = unsafe { libc::syscall(libc::SYS_capget, &mut header, sets.as_mut_ptr()) };
    Errno::result(done)?;
    Ok(u64::from(sets[0].permitted) | u64::from(sets[1].permitted) << 32)
}

/// As effective and permitted ones; the ambient ones end with the inheritable.
fn set(capabilities: u64) -> io::Result<()> {
    let mut header = Header {
        version: VERSION,
        thread: 0,
    };
    let half = |bits: u64| Sets {
        effective: bits as u32,
        permitted: bits as u32,
        inheritable: 0,
    };
    let sets = [half(capabilities), half(capabilities >> 32)];
    // SAFETY: both are as capset(2) has them for this version, and live on.
    let done = unsafe { libc::syscall(libc::SYS_capset, &mut header, sets.as_ptr()) };
    Errno::result(done)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_what_is_wanted() {
        let (had, kept, left) = std::thread::spawn(|| {
            let had = permitted().unwrap();
            let wanted = Capability::NetAdmin.bit() | Capability::Bpf.bit();
            set(had & wanted).unwrap();
            let kept = permitted().unwrap();
            drop_in_thread().unwrap();
            (had, kept, permitted().unwrap())
        })
        .join()
        .unwrap();
        assert_eq!(kept, had & (1 << 12 | 1 << 39));
        assert_eq!(left, 0);
        // Of this thread nothing was taken.
        assert_eq!(permitted().unwrap(), had);
    }

    /// What `/proc` says of the calling thread.
    fn said(word: &str) -> String {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let mut lines = status.lines();
        let found = lines.find_map(|line| line.strip_prefix(word)?.strip_prefix(':'));
        found.unwrap().trim().to_owned()
    }

    #[test]
    fn one_thread_of_many_may_nothing() {
        if !geteuid().is_root() {
            eprintln!("skipped: not root");
            return;
        }
        let before = said("Uid");
        std::thread::spawn(|| {
            become_powerless(Id::Thread).unwrap();
            // Those that it starts are like it.
            let started = std::thread::spawn(|| {
                for set in ["CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"] {
                    assert_eq!(said(set), "0000000000000000", "{set}");
                }
                for ids in ["Uid", "Gid"] {
                    assert_eq!(said(ids), ["65529"; 4].join("\t"), "{ids}");
                }
                assert_eq!(said("Groups"), "");
                assert_eq!(said("NoNewPrivs"), "1");
            });
            started.join().unwrap();
        })
        .join()
        .unwrap();
        assert_eq!(said("Uid"), before);
    }
}
