//! Functions that the verifier walks through once in a program, whoever calls
//! them and whatever is known there: the loader tells the kernel that they are
//! global (`crates/datapath/src/ebpf/apart.rs`). So they take and give plain
//! numbers, and find everything else in their CPU's room to work in.

use crate::services::Kernel;

/// [`ripstop_abi::begun`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn begun(ifindex: u32, kind: u32) -> u64 {
    ripstop_abi::begun(&Kernel, ifindex, kind)
}

/// [`ripstop_abi::decided_from_pod`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn decided_from_pod(read: u32, ifindex: u32) -> u64 {
    ripstop_abi::decided_from_pod(&Kernel, read, ifindex)
}

/// [`ripstop_abi::decided_from_outside`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn decided_from_outside(read: u32, ifindex: u32) -> u64 {
    ripstop_abi::decided_from_outside(&Kernel, read, ifindex)
}

/// [`ripstop_abi::policed`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn policed(marks: u32) -> u32 {
    ripstop_abi::policed(&Kernel, marks)
}
