//! When there are too many connections, and whose they are: decisions alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Connections that no flood of a node begins faster, per millisecond.
const FASTEST: u64 = 1000;
/// Between two looks at how many there are.
const SHORTEST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_millis(100);
/// Between two counts of whose they are while somebody is held, at least; and while
/// nobody is, or counting takes long.
const SOON: Duration = Duration::from_secs(2);
const LATER: Duration = Duration::from_secs(20);
/// A count may take this part of the time.
const PART: u32 = 10;

/// Numbers of connections, by how many there is room for.
///
/// Up to half of the table nothing is done at all. From there to full is room for
/// what a flood begins before it is counted whose it is (milliseconds to seconds,
/// see [`super::BURST`]), and for others that flood: the shares of six are three
/// quarters. From 95 % on the kernel forgets by itself what has no answer yet
/// (`gc_worker`, net/netfilter/nf_conntrack_core.c), whosever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    /// From here on it is counted whose they are.
    begin: u64,
    /// Below, everything is as it was.
    end: u64,
    /// What a pod may have from `begin` on.
    share: u64,
    /// When there are so many more, it is counted again.
    step: u64,
    /// From here on those count, too, that are closing: below, they do no harm, and
    /// a busy client has many.
    brink: u64,
}

impl Marks {
    pub(super) fn of(limit: u64) -> Self {
        Self {
            begin: limit / 2,
            end: limit / 8 * 3,
            share: limit / 8,
            step: (limit / 32).max(1),
            brink: limit / 8 * 7,
        }
    }

    pub(super) fn is_brink(&self, connections: u64) -> bool {
        connections >= self.brink
    }
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    /// Nobody is held any more.
    Release,
    /// Count whose they are.
    Count {
        /// They become more: until it is counted, all pods begin them slowly.
        slowly: bool,
    },
}

/// What is known of the table of connections.
#[derive(Debug)]
pub(super) struct Gauge {
    /// Something may be in force.
    active: bool,
    /// The least since the last count; 0 before the first.
    low: u64,
    /// When to count again.
    due: Option<Instant>,
    held: BTreeSet<u32>,
}

impl Gauge {
    /// An earlier agent may have left something in force.
    pub(super) fn new() -> Self {
        Self {
            active: true,
            low: 0,
            due: None,
            held: BTreeSet::new(),
        }
    }

    fn mark(&self, marks: &Marks) -> u64 {
        marks.begin.max(self.low + marks.step)
    }

    pub(super) fn look(&mut self, connections: u64, marks: &Marks, now: Instant) -> Step {
        if connections < marks.end {
            return match self.active {
                true => Step::Release,
                false => Step::Nothing,
            };
        }
        self.low = self.low.min(connections);
        if connections >= self.mark(marks) {
            Step::Count { slowly: true }
        } else if self.due.is_some_and(|due| now >= due) {
            Step::Count { slowly: false }
        } else {
            Step::Nothing
        }
    }

    /// Who is held from now on: `of` says how many connections a link's pod has.
    /// Who was held before is until it has half of its share.
    pub(super) fn over_share(&self, of: &BTreeMap<u32, u64>, marks: &Marks) -> BTreeSet<u32> {
        let is_over = |(link, has): &(&u32, &u64)| {
            **has > marks.share || self.held.contains(link) && **has > marks.share / 2
        };
        of.iter().filter(is_over).map(|(link, _)| *link).collect()
    }

    /// These are held, since a count that took so long.
    pub(super) fn counted(
        &mut self,
        held: BTreeSet<u32>,
        connections: u64,
        took: Duration,
        now: Instant,
    ) {
        let least = if held.is_empty() { LATER } else { SOON };
        self.due = Some(now + (took * PART).clamp(least, LATER));
        self.low = connections;
        self.active = true;
        self.held = held;
    }

    pub(super) fn released(&mut self) {
        *self = Self {
            active: false,
            ..Self::new()
        };
    }

    pub(super) fn held(&self) -> &BTreeSet<u32> {
        &self.held
    }

    /// How long there cannot be too many.
    pub(super) fn pause(&self, connections: u64, marks: &Marks) -> Duration {
        let room = self.mark(marks).saturating_sub(connections);
        Duration::from_millis(room / FASTEST).clamp(SHORTEST, LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOWLY: Step = Step::Count { slowly: true };
    const AGAIN: Step = Step::Count { slowly: false };

    fn marks() -> Marks {
        Marks::of(262_144)
    }

    fn gauge() -> Gauge {
        let mut gauge = Gauge::new();
        gauge.released();
        gauge
    }

    #[test]
    fn below_half_nothing_is_done() {
        let (mut gauge, now) = (gauge(), Instant::now());
        for connections in [0, 100_000, 131_071, 10] {
            assert_eq!(gauge.look(connections, &marks(), now), Step::Nothing);
        }
        assert_eq!(gauge.look(131_072, &marks(), now), SLOWLY);
    }

    #[test]
    fn what_an_earlier_agent_left_is_taken_back() {
        let (mut gauge, now) = (Gauge::new(), Instant::now());
        assert_eq!(gauge.look(10, &marks(), now), Step::Release);
        gauge.released();
        assert_eq!(gauge.look(10, &marks(), now), Step::Nothing);
    }

    #[test]
    fn who_has_more_than_its_share_is_held_until_it_has_half_of_it() {
        let mut gauge = gauge();
        let count = |flooder| BTreeMap::from([(7, flooder), (8, 32_768), (9, 3)]);
        let held = gauge.over_share(&count(100_000), &marks());
        assert_eq!(held, BTreeSet::from([7]));
        gauge.counted(held, 131_072, Duration::ZERO, Instant::now());
        let held = gauge.over_share(&count(16_385), &marks());
        assert_eq!(held, BTreeSet::from([7]));
        assert_eq!(gauge.over_share(&count(16_384), &marks()), BTreeSet::new());
    }

    #[test]
    fn it_is_counted_again_when_they_become_more_and_while_somebody_is_held() {
        let (mut gauge, now) = (gauge(), Instant::now());
        assert_eq!(gauge.look(140_000, &marks(), now), SLOWLY);
        let took = Duration::from_millis(300);
        gauge.counted(BTreeSet::from([7]), 140_000, took, now);
        assert_eq!(gauge.look(148_191, &marks(), now), Step::Nothing);
        assert_eq!(gauge.look(148_192, &marks(), now), SLOWLY);
        // The least counts, and never less than half of the table.
        assert_eq!(gauge.look(135_000, &marks(), now), Step::Nothing);
        assert_eq!(gauge.look(143_192, &marks(), now), SLOWLY);
        assert_eq!(gauge.look(100_000, &marks(), now), Step::Nothing);
        assert_eq!(gauge.look(131_071, &marks(), now), Step::Nothing);
        let later = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(gauge.look(131_071, &marks(), later(2)), Step::Nothing);
        assert_eq!(gauge.look(131_071, &marks(), later(3)), AGAIN);
        gauge.counted(BTreeSet::new(), 131_071, took, later(3));
        assert_eq!(gauge.look(131_071, &marks(), later(22)), Step::Nothing);
        assert_eq!(gauge.look(131_071, &marks(), later(23)), AGAIN);
        assert_eq!(gauge.look(98_303, &marks(), now), Step::Release);
    }

    #[test]
    fn looks_are_closer_where_there_is_less_room() {
        let gauge = gauge();
        let pause = |connections| gauge.pause(connections, &marks()).as_millis();
        assert_eq!(pause(0), 100);
        assert_eq!(pause(81_072), 50);
        assert_eq!(pause(131_000), 5);
        assert_eq!(pause(262_144), 5);
    }

    #[test]
    fn small_tables_have_marks() {
        let (mut gauge, now) = (gauge(), Instant::now());
        for limit in 0..64 {
            let marks = Marks::of(limit);
            assert!(marks.end <= marks.begin && marks.begin <= limit);
            gauge.look(limit, &marks, now);
        }
    }
}
