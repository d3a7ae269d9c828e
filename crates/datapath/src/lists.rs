//! What two lists of backends do not have in common.

use std::ops::Deref;
use std::sync::Arc;

/// From one list to another; both are sorted, without duplicates.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Where in the first list those are that the second one does not have. Sorted.
    pub(crate) gone: Vec<usize>,
    /// Where in the second list those are that the first one does not have. Sorted.
    pub(crate) new: Vec<usize>,
}

impl Difference {
    pub(crate) fn of<T: Ord>(before: &[T], after: &[T]) -> Self {
        Self::at_most(usize::MAX, before, after).unwrap_or_default()
    }

    /// `None` if more than so many of them are in one list alone.
    pub(crate) fn at_most<T: Ord>(limit: usize, before: &[T], after: &[T]) -> Option<Self> {
        let mut found = Self::default();
        let (mut old, mut new) = (0, 0);
        while found.gone.len() + found.new.len() <= limit {
            // Most of them are in both, and to be equal is asked faster than which
            // comes first.
            let rest = before[old..].iter().zip(&after[new..]);
            let common = rest.take_while(|(one, other)| one == other).count();
            (old, new) = (old + common, new + common);
            match (before.get(old), after.get(new)) {
                (None, None) => return Some(found),
                (Some(one), other) if other.is_none_or(|other| one < other) => {
                    found.gone.push(old);
                    old += 1;
                }
                _ => {
                    found.new.push(new);
                    new += 1;
                }
            }
        }
        None
    }

    /// What was made for each of the first list, in its order, for the second one:
    /// `make` is asked for those that are new.
    pub(crate) fn apply<T: Copy>(&self, before: &[T], mut make: impl FnMut(usize) -> T) -> Vec<T> {
        let count = before.len() - self.gone.len() + self.new.len();
        let mut after = Vec::with_capacity(count);
        // Few differ as a rule: what stays is copied in long parts.
        let mut gone = self.gone.iter().copied();
        let (mut from, mut skip) = (0, gone.next());
        for new in self.new.iter().copied().chain([count]) {
            while after.len() < new {
                let end = before.len().min(from + new - after.len());
                let end = skip.map_or(end, |skip| end.min(skip));
                after.extend_from_slice(&before[from..end]);
                from = end;
                if skip == Some(from) {
                    from += 1;
                    skip = gone.next();
                }
            }
            if new < count {
                after.push(make(new));
            }
        }
        after
    }
}

/// The last difference that was asked for: a service has the same lists at each of
/// its addresses.
#[derive(Debug)]
pub(crate) struct Differences<List> {
    last: Option<([List; 2], Arc<Difference>)>,
}

impl<List> Default for Differences<List> {
    fn default() -> Self {
        Self { last: None }
    }
}

impl<T: Ord, List: Clone + PartialEq + Deref<Target = [T]>> Differences<List> {
    pub(crate) fn of(&mut self, before: &List, after: &List) -> Arc<Difference> {
        if let Some((lists, difference)) = &self.last
            && lists.each_ref() == [before, after]
        {
            return difference.clone();
        }
        let difference = Arc::new(Difference::of(before, after));
        self.last = Some(([before.clone(), after.clone()], difference.clone()));
        difference
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_applied_is_the_second_list(
            before: BTreeSet<u8>,
            after: BTreeSet<u8>,
            common: BTreeSet<u8>,
        ) {
            let all = |own: BTreeSet<u8>| (&own | &common).into_iter().collect::<Vec<_>>();
            let [before, after] = [before, after].map(all);
            let difference = Difference::of(&before, &after);
            let applied = difference.apply(&before, |at| {
                assert!(!before.contains(&after[at]));
                after[at]
            });
            prop_assert_eq!(&applied, &after);
            let all = difference.gone.len() + difference.new.len();
            let limited = |limit| Difference::at_most(limit, &before, &after);
            prop_assert_eq!(limited(all), Some(difference));
            prop_assert!(all == 0 || limited(all - 1).is_none());
        }
    }
}
