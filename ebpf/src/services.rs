//! The tables that backends are chosen from.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};

use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_jiffies64, bpf_ktime_get_coarse_ns};
use aya_ebpf::maps::lpm_trie::Key;
use ripstop_abi::{
    Address, Affinity, AffinityKey, Backend, BackendKey, Frontend, RouteKey, ServiceAddress,
    Services, SlotsKey, SourceKey,
};

use crate::maps::{AFFINITY, BACKENDS, CLOCK, FRONTENDS, MAGLEV, RANGES, SLOTS, SOURCES, Source};

/// The kernel's tables.
pub(crate) struct Kernel;

/// Ticks in a word of [`CLOCK`], the seconds of which are in the rest. They are
/// the same again after months.
const TICKS: u64 = !0 << 32;
const NANOSECONDS: u64 = 1_000_000_000;

/// Adds to a counter that all CPUs share. The target has the instruction, but
/// not all of those that the atomic types are made of.
///
/// # Safety
/// The counter is aligned, and in a table.
#[inline(always)]
pub(crate) unsafe fn add(counter: *mut u64, count: u64) {
    // SAFETY: by the caller.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, count) };
}

/// Likewise.
///
/// # Safety
/// As for [`add`].
#[inline(always)]
pub(crate) unsafe fn add32(counter: *mut u32, count: u32) {
    // SAFETY: by the caller.
    unsafe { atomic_xadd::<u32, u32, { AtomicOrdering::Relaxed }>(counter, count) };
}

/// Changes a word that all CPUs share if it is `from`; what it was.
///
/// # Safety
/// As for [`add`].
#[inline(always)]
pub(crate) unsafe fn swap(word: *mut u64, from: u64, to: u64) -> u64 {
    const ORDER: AtomicOrdering = AtomicOrdering::SeqCst;
    // SAFETY: by the caller.
    unsafe { atomic_cxchg::<u64, ORDER, ORDER>(word, from, to).0 }
}

impl Services for Kernel {
    #[inline(always)]
    fn frontend(&self, address: &ServiceAddress) -> Option<&Frontend> {
        // SAFETY: sets get fresh numbers, so a row that is reused while it is
        // read is that of a service which just ended.
        unsafe { FRONTENDS.get(address) }
    }

    #[inline(always)]
    fn slot(&self, key: &SlotsKey, slot: u32) -> Option<u32> {
        // SAFETY: one load of one word.
        unsafe { SLOTS.get(key) }?.0.get(slot as usize).copied()
    }

    #[inline(always)]
    fn maglev(&self, key: &SlotsKey, entry: u32) -> Option<u32> {
        // SAFETY: one load of one word.
        unsafe { MAGLEV.get(key) }?.0.get(entry as usize).copied()
    }

    #[inline(always)]
    fn take(&self, key: &BackendKey) -> Option<Backend> {
        let row = BACKENDS.get_ptr_mut(key)?;
        // SAFETY: ids are not used again, so a row that is reused while it is
        // read is that of a backend which just went. The counter is aligned, and
        // only ever added to.
        unsafe {
            add(&raw mut (*row).connections, 1);
            Some((*row).backend)
        }
    }

    #[inline(always)]
    fn peek(&self, key: &BackendKey) -> Option<Backend> {
        // SAFETY: as for `take`.
        unsafe { BACKENDS.get(key) }.map(|row| row.backend)
    }

    #[inline(always)]
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        // SAFETY: the row of another client, if it is reused while it is read,
        // names a backend that this set does not have.
        unsafe { AFFINITY.get(key) }.copied()
    }

    #[inline(always)]
    fn set_affinity(&self, key: &AffinityKey, affinity: &Affinity) {
        // Without room there is none, which is no reason to refuse anybody.
        let _ = AFFINITY.insert(key, affinity, 0);
    }

    #[inline(always)]
    fn range(&self, address: &Address) -> u32 {
        const { assert!(size_of::<Key<Address>>() == size_of::<RouteKey>()) };
        RANGES.get(Key::new(128, *address)).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn may_reach(&self, set: u32, client: &Address) -> bool {
        const { assert!(size_of::<Key<Source>>() == size_of::<SourceKey>()) };
        let [a, b, c, d] = client.words();
        SOURCES
            .get(Key::new(160, [set.to_be(), a, b, c, d]))
            .is_some()
    }

    #[inline(always)]
    fn count_refused(&self, address: &ServiceAddress) {
        if let Some(row) = FRONTENDS.get_ptr_mut(address) {
            // SAFETY: aligned, and only ever added to while it is in the table.
            unsafe { add(&raw mut (*row).refused, 1) };
        }
    }

    #[inline(always)]
    fn now(&self) -> u32 {
        // The clock is asked once a tick: more often it says the same. A word of
        // both, so that it matters to nobody who writes it in between.
        // SAFETY: no arguments.
        let tick = unsafe { bpf_jiffies64() } << 32;
        let known = CLOCK.get_ptr_mut(0);
        if let Some(known) = known {
            // SAFETY: one load of one word, this CPU's own.
            let known = unsafe { known.read_volatile() };
            if known & TICKS == tick {
                return known as u32;
            }
        }
        // SAFETY: no arguments.
        let nanoseconds = unsafe { bpf_ktime_get_coarse_ns() };
        // A division takes longer than all else here. For sixteen years, and less
        // than a millisecond and two billionths of the time wrong.
        const SECONDS: u64 = (1 << 55) / NANOSECONDS;
        let now = ((nanoseconds >> 20) * SECONDS >> 35) as u32;
        if let Some(known) = known {
            // SAFETY: one store of one word, this CPU's own.
            unsafe { known.write_volatile(tick | u64::from(now)) };
        }
        now
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: no arguments.
        unsafe { bpf_get_prandom_u32() }
    }
}
