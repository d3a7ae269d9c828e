//! The table by which packets from outside find their backend: the same on
//! every node that has the same backends, and changing little when one comes or
//! goes (Eisenbud et al., "Maglev", NSDI 2016, 3.4).

use ripstop_abi::{Address, Backend};

/// Entries of a table, a prime: about twenty for each backend, so that shares
/// differ by a few percent.
pub(crate) fn size(backends: usize) -> u16 {
    match backends {
        0 => 0,
        1..=12 => 251,
        13..=50 => 1021,
        51..=200 => 4093,
        _ => 16_381,
    }
}

/// For each entry the index of its backend. `backends` are sorted, so that every
/// node asks them in the same order.
pub(crate) fn table(backends: &[Backend]) -> Vec<u32> {
    let size = u32::from(size(backends.len()));
    let mut preferences: Vec<(u32, u32)> = backends
        .iter()
        .map(|backend| {
            let hash = hash(backend);
            let offset = (hash >> 32) as u32 % size;
            (offset, hash as u32 % (size - 1) + 1)
        })
        .collect();
    const FREE: u32 = u32::MAX;
    let mut table = vec![FREE; size as usize];
    let mut filled = 0;
    while filled < size {
        for (index, (next, skip)) in preferences.iter_mut().enumerate() {
            while table[*next as usize] != FREE {
                *next = (*next + *skip) % size;
            }
            table[*next as usize] = index as u32;
            filled += 1;
            if filled == size {
                break;
            }
        }
    }
    table
}

/// Of address and port, the same everywhere (FNV-1a, and a finalizer, as its
/// high bits are weak).
fn hash(backend: &Backend) -> u64 {
    let words = |address: Address| address.words().map(u32::to_ne_bytes).concat();
    let port = backend.port.network().to_ne_bytes();
    let bytes = words(backend.address).into_iter().chain(port);
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
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
        for count in [1, 2, 3, 12, 13, 50, 51, 200, 201, 800] {
            let table = table(&backends(0..count));
            let mut shares = vec![0_usize; count as usize];
            table.iter().for_each(|index| shares[*index as usize] += 1);
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            assert!(most - least <= 1, "{count}: {least}..{most}");
        }
    }

    proptest! {
        /// Who loses one backend of many keeps most of the others' entries.
        #[test]
        fn one_that_goes_moves_few(count in 20..45_u32, gone in any::<prop::sample::Index>()) {
            let all = backends(0..count);
            let mut rest = all.clone();
            rest.remove(gone.index(all.len()));
            let (before, after) = (table(&all), table(&rest));
            let moved = before.iter().zip(&after).filter(|(before, after)| {
                let was = all[**before as usize];
                was != rest[**after as usize] && rest.contains(&was)
            });
            // The paper's figure for such tables is a few percent.
            prop_assert!(moved.count() * 5 < before.len());
        }
    }
}
