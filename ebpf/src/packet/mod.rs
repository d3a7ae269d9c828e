//! Programs on links: a socket buffer as `ripstop_abi::Packet`, the tables, and
//! the one exit.

mod from_outside;
mod from_pod;

use core::ptr;

use aya_ebpf::bindings::{
    __sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, TC_ACT_SHOT, TC_ACT_UNSPEC, bpf_redir_neigh,
    bpf_redir_neigh__bindgen_ty_1,
};
use aya_ebpf::helpers::{
    bpf_csum_diff, bpf_csum_update, bpf_l4_csum_replace, bpf_redirect_neigh, bpf_redirect_peer,
    bpf_skb_pull_data,
};
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::programs::TcContext;
use ripstop_abi::{
    Address, ChecksumChange, DropReason, Endpoint, Flow, FlowKey, Header, HostPortTarget, Packet,
    ETH_P_IPV6, Route, RouteKey, ServiceAddress, Tables, Verdict,
};

use crate::maps::{ENDPOINTS, FLOWS, HOST_PORTS, ROUTES, count};

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

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the context is valid for as long as the program runs.
        unsafe { (*self.skb).ifindex }
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
    fn segment_size(&self) -> u32 {
        // SAFETY: the context is valid for as long as the program runs.
        unsafe { (*self.skb).gso_size }
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
        change: &ChecksumChange,
    ) -> Result<(), DropReason> {
        let keep_zero = if change.udp {
            u64::from(BPF_F_MARK_MANGLED_0)
        } else {
            0
        };
        let pseudo = keep_zero | u64::from(BPF_F_PSEUDO_HDR);
        let replace = |from: u64, to: u64, flags: u64| {
            // SAFETY: the context is valid; the helper checks the offset.
            unsafe { bpf_l4_csum_replace(self.skb, offset as u32, from, to, flags) }
        };
        let (old, new) = (change.old.0, change.new.0);
        let mut result = if old.is_v4() {
            replace(old.v4_word().into(), new.v4_word().into(), pseudo | 4)
        } else {
            let (mut old, mut new) = (old.words(), new.words());
            // SAFETY: both are sixteen bytes.
            let difference =
                unsafe { bpf_csum_diff(old.as_mut_ptr(), 16, new.as_mut_ptr(), 16, 0) as u64 };
            match replace(0, difference, pseudo | BPF_F_IPV6) {
                error if error as i64 == -EINVAL => replace(0, difference, pseudo),
                result => result,
            }
        };
        if result == 0 {
            let (old, new) = (change.old.1.network(), change.new.1.network());
            result = replace(old.into(), new.into(), keep_zero | 2);
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
}

/// The kernel's tables.
pub(crate) struct Kernel;

impl Tables for Kernel {
    #[inline(always)]
    fn endpoint(&self, address: &Address) -> Option<&Endpoint> {
        // SAFETY: rows are not reused before the program ends.
        unsafe { ENDPOINTS.get(address) }
    }

    #[inline(always)]
    fn route(&self, address: &Address) -> Option<&Route> {
        // `ripstop_abi::RouteKey` by another name.
        const { assert!(size_of::<Key<Address>>() == size_of::<RouteKey>()) };
        ROUTES.get(Key::new(128, *address))
    }

    #[inline(always)]
    fn host_port(&self, address: &ServiceAddress) -> Option<&HostPortTarget> {
        // SAFETY: as for endpoints.
        unsafe { HOST_PORTS.get(address) }
    }

    #[inline(always)]
    fn flow(&self, key: &FlowKey) -> Option<&Flow> {
        // SAFETY: a flow that is reused while it is read belongs to a table that
        // is too small; the packet then goes to a wrong address, as any would
        // whose flow is forgotten.
        unsafe { FLOWS.get(key) }
    }

    #[inline(always)]
    fn remember(&self, key: &FlowKey, flow: &Flow) -> Result<(), DropReason> {
        FLOWS
            .insert(key, flow, 0)
            .map_err(|_| DropReason::FlowState)
    }
}

/// The one exit of every packet hook.
#[inline(always)]
fn exit(verdict: Verdict) -> i32 {
    match verdict {
        // Not "OK": other programs on the link have their say.
        Verdict::Stack => TC_ACT_UNSPEC,
        // SAFETY: the helper takes any number.
        Verdict::Deliver { ifindex } => unsafe { bpf_redirect_peer(ifindex, 0) as i32 },
        Verdict::Forward { ifindex, gateway } => {
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
            unsafe { bpf_redirect_neigh(ifindex, &raw mut neighbour, size, 0) as i32 }
        }
        // SAFETY: without parameters.
        Verdict::Route { ifindex } => unsafe {
            bpf_redirect_neigh(ifindex, ptr::null_mut(), 0, 0) as i32
        },
        Verdict::Drop(reason) => {
            count(reason);
            TC_ACT_SHOT as i32
        }
    }
}
