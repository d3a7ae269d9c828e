//! Programs.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use aya_obj::generated::{
    bpf_attach_type, bpf_cmd, bpf_func_info, bpf_insn, bpf_prog_info, bpf_prog_type,
};

use super::{bpf_fd, info, object_name, pointer, pointer_mut};

/// How often a load is tried again that the kernel broke off.
const ATTEMPTS: usize = 32;

/// Loads a program; `log` takes what the verifier says, if it is not empty.
/// `functions`: which types those of the program have.
///
/// The verifier breaks off with `EAGAIN` when the thread has a signal pending
/// (`do_check` in kernel/bpf/verifier.c), also one that nobody will see, as of
/// a process that was frozen for a moment: then the load is tried again.
pub(crate) fn prog_load(
    name: &str,
    kind: bpf_prog_type,
    attach: Option<bpf_attach_type>,
    instructions: &[bpf_insn],
    license: &CStr,
    functions: Option<(BorrowedFd<'_>, &[bpf_func_info])>,
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
        types: u32,
        function_size: u32,
        functions: u64,
        function_count: u32,
        line_size: u32,
    }
    let mut attributes = Attributes {
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
        types: functions.map_or(0, |(types, _)| types.as_raw_fd() as u32),
        function_size: functions.map_or(0, |_| size_of::<bpf_func_info>() as u32),
        functions: functions.map_or(0, |(_, functions)| pointer(functions)),
        function_count: functions.map_or(0, |(_, functions)| functions.len() as u32),
        line_size: 0,
    };
    for _ in 1..ATTEMPTS {
        match bpf_fd(bpf_cmd::BPF_PROG_LOAD, &mut attributes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            loaded => return loaded,
        }
    }
    bpf_fd(bpf_cmd::BPF_PROG_LOAD, &mut attributes)
}

/// Whether programs on sockets can say with which error a system call fails
/// (Linux 5.18).
pub(crate) fn has_set_retval() -> bool {
    const SET_RETVAL: i32 = 187;
    let instruction = |code, destination, immediate| {
        let mut instruction = bpf_insn {
            code,
            _bitfield_align_1: [],
            _bitfield_1: Default::default(),
            off: 0,
            imm: immediate,
        };
        instruction.set_dst_reg(destination);
        instruction
    };
    // r1 = -1; call; r0 = 1; exit.
    let code = [
        instruction(0xb7, 1, -1),
        instruction(0x85, 0, SET_RETVAL),
        instruction(0xb7, 0, 1),
        instruction(0x95, 0, 0),
    ];
    let kind = bpf_prog_type::BPF_PROG_TYPE_CGROUP_SOCK_ADDR;
    let attach = Some(bpf_attach_type::BPF_CGROUP_INET4_CONNECT);
    let license = c"Apache-2.0";
    prog_load("probe", kind, attach, &code, license, None, &mut []).is_ok()
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

/// Runs a packet program once on a packet that came in by a link; gives its result and the packet
/// after it.
#[cfg(test)]
pub(crate) fn test_run(
    program: BorrowedFd<'_>,
    packet: &[u8],
    segment_size: u32,
    came_by: u32,
) -> io::Result<(i32, Vec<u8>)> {
    #[repr(C)]
    struct Attributes {
        program: u32,
        result: u32,
        len_in: u32,
        len_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
        context_len_in: u32,
        context_len_out: u32,
        context_in: u64,
        context_out: u64,
        flags: u32,
        cpu: u32,
        batch_size: u32,
        pad: u32,
    }
    // `struct __sk_buff`, with its `ingress_ifindex` and `gso_size`.
    let mut context = [0_u32; 48];
    context[9] = came_by;
    context[44] = segment_size;
    let mut out = vec![0; packet.len() + 256];
    let mut attributes = Attributes {
        program: program.as_raw_fd() as u32,
        result: 0,
        len_in: packet.len() as u32,
        len_out: out.len() as u32,
        data_in: pointer(packet),
        data_out: pointer_mut(out.as_mut_slice()),
        repeat: 1,
        duration: 0,
        context_len_in: size_of_val(&context) as u32,
        context_len_out: 0,
        context_in: pointer(&context),
        context_out: 0,
        flags: 0,
        cpu: 0,
        batch_size: 0,
        pad: 0,
    };
    super::bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attributes)?;
    out.truncate(attributes.len_out as usize);
    Ok((attributes.result as i32, out))
}
