//! What was found out last: a service has the same backends at each of its
//! addresses, and to compare ten thousand takes time.

use std::sync::Arc;

use ripstop_plan::{Backend, Backends};

use super::spread;
use crate::lists::{Difference, Differences};

/// Which backend is in which slot.
pub(super) type Slots = Arc<[Backend]>;

/// Positions in what is compared.
pub(super) type Differing = Arc<[usize]>;

#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) tables: spread::Tables,
    differences: Differences<Backends>,
    placed: Last<Placing, Slots>,
    slots: Last<[Slots; 2], Differing>,
    spread: Last<[spread::Made; 2], Differing>,
}

/// Slots, all that is in them, and what is to be in them.
type Placing = (Slots, [Backends; 2]);

impl Known {
    /// Slots for the second of two lists, where those of the first have these.
    pub(super) fn place(&mut self, before: &Slots, lists: [&Backends; 2]) -> Slots {
        let placing = (before.clone(), lists.map(Backends::clone));
        self.placed.get(placing, |(before, [known, wanted])| {
            let difference = self.differences.of(known, wanted);
            place(before, [known, wanted], &difference).into()
        })
    }

    /// In which of the slots that both have there are different backends.
    pub(super) fn differing_slots(&mut self, before: &Slots, after: &Slots) -> Differing {
        if before.is_empty() || after.is_empty() {
            return Differing::default();
        }
        let pair = [before.clone(), after.clone()];
        self.slots.get(pair, |[before, after]| {
            let pairs = before.iter().zip(&**after).enumerate();
            let differing = pairs.filter(|(_, (before, after))| before != after);
            differing.map(|(at, _)| at).collect()
        })
    }

    /// In which of the slots that both have two tables lead elsewhere.
    pub(super) fn differing_spread(
        &mut self,
        before: spread::Made,
        after: spread::Made,
    ) -> Differing {
        if before.0.size() == 0 || after.0.size() == 0 {
            return Differing::default();
        }
        self.spread.get([before, after], |[before, after]| {
            let difference = self.differences.of(&before.1, &after.1);
            spread::differing(before, after, &difference).into()
        })
    }
}

/// The last answers to questions of one kind.
#[derive(Debug)]
struct Last<Question, Answer>(Vec<(Question, Answer)>);

impl<Question, Answer> Default for Last<Question, Answer> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<Question: PartialEq, Answer: Clone> Last<Question, Answer> {
    /// A frontend may have other backends for outside.
    const KEPT: usize = 2;

    fn get(&mut self, question: Question, find: impl FnOnce(&Question) -> Answer) -> Answer {
        let mut known = self.0.iter();
        if let Some((_, answer)) = known.find(|(known, _)| *known == question) {
            return answer.clone();
        }
        let answer = find(&question);
        if self.0.len() == Self::KEPT {
            self.0.remove(0);
        }
        self.0.push((question, answer.clone()));
        answer
    }
}

/// Slots for `wanted`: who has one keeps it, unless it is behind the new end.
/// `before` are the slots, `known` the same sorted.
fn place(
    before: &[Backend],
    [known, wanted]: [&Backends; 2],
    difference: &Difference,
) -> Vec<Backend> {
    let mut new = difference.new.iter().map(|at| wanted[*at]);
    if let ([_], [gone]) = (&difference.new[..], &difference.gone[..]) {
        // The most common change of many.
        let mut slots = before.to_vec();
        let slot = slots.iter_mut().find(|slot| **slot == known[*gone]);
        if let (Some(slot), Some(new)) = (slot, new.next()) {
            *slot = new;
        }
        return slots;
    }
    let gone: Vec<Backend> = difference.gone.iter().map(|at| known[*at]).collect();
    let stays = |backend: &Backend| gone.binary_search(backend).is_err();
    let mut moved = before.iter().skip(wanted.len()).copied();
    let mut next = || moved.find(stays).or_else(|| new.next());
    let slots = before.iter().take(wanted.len()).copied().map(Some);
    let empty = std::iter::repeat(None);
    slots
        .chain(empty)
        .take(wanted.len())
        .map(|slot| slot.filter(stays))
        .filter_map(|slot| slot.or_else(&mut next))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(number: u8) -> Backend {
        Backend {
            address: [10, 244, 0, number].into(),
            port: 80,
        }
    }

    #[test]
    fn who_stays_keeps_its_slot() {
        /// Slots, what is wanted, slots after that, and which of both differ.
        type Case = (
            &'static [u8],
            &'static [u8],
            &'static [u8],
            &'static [usize],
        );
        let cases: [Case; 8] = [
            (&[3, 1, 4, 2], &[2, 4], &[4, 2], &[0, 1]),
            (&[3, 1, 4, 2], &[1, 2, 3], &[3, 1, 2], &[2]),
            (&[], &[1, 2], &[1, 2], &[]),
            (&[1, 2], &[], &[], &[]),
            (&[1, 2, 3], &[2, 3], &[3, 2], &[0]),
            (&[1, 2, 3], &[1, 2, 3, 4], &[1, 2, 3, 4], &[]),
            (&[3, 1], &[1, 2, 3], &[3, 1, 2], &[]),
            (&[1, 2, 3], &[4, 5, 6], &[4, 5, 6], &[0, 1, 2]),
        ];
        let slots = |numbers: &[u8]| numbers.iter().copied().map(backend).collect::<Vec<_>>();
        let mut memory = Known::default();
        for (before, wanted, after, differ) in cases {
            let before: Slots = slots(before).into();
            let [known, wanted] = [&before[..], &slots(wanted)].map(|l| Backends::from(l.to_vec()));
            for _ in 0..2 {
                let placed = memory.place(&before, [&known, &wanted]);
                assert_eq!(*placed, slots(after));
                assert_eq!(*memory.differing_slots(&before, &placed), *differ);
            }
        }
    }
}
