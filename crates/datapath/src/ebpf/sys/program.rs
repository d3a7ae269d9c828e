//! Programs.

use std::ffi::CStr;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use aya_obj::generated::{bpf_attach_type, bpf_cmd, bpf_insn, bpf_prog_info, bpf_prog_type};

use super::{bpf_fd, info, object_name, pointer, pointer_mut};

/// Loads a program; `log` takes what the verifier says, if it is not empty.
pub(crate) fn prog_load(
    name: &str,
    kind: bpf_prog_type,
    attach: Option<bpf_attach_type>,
    instructions: &[bpf_insn],
    license: &CStr,
    log: &mut [u8],
) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kern_version: u32,
        flags: u32,
        name: [u8; 16],
        ifindex: u32,
        expected_attach_type: u32,
    }
    bpf_fd(
        bpf_cmd::BPF_PROG_LOAD,
        &mut Attributes {
            kind: kind as u32,
            count: instructions.len() as u32,
            instructions: pointer(instructions),
            license: license.as_ptr() as u64,
            log_level: u32::from(!log.is_empty()),
            log_size: log.len() as u32,
            log: if log.is_empty() { 0 } else { pointer_mut(log) },
            kern_version: 0,
            flags: 0,
            name: object_name(name),
            ifindex: 0,
            expected_attach_type: attach.map_or(0, |attach| attach as u32),
        },
    )
}

/// Makes the kernel count calls and time of all programs until it is closed.
pub(crate) fn enable_stats() -> io::Result<OwnedFd> {
    const BPF_STATS_RUN_TIME: u32 = 0;
    bpf_fd(bpf_cmd::BPF_ENABLE_STATS, &mut [BPF_STATS_RUN_TIME])
}

pub(crate) fn prog_info(program: BorrowedFd<'_>) -> io::Result<bpf_prog_info> {
    // SAFETY: generated from the kernel's header; plain integers.
    unsafe { info(program) }
}
