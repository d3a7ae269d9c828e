//! The tables that packets are looked up in.

use core::mem::offset_of;
use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::maps::lpm_trie::Key;
use ripstop_abi::{
    Address, BackendKey, Config, DropReason, Endpoint, FLOWS_EACH, Flow, FlowKey, FlowPorts,
    NO_SHARE, Part, PartKey, Route, RouteKey, Tables, Uplink, Work,
};

use super::apart;
use crate::maps::{BACKENDS, ENDPOINTS, FLOW_SHARES, FLOWS, PARTS, ROUTES, UPLINKS, WORK, ports};
use crate::services::{Kernel, add, add32};

const EEXIST: i32 = 17;

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
    fn set_translated(&self, address: &Address) {
        if let Some(endpoint) = ENDPOINTS.get_ptr_mut(address) {
            // SAFETY: a word that is only ever set.
            unsafe { (*endpoint).set_translated() };
        }
    }

    #[inline(always)]
    fn set_renumbered(&self, address: &Address) {
        if let Some(endpoint) = ENDPOINTS.get_ptr_mut(address) {
            // SAFETY: a word that is only ever set.
            unsafe { (*endpoint).set_renumbered() };
        }
    }

    #[inline(always)]
    fn set_cut(&self, address: &Address) {
        if let Some(endpoint) = ENDPOINTS.get_ptr_mut(address) {
            // SAFETY: a word that is only ever set.
            unsafe { (*endpoint).set_cut() };
        }
    }

    #[inline(always)]
    fn set_node_translated(&self) {
        if let Some(node) = UPLINKS.get_ptr_mut(&0) {
            // SAFETY: a word that is only ever set.
            unsafe { (*node).set_translated() };
        }
    }

    #[inline(always)]
    fn uplink(&self, ifindex: u32) -> Option<&Uplink> {
        // SAFETY: as for endpoints.
        unsafe { UPLINKS.get(&ifindex) }
    }

    #[inline(always)]
    fn ports(&self) -> FlowPorts {
        ports(offset_of!(Config, ports))
    }

    #[inline(always)]
    fn own_ports(&self) -> FlowPorts {
        ports(offset_of!(Config, own_ports))
    }

    #[inline(always)]
    fn flow(&self, key: &FlowKey) -> Option<&Flow> {
        // SAFETY: rows are not reused before the program ends.
        unsafe { FLOWS.get(key) }
    }

    #[inline(always)]
    fn part(&self, key: &PartKey) -> Option<&Part> {
        // SAFETY: a row that is reused while it is read is of another packet, and
        // of the same sender or of nobody known: at worst the datagram is spoilt.
        unsafe { PARTS.get(key) }
    }

    #[inline(always)]
    fn remember_part(&self, key: &PartKey, part: &Part) {
        // Without room the other parts are dropped, and counted.
        let _ = PARTS.insert(key, part, 0);
    }

    #[inline(always)]
    fn work(&self) -> Option<&mut Work> {
        // SAFETY: this CPU's own; one packet program at a time runs on it.
        unsafe { WORK.get_ptr_mut(0)?.as_mut() }
    }

    #[inline(always)]
    fn count(&self, _: &FlowKey, flow: &Flow, bytes: u32) {
        // SAFETY: aligned, in a table, and not read by this reference any more.
        unsafe { add32((&raw const flow.bytes).cast_mut(), bytes) };
    }

    #[inline(always)]
    fn touch(&self, key: &FlowKey, now: u32, flags: u32) {
        if let Some(flow) = FLOWS.get_ptr_mut(key) {
            // SAFETY: words of a row that is there; a lost flag is set again by
            // the next packet, and what two CPUs add at once is added twice.
            unsafe {
                write_volatile(&raw mut (*flow).last, now);
                write_volatile(&raw mut (*flow).flags, (*flow).flags | flags);
                let bytes = read_volatile(&raw const (*flow).bytes);
                if bytes == 0 {
                    return;
                }
                add32(&raw mut (*flow).bytes, bytes.wrapping_neg());
                let (set, id) = ((*flow).set, (*flow).id);
                if let Some(row) = BACKENDS.get_ptr_mut(BackendKey { set, id }) {
                    add(&raw mut (*row).bytes, bytes.into());
                }
            }
        }
    }

    #[inline(always)]
    fn begun(&self, ifindex: u32, kind: u32) -> u64 {
        apart::begun(ifindex, kind)
    }

    #[inline(always)]
    fn claimed(&self, attempt: u32, place: u32) -> u32 {
        apart::claimed(attempt, place)
    }

    #[inline(always)]
    fn note_part(&self, by: u32) -> u32 {
        apart::note_part(by)
    }

    #[inline(always)]
    fn first_part(&self, by: u32) -> u64 {
        apart::first_part(by)
    }

    #[inline(always)]
    fn decided_from_pod(&self, read: u32, ifindex: u32) -> u64 {
        apart::decided_from_pod(read, ifindex)
    }

    #[inline(always)]
    fn decided_from_outside(&self, read: u32, ifindex: u32) -> u64 {
        apart::decided_from_outside(read, ifindex)
    }

    #[inline(always)]
    fn decided_to_outside(&self, read: u32, ifindex: u32) -> u64 {
        apart::decided_to_outside(read, ifindex)
    }

    #[inline(always)]
    fn forget(&self, key: &FlowKey) {
        // Another CPU may have been first.
        let _ = FLOWS.remove(key);
    }

    #[inline(always)]
    fn takes_share(&self, source: &Address) -> u64 {
        let link = self.endpoint(source).map_or(0, |endpoint| endpoint.ifindex);
        let Some(used) = FLOW_SHARES.get_ptr_mut(&link) else {
            // Without room it is not limited; whoever counts the flows sees them.
            let _ = FLOW_SHARES.insert(&link, &1, 0);
            return u64::from(link) << 32;
        };
        // SAFETY: one load of one word.
        let now = unsafe { used.read_volatile() };
        // SAFETY: likewise.
        let each = unsafe { FLOW_SHARES.get(&FLOWS_EACH).map(|word| read_volatile(word)) };
        if let Some(each) = each
            && now >= each
        {
            return NO_SHARE;
        }
        // SAFETY: aligned, and counted anew now and then.
        unsafe { add32(used, 1) };
        u64::from(link) << 32 | u64::from(now)
    }

    #[inline(always)]
    fn remember(&self, key: &FlowKey, flow: &Flow) -> Result<(), DropReason> {
        FLOWS
            .insert(key, flow, 0)
            .map_err(|_| DropReason::FlowState)
    }

    #[inline(always)]
    fn claim(&self, key: &FlowKey, flow: &Flow) -> Result<bool, DropReason> {
        match FLOWS.insert(key, flow, BPF_NOEXIST.into()) {
            Ok(()) => Ok(true),
            Err(error) if error as i32 == -EEXIST => Ok(false),
            Err(_) => Err(DropReason::FlowState),
        }
    }
}
