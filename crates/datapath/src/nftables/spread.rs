//! The tables by which clients from outside are spread: see [`crate::maglev`].

use std::net::IpAddr;

use ripstop_plan::{Backend, Backends};

use super::keys;
use crate::lists::Difference;
use crate::maglev::{self, Preference};

/// Primes. The larger the table beside the number of backends, the more even, and the
/// fewer others a backend moves that goes: of four that share 61 entries, one moves a
/// sixth of them once in a thousand services, and of 251 a fourteenth.
const SIZES: [u32; 5] = [251, 1_021, 4_093, 16_381, 65_521];
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

/// Two hashes of a backend, the same on every machine: FNV-1a, each with its seed
/// before the bytes.
fn hashes(address: &[u8], port: u16) -> [u64; 2] {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    [1, 2].map(|seed| {
        let begun = address.iter().fold(mix(0xcbf2_9ce4_8422_2325, &seed), mix);
        let hash = keys::port(port).iter().fold(begun, mix);
        // FNV's low bits know little of the last bytes.
        (hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}

/// Without slots if nothing is spread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table(maglev::Table);

impl Table {
    /// Number of slots.
    pub(super) fn size(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// The slots from one on, with their backends: those that the table was made
    /// from.
    pub(super) fn slots_from<'b>(
        &self,
        first: usize,
        backends: &'b [Backend],
    ) -> impl Iterator<Item = (usize, &'b Backend)> {
        let slots = self.0.iter().enumerate().skip(first);
        slots.filter_map(|(slot, index)| Some((slot, backends.get(usize::from(*index))?)))
    }

    /// Where one slot leads.
    pub(super) fn backend<'b>(&self, slot: usize, backends: &'b [Backend]) -> Option<&'b Backend> {
        backends.get(usize::from(*self.0.get(slot)?))
    }
}

/// A table, and the backends that it was made from.
pub(super) type Made = (Table, Backends);

pub(super) type Tables = maglev::Tables<Backends>;

/// In which of the slots that both have two tables lead elsewhere. The difference is
/// that of their backends.
pub(super) fn differing(before: &Made, after: &Made, difference: &Difference) -> Vec<usize> {
    /// None of the first table's.
    const NEW: u32 = u32::MAX;
    let known: Vec<u32> = (0..NEW).take(before.1.len()).collect();
    let known = difference.apply(&known, |_| NEW);
    let slots = before.0.0.iter().zip(&*after.0.0).enumerate();
    let differing = slots.filter(|(_, (was, is))| known[usize::from(**is)] != u32::from(**was));
    differing.map(|(slot, _)| slot).collect()
}

/// Of so many slots.
pub(super) fn table(backends: &Backends, size: u32, tables: &mut Tables) -> Table {
    let below = |end: u32, hash: u64| u32::try_from(hash % u64::from(end)).unwrap_or(0);
    let preference = |backend: &Backend| {
        let hashes = match backend.address {
            IpAddr::V4(v4) => hashes(&v4.octets(), backend.port),
            IpAddr::V6(v6) => hashes(&v6.octets(), backend.port),
        };
        Preference {
            first: below(size, hashes[0]),
            step: below(size - 1, hashes[1]) + 1,
        }
    };
    Table(tables.of(backends, size, preference))
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
            (2, 0, 251),
            (31, 0, 251),
            (32, 0, 1_021),
            (31, 1_021, 1_021),
            (8, 1_021, 1_021),
            (7, 1_021, 251),
            (9_000, 0, 65_521),
            (32, 251, 1_021),
            // Of another version.
            (2, 61, 251),
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
