//! Work to do, by key: coalesced, in order, retried later when it failed.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

/// Delay before the second retry; doubled with each further failure in a row.
/// (The first retry is at once: most failures are a race that is over.)
const FIRST_DELAY: Duration = Duration::from_millis(5);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// A key is at most once in the queue, however often it is added.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    ready: VecDeque<T>,
    waiting_its_turn: HashSet<T>,
    later: BTreeSet<(Timestamp, T)>,
    due: HashMap<T, Timestamp>,
    failures: HashMap<T, u32>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            ready: VecDeque::new(),
            waiting_its_turn: HashSet::new(),
            later: BTreeSet::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
        }
    }
}

impl<T: Clone + Eq + Hash + Ord> Queue<T> {
    pub(crate) fn add(&mut self, key: T) {
        if self.waiting_its_turn.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    /// Adds the key when the time has come; the earliest of several times counts.
    pub(crate) fn add_at(&mut self, key: T, at: Timestamp) {
        if let Some(&earlier) = self.due.get(&key) {
            if earlier <= at {
                return;
            }
            self.later.remove(&(earlier, key.clone()));
        }
        self.due.insert(key.clone(), at);
        self.later.insert((at, key));
    }

    /// The next key whose turn it is.
    pub(crate) fn pop(&mut self, now: Timestamp) -> Option<T> {
        while let Some((at, _)) = self.later.first() {
            if *at > now {
                break;
            }
            if let Some((_, key)) = self.later.pop_first() {
                self.due.remove(&key);
                self.add(key);
            }
        }
        let key = self.ready.pop_front()?;
        self.waiting_its_turn.remove(&key);
        Some(key)
    }

    /// Nothing has its turn now.
    pub(crate) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// When [`Self::pop`] has something again, if nothing is added before.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.later.first().map(|(at, _)| *at)
    }

    pub(crate) fn succeeded(&mut self, key: &T) {
        self.failures.remove(key);
    }

    /// Tries the key again after a delay that grows with its failures.
    pub(crate) fn failed(&mut self, key: T, now: Timestamp) {
        let failures = self.failures.entry(key.clone()).or_default();
        *failures += 1;
        let Some(doublings) = failures.checked_sub(2) else {
            self.add(key);
            return;
        };
        let delay = FIRST_DELAY
            .saturating_mul(1 << doublings.min(16))
            .min(LONGEST_DELAY);
        self.add_at(key, now.checked_add(delay).unwrap_or(Timestamp::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::UNIX_EPOCH;

    #[test]
    fn a_key_is_queued_once_and_in_order() {
        let mut queue = Queue::default();
        for key in ["a", "b", "a"] {
            queue.add(key);
        }
        assert_eq!(queue.pop(START), Some("a"));
        queue.add("a");
        assert_eq!(queue.pop(START), Some("b"));
        assert_eq!(queue.pop(START), Some("a"));
        assert_eq!(queue.pop(START), None);
    }

    #[test]
    fn the_earliest_time_counts() {
        let mut queue = Queue::default();
        let at = |millis| START + Duration::from_millis(millis);
        queue.add_at("a", at(20));
        queue.add_at("a", at(10));
        queue.add_at("a", at(30));
        assert_eq!(queue.next_due(), Some(at(10)));
        assert_eq!(queue.pop(at(9)), None);
        assert_eq!(queue.pop(at(10)), Some("a"));
        assert_eq!(queue.pop(at(99)), None);
    }

    #[test]
    fn retries_slow_down_until_success() {
        let mut queue = Queue::default();
        queue.failed("a", START);
        assert_eq!(queue.pop(START), Some("a"));
        let mut delays = Vec::new();
        for _ in 0..3 {
            queue.failed("a", START);
            let due = queue.next_due().unwrap();
            delays.push(due.duration_since(START).as_millis());
            queue.pop(due);
        }
        assert_eq!(delays, [5, 10, 20]);
        queue.succeeded(&"a");
        queue.failed("a", START);
        assert_eq!(queue.pop(START), Some("a"));
    }
}
