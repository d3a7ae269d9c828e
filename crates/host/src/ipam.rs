//! Which addresses of the node's pod ranges are taken.

use std::net::IpAddr;

use ipnet::IpNet;

/// Addresses of one range that are handed out at most; longer IPv6 prefixes
/// would need no limit, but a /64 has more addresses than memory has bits.
const MOST: u128 = 1 << 16;

/// Why there is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("no free address in pod range {range}: all {used} are used")]
    Exhausted { range: IpNet, used: usize },
    #[error("pod range {range} has no address for a pod: use a shorter prefix")]
    TooSmall { range: IpNet },
    #[error("address {address} is taken already")]
    Taken { address: IpAddr },
}

/// The pod ranges of a node with a mark for each address in use.
///
/// Addresses are handed out in turn, so that one that was freed is the last to
/// come again: others may still have connections, or a cache, that name it.
#[derive(Clone, Debug)]
pub struct Allocator {
    ranges: Vec<Range>,
}

#[derive(Clone, Debug)]
struct Range {
    net: IpNet,
    /// A bit per address, by its distance from the network address.
    taken: Vec<u64>,
    used: usize,
    /// First and last offset that may be handed out.
    first: usize,
    last: usize,
    /// Where the next search starts.
    next: usize,
}

impl Allocator {
    /// One range per family is usual, but any number is fine: a pod gets an
    /// address from each.
    ///
    /// # Errors
    /// [`Error::TooSmall`] for a range that consists of reserved addresses.
    pub fn new(ranges: &[IpNet]) -> Result<Self, Error> {
        let ranges = ranges
            .iter()
            .map(|net| Range::new(net.trunc()))
            .collect::<Result<_, _>>()?;
        Ok(Self { ranges })
    }

    /// An address from each range; from none if one of them is used up.
    ///
    /// # Errors
    /// [`Error::Exhausted`] names the range.
    pub fn allocate(&mut self) -> Result<Vec<IpAddr>, Error> {
        let free = self
            .ranges
            .iter()
            .map(Range::find)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(self
            .ranges
            .iter_mut()
            .zip(free)
            .map(|(range, offset)| {
                range.mark(offset);
                range.address(offset)
            })
            .collect())
    }

    /// Marks an address that a record says is in use; the search goes on after
    /// it. One outside of the ranges (which may have changed since) is let be.
    ///
    /// # Errors
    /// [`Error::Taken`] if two records name it.
    pub fn claim(&mut self, address: IpAddr) -> Result<(), Error> {
        for range in &mut self.ranges {
            if let Some(offset) = range.offset(address) {
                if range.is_taken(offset) {
                    return Err(Error::Taken { address });
                }
                range.mark(offset);
            }
        }
        Ok(())
    }

    /// Gives an address back.
    pub fn release(&mut self, address: IpAddr) {
        for range in &mut self.ranges {
            if let Some(offset) = range.offset(address)
                && range.is_taken(offset)
            {
                range.taken[offset / 64] &= !(1 << (offset % 64));
                range.used -= 1;
            }
        }
    }

    /// Range, addresses in use, addresses that there are.
    pub fn usage(&self) -> impl Iterator<Item = (IpNet, usize, usize)> {
        self.ranges
            .iter()
            .map(|range| (range.net, range.used, range.last - range.first + 1))
    }
}

impl Range {
    fn new(net: IpNet) -> Result<Self, Error> {
        let bits = u32::from(net.max_prefix_len() - net.prefix_len());
        let size = 1u128.checked_shl(bits).unwrap_or(u128::MAX);
        let capped = size.min(MOST) as usize;
        // The network's own address (and IPv6's subnet router) is 0; 1 is what
        // other tools give the gateway; IPv4's last one is the broadcast.
        let first = 2;
        let broadcast = net.addr().is_ipv4() && size <= MOST;
        let last = capped.saturating_sub(1 + usize::from(broadcast));
        if last < first {
            return Err(Error::TooSmall { range: net });
        }
        let taken = vec![0; capped.div_ceil(64)];
        Ok(Self {
            net,
            taken,
            used: 0,
            first,
            last,
            next: first,
        })
    }

    fn find(&self) -> Result<usize, Error> {
        (self.next..=self.last)
            .chain(self.first..self.next)
            .find(|&offset| !self.is_taken(offset))
            .ok_or(Error::Exhausted {
                range: self.net,
                used: self.used,
            })
    }

    fn is_taken(&self, offset: usize) -> bool {
        self.taken[offset / 64] & (1 << (offset % 64)) != 0
    }

    fn mark(&mut self, offset: usize) {
        self.taken[offset / 64] |= 1 << (offset % 64);
        self.used += 1;
        self.next = if offset == self.last {
            self.first
        } else {
            offset + 1
        };
    }

    fn address(&self, offset: usize) -> IpAddr {
        match self.net.network() {
            IpAddr::V4(base) => IpAddr::V4((u32::from(base) + offset as u32).into()),
            IpAddr::V6(base) => IpAddr::V6((u128::from(base) + offset as u128).into()),
        }
    }

    /// `None` if the address is none that this range hands out.
    fn offset(&self, address: IpAddr) -> Option<usize> {
        let offset = match (self.net.network(), address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                u128::from(u32::from(address).checked_sub(u32::from(base))?)
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                u128::from(address).checked_sub(u128::from(base))?
            }
            _ => return None,
        };
        let offset = usize::try_from(offset).ok()?;
        (self.first..=self.last).contains(&offset).then_some(offset)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn allocator(ranges: &[&str]) -> Allocator {
        let ranges: Vec<IpNet> = ranges.iter().map(|net| net.parse().unwrap()).collect();
        Allocator::new(&ranges).unwrap()
    }

    fn one(allocator: &mut Allocator) -> String {
        allocator.allocate().unwrap()[0].to_string()
    }

    #[test]
    fn both_families_start_after_the_reserved_addresses() {
        let mut allocator = allocator(&["10.1.2.0/24", "fd00:1::/64"]);
        let expected: [IpAddr; 2] = ["10.1.2.2".parse().unwrap(), "fd00:1::2".parse().unwrap()];
        assert_eq!(allocator.allocate().unwrap(), expected);
    }

    #[test]
    fn network_gateway_and_broadcast_are_never_handed_out() {
        let mut allocator = allocator(&["10.0.0.0/29"]);
        let all: Vec<_> = (0..5).map(|_| one(&mut allocator)).collect();
        assert_eq!(
            all,
            ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]
        );
        let error = allocator.allocate().unwrap_err();
        assert_eq!(
            error.to_string(),
            "no free address in pod range 10.0.0.0/29: all 5 are used"
        );
    }

    #[test]
    fn a_freed_address_comes_last() {
        let mut allocator = allocator(&["10.0.0.0/29"]);
        let first = one(&mut allocator);
        allocator.release(first.parse().unwrap());
        let later: Vec<_> = (0..4).map(|_| one(&mut allocator)).collect();
        assert!(!later.contains(&first), "{later:?}");
        assert_eq!(one(&mut allocator), first);
    }

    #[test]
    fn an_exhausted_family_takes_nothing_from_the_other() {
        let mut allocator = allocator(&["fd00::/64", "10.0.0.0/30"]);
        allocator.allocate().unwrap();
        assert!(matches!(
            allocator.allocate(),
            Err(Error::Exhausted { used: 1, .. })
        ));
        let used: Vec<_> = allocator.usage().map(|(_, used, _)| used).collect();
        assert_eq!(used, [1, 1]);
    }

    #[test]
    fn ranges_of_reserved_addresses_only_are_refused() {
        for range in ["10.0.0.0/31", "10.0.0.0/32", "fd00::/127"] {
            let net: IpNet = range.parse().unwrap();
            assert_eq!(
                Allocator::new(&[net]).unwrap_err(),
                Error::TooSmall { range: net }
            );
        }
    }

    #[test]
    fn claimed_twice_is_an_error_and_outside_is_let_be() {
        let mut allocator = allocator(&["10.0.0.0/24"]);
        let address = "10.0.0.9".parse().unwrap();
        allocator.claim(address).unwrap();
        assert_eq!(allocator.claim(address), Err(Error::Taken { address }));
        allocator.claim("192.0.2.1".parse().unwrap()).unwrap();
        assert_eq!(one(&mut allocator), "10.0.0.10");
    }

    proptest! {
        #[test]
        fn no_address_twice_and_none_lost(steps in proptest::collection::vec(0usize..12, 1..200)) {
            let mut allocator = allocator(&["10.0.0.0/28", "fd00::/64"]);
            let mut held: Vec<Vec<IpAddr>> = Vec::new();
            for step in steps {
                if step < 8 {
                    match allocator.allocate() {
                        Ok(addresses) => held.push(addresses),
                        Err(_) => prop_assert_eq!(held.len(), 13),
                    }
                } else if !held.is_empty() {
                    for address in held.swap_remove(step % held.len()) {
                        allocator.release(address);
                    }
                }
                let distinct: BTreeSet<_> = held.iter().flatten().collect();
                prop_assert_eq!(distinct.len(), 2 * held.len());
                for (_, used, _) in allocator.usage() {
                    prop_assert_eq!(used, held.len());
                }
            }
        }
    }
}
