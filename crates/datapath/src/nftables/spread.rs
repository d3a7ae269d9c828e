//! The tables by which clients from outside are spread: see [`crate::maglev`].

use ripstop_plan::{Backend, Backends};

use super::keys;
use crate::maglev::{self, Preference};

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

/// Without slots if nothing is spread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table(maglev::Table);

impl Table {
    /// Number of slots.
    pub(super) fn size(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// The slots that lead elsewhere than in another table, or are only in this one,
    /// with their backends. `backends` are those that each table was made from.
    pub(super) fn differing<'b>(
        &self,
        backends: &'b [Backend],
        other: Option<(&Self, &[Backend])>,
    ) -> impl Iterator<Item = (usize, &'b Backend)> {
        let (there, known) = other.map_or((&[][..], &[][..]), |(t, known)| (&t.0[..], known));
        let here = positions(known, backends);
        let slots = self.0.iter().enumerate();
        let differs = move |(slot, index): &(usize, &u16)| {
            let there = there.get(*slot).map(|known| here[usize::from(*known)]);
            there != Some(Some(**index))
        };
        let differing = slots.filter(differs);
        differing.filter_map(|(slot, index)| Some((slot, backends.get(usize::from(*index))?)))
    }
}

/// Where in one sorted list each of another one's backends is.
fn positions(of: &[Backend], within: &[Backend]) -> Vec<Option<u16>> {
    let mut within = (0_u16..=u16::MAX).zip(within).peekable();
    let position = |backend: &Backend| {
        while within.next_if(|(_, other)| *other < backend).is_some() {}
        let same = within.next_if(|(_, other)| *other == backend);
        same.map(|(index, _)| index)
    };
    of.iter().map(position).collect()
}

pub(super) type Tables = maglev::Tables<Backends>;

/// Of so many slots.
pub(super) fn table(backends: &Backends, size: u32, tables: &mut Tables) -> Table {
    let below = |end: u32, hash: u64| u32::try_from(hash % u64::from(end)).unwrap_or(0);
    let preference = |backend: &Backend| {
        let bytes = keys::backend(backend);
        Preference {
            first: below(size, hash(1, &bytes)),
            step: below(size - 1, hash(2, &bytes)) + 1,
        }
    };
    Table(tables.of(backends, size, || backends.iter().map(preference).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(backends: &Backends, size: u32) -> maglev::Table {
        super::table(backends, size, &mut Tables::default()).0
    }

    fn backends(count: u8) -> Backends {
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
            table
                .iter()
                .for_each(|index| shares[usize::from(*index)] += 1);
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
        let fewer = all[..19].to_vec().into();
        let after = table(&fewer, size(19, 0));
        assert_eq!(before.len(), after.len());
        let moved = before
            .iter()
            .zip(after.iter())
            .filter(|(before, after)| **before != 19 && before != after)
            .count();
        // A modulus would move 19 of 20.
        assert!(moved * 5 < before.len(), "{moved} of {}", before.len());
    }
}
