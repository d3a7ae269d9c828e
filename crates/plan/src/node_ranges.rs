//! Which range of pod addresses a node gets that has none
//! (kube-controller-manager's `--allocate-node-cidrs`).

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A cluster range that cannot be divided as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "cluster range {range}: nodes' ranges of /{prefix} {problem} (right would be: /{} to /{})",
    range.prefix_len() + 1,
    range.max_prefix_len() - 2
)]
pub struct DivisionError {
    range: IpNet,
    prefix: u8,
    problem: &'static str,
}

/// Divides the cluster's ranges among nodes.
#[derive(Clone, Debug)]
pub struct NodeRanges(Vec<Cluster>);

/// One range of the cluster.
#[derive(Clone, Debug)]
struct Cluster {
    range: IpNet,
    prefix: u8,
    /// Where to look first: a range that a node has just left is given again
    /// late, as others may still have routes to it.
    next: u128,
}

impl NodeRanges {
    /// Ranges of these prefix lengths.
    ///
    /// # Errors
    /// If a node's range would not be a part of the cluster's, or too small for
    /// pods.
    pub fn new(cluster: &[IpNet], prefix_v4: u8, prefix_v6: u8) -> Result<Self, DivisionError> {
        let divide = |range: &IpNet| {
            let range = range.trunc();
            let prefix = match range {
                IpNet::V4(_) => prefix_v4,
                IpNet::V6(_) => prefix_v6,
            };
            let error = |problem| DivisionError {
                range,
                prefix,
                problem,
            };
            if prefix <= range.prefix_len() {
                return Err(error("leave nothing for a second node"));
            }
            if prefix > range.max_prefix_len() - 2 {
                return Err(error("have no address for a pod"));
            }
            Ok(Cluster {
                range,
                prefix,
                next: 0,
            })
        };
        cluster
            .iter()
            .map(divide)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// A range of each of the cluster's that overlaps none of `used`. `None` if
    /// one of the cluster's ranges is used up.
    pub fn allocate(&mut self, used: &[IpNet]) -> Option<Vec<IpNet>> {
        // Sorted, without overlaps.
        let used = IpNet::aggregate(&used.to_vec());
        let found: Option<Vec<(u128, IpNet)>> =
            self.0.iter().map(|cluster| cluster.free(&used)).collect();
        let found = found?;
        for (cluster, (index, _)) in self.0.iter_mut().zip(&found) {
            cluster.next = index + 1;
        }
        Some(found.into_iter().map(|(_, range)| range).collect())
    }
}

impl Cluster {
    /// The first free range from `next` on, and its number.
    fn free(&self, used: &[IpNet]) -> Option<(u128, IpNet)> {
        let ours = used.iter().filter(|used| overlap(used, &self.range));
        let ours: Vec<&IpNet> = ours.collect();
        if ours.iter().any(|used| used.contains(&self.range)) {
            return None;
        }
        let count = 1_u128 << (self.prefix - self.range.prefix_len()).min(127);
        let from = |start: u128, end: u128| {
            let mut index = start;
            while index < end {
                let range = self.at(index)?;
                match ours.iter().find(|used| overlap(used, &range)) {
                    None => return Some((index, range)),
                    // Past all of it: it may be greater than a node's.
                    Some(used) => index = self.after(used).max(index + 1),
                }
            }
            None
        };
        let next = self.next % count;
        from(next, count).or_else(|| from(0, next))
    }

    fn at(&self, index: u128) -> Option<IpNet> {
        let shift = u32::from(self.range.max_prefix_len() - self.prefix);
        match self.range {
            IpNet::V4(range) => {
                let start = range.network().to_bits() + ((index as u32) << shift);
                Ipv4Net::new(start.into(), self.prefix).ok().map(IpNet::V4)
            }
            IpNet::V6(range) => {
                let start = range.network().to_bits() + (index << shift);
                Ipv6Net::new(start.into(), self.prefix).ok().map(IpNet::V6)
            }
        }
    }

    /// Number of the first range after `used`.
    fn after(&self, used: &IpNet) -> u128 {
        let shift = u32::from(self.range.max_prefix_len() - self.prefix);
        let bits = |address: IpAddr| match address {
            IpAddr::V4(v4) => u128::from(v4.to_bits()),
            IpAddr::V6(v6) => v6.to_bits(),
        };
        ((bits(used.broadcast()) - bits(self.range.network())) >> shift) + 1
    }
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_range_that_was_left_comes_last() {
        let mut ranges = NodeRanges::new(&nets(&["10.244.0.0/22", "fd00::/62"]), 24, 64).unwrap();
        let mut given = Vec::new();
        for (v4, v6) in [
            ("10.244.0.0/24", "fd00::/64"),
            ("10.244.1.0/24", "fd00:0:0:1::/64"),
        ] {
            let next = ranges.allocate(&given).unwrap();
            assert_eq!(next, nets(&[v4, v6]));
            given.extend(next);
        }
        given.drain(..2);
        let next = ranges.allocate(&given).unwrap();
        assert_eq!(next, nets(&["10.244.2.0/24", "fd00:0:0:2::/64"]));
        given.extend(next);
        given.extend(ranges.allocate(&given).unwrap());
        let last = ranges.allocate(&given).unwrap();
        assert_eq!(last, nets(&["10.244.0.0/24", "fd00::/64"]));
        given.extend(last);
        assert_eq!(ranges.allocate(&given), None);
    }

    #[test]
    fn what_others_use_is_not_given() {
        let mut ranges = NodeRanges::new(&nets(&["10.244.0.0/16"]), 24, 64).unwrap();
        let used = nets(&[
            "10.244.0.0/20",
            "10.244.16.128/25",
            "192.0.2.0/24",
            "fd00::/64",
        ]);
        assert_eq!(ranges.allocate(&used), Some(nets(&["10.244.17.0/24"])));
        assert_eq!(ranges.allocate(&nets(&["10.0.0.0/8"])), None);
    }

    #[test]
    fn divisions_that_are_none() {
        for (range, v4, v6, expected) in [
            (
                "10.244.0.0/24",
                24,
                64,
                "cluster range 10.244.0.0/24: nodes' ranges of /24 leave nothing for a second \
                 node (right would be: /25 to /30)",
            ),
            (
                "fd00::/48",
                24,
                127,
                "cluster range fd00::/48: nodes' ranges of /127 have no address for a pod \
                 (right would be: /49 to /126)",
            ),
        ] {
            let error = NodeRanges::new(&nets(&[range]), v4, v6).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }

    proptest! {
        #[test]
        fn no_two_nodes_share_an_address(leaves in vec(any::<prop::sample::Index>(), 0..200)) {
            let cluster = nets(&["10.244.0.0/20", "fd00:244::/56"]);
            let mut ranges = NodeRanges::new(&cluster, 25, 60).unwrap();
            let mut given: Vec<Vec<IpNet>> = Vec::new();
            for leave in leaves {
                let used: Vec<IpNet> = given.iter().flatten().copied().collect();
                match ranges.allocate(&used) {
                    Some(next) => {
                        for range in &next {
                            prop_assert!(cluster.iter().any(|cluster| cluster.contains(range)));
                            prop_assert!(!used.iter().any(|used| overlap(used, range)));
                        }
                        given.push(next);
                    }
                    None => prop_assert_eq!(given.len(), 16),
                }
                if leave.index(3) == 0 && !given.is_empty() {
                    given.remove(leave.index(given.len()));
                }
            }
        }
    }
}
