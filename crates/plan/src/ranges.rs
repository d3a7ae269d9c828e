//! What address ranges are, asked for by several objects.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::Range;

/// Ranges with how many objects say what they are. Of several kinds the least
/// counts: a pod's address is a pod's, whatever else was configured for it.
#[derive(Debug, Default)]
pub(crate) struct Ranges {
    said: BTreeMap<IpNet, BTreeMap<Range, usize>>,
    stale: BTreeSet<IpNet>,
}

impl Ranges {
    pub(crate) fn add(&mut self, net: IpNet, range: Range) {
        let net = net.trunc();
        *self.said.entry(net).or_default().entry(range).or_default() += 1;
        self.stale.insert(net);
    }

    /// What was never added is no error.
    pub(crate) fn remove(&mut self, net: IpNet, range: Range) {
        let net = net.trunc();
        let Some(kinds) = self.said.get_mut(&net) else {
            return;
        };
        if let Some(count) = kinds.get_mut(&range) {
            *count -= 1;
            if *count == 0 {
                kinds.remove(&range);
            }
        }
        if kinds.is_empty() {
            self.said.remove(&net);
        }
        self.stale.insert(net);
    }

    /// Ranges that may have changed since the last call, as they are now.
    pub(crate) fn take_stale(&mut self) -> impl Iterator<Item = (IpNet, Option<Range>)> {
        let stale = std::mem::take(&mut self.stale);
        let kind = |net: &IpNet| Some(*self.said.get(net)?.first_key_value()?.0);
        stale.into_iter().map(move |net| (net, kind(&net)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_what_the_least_says_while_somebody_says_it() {
        let net: IpNet = "10.96.0.7/16".parse().unwrap();
        let mut ranges = Ranges::default();
        let mut now = |change: &dyn Fn(&mut Ranges)| {
            change(&mut ranges);
            let all: Vec<_> = ranges.take_stale().collect();
            let [(stale, range)] = all.as_slice() else {
                panic!("one range expected, got {all:?}");
            };
            assert_eq!(*stale, net.trunc());
            *range
        };
        assert_eq!(now(&|r| r.add(net, Range::Excluded)), Some(Range::Excluded));
        assert_eq!(now(&|r| r.add(net, Range::Services)), Some(Range::Services));
        assert_eq!(now(&|r| r.add(net, Range::Services)), Some(Range::Services));
        assert_eq!(
            now(&|r| r.remove(net, Range::Services)),
            Some(Range::Services)
        );
        assert_eq!(
            now(&|r| r.remove(net, Range::Services)),
            Some(Range::Excluded)
        );
        assert_eq!(now(&|r| r.remove(net, Range::Excluded)), None);
    }
}
