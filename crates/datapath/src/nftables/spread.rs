//! A table from hash to backend that hardly changes when a backend goes or
//! comes: Maglev (Eisenbud et al., NSDI 2016, section 3.4). Every node that has
//! the same backends has the same table.

use std::sync::Arc;

use ripstop_plan::Backend;

use super::keys;

/// Primes. The larger the table beside the number of backends, the more even.
const SIZES: [u32; 6] = [61, 251, 1_021, 4_093, 16_381, 65_521];
/// Slots per backend at least: none gets more than an eighth too much.
const PER_BACKEND: usize = 8;

/// A table becomes smaller when it is this many times too large: with another
/// size most clients would find another backend, and a rollout takes away and
/// gives.
const TOO_LARGE: usize = 16;

/// How many slots so many backends get that have `before` now (0: none).
pub(super) fn size(backends: usize, before: u32) -> u32 {
    let wanted = backends.saturating_mul(PER_BACKEND);
    let holds = |size: u32, wanted: usize| usize::try_from(size).is_ok_and(|s| s >= wanted);
    let is_right = |size: &u32| holds(*size, wanted);
    let largest = SIZES[SIZES.len() - 1];
    let fresh = SIZES.into_iter().find(is_right).unwrap_or(largest);
    let stays = SIZES.contains(&before) && before >= fresh;
    if stays && !holds(before, wanted.saturating_mul(TOO_LARGE)) {
        return before;
    }
    fresh
}

/// FNV-1a, with the seed before the bytes: the same on every machine.
fn hash(seed: u8, bytes: &[u8]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325_u64;
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    let hash = bytes.iter().fold(mix(start, &seed), mix);
    // FNV's low bits know little of the last bytes.
    (hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// For each slot the index of its backend, in a sorted list; without slots if
/// nothing is spread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table(Arc<[u32]>);

impl Table {
    fn new(backends: &[Backend], size: u32) -> Self {
        let number = |index| u32::try_from(index).unwrap_or(u32::MAX);
        match backends {
            [] => Self::default(),
            _ => Self(table(backends, size).into_iter().map(number).collect()),
        }
    }

    /// Number of slots.
    pub(super) fn size(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// Of each slot. `backends`: those that the table was made from.
    pub(super) fn backends<'b>(
        &self,
        backends: &'b [Backend],
    ) -> impl Iterator<Item = &'b Backend> {
        self.0
            .iter()
            .filter_map(|index| backends.get(*index as usize))
    }

    /// Of one slot.
    pub(super) fn backend<'b>(&self, backends: &'b [Backend], slot: usize) -> Option<&'b Backend> {
        backends.get(*self.0.get(slot)? as usize)
    }
}

/// The table that was made last: a service has the same one at each of its
/// addresses.
#[derive(Debug, Default)]
pub(super) struct Tables(Option<(Vec<Backend>, Table)>);

impl Tables {
    pub(super) fn of(&mut self, backends: &[Backend], size: u32) -> Table {
        match &self.0 {
            Some((made_from, table)) if table.size() == size && made_from == backends => {
                table.clone()
            }
            _ => {
                let table = Table::new(backends, size);
                self.0 = Some((backends.to_vec(), table.clone()));
                table
            }
        }
    }
}

/// For each slot the index of its backend; `backends` are not empty.
fn table(backends: &[Backend], size: u32) -> Vec<usize> {
    let size = u64::from(size);
    let mut next: Vec<(u64, u64)> = backends
        .iter()
        .map(|backend| {
            let bytes = keys::backend(backend);
            // Where each begins, and in what steps it goes on: all slots in
            // turn, because the size is a prime.
            (hash(1, &bytes) % size, hash(2, &bytes) % (size - 1) + 1)
        })
        .collect();
    let mut slots = vec![usize::MAX; usize::try_from(size).unwrap_or(usize::MAX)];
    let mut left = slots.len();
    while left > 0 {
        for (index, (at, step)) in next.iter_mut().enumerate() {
            let slot = loop {
                let slot = usize::try_from(*at).unwrap_or(usize::MAX);
                *at = (*at + *step) % size;
                if slots[slot] == usize::MAX {
                    break slot;
                }
            };
            slots[slot] = index;
            left -= 1;
            if left == 0 {
                break;
            }
        }
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backends(count: u8) -> Vec<Backend> {
        (0..count)
            .map(|i| Backend {
                address: [10, 244, 0, i].into(),
                port: 80,
            })
            .collect()
    }

    #[test]
    fn shares_are_even() {
        for count in [1, 2, 3, 7, 100] {
            let size = size(count.into(), 0);
            let table = table(&backends(count), size);
            let mut shares = vec![0; count.into()];
            table.iter().for_each(|index| shares[*index] += 1);
            let (least, most) = (shares.iter().min(), shares.iter().max());
            assert!(most.unwrap() - least.unwrap() <= 1, "{count}: {shares:?}");
        }
    }

    #[test]
    fn a_size_is_kept_while_it_does() {
        for (backends, before, expect) in [
            (2, 0, 61),
            (7, 0, 61),
            (8, 0, 251),
            (7, 251, 251),
            (2, 251, 251),
            (1, 251, 61),
            (9_000, 0, 65_521),
            (32, 251, 1_021),
            // Of another version.
            (2, 31, 61),
        ] {
            assert_eq!(size(backends, before), expect, "{backends} {before}");
        }
    }

    #[test]
    fn few_slots_change_when_one_goes() {
        let all = backends(20);
        let before = table(&all, size(20, 0));
        let fewer: Vec<_> = all[..19].to_vec();
        let after = table(&fewer, size(19, 0));
        assert_eq!(before.len(), after.len());
        let moved = before
            .iter()
            .zip(&after)
            .filter(|(before, after)| **before != 19 && before != after)
            .count();
        // A modulus would move 19 of 20.
        assert!(moved * 5 < before.len(), "{moved} of {}", before.len());
    }
}
