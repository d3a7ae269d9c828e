//! Functions that the verifier walks through once in a program, whoever calls
//! them and whatever is known there: the loader tells the kernel that they are
//! global (`crates/datapath/src/ebpf/apart.rs`). So they take the packet and plain
//! numbers, give a number, and find everything else in their CPU's room to work in.

use aya_ebpf::bindings::__sk_buff;

use super::Skb;
use crate::services::Kernel;

/// [`ripstop_abi::begun`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn begun(ifindex: u32, kind: u32) -> u64 {
    ripstop_abi::begun(&Kernel, ifindex, kind)
}

/// [`ripstop_abi::claimed`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn claimed(attempt: u32, place: u32) -> u32 {
    ripstop_abi::claimed(&Kernel, attempt, place)
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

/// [`ripstop_abi::decided_to_outside`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn decided_to_outside(read: u32, ifindex: u32) -> u64 {
    ripstop_abi::decided_to_outside(&Kernel, read, ifindex)
}

/// [`ripstop_abi::policed`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn policed(marks: u32, sides: u32) -> u32 {
    ripstop_abi::policed(&Kernel, marks, sides)
}

/// [`ripstop_abi::note_part`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn note_part(by: u32) -> u32 {
    ripstop_abi::note_part(&Kernel, by)
}

/// [`ripstop_abi::first_part`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn first_part(by: u32) -> u64 {
    ripstop_abi::first_part(&Kernel, by)
}

/// [`ripstop_abi::noted`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn noted(marks: u32, sides: u32) -> u32 {
    ripstop_abi::noted(&Kernel, marks, sides)
}

/// [`ripstop_abi::placed`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn placed(act: u32) -> u32 {
    ripstop_abi::placed(&Kernel, act)
}

/// [`ripstop_abi::judged`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn judged(inward: u32) -> u32 {
    ripstop_abi::judged(&Kernel, inward)
}

/// [`ripstop_abi::read_v4`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn read_v4(skb: *mut __sk_buff, of_pod: u32) -> u32 {
    ripstop_abi::read_v4(&mut Skb { skb }, &Kernel, of_pod)
}

/// [`ripstop_abi::read_v6`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn read_v6(skb: *mut __sk_buff, of_pod: u32) -> u32 {
    ripstop_abi::read_v6(&mut Skb { skb }, &Kernel, of_pod)
}

/// [`ripstop_abi::stranded`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn stranded(skb: *mut __sk_buff) -> u32 {
    ripstop_abi::stranded(&mut Skb { skb }, &Kernel)
}

/// [`ripstop_abi::part_for_stack`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn part_for_stack(skb: *mut __sk_buff, mtu: u32) -> u32 {
    ripstop_abi::part_for_stack(&mut Skb { skb }, &Kernel, mtu)
}

/// [`ripstop_abi::settled_v4`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn settled_v4(skb: *mut __sk_buff, sides: u32) -> u32 {
    ripstop_abi::settled_v4(&mut Skb { skb }, &Kernel, sides)
}

/// [`ripstop_abi::settled_v6`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn settled_v6(skb: *mut __sk_buff, sides: u32) -> u32 {
    ripstop_abi::settled_v6(&mut Skb { skb }, &Kernel, sides)
}

/// [`ripstop_abi::asked_v4`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn asked_v4(skb: *mut __sk_buff, sides: u32, more: u32) -> u32 {
    ripstop_abi::asked_v4(&mut Skb { skb }, &Kernel, sides, more)
}

/// [`ripstop_abi::asked_v6`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn asked_v6(skb: *mut __sk_buff, sides: u32, more: u32) -> u32 {
    ripstop_abi::asked_v6(&mut Skb { skb }, &Kernel, sides, more)
}

/// [`ripstop_abi::performed_v4`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn performed_v4(skb: *mut __sk_buff, act: u64) -> u64 {
    ripstop_abi::performed_v4(&mut Skb { skb }, &Kernel, act)
}

/// [`ripstop_abi::performed_v6`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn performed_v6(skb: *mut __sk_buff, act: u64) -> u64 {
    ripstop_abi::performed_v6(&mut Skb { skb }, &Kernel, act)
}

/// [`ripstop_abi::left_v4`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn left_v4(skb: *mut __sk_buff, marks: u32) -> u64 {
    ripstop_abi::left_v4(&mut Skb { skb }, &Kernel, marks)
}

/// [`ripstop_abi::left_v6`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn left_v6(skb: *mut __sk_buff, marks: u32) -> u64 {
    ripstop_abi::left_v6(&mut Skb { skb }, &Kernel, marks)
}

/// [`ripstop_abi::crc32c_product`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn crc32c_product(factor: u32, power: u32) -> u32 {
    ripstop_abi::crc32c_product(factor, power)
}
