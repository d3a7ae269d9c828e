//! What two lists of backends do not have in common.

use std::sync::Arc;

use ripstop_abi::Backend;

/// From one list to another; both are sorted, without duplicates.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// Where in the first list those are that the second one does not have. Sorted.
    pub(super) gone: Vec<usize>,
    /// Where in the second list those are that the first one does not have. Sorted.
    pub(super) new: Vec<usize>,
}

impl Difference {
    pub(super) fn of(before: &[Backend], after: &[Backend]) -> Self {
        Self {
            gone: only_in_first(before, after),
            new: only_in_first(after, before),
        }
    }

    /// What was made for each of the first list, in its order, for the second one:
    /// `make` is asked for those that are new.
    pub(super) fn apply<T: Copy>(&self, before: &[T], mut make: impl FnMut(usize) -> T) -> Vec<T> {
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

/// One, and another one.
type Lists = [Arc<[Backend]>; 2];

/// The last difference that was asked for: a service has the same lists at each of
/// its addresses.
#[derive(Debug, Default)]
pub(super) struct Differences {
    last: Option<(Lists, Arc<Difference>)>,
}

impl Differences {
    pub(super) fn of(
        &mut self,
        before: &Arc<[Backend]>,
        after: &Arc<[Backend]>,
    ) -> Arc<Difference> {
        if let Some(([one, other], difference)) = &self.last
            && Arc::ptr_eq(one, before)
            && Arc::ptr_eq(other, after)
        {
            return difference.clone();
        }
        let difference = Arc::new(Difference::of(before, after));
        self.last = Some(([before.clone(), after.clone()], difference.clone()));
        difference
    }
}

fn only_in_first(first: &[Backend], second: &[Backend]) -> Vec<usize> {
    let mut second = second.iter().peekable();
    let only = first.iter().enumerate().filter(|(_, backend)| {
        while second.next_if(|other| other < backend).is_some() {}
        second.next_if_eq(backend).is_none()
    });
    only.map(|(at, _)| at).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;
    use ripstop_abi::Port;

    use super::*;

    fn backends(numbers: &BTreeSet<u8>) -> Vec<Backend> {
        let address = |n: &u8| IpAddr::from(Ipv4Addr::new(10, 0, 0, *n));
        let backend = |n: &u8| Backend::new(address(n).into(), Port::from_host(80));
        numbers.iter().map(backend).collect()
    }

    proptest! {
        #[test]
        fn what_is_applied_is_the_second_list(
            before: BTreeSet<u8>,
            after: BTreeSet<u8>,
            common: BTreeSet<u8>,
        ) {
            let [before, after] = [before, after].map(|own| backends(&(&own | &common)));
            let difference = Difference::of(&before, &after);
            let applied = difference.apply(&before, |at| {
                assert!(!before.contains(&after[at]));
                after[at]
            });
            prop_assert_eq!(applied, after);
        }
    }
}
