//! Tables from hash to backend that hardly change when a backend comes or goes
//! (Eisenbud et al., "Maglev", NSDI 2016, 3.4). A table follows from its backends
//! alone, so every node that has the same ones has the same table.

use std::sync::Arc;

/// For each entry the index of its backend, in a sorted list.
pub(crate) type Table = Arc<[u16]>;

/// Tables that were made last: a service has the same one at each of its
/// addresses, and the one that it has is asked for when it changes.
#[derive(Debug, Default)]
pub(crate) struct Tables<List> {
    /// By backends, the newest last.
    made: Vec<(List, Table)>,
}

impl<List: Clone + PartialEq> Tables<List> {
    /// Few are large, and the others are soon made.
    const KEPT: usize = 4;

    /// The table of so many entries for these backends, whose preferences are.
    pub(crate) fn of(
        &mut self,
        backends: &List,
        size: u32,
        preferences: impl FnOnce() -> Vec<Preference>,
    ) -> Table {
        let mut known = self.made.iter().rev();
        let is_it =
            |(list, table): &&(List, Table)| table.len() == size as usize && list == backends;
        if let Some((_, table)) = known.find(is_it) {
            return table.clone();
        }
        if self.made.len() == Self::KEPT {
            self.made.remove(0);
        }
        let table: Table = fill(preferences(), size).into();
        self.made.push((backends.clone(), table.clone()));
        table
    }
}

/// In which order a backend would have the entries: `(first + n * step) % size` for
/// n = 0, 1, ... All of them, because the size is a prime and the step less than
/// that, and not 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Preference {
    pub(crate) first: u32,
    pub(crate) step: u32,
}

impl Preference {
    /// After how many others it would have that entry.
    fn rank(self, entry: u32, size: u32, inverse_of_step: u64) -> u64 {
        let way = u64::from(entry + size - self.first);
        way * inverse_of_step % u64::from(size)
    }
}

/// For each of `size` entries, a prime below 2^16, the index of its backend: they
/// take turns in choosing one that is free. With more backends than entries the
/// last ones have none.
fn fill(mut preferences: Vec<Preference>, size: u32) -> Vec<u16> {
    preferences.truncate(size as usize);
    if preferences.is_empty() {
        return Vec::new();
    }
    let mut table = vec![0; size as usize];
    let mut taken = vec![false; size as usize];
    let (backends, mut next) = (preferences.len(), 0);
    let mut turn = || {
        let index = next;
        next = if index + 1 == backends { 0 } else { index + 1 };
        index
    };
    // Half of the way past entries that are taken would be gone for the last few
    // that are free. To ask which of those is liked most is less work.
    let last = size.isqrt() / 2;
    for _ in last..size {
        let index = turn();
        let Preference { first, step } = preferences[index];
        let mut entry = first;
        while taken[entry as usize] {
            let on = entry + step;
            // Beyond the end it begins anew; else this wraps and is the larger one.
            entry = on.min(on.wrapping_sub(size));
        }
        taken[entry as usize] = true;
        table[entry as usize] = index as u16;
        preferences[index].first = entry;
    }
    let is_free = |entry: &u32| !taken[*entry as usize];
    let mut free: Vec<u32> = (0..size).filter(is_free).collect();
    while !free.is_empty() {
        let index = turn();
        let liked = preferences[index];
        let inverse = inverse(liked.step, size);
        let ranks = free.iter().map(|entry| liked.rank(*entry, size, inverse));
        let Some((at, _)) = ranks.enumerate().min_by_key(|(_, rank)| *rank) else {
            break;
        };
        table[free.swap_remove(at) as usize] = index as u16;
    }
    table
}

/// The number by which `number` gives 1, modulo a prime: its power `prime - 2`
/// (Fermat).
fn inverse(number: u32, prime: u32) -> u64 {
    let prime = u64::from(prime);
    let (mut result, mut base, mut exponent) = (1, u64::from(number), prime - 2);
    while exponent > 0 {
        if exponent & 1 != 0 {
            result = result * base % prime;
        }
        base = base * base % prime;
        exponent >>= 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As the paper has it.
    fn plain(preferences: &[Preference], size: u32) -> Vec<u16> {
        let mut orders: Vec<_> = preferences
            .iter()
            .map(|Preference { first, step }| (0..size).map(move |n| (first + n * step) % size))
            .collect();
        let mut table = vec![None; size as usize];
        let mut left = size;
        while left > 0 {
            for (index, order) in orders.iter_mut().enumerate() {
                if let Some(entry) = order.find(|entry| table[*entry as usize].is_none()) {
                    table[entry as usize] = Some(index as u16);
                    left -= 1;
                }
            }
        }
        table.into_iter().flatten().collect()
    }

    proptest! {
        #[test]
        fn it_is_the_paper_s(
            size in prop::sample::select(&[61_u32, 251, 1021, 4093][..]),
            numbers in prop::collection::vec(any::<(u32, u32)>(), 1..300),
        ) {
            let one = |(first, step)| Preference {
                first: first % size,
                step: step % (size - 1) + 1,
            };
            let preferences: Vec<_> = numbers.into_iter().map(one).collect();
            let expected = plain(&preferences, size);
            prop_assert_eq!(fill(preferences, size), expected);
        }
    }

    #[test]
    fn what_was_asked_for_is_kept() {
        let mut tables = Tables::default();
        let preference = || vec![Preference { first: 1, step: 2 }];
        let first = tables.of(&1, 61, preference);
        for (other, size) in [(2, 61), (1, 251)] {
            tables.of(&other, size, preference);
        }
        assert!(Arc::ptr_eq(&first, &tables.of(&1, 61, preference)));
    }

    #[test]
    fn without_backends_there_are_no_entries() {
        assert_eq!(fill(Vec::new(), 61), []);
    }
}
