//! Tables from hash to backend that hardly change when a backend comes or goes
//! (Eisenbud et al., "Maglev", NSDI 2016, 3.4). A table follows from its backends
//! alone, so every node that has the same ones has the same table.

mod choices;

use std::ops::Deref;
use std::sync::Arc;

use crate::lists::Difference;
use choices::Choices;

/// For each entry the index of its backend, in a sorted list.
pub(crate) type Table = Arc<[u16]>;

/// Tables that were made last: a service has the same one at each of its
/// addresses, and the one that it has is asked for when it changes.
#[derive(Debug)]
pub(crate) struct Tables<List> {
    /// By backends, the newest last.
    made: Vec<(List, Table)>,
    /// Likewise what large tables are changed by.
    choices: Vec<(List, u32, Choices)>,
}

impl<List> Default for Tables<List> {
    fn default() -> Self {
        Self {
            made: Vec::new(),
            choices: Vec::new(),
        }
    }
}

impl<T: Ord, List: Clone + PartialEq + Deref<Target = [T]>> Tables<List> {
    /// Few are large, and the others are soon made.
    const KEPT: usize = 4;
    /// From so many backends on a table is kept to be changed.
    const LARGE: usize = 512;
    /// Entries of all that are kept for that: each takes some 70 bytes.
    const ENTRIES: u32 = 4 << 16;
    /// Where more than this part of the backends change, one is made anew.
    const MANY: usize = 128;

    /// The table of so many entries for these backends, whose preferences are.
    pub(crate) fn of(
        &mut self,
        backends: &List,
        size: u32,
        preference: impl FnMut(&T) -> Preference,
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
        let table: Table = self.make(backends, size, preference).into();
        self.made.push((backends.clone(), table.clone()));
        table
    }

    fn make(
        &mut self,
        backends: &List,
        size: u32,
        mut preference: impl FnMut(&T) -> Preference,
    ) -> Vec<u16> {
        if backends.len() < Self::LARGE || !Choices::fit(backends.len(), size) {
            return fill(backends.iter().map(preference).collect(), size);
        }
        let limit = backends.len() / Self::MANY;
        let differences = self.choices.iter().enumerate().rev();
        let found = differences
            .filter(|(_, (_, known, _))| *known == size)
            .find_map(|(at, (list, ..))| Some((at, Difference::at_most(limit, list, backends)?)));
        let changed = found.and_then(|(at, difference)| {
            let (_, _, choices) = self.choices.remove(at);
            choices.change(&difference, |at| preference(&backends[at]))
        });
        let choices = changed.unwrap_or_else(|| {
            let preferences: Vec<_> = backends.iter().map(preference).collect();
            Choices::new(&preferences, size)
        });
        let table = choices.table();
        let mut entries = size + self.choices.iter().map(|(_, size, _)| size).sum::<u32>();
        while entries > Self::ENTRIES {
            entries -= self.choices[0].1;
            self.choices.remove(0);
        }
        self.choices.push((backends.clone(), size, choices));
        table
    }
}

/// In which order a backend would have the entries of a table: `(first + n * step) %
/// size` for n = 0, 1, ... where it is large, and [`in_leaps`] below [`STEPS_FROM`].
/// All of them, because the size is a prime and the step less than that, and not 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Preference {
    pub(crate) first: u32,
    pub(crate) step: u32,
}

/// Two backends with the same step follow each other through the whole table, and
/// when one goes all that the other has moves. In small tables that is not rare: of
/// four backends that share 251 entries, one that goes moves more than a quarter of
/// the others' entries once in a few hundred services, where a twentieth is usual.
const STEPS_FROM: u32 = 4093;

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
    if size < STEPS_FROM {
        in_leaps(&preferences, size)
    } else {
        in_steps(preferences, size)
    }
}

/// In the order `(first + step / n) % size`, divided in the field of that many
/// elements, and with 0 for 1 / 0: who has the same step goes another way (Eichenauer
/// and Lehn, "A non-linear congruential pseudo random number generator", 1986).
fn in_leaps(preferences: &[Preference], size: u32) -> Vec<u16> {
    /// Nobody's.
    const FREE: u16 = u16::MAX;
    let inverses = inverses(size);
    let mut left: Vec<_> = preferences.iter().map(|_| inverses.iter()).collect();
    let mut table = vec![FREE; size as usize];
    for turn in 0..size as usize {
        let index = turn % preferences.len();
        let Preference { first, step } = preferences[index];
        let entries = left[index].by_ref().map(|by| (first + step * by) % size);
        for entry in entries {
            let by = &mut table[entry as usize];
            if *by == FREE {
                *by = index as u16;
                break;
            }
        }
    }
    table
}

/// Of all numbers below a prime; 0 has itself.
fn inverses(prime: u32) -> Vec<u32> {
    let mut inverses = vec![0, 1];
    for number in 2..prime {
        // `number * (prime / number) + prime % number` is 0.
        let inverse = (prime - prime / number) * inverses[(prime % number) as usize];
        inverses.push(inverse % prime);
    }
    inverses
}

fn in_steps(mut preferences: Vec<Preference>, size: u32) -> Vec<u16> {
    let mut table = vec![0; size as usize];
    let mut taken = vec![false; size as usize];
    let (backends, mut next) = (preferences.len(), 0);
    let mut turn = || {
        let index = next;
        next = if index + 1 == backends { 0 } else { index + 1 };
        index
    };
    for _ in left_to_finish(size)..size {
        let index = turn();
        let Preference { first, step } = preferences[index];
        let mut entry = first;
        while taken[entry as usize] {
            entry = further(entry, step, size);
        }
        taken[entry as usize] = true;
        table[entry as usize] = index as u16;
        preferences[index].first = entry;
    }
    let is_free = |entry: &u32| !taken[*entry as usize];
    let free = (0..size).filter(is_free).collect();
    finish(&mut table, free, next, backends, |index| preferences[index]);
    table
}

/// Half of the way past entries that are taken would be gone for the last few that
/// are free. To ask which of those is liked most is less work: [`finish`] does.
fn left_to_finish(size: u32) -> u32 {
    size.isqrt() / 2
}

/// So many entries on; both numbers are less than the size.
fn further(entry: u32, step: u32, size: u32) -> u32 {
    let on = entry + step;
    // Beyond the end it begins anew; else this wraps and is the larger one.
    on.min(on.wrapping_sub(size))
}

/// The turns that are left, from that of `next` on: for as many entries as are free.
/// `liked` is asked for what of its preferences a backend has not tried yet.
fn finish(
    table: &mut [u16],
    mut free: Vec<u32>,
    mut next: usize,
    backends: usize,
    liked: impl Fn(usize) -> Preference,
) {
    let size = table.len() as u32;
    while !free.is_empty() {
        let liked = liked(next);
        let inverse = inverse(liked.step, size);
        let ranks = free.iter().map(|entry| liked.rank(*entry, size, inverse));
        let Some((at, _)) = ranks.enumerate().min_by_key(|(_, rank)| *rank) else {
            break;
        };
        table[free.swap_remove(at) as usize] = next as u16;
        next = if next + 1 == backends { 0 } else { next + 1 };
    }
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

    /// As the paper has it, with orders of preference as `entry` says.
    fn plain(backends: usize, size: u32, entry: impl Fn(usize, u32) -> u32) -> Vec<u16> {
        let mut next = vec![0..size; backends];
        let mut table = vec![None; size as usize];
        let mut left = size;
        while left > 0 {
            for (index, next) in next.iter_mut().enumerate() {
                let mut order = next.map(|n| entry(index, n) as usize);
                if let Some(entry) = order.find(|entry| table[*entry].is_none()) {
                    table[entry] = Some(index as u16);
                    left -= 1;
                }
            }
        }
        table.into_iter().flatten().collect()
    }

    const SIZES: &[u32] = &[61, 251, 1021, 4093];

    proptest! {
        #[test]
        fn it_is_the_paper_s(
            size in prop::sample::select(SIZES),
            numbers in prop::collection::vec(any::<(u32, u32)>(), 1..300),
        ) {
            let one = |(first, step)| Preference {
                first: first % size,
                step: step % (size - 1) + 1,
            };
            let preferences: Vec<_> = numbers.into_iter().map(one).collect();
            let count = preferences.len();
            let expected = plain(count, size, |index, n| {
                let Preference { first, step } = preferences[index];
                (first + n * step) % size
            });
            prop_assert_eq!(in_steps(preferences.clone(), size), expected);
            let expected = plain(count, size, |index, n| {
                let Preference { first, step } = preferences[index];
                let leap = u64::from(step) * inverse(n, size);
                (first + (leap % u64::from(size)) as u32) % size
            });
            prop_assert_eq!(in_leaps(&preferences, size), expected);
        }
    }

    /// Who has the step of another one, too.
    #[test]
    fn one_of_a_few_that_goes_moves_few() {
        const SIZE: u32 = 251;
        let like = |first, step| Preference { first, step };
        for step in 1..SIZE {
            let all = [like(0, step), like(step, step), like(99, 7), like(2, 111)];
            let before = fill(all.to_vec(), SIZE);
            for gone in 0..all.len() as u16 {
                let mut rest = all.to_vec();
                rest.remove(gone.into());
                let after = fill(rest, SIZE);
                let is_same = |was: u16, is: u16| is + u16::from(is >= gone) == was;
                let others = before.iter().zip(after).filter(|(was, _)| **was != gone);
                let moved = others.filter(|(was, is)| !is_same(**was, *is)).count();
                assert!(moved <= before.len() / 8, "{moved} with {step}, {gone}");
            }
        }
    }

    #[test]
    fn what_was_asked_for_is_kept() {
        let mut tables = Tables::default();
        let preference = |_: &u16| Preference { first: 1, step: 2 };
        let [one, other] = [[1], [2]].map(Arc::<[u16]>::from);
        let first = tables.of(&one, 61, preference);
        for (other, size) in [(&other, 61), (&one, 251)] {
            tables.of(other, size, preference);
        }
        assert!(Arc::ptr_eq(&first, &tables.of(&one, 61, preference)));
    }

    /// Of two services in turns, whose backends come and go.
    #[test]
    fn large_tables_are_as_if_they_were_made_anew() {
        const SIZE: u32 = 16_381;
        let preference = |backend: &u32| Preference {
            first: backend.wrapping_mul(0x9e37_79b9) % SIZE,
            step: backend.wrapping_mul(0x85eb_ca6b) % (SIZE - 1) + 1,
        };
        let mut tables = Tables::default();
        let mut services = [0..1000, 5000..5600].map(Vec::from_iter);
        for turn in 0..40 {
            for backends in &mut services {
                let new = 10_000 + turn;
                match turn % 4 {
                    0 => backends.push(new),
                    1 => drop(backends.remove(turn as usize * 7)),
                    2 => drop(backends.drain(..turn as usize)),
                    _ => backends[turn as usize] = new,
                }
                backends.sort_unstable();
                let list: Arc<[u32]> = backends[..].into();
                let table = tables.of(&list, SIZE, preference);
                assert_eq!(*table, fill(list.iter().map(preference).collect(), SIZE));
            }
        }
        let kept: u32 = tables.choices.iter().map(|(_, size, _)| size).sum();
        assert!((SIZE..=4 << 16).contains(&kept));
    }

    #[test]
    fn without_backends_there_are_no_entries() {
        assert_eq!(fill(Vec::new(), 61), []);
    }
}
