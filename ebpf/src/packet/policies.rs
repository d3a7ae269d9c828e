//! The tables of policies, and of the connections that they are asked about.

use aya_ebpf::maps::lpm_trie::Key;
use ripstop_abi::{
    Address, ClassKey, Connection, ConnectionKey, Connections, DenialKey, DenialRow, Judgement,
    PairKey, PairRow, Place, Policing, PolicyPod, PolicyState, PolicyTables, PortNode, ShareKey,
};

use super::apart;
use crate::maps::{
    CONNECTIONS, DENIALS, DENIALS_LOST, JUDGEMENTS, OWN_ADDRESSES, PLACES, POLICING,
    POLICY_CLASSES, POLICY_PAIRS, POLICY_PODS, POLICY_PORTS, POLICY_STATE, SHARES,
};
use crate::services::{Kernel, add, add32, swap};

impl PolicyTables for Kernel {
    #[inline(always)]
    fn pod(&self, address: &Address) -> Option<&PolicyPod> {
        // SAFETY: what is read of a row that is reused meanwhile counts until the
        // rules' generation ends, which the change of the row is a part of.
        unsafe { POLICY_PODS.get(address) }
    }

    #[inline(always)]
    fn class(&self, address: &Address) -> Option<u64> {
        const { assert!(size_of::<Key<Address>>() == size_of::<ClassKey>()) };
        POLICY_CLASSES.get(Key::new(128, *address)).copied()
    }

    #[inline(always)]
    fn pair(&self, key: &PairKey) -> Option<&PairRow> {
        // SAFETY: as for pods.
        unsafe { POLICY_PAIRS.get(key) }
    }

    #[inline(always)]
    fn port_node(&self, index: u32) -> Option<&PortNode> {
        // SAFETY: as for pods.
        unsafe { POLICY_PORTS.get(&index) }
    }
}

impl Connections for Kernel {
    #[inline(always)]
    fn policy_state(&self) -> PolicyState {
        // The table has this row always; rows of another generation are asked
        // for anew, which is right if it had not.
        POLICY_STATE.get(0).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn is_own(&self, address: &Address) -> bool {
        // SAFETY: nothing of the row is read.
        unsafe { OWN_ADDRESSES.get(address) }.is_some()
    }

    #[inline(always)]
    fn connection(&self, key: &ConnectionKey) -> Option<&mut Connection> {
        // SAFETY: in words that are each of use alone. A row that is reused while
        // it is read is that of a connection which just ended.
        unsafe { CONNECTIONS.get_ptr_mut(key)?.as_mut() }
    }

    #[inline(always)]
    fn remember_connection(&self, key: &ConnectionKey, row: &Connection) -> bool {
        let limit = self.policy_state().share;
        let share = ShareKey::new(key, row);
        let used = SHARES.get_ptr_mut(&share);
        if let Some(used) = used
            && limit != 0
            // SAFETY: one load of one word.
            && unsafe { used.read_volatile() } >= limit
        {
            return false;
        }
        if CONNECTIONS.insert(key, row, 0).is_err() {
            return false;
        }
        match used {
            // SAFETY: aligned, and only ever added to while it is in the table.
            Some(used) => unsafe { add32(used, 1) },
            // Without room it is not limited; whoever counts the rows sees them.
            None => drop(SHARES.insert(&share, &1, 0)),
        }
        true
    }

    #[inline(always)]
    fn forget_connection(&self, key: &ConnectionKey, row: &Connection) {
        let share = ShareKey::new(key, row);
        // Another CPU may have been first.
        if CONNECTIONS.remove(key).is_err() {
            return;
        }
        if let Some(used) = SHARES.get_ptr_mut(&share) {
            // SAFETY: aligned; counted anew now and then, so that it matters to
            // nobody if two CPUs find the last one.
            unsafe {
                if used.read_volatile() > 0 {
                    add32(used, u32::MAX);
                }
            }
        }
    }

    #[inline(always)]
    fn place(&self, index: u32) -> Option<&mut Place> {
        // SAFETY: read and written by words; whose it is says one of them.
        unsafe { PLACES.get_ptr_mut(index)?.as_mut() }
    }

    #[inline(always)]
    fn change(&self, word: &mut u64, from: u64, to: u64) -> bool {
        // SAFETY: aligned, and in a table.
        unsafe { swap(word, from, to) == from }
    }

    #[inline(always)]
    fn count_denied(&self, key: &DenialKey, now: u32) {
        if let Some(row) = DENIALS.get_ptr_mut(key) {
            // SAFETY: aligned, and only ever added to while it is in the table.
            unsafe {
                add(&raw mut (*row).packets, 1);
                (*row).last = now;
            }
            return;
        }
        let row = DenialRow {
            packets: 1,
            last: now,
            reserved: 0,
        };
        if DENIALS.insert(key, &row, 0).is_err()
            && let Some(lost) = DENIALS_LOST.get_ptr_mut(0)
        {
            // SAFETY: this CPU's own counter, as for drops.
            unsafe { *lost += 1 };
        }
    }

    #[inline(always)]
    fn judgement(&self, slot: u32) -> Option<&mut Judgement> {
        // SAFETY: as for `policing`.
        unsafe { JUDGEMENTS.get_ptr_mut(slot)?.as_mut() }
    }

    #[inline(always)]
    fn policed(&self, marks: u32, sides: u32) -> u32 {
        apart::policed(marks, sides)
    }

    #[inline(always)]
    fn noted(&self, marks: u32, sides: u32) -> u32 {
        apart::noted(marks, sides)
    }

    #[inline(always)]
    fn placed(&self, act: u32) -> u32 {
        apart::placed(act)
    }

    #[inline(always)]
    fn judged(&self, inward: u32) -> u32 {
        apart::judged(inward)
    }

    #[inline(always)]
    fn policing(&self) -> Option<&mut Policing> {
        // SAFETY: this CPU's own; one packet program at a time runs on it.
        unsafe { POLICING.get_ptr_mut(0)?.as_mut() }
    }
}
