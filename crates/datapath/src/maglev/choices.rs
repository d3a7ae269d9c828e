//! A table that takes backends that come, and lets others go, for about what that
//! moves: to make one anew takes a millisecond where there are ten thousand.
//!
//! The table is a stable matching of turns and entries: each turn of a backend wants
//! the entry that the backend likes most, each entry the earliest turn. There is one
//! such matching alone, whatever the order in which turns ask. So turns that come
//! ask from the beginning of their list, and who loses an entry to them asks on from
//! there; an entry that is given up goes to the earliest of the later turns that
//! like it better than what they have, whose own entry is the next to be given up.
//!
//! Turns that come last have to ask thousands of entries, and are soon done by
//! [`finish`]: what is kept ends before them.

use super::{Preference, finish, further, left_to_finish};
use crate::lists::Difference;

/// No backend; also the end of a list.
const NOBODY: u16 = u16::MAX;
const END: u32 = u32::MAX;

/// How an entry was chosen.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// By its number; [`NOBODY`]: the entry is free.
    by: u16,
    turn: u16,
    /// How many entries the backend likes more.
    rank: u16,
}

const FREE: Held = Held {
    by: NOBODY,
    turn: 0,
    rank: 0,
};

#[derive(Debug)]
struct Chooser {
    liked: Preference,
    /// How many entries it has.
    turns: u16,
    /// The one that it got last, if it has any.
    last: u16,
    /// How many entries it has asked, ever.
    asked: u16,
    is_gone: bool,
}

/// That a backend asked an entry.
#[derive(Clone, Copy, Debug)]
struct Asked {
    by: u16,
    rank: u16,
    /// Who asked the same entry before.
    next: u32,
}

#[derive(Debug)]
pub(super) struct Choices {
    size: u32,
    /// How many turns there are.
    kept: usize,
    /// By number. Numbers are not used again.
    choosers: Vec<Chooser>,
    /// The numbers of the backends in their order.
    order: Vec<u16>,
    /// Where in that order a number is.
    places: Vec<u16>,
    held: Vec<Held>,
    /// By entry, who asked it last.
    asked: Vec<u32>,
    questions: Vec<Asked>,
    /// How many questions there were when this was new.
    questions_at_first: usize,
}

impl Choices {
    /// Whether so many backends have a turn each, and there are some.
    pub(super) fn fit(backends: usize, size: u32) -> bool {
        (1..=kept(size)).contains(&backends)
    }

    /// Of backends that [`fit`](Self::fit).
    pub(super) fn new(preferences: &[Preference], size: u32) -> Self {
        let mut choices = Self {
            size,
            kept: kept(size),
            choosers: preferences.iter().copied().map(Chooser::new).collect(),
            order: (0..NOBODY).take(preferences.len()).collect(),
            places: Vec::new(),
            held: vec![FREE; size as usize],
            asked: vec![END; size as usize],
            questions: Vec::new(),
            questions_at_first: 0,
        };
        choices.number();
        for turn in 0..choices.turns(0) {
            for number in 0..choices.order.len() {
                if turn < choices.turns(number) {
                    choices.take_turn(number as u16, turn);
                }
            }
        }
        choices.questions_at_first = choices.questions.len();
        choices
    }

    /// From one list of backends to another; `None` if it is time to begin anew.
    pub(super) fn change(
        mut self,
        difference: &Difference,
        mut preference: impl FnMut(usize) -> Preference,
    ) -> Option<Self> {
        let count = self.order.len() + difference.new.len() - difference.gone.len();
        let numbers = self.choosers.len() + difference.new.len();
        if !Self::fit(count, self.size)
            || numbers >= usize::from(NOBODY)
            || self.questions.len() > 2 * self.questions_at_first
        {
            return None;
        }
        let gone: Vec<u16> = difference.gone.iter().map(|at| self.order[*at]).collect();
        let choosers = &mut self.choosers;
        self.order = difference.apply(&self.order, |at| {
            choosers.push(Chooser::new(preference(at)));
            choosers.len() as u16 - 1
        });
        for number in &gone {
            self.choosers[usize::from(*number)].is_gone = true;
        }
        self.number();
        self.end_turns();
        for number in gone {
            for entry in self.entries_of(number) {
                self.give_up(entry);
            }
        }
        self.take_turns();
        Some(self)
    }

    /// For each entry the place of its backend in the list.
    pub(super) fn table(&self) -> Vec<u16> {
        let mut free = Vec::new();
        let mut table = vec![0; self.held.len()];
        for (entry, held) in (0..).zip(&self.held) {
            match held.by {
                NOBODY => free.push(entry),
                by => table[entry as usize] = self.places[usize::from(by)],
            }
        }
        let liked = |index: usize| {
            let chooser = &self.choosers[usize::from(self.order[index])];
            let Preference { first, step } = chooser.liked;
            let first = if chooser.turns == 0 {
                first
            } else {
                chooser.last.into()
            };
            Preference { first, step }
        };
        let backends = self.order.len();
        finish(&mut table, free, self.kept % backends, backends, liked);
        table
    }

    fn number(&mut self) {
        self.places.resize(self.choosers.len(), NOBODY);
        for (place, number) in (0..).zip(&self.order) {
            self.places[usize::from(*number)] = place;
        }
    }

    /// How many turns the backend of that place has.
    fn turns(&self, place: usize) -> u16 {
        let backends = self.order.len();
        (self.kept / backends + usize::from(place < self.kept % backends)) as u16
    }

    /// Ends the turns that there are too many: they come after all others, so nobody
    /// wants what they have.
    fn end_turns(&mut self) {
        for place in 0..self.order.len() {
            let (by, turns) = (self.order[place], self.turns(place));
            while self.chooser(by).turns > turns {
                let entry = self.chooser(by).last;
                let before = self.own_before(by, entry);
                self.held[usize::from(entry)] = FREE;
                let chooser = &mut self.choosers[usize::from(by)];
                chooser.turns -= 1;
                chooser.last = before.unwrap_or(entry);
            }
        }
    }

    /// Takes the turns that are missing.
    fn take_turns(&mut self) {
        for place in 0..self.order.len() {
            let (by, turns) = (self.order[place], self.turns(place));
            for turn in self.chooser(by).turns..turns {
                self.take_turn(by, turn);
            }
        }
    }

    fn take_turn(&mut self, mut by: u16, mut turn: u16) {
        let chooser = &mut self.choosers[usize::from(by)];
        chooser.turns += 1;
        let mut step = chooser.liked.step;
        let (mut entry, mut rank) = if turn == 0 {
            (chooser.liked.first, 0)
        } else {
            let last = u32::from(chooser.last);
            let rank = self.held[last as usize].rank + 1;
            (further(last, step, self.size), rank)
        };
        loop {
            self.note(by, entry, rank);
            let there = self.held[entry as usize];
            let is_mine =
                there.by == NOBODY || (turn, self.place(by)) < (there.turn, self.place(there.by));
            if is_mine {
                self.hold(entry, Held { by, turn, rank });
                if there.by == NOBODY {
                    return;
                }
                Held { by, turn, rank } = there;
                step = self.chooser(by).liked.step;
            }
            rank += 1;
            entry = further(entry, step, self.size);
        }
    }

    /// Nobody has the entry any more: it goes to who wants it.
    fn give_up(&mut self, mut entry: u32) {
        loop {
            self.held[entry as usize] = FREE;
            let mut next = self.asked[entry as usize];
            let mut first: Option<(u32, Held)> = None;
            while let Some(&Asked {
                by,
                rank,
                next: before,
            }) = self.questions.get(next as usize)
            {
                next = before;
                let Some(other) = self.own_after(by, entry, rank) else {
                    continue;
                };
                let turn = self.held[other as usize].turn;
                let is_first = first.is_none_or(|(_, held)| {
                    (turn, self.place(by)) < (held.turn, self.place(held.by))
                });
                if is_first {
                    first = Some((other, Held { by, turn, rank }));
                }
            }
            let Some((other, held)) = first else {
                return;
            };
            self.hold(entry, held);
            entry = other;
        }
    }

    fn hold(&mut self, entry: u32, held: Held) {
        self.held[entry as usize] = held;
        let chooser = &mut self.choosers[usize::from(held.by)];
        if held.turn + 1 == chooser.turns {
            chooser.last = entry as u16;
        }
    }

    /// Notes a question that was not asked before.
    fn note(&mut self, by: u16, entry: u32, rank: u16) {
        let chooser = &mut self.choosers[usize::from(by)];
        if rank < chooser.asked {
            return;
        }
        chooser.asked = rank + 1;
        let next = self.asked[entry as usize];
        self.asked[entry as usize] = self.questions.len() as u32;
        self.questions.push(Asked { by, rank, next });
    }

    /// Of what a backend has, what it likes most of all that it likes less than an
    /// entry, of that rank.
    fn own_after(&self, by: u16, entry: u32, rank: u16) -> Option<u32> {
        let chooser = self.chooser(by);
        if chooser.is_gone
            || chooser.turns == 0
            || rank >= self.held[usize::from(chooser.last)].rank
        {
            return None;
        }
        let mut other = entry;
        loop {
            other = further(other, chooser.liked.step, self.size);
            if self.held[other as usize].by == by {
                return Some(other);
            }
        }
    }

    /// What it has that it likes more than that; the least liked of it.
    fn own_before(&self, by: u16, entry: u16) -> Option<u16> {
        let back = self.size - self.chooser(by).liked.step;
        let mut other = u32::from(entry);
        for _ in 0..self.held[other as usize].rank {
            other = further(other, back, self.size);
            if self.held[other as usize].by == by {
                return Some(other as u16);
            }
        }
        None
    }

    fn entries_of(&self, by: u16) -> Vec<u32> {
        let chooser = self.chooser(by);
        let mut entries = Vec::with_capacity(chooser.turns.into());
        let mut entry = chooser.liked.first;
        while entries.len() < chooser.turns.into() {
            if self.held[entry as usize].by == by {
                entries.push(entry);
            }
            entry = further(entry, chooser.liked.step, self.size);
        }
        entries
    }

    fn chooser(&self, number: u16) -> &Chooser {
        &self.choosers[usize::from(number)]
    }

    fn place(&self, number: u16) -> u16 {
        self.places[usize::from(number)]
    }
}

/// How many turns are kept of a table of that size.
fn kept(size: u32) -> usize {
    (size - left_to_finish(size)) as usize
}

impl Chooser {
    fn new(liked: Preference) -> Self {
        Self {
            liked,
            turns: 0,
            last: 0,
            asked: 0,
            is_gone: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::in_steps;
    use super::*;

    fn backends(
        count: impl Into<prop::collection::SizeRange>,
    ) -> impl Strategy<Value = BTreeSet<u16>> {
        prop::collection::btree_set(any::<u16>(), count)
    }

    proptest! {
        #[test]
        fn a_changed_table_is_the_one_made_anew(
            size in prop::sample::select(&[61_u32, 251, 1021, 4093][..]),
            seed: u64,
            first in backends(1..200),
            changes in prop::collection::vec(
                (backends(0..6), prop::collection::vec(any::<prop::sample::Index>(), 0..6)),
                1..12,
            ),
        ) {
            let like = |backend: &u16| {
                let hash = (u64::from(*backend) + 1).wrapping_mul(seed | 1);
                let hash = (hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                Preference {
                    first: (hash >> 32) as u32 % size,
                    step: hash as u32 % (size - 1) + 1,
                }
            };
            let all = |backends: &BTreeSet<u16>| backends.iter().map(like).collect::<Vec<_>>();
            let mut now = first;
            let anew = |preferences: &[Preference]| {
                Choices::fit(preferences.len(), size).then(|| Choices::new(preferences, size))
            };
            let mut choices = anew(&all(&now));
            for (new, gone) in changes {
                let before: Vec<u16> = now.iter().copied().collect();
                for gone in gone {
                    now.remove(&before[gone.index(before.len())]);
                }
                now.extend(new);
                if now.is_empty() {
                    break;
                }
                let after: Vec<u16> = now.iter().copied().collect();
                let preferences = all(&now);
                let difference = Difference::of(&before, &after);
                choices = choices
                    .and_then(|known| known.change(&difference, |at| preferences[at]))
                    .or_else(|| anew(&preferences));
                if let Some(choices) = &choices {
                    prop_assert_eq!(choices.table(), in_steps(preferences, size));
                }
            }
        }
    }
}
