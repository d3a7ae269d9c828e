//! Which counters have moved lately: what was counted last month is no reason to
//! get up for.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// What is older is not lately.
const LATELY: Duration = Duration::from_secs(600);
/// Between looks at the counters. Lately is so much shorter than it could be, and
/// never longer than is said.
pub(crate) const LOOK: Duration = Duration::from_secs(60);

/// Counters that only grow, of this agent and of the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counters {
    /// By reason: packets and connections that were dropped.
    pub(crate) drops: BTreeMap<String, u64>,
    /// By client: questions for names that were thrown away.
    pub(crate) limited: BTreeMap<String, u64>,
    /// Rows that audits have repaired.
    pub(crate) repaired: u64,
}

impl Counters {
    /// What has been counted since `before`; counters that stand still are left out.
    fn since(self, before: &Self) -> Self {
        let each = |now: BTreeMap<String, u64>, before: &BTreeMap<String, u64>| {
            let grown = now.into_iter().map(|(name, count)| {
                let before = before.get(&name).copied().unwrap_or(0);
                (name, grown(count, before))
            });
            grown.filter(|(_, count)| *count > 0).collect()
        };
        Self {
            drops: each(self.drops, &before.drops),
            limited: each(self.limited, &before.limited),
            repaired: grown(self.repaired, before.repaired),
        }
    }
}

/// A counter that is less than it was began anew: another engine, or a client
/// that had been forgotten.
fn grown(now: u64, before: u64) -> u64 {
    if now < before { now } else { now - before }
}

/// Looks at the counters, the oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recent(VecDeque<(Instant, Counters)>);

impl Recent {
    /// Remembers what the counters say now, if the last look was a while ago.
    pub(crate) fn look(&mut self, now: Instant, counters: Counters) {
        let last = self.0.back();
        if last.is_none_or(|(at, _)| now.saturating_duration_since(*at) >= LOOK) {
            self.0.push_back((now, counters));
        }
        while self.0.front().is_some_and(|(at, _)| is_over(*at, now)) {
            self.0.pop_front();
        }
    }

    /// What has been counted lately. What was before the first look is not known
    /// to be.
    pub(crate) fn counted(&self, now: Instant, counters: Counters) -> Counters {
        match self.0.iter().find(|(at, _)| !is_over(*at, now)) {
            Some((_, before)) => counters.since(before),
            None => Counters::default(),
        }
    }
}

fn is_over(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) > LATELY
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spoofed(count: u64) -> Counters {
        Counters {
            drops: BTreeMap::from([("spoofed".to_owned(), count)]),
            ..Counters::default()
        }
    }

    #[test]
    fn what_was_counted_is_recent_for_ten_minutes() {
        let start = Instant::now();
        let minute = |minute: u64| start + Duration::from_secs(60 * minute);
        let mut recent = Recent::default();
        // Seven, of which the agent before this one knew; three in the fifth minute.
        let counter = |minute: u64| spoofed(if minute < 5 { 7 } else { 10 });
        for now in 0..30 {
            recent.look(minute(now), counter(now));
            let said = recent.counted(minute(now), counter(now));
            let lately = (5..=14).contains(&now);
            let expected = if lately {
                spoofed(3)
            } else {
                Counters::default()
            };
            assert_eq!(said, expected, "after {now} minutes");
        }
    }

    #[test]
    fn looks_in_between_are_not_kept() {
        let start = Instant::now();
        let mut recent = Recent::default();
        for second in 0..3600 {
            recent.look(start + Duration::from_secs(second), spoofed(second));
        }
        assert_eq!(recent.0.len(), 10);
        let now = start + Duration::from_secs(3600);
        assert_eq!(recent.counted(now, spoofed(3600)), spoofed(600));
    }

    #[test]
    fn nothing_is_known_before_the_first_look() {
        let recent = Recent::default();
        let said = recent.counted(Instant::now(), spoofed(3));
        assert_eq!(said, Counters::default());
    }

    #[test]
    fn a_counter_that_begins_anew_counts_from_nothing() {
        let now = Instant::now();
        let mut recent = Recent::default();
        recent.look(now, spoofed(100));
        assert_eq!(recent.counted(now, spoofed(2)), spoofed(2));
        let other = Counters {
            repaired: 1,
            limited: BTreeMap::from([("default/loud".to_owned(), 4)]),
            ..Counters::default()
        };
        assert_eq!(recent.counted(now, other.clone()), other);
    }
}
