//! What frontends have in common: how many backends they choose from and how.
//!
//! A frontend's row in the kernel holds its class, and the class leads to the
//! chain that all frontends of the class share. So there are as many chains as
//! there are ways to choose, not as there are services.

use std::fmt;

use ripstop_netlink::nftables::Family;

/// How packets from outside the cluster choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Outside {
    /// As everybody else.
    Same,
    /// Among the same backends, by a consistent table of this many slots.
    Spread(u32),
    /// Among as many other backends, with the client's own address.
    Local(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Class {
    /// None: refuse.
    pub(super) backends: u32,
    pub(super) outside: Outside,
    /// Seconds; 0 is none.
    pub(super) affinity: u32,
    /// Only clients of its source ranges.
    pub(super) ranges: bool,
}

impl Class {
    pub(super) fn encode(self) -> Vec<u8> {
        let (kind, count) = match self.outside {
            Outside::Same => (0, 0),
            Outside::Spread(slots) => (1, slots),
            Outside::Local(backends) => (2, backends),
        };
        let flags = u32::from(self.ranges) << 8 | kind;
        [self.backends, count, self.affinity, flags]
            .iter()
            .flat_map(|word| word.to_be_bytes())
            .collect()
    }

    /// `None` if nobody of ours wrote this.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let word = |index: usize| -> Option<u32> {
            let bytes = bytes.get(4 * index..4 * index + 4)?;
            Some(u32::from_be_bytes(bytes.try_into().ok()?))
        };
        let (backends, count, affinity, flags) = (word(0)?, word(1)?, word(2)?, word(3)?);
        let outside = match flags & 0xff {
            0 => Outside::Same,
            1 => Outside::Spread(count),
            2 => Outside::Local(count),
            _ => return None,
        };
        Some(Self {
            backends,
            outside,
            affinity,
            ranges: flags & 0x100 != 0,
        })
    }

    /// Name of the chain that every packet comes to.
    pub(super) fn chain(self, family: Family) -> String {
        let family = match family {
            Family::V4 => "ip",
            Family::V6 => "ip6",
        };
        format!("{family}-{self}")
    }

    /// Name of the chain for packets from outside, if they have one.
    pub(super) fn outside_chain(self, family: Family) -> Option<String> {
        (self.outside != Outside::Same).then(|| format!("{}-outside", self.chain(family)))
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.backends)?;
        match self.outside {
            Outside::Same => {}
            Outside::Spread(slots) => write!(f, "-spread-{slots}")?,
            Outside::Local(backends) => write!(f, "-local-{backends}")?,
        }
        if self.affinity != 0 {
            write!(f, "-keep-{}", self.affinity)?;
        }
        if self.ranges {
            f.write_str("-ranges")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_read_as_it_was_written() {
        for outside in [Outside::Same, Outside::Spread(31), Outside::Local(0)] {
            for (backends, affinity, ranges) in [(0, 0, false), (70_000, 86_400, true)] {
                let class = Class {
                    backends,
                    outside,
                    affinity,
                    ranges,
                };
                assert_eq!(class.encode().len(), 16);
                assert_eq!(Class::decode(&class.encode()), Some(class));
            }
        }
        assert_eq!(Class::decode(&[0; 15]), None);
        assert_eq!(Class::decode(&[9; 16]), None);
    }

    #[test]
    fn names_say_what_they_do() {
        let class = Class {
            backends: 2,
            outside: Outside::Local(1),
            affinity: 60,
            ranges: true,
        };
        assert_eq!(class.chain(Family::V6), "ip6-2-local-1-keep-60-ranges");
        assert_eq!(
            class.outside_chain(Family::V4).unwrap(),
            "ip-2-local-1-keep-60-ranges-outside"
        );
    }
}
