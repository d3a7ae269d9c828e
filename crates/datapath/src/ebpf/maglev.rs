//! The table by which packets from outside find their backend: see
//! [`crate::maglev`].

use std::sync::Arc;

use ripstop_abi::Backend;

use crate::maglev::{self, Preference, Table};

/// Entries of a table, a prime. Shares differ by one entry at most: with 800
/// backends or fewer each has twenty at least, so by five percent; with 10,000 each
/// has one or two, so some get twice what others get. A larger table would take a
/// large service more time whenever it changes. Backends beyond the last size have
/// no entry.
pub(crate) fn size(backends: usize) -> u16 {
    match backends {
        0 => 0,
        1..=12 => 251,
        13..=50 => 1021,
        51..=200 => 4093,
        _ => 16_381,
    }
}

pub(crate) type Tables = maglev::Tables<Arc<[Backend]>>;

/// For each entry the index of its backend; there are some. They are sorted, so
/// that every node asks them in the same order.
pub(crate) fn table(backends: &Arc<[Backend]>, tables: &mut Tables) -> Table {
    let size = u32::from(size(backends.len()));
    let mut hashes = Hashes::default();
    tables.of(backends, size, |backend| {
        let hash = hashes.of(backend);
        Preference {
            first: (hash >> 32) as u32 % size,
            step: hash as u32 % (size - 1) + 1,
        }
    })
}

/// Of address and port, the same everywhere (FNV-1a, and a finalizer, as its
/// high bits are weak).
#[derive(Default)]
struct Hashes {
    /// Of the beginning of an address, which is that of the next one as a rule.
    known: Option<([u32; 3], u64)>,
}

impl Hashes {
    fn of(&mut self, backend: &Backend) -> u64 {
        let [a, b, c, last] = backend.address.words();
        let begun = match self.known {
            Some((beginning, hash)) if beginning == [a, b, c] => hash,
            _ => [a, b, c]
                .map(u32::to_ne_bytes)
                .iter()
                .fold(0xcbf2_9ce4_8422_2325, fnv),
        };
        self.known = Some(([a, b, c], begun));
        let port = backend.port.network().to_ne_bytes();
        let hash = fnv(fnv(begun, &last.to_ne_bytes()), &port);
        let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash ^ (hash >> 33)
    }
}

fn fnv<const N: usize>(hash: u64, bytes: &[u8; N]) -> u64 {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    bytes.iter().fold(hash, mix)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;
    use ripstop_abi::Port;

    use super::*;

    fn backends(numbers: impl IntoIterator<Item = u32>) -> Vec<Backend> {
        let address = |n: u32| std::net::IpAddr::from(Ipv4Addr::from(0x0af4_0000 + n));
        let backend = |n: u32| Backend::new(address(n).into(), Port::from_host(80));
        numbers.into_iter().map(backend).collect()
    }

    #[test]
    fn shares_are_even() {
        for count in [1, 2, 3, 12, 13, 50, 51, 200, 201, 800, 801, 10_000] {
            let table = table(&backends(0..count));
            let mut shares = vec![0_usize; count as usize];
            table
                .iter()
                .for_each(|index| shares[usize::from(*index)] += 1);
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            assert!(most - least <= 1, "{count}: {least}..{most}");
            let enough = if count <= 800 { 20 } else { 1 };
            assert!(*least >= enough, "{count}: {least}..{most}");
        }
    }

    fn table(backends: &[Backend]) -> Table {
        super::table(&backends.into(), &mut Tables::default())
    }

    /// Nodes of other versions have the same tables.
    #[test]
    fn hashes_stay_as_they_are() {
        let mut hashes = Hashes::default();
        let all = backends([1, 2]).into_iter();
        let first = all.map(|backend| hashes.of(&backend));
        assert_eq!(
            first.collect::<Vec<_>>(),
            [0xbdc5_83a2_131f_03f8, 0x76f2_08c3_9245_6479]
        );
    }

    proptest! {
        /// Who loses one backend of many keeps most of the others' entries.
        #[test]
        fn one_that_goes_moves_few(count in 20..45_u32, gone in any::<prop::sample::Index>()) {
            let all = backends(0..count);
            let mut rest = all.clone();
            rest.remove(gone.index(all.len()));
            let (before, after) = (table(&all), table(&rest));
            let moved = before.iter().zip(after.iter()).filter(|(before, after)| {
                let was = all[usize::from(**before)];
                was != rest[usize::from(**after)] && rest.contains(&was)
            });
            // The paper's figure for such tables is a few percent.
            prop_assert!(moved.count() * 5 < before.len());
        }
    }
}
