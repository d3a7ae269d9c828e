//! Waiting for what is under way in the kernel.

use std::io;

use crate::Error;

/// Waits until every program, and every rule, that works on a packet now has come to
/// its end: what it has written is there then. (`membarrier(2)`, whose global barrier
/// is a grace period of RCU.)
pub(crate) fn let_packets_pass() -> Result<(), Error> {
    const GLOBAL: libc::c_int = 1;
    // SAFETY: the call takes numbers alone.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if result < 0 {
        return Err(Error::Kernel {
            operation: "wait for the packets that are under way".into(),
            source: io::Error::last_os_error(),
        });
    }
    Ok(())
}
