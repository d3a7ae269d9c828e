//! A table from hash to backend that hardly changes when a backend goes or
//! comes: Maglev (Eisenbud et al., NSDI 2016, section 3.4). Every node that has
//! the same backends has the same table.

use ripstop_plan::Backend;

use super::keys;

/// Primes. The larger the table beside the number of backends, the more even.
const SIZES: [u32; 5] = [31, 251, 2_039, 16_381, 65_521];
/// Slots per backend at least: none gets more than an eighth too much.
const PER_BACKEND: usize = 8;

/// How many slots so many backends get.
pub(super) fn size(backends: usize) -> u32 {
    let wanted = backends.saturating_mul(PER_BACKEND);
    let large = |size: &&u32| usize::try_from(**size).is_ok_and(|size| size >= wanted);
    *SIZES.iter().find(large).unwrap_or(&SIZES[SIZES.len() - 1])
}

/// FNV-1a, with the seed before the bytes: the same on every machine.
fn hash(seed: u8, bytes: &[u8]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325_u64;
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    let hash = bytes.iter().fold(mix(start, &seed), mix);
    // FNV's low bits know little of the last bytes.
    (hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// For each slot the index of its backend; `backends` are not empty.
pub(super) fn table(backends: &[Backend], size: u32) -> Vec<usize> {
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
            let size = size(count.into());
            let table = table(&backends(count), size);
            let mut shares = vec![0; count.into()];
            table.iter().for_each(|index| shares[*index] += 1);
            let (least, most) = (shares.iter().min(), shares.iter().max());
            assert!(most.unwrap() - least.unwrap() <= 1, "{count}: {shares:?}");
        }
    }

    #[test]
    fn few_slots_change_when_one_goes() {
        let all = backends(20);
        let before = table(&all, size(20));
        let fewer: Vec<_> = all[..19].to_vec();
        let after = table(&fewer, size(19));
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
