//! Programs on links: a socket buffer as `ripstop_abi::Packet`, the tables, and
//! the one exit.

mod apart;
mod from_outside;
mod from_pod;
mod policies;
mod tables;
mod to_outside;
mod to_pod;

use core::ptr;

use aya_ebpf::bindings::{
    __sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, TC_ACT_OK, TC_ACT_SHOT, TC_ACT_UNSPEC,
    bpf_redir_neigh, bpf_redir_neigh__bindgen_ty_1,
};
use aya_ebpf::helpers::{
    bpf_csum_diff, bpf_csum_update, bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh,
    bpf_redirect_peer, bpf_sk_fullsock, bpf_sk_storage_get, bpf_skb_change_tail, bpf_skb_pull_data,
};
use aya_ebpf::programs::TcContext;
use ripstop_abi::{
    Address, ChecksumChange, Covered, DropReason, ETH_P_IPV6, FinalVerdict, Header, Packet,
    SocketState, Tables,
};

use crate::maps::{SOCKETS, count};

/// Ethernet, IP and TCP without options: as much as is ever looked at. Not more:
/// TCP's payload is often out of reach, and bringing a byte of it near makes the
/// kernel copy the packet's head, which costs more than all the rest.
const HEADERS_V4: u32 = 14 + 20 + 20;
const HEADERS_V6: u32 = 14 + 40 + 20;
const PACKET_HOST: u32 = 0;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const EINVAL: i64 = 22;
/// Since Linux 6.16; older ones refuse it, and have no other way.
const BPF_F_IPV6: u64 = 1 << 7;

pub(crate) struct Skb {
    skb: *mut __sk_buff,
}

impl Skb {
    /// Also makes sure that the headers can be reached, wherever the driver put
    /// them.
    #[inline(always)]
    fn new(context: &TcContext) -> Self {
        let skb = context.skb.skb;
        // SAFETY: the context is valid for as long as the program runs.
        let (len, linear, protocol) =
            unsafe { ((*skb).len, (*skb).data_end - (*skb).data, (*skb).protocol) };
        let headers = if protocol as u16 == ETH_P_IPV6 {
            HEADERS_V6
        } else {
            HEADERS_V4
        };
        if linear < headers && linear < len {
            // SAFETY: as above. If it fails, headers out of reach are seen as
            // missing, and the packet goes to the stack.
            unsafe { bpf_skb_pull_data(skb, len.min(headers)) };
        }
        Self { skb }
    }
}

impl Packet for Skb {
    #[inline(always)]
    fn protocol(&self) -> u16 {
        // SAFETY: the context is valid for as long as the program runs.
        unsafe { (*self.skb).protocol as u16 }
    }

    #[inline(always)]
    fn is_for_this_link(&self) -> bool {
        // SAFETY: the context is valid for as long as the program runs.
        unsafe { (*self.skb).pkt_type == PACKET_HOST && (*self.skb).vlan_present == 0 }
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the context is valid for as long as the program runs.
        unsafe { (*self.skb).ifindex }
    }

    #[inline(always)]
    fn came_by(&self) -> u32 {
        // SAFETY: the context is valid for as long as the program runs.
        unsafe { (*self.skb).ingress_ifindex }
    }

    #[inline(always)]
    fn segment_size(&self) -> u32 {
        // SAFETY: the context is valid for as long as the program runs.
        unsafe { (*self.skb).gso_size }
    }

    #[inline(always)]
    fn reach(&mut self, length: usize) {
        // SAFETY: the context is valid for as long as the program runs. If it
        // fails, what is out of reach is seen as missing.
        unsafe { bpf_skb_pull_data(self.skb, (*self.skb).len.min(length as u32)) };
    }

    #[inline(always)]
    fn socket(&self) -> Option<&SocketState> {
        // SAFETY: the context is valid for as long as the program runs, and holds
        // the socket; what it remembers lives as long.
        unsafe {
            let socket = (*self.skb).__bindgen_anon_2.sk;
            if socket.is_null() {
                return None;
            }
            let socket = bpf_sk_fullsock(socket);
            if socket.is_null() {
                return None;
            }
            let storage = SOCKETS.0.get().cast();
            bpf_sk_storage_get(storage, socket.cast(), ptr::null_mut(), 0)
                .cast::<SocketState>()
                .as_ref()
        }
    }

    #[inline(always)]
    fn address_replaced(&mut self, old: &Address, new: &Address) {
        // SAFETY: both are sixteen bytes, which are only read; the context is
        // valid for as long as the program runs.
        unsafe { bpf_csum_update(self.skb, difference(old, new) as u32) };
    }

    #[inline(always)]
    fn at<H: Header>(&mut self, offset: usize) -> Option<&mut H> {
        // SAFETY: the context is valid for as long as the program runs; what is
        // between `data` and `data_end` is the packet's, and any bytes are a
        // header. The borrow ends before a helper can move the packet.
        unsafe {
            let start = (*self.skb).data as usize + offset;
            if start + size_of::<H>() > (*self.skb).data_end as usize {
                return None;
            }
            Some(&mut *(start as *mut H))
        }
    }

    #[inline(always)]
    fn replace_checksum(
        &mut self,
        offset: usize,
        change: &ChecksumChange<'_>,
    ) -> Result<(), DropReason> {
        let keep_zero = if change.udp {
            u64::from(BPF_F_MARK_MANGLED_0)
        } else {
            0
        };
        let of_addresses = match change.addresses {
            Covered::PseudoHeader => keep_zero | u64::from(BPF_F_PSEUDO_HDR),
            Covered::No | Covered::Payload => keep_zero,
        };
        let port = keep_zero | 2;
        let replace = |from: u64, to: u64, flags: u64| {
            // SAFETY: the context is valid; the helper checks the offset.
            unsafe { bpf_l4_csum_replace(self.skb, offset as u32, from, to, flags) }
        };
        let (old, new) = (change.old.0, change.new.0);
        let mut result = if change.addresses == Covered::No || old == new {
            0
        } else if old.is_v4() {
            replace(old.v4_word().into(), new.v4_word().into(), of_addresses | 4)
        } else {
            let difference = difference(old, new);
            if change.addresses == Covered::Payload {
                replace(0, difference, of_addresses)
            } else {
                match replace(0, difference, of_addresses | BPF_F_IPV6) {
                    error if error as i64 == -EINVAL => replace(0, difference, of_addresses),
                    result => result,
                }
            }
        };
        let (old, new) = (change.old.1.network(), change.new.1.network());
        if result == 0 && old != new {
            result = replace(old.into(), new.into(), port);
        }
        if result == 0 {
            Ok(())
        } else {
            Err(DropReason::Rewrite)
        }
    }

    #[inline(always)]
    fn hop_limit_decremented(&mut self) {
        // The hop limit is the low byte of its word: minus one, in one's
        // complement. No effect on packets without a device's sum.
        const MINUS_ONE: u32 = (!1_u16).to_be() as u32;
        // SAFETY: the context is valid for as long as the program runs.
        unsafe { bpf_csum_update(self.skb, MINUS_ONE) };
    }

    #[inline(always)]
    fn resize(&mut self, length: usize) -> Result<(), DropReason> {
        // SAFETY: the context is valid for as long as the program runs.
        let result = unsafe { bpf_skb_change_tail(self.skb, length as u32, 0) };
        // SAFETY: as above.
        if result == 0 && unsafe { bpf_skb_pull_data(self.skb, length as u32) } == 0 {
            Ok(())
        } else {
            Err(DropReason::Rewrite)
        }
    }

    #[inline(always)]
    fn read(&mut self, _: &impl Tables, v6: bool, of_pod: u32) -> u32 {
        if v6 {
            apart::read_v6(self.skb, of_pod)
        } else {
            apart::read_v4(self.skb, of_pod)
        }
    }

    #[inline(always)]
    fn stranded(&mut self, _: &impl Tables) -> u32 {
        apart::stranded(self.skb)
    }

    #[inline(always)]
    fn part_for_stack(&mut self, _: &impl Tables, mtu: u32) -> u32 {
        apart::part_for_stack(self.skb, mtu)
    }

    fn settled(&mut self, _: &impl Tables, v6: bool, sides: u32) -> u32 {
        if v6 {
            apart::settled_v6(self.skb, sides)
        } else {
            apart::settled_v4(self.skb, sides)
        }
    }

    #[inline(always)]
    fn asked(&mut self, _: &impl Tables, v6: bool, sides: u32, more: u32) -> u32 {
        if v6 {
            apart::asked_v6(self.skb, sides, more)
        } else {
            apart::asked_v4(self.skb, sides, more)
        }
    }

    #[inline(always)]
    fn performed(&mut self, _: &impl Tables, v6: bool, act: u64) -> u64 {
        if v6 {
            apart::performed_v6(self.skb, act)
        } else {
            apart::performed_v4(self.skb, act)
        }
    }

    #[inline(always)]
    fn left(&mut self, _: &impl Tables, v6: bool, marks: u32) -> u64 {
        if v6 {
            apart::left_v6(self.skb, marks)
        } else {
            apart::left_v4(self.skb, marks)
        }
    }

    #[inline(always)]
    fn crc32c_product(&self, factor: u32, power: u32) -> u32 {
        apart::crc32c_product(factor, power)
    }
}

/// What the sum over an address grows by when it becomes another one.
#[inline(always)]
fn difference(old: &Address, new: &Address) -> u64 {
    let words = |address: &Address| ptr::from_ref(address).cast_mut().cast();
    // SAFETY: both are sixteen bytes, which are only read.
    unsafe { bpf_csum_diff(words(old), 16, words(new), 16, 0) as u64 }
}

/// The exit of what goes out by another link than it came in by: back by that one.
#[inline(always)]
fn answer(packet: &Skb, reason: u32) -> i32 {
    count(reason);
    // SAFETY: without parameters.
    unsafe { bpf_redirect_neigh(packet.came_by(), ptr::null_mut(), 0, 0) as i32 }
}

/// The one exit of every packet hook.
#[inline(always)]
fn exit(packet: &Skb, outcome: FinalVerdict) -> i32 {
    let FinalVerdict {
        kind,
        value,
        gateway,
        ..
    } = outcome;
    match kind {
        // SAFETY: the helper takes any number.
        FinalVerdict::DELIVER => unsafe { bpf_redirect_peer(value, 0) as i32 },
        FinalVerdict::FORWARD => {
            let mut neighbour = bpf_redir_neigh {
                nh_family: if gateway.is_v4() { AF_INET } else { AF_INET6 },
                __bindgen_anon_1: bpf_redir_neigh__bindgen_ty_1 {
                    ipv6_nh: if gateway.is_v4() {
                        [gateway.v4_word(), 0, 0, 0]
                    } else {
                        gateway.words()
                    },
                },
            };
            let size = size_of::<bpf_redir_neigh>() as i32;
            // SAFETY: the size is that of the parameters.
            unsafe { bpf_redirect_neigh(value, &raw mut neighbour, size, 0) as i32 }
        }
        // SAFETY: without parameters.
        FinalVerdict::ROUTE => unsafe { bpf_redirect_neigh(value, ptr::null_mut(), 0, 0) as i32 },
        FinalVerdict::ANSWER => {
            count(value);
            // SAFETY: the helper takes any number.
            unsafe { bpf_redirect(packet.ifindex(), 0) as i32 }
        }
        FinalVerdict::DROP => {
            count(value);
            TC_ACT_SHOT as i32
        }
        FinalVerdict::STACK_AT_ONCE => TC_ACT_OK as i32,
        // Not "OK": other programs on the link have their say.
        _ => TC_ACT_UNSPEC,
    }
}
