//! Ports of translated flows.

/// Ports for translated flows: such as the node's own sockets do not
/// get by themselves.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowPorts {
    pub first: u16,
    /// How many there are.
    pub count: u16,
    /// Ports between the first and the last that are none of them, in ascending order.
    pub gaps: [Gap; 3],
}

/// FlowPorts that follow each other.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    pub first: u16,
    pub count: u16,
}

impl FlowPorts {
    /// All that follow each other.
    pub const fn without_gaps(first: u16, count: u16) -> Self {
        Self {
            first,
            count,
            gaps: [Gap { first: 0, count: 0 }; 3],
        }
    }

    /// The port before which there are `index` others.
    #[inline(always)]
    pub const fn nth(&self, index: u32) -> u16 {
        let mut port = self.first as u32 + index;
        let [low, middle, high] = &self.gaps;
        if port >= low.first as u32 {
            port += low.count as u32;
        }
        if port >= middle.first as u32 {
            port += middle.count as u32;
        }
        if port >= high.first as u32 {
            port += high.count as u32;
        }
        port as u16
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    #[test]
    fn gaps_are_left_out() {
        let gap = |first, count| Gap { first, count };
        let ports = |gaps| FlowPorts {
            first: 10,
            count: 6,
            gaps,
        };
        let all = |ports: FlowPorts| (0..6).map(|index| ports.nth(index)).collect::<Vec<_>>();
        let none = Gap::default();
        assert_eq!(all(ports([none; 3])), [10, 11, 12, 13, 14, 15]);
        let two = ports([gap(11, 1), gap(14, 100), none]);
        assert_eq!(all(two), [10, 12, 13, 114, 115, 116]);
        let three = ports([gap(10, 2), gap(13, 1), gap(15, 65_000)]);
        assert_eq!(all(three), [12, 14, 65_015, 65_016, 65_017, 65_018]);
    }
}
