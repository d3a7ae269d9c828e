//! Who owns a row that several objects ask for.

use std::collections::{BTreeMap, BTreeSet};

/// Owners of rows. The API server gives each ClusterIP and pod CIDR to one
/// object; where it did not (objects restored by hand, two allocators), the
/// least claimant owns the row, whatever the order in which the claims came.
#[derive(Clone, Debug)]
pub(crate) struct Claims<K, O> {
    owners: BTreeMap<K, O>,
    /// Claimants that are greater than the owner; without empty sets.
    waiting: BTreeMap<K, BTreeSet<O>>,
    /// Whether conflicts have changed since somebody asked.
    changed: bool,
}

impl<K, O> Default for Claims<K, O> {
    fn default() -> Self {
        Self {
            owners: BTreeMap::new(),
            waiting: BTreeMap::new(),
            changed: false,
        }
    }
}

impl<K: Ord + Copy, O: Ord + Clone> Claims<K, O> {
    /// A claim that is there already changes nothing.
    pub(crate) fn claim(&mut self, key: K, claimant: &O) {
        match self.owners.get_mut(&key) {
            None => drop(self.owners.insert(key, claimant.clone())),
            Some(owner) if owner == claimant => {}
            Some(owner) => {
                let mut loser = claimant.clone();
                if claimant < owner {
                    std::mem::swap(owner, &mut loser);
                }
                self.waiting.entry(key).or_default().insert(loser);
                self.changed = true;
            }
        }
    }

    /// Gives up a claim; the least of those that wait takes over.
    pub(crate) fn release(&mut self, key: K, claimant: &O) {
        let waiting = self.waiting.get_mut(&key);
        self.changed |= waiting.is_some();
        if self.owners.get(&key) == Some(claimant) {
            match waiting.and_then(BTreeSet::pop_first) {
                Some(next) => drop(self.owners.insert(key, next)),
                None => drop(self.owners.remove(&key)),
            }
        } else if let Some(waiting) = waiting {
            waiting.remove(claimant);
        }
        if self.waiting.get(&key).is_some_and(BTreeSet::is_empty) {
            self.waiting.remove(&key);
        }
    }

    /// Whether [`Claims::conflicts`] may have changed since the last call.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    pub(crate) fn owner(&self, key: K) -> Option<&O> {
        self.owners.get(&key)
    }

    /// Rows that more than one object asks for: row, owner, who goes without.
    pub(crate) fn conflicts(&self) -> impl Iterator<Item = (K, &O, &BTreeSet<O>)> {
        self.waiting
            .iter()
            .filter_map(|(key, waiting)| Some((*key, self.owners.get(key)?, waiting)))
    }
}

#[cfg(test)]
mod tests {
    use super::Claims;

    #[test]
    fn the_least_claimant_owns_in_any_order() {
        for order in [["a", "b", "c"], ["c", "b", "a"], ["b", "c", "a"]] {
            let mut claims = Claims::default();
            for claimant in order {
                claims.claim(1, &claimant);
            }
            assert_eq!(claims.owner(1), Some(&"a"));
            claims.release(1, &"a");
            assert_eq!(claims.owner(1), Some(&"b"));
            claims.release(1, &"c");
            assert_eq!(claims.conflicts().count(), 0);
            claims.release(1, &"b");
            assert_eq!(claims.owner(1), None);
        }
    }

    #[test]
    fn a_second_claim_of_the_owner_is_no_conflict() {
        let mut claims = Claims::default();
        claims.claim(1, &"a");
        claims.claim(1, &"a");
        claims.release(1, &"b");
        assert_eq!(claims.owner(1), Some(&"a"));
        assert_eq!(claims.conflicts().count(), 0);
    }
}
