//! Two processes for each container: the one that the lab started, and its
//! child, which is the container's process number 1.
//!
//! Containers have a process id namespace of their own, so that `kill 1`, `ps`
//! and `pkill` in them mean what they mean in a cluster, and nothing of the
//! machine's. Only children can be in a new one.

use std::fs;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pipe2, read};

/// Which of the two this is.
#[derive(Debug)]
pub(super) enum Side {
    /// What to do goes on here.
    Child(Leash),
    /// Waits for the other.
    Parent(Supervisor),
}

/// The parent's knowledge of its child.
#[derive(Debug)]
pub(super) struct Supervisor {
    child: Pid,
    signals: SigSet,
    /// Closed with the parent.
    _alive: OwnedFd,
}

/// How the child knows that its parent is there.
#[derive(Debug)]
pub(super) struct Leash(OwnedFd);

/// Continues in two processes; the child is the first in the process id
/// namespace that was made or entered before.
///
/// # Errors
/// If there can be no more processes.
pub(super) fn split() -> nix::Result<Side> {
    let mut signals = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
    ] {
        signals.add(signal);
    }
    // From before the fork, so that none is missed.
    signals.thread_block()?;
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    // SAFETY: this process has one thread, so no lock can be held by a thread
    // that the child does not have.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Side::Parent(Supervisor {
            child,
            signals,
            _alive: theirs,
        })),
        ForkResult::Child => {
            signals.thread_unblock()?;
            drop(theirs);
            Ok(Side::Child(Leash(ours)))
        }
    }
}

impl Leash {
    /// The child shall not outlive its parent. To be called after the last
    /// change of user, which would undo it.
    ///
    /// # Errors
    /// `ESRCH` if the parent has gone already.
    pub(super) fn die_with_parent(self) -> nix::Result<()> {
        set_pdeathsig(Signal::SIGKILL)?;
        match read(&self.0, &mut [0]) {
            Err(Errno::EAGAIN) => Ok(()),
            // The end of what only the parent could write.
            _ => Err(Errno::ESRCH),
        }
    }
}

impl Supervisor {
    pub(super) fn child(&self) -> Pid {
        self.child
    }

    /// Passes signals on until the child ends; returns its exit code, which is
    /// 128 and the signal if one ended it.
    pub(super) fn wait(self) -> u8 {
        let mut ended_for_it = false;
        loop {
            match self.signals.wait() {
                Ok(Signal::SIGCHLD) => {}
                Ok(signal) => ended_for_it |= self.pass_on(signal),
                Err(_) => {}
            }
            match waitpid(self.child, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(_, code)) => return u8::try_from(code & 0xff).unwrap_or(255),
                Ok(WaitStatus::Signaled(_, Signal::SIGKILL, _)) if ended_for_it => {
                    return 128 + Signal::SIGTERM as u8;
                }
                Ok(WaitStatus::Signaled(_, signal, _)) => return 128 + signal as u8,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return 255,
            }
        }
    }

    /// True if the signal could only be delivered as SIGKILL. The kernel drops
    /// signals for a process number 1 that does not handle them: on a cluster
    /// `sleep` then holds up its pod's end for the whole grace period, which
    /// nobody wants here.
    fn pass_on(&self, signal: Signal) -> bool {
        let dropped = !handles(self.child, signal);
        let signal = if dropped { Signal::SIGKILL } else { signal };
        // It may have ended by itself.
        let _ = kill(self.child, signal);
        dropped
    }
}

/// Whether the process catches or ignores the signal, or has it blocked, as who
/// reads it from a `signalfd`.
fn handles(pid: Pid, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    handles_by_status(&status, signal)
}

fn handles_by_status(status: &str, signal: Signal) -> bool {
    let mask = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .unwrap_or(0)
    };
    (mask("SigCgt:") | mask("SigIgn:") | mask("SigBlk:")) & (1 << (signal as i32 - 1)) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_that_a_process_handles() {
        let status = "Name:\tsleep\nSigIgn:\t0000000000000001\nSigCgt:\t0000000000004000\n";
        assert!(handles_by_status(status, Signal::SIGTERM));
        assert!(handles_by_status(status, Signal::SIGHUP));
        assert!(!handles_by_status(status, Signal::SIGINT));
        assert!(!handles_by_status("", Signal::SIGTERM));
        let reads = "SigBlk:\t0000000000004000\nSigCgt:\t0000000000000000\n";
        assert!(handles_by_status(reads, Signal::SIGTERM));
    }
}
