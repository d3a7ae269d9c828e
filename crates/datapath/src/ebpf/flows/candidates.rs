//! Flows of which the longest silent can be missed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ripstop_abi::FlowKey;

/// As many as are remembered, however many are offered: what is over that stays
/// until the next look.
const MOST: usize = 16_384;

/// The longest silent of what was offered.
#[derive(Debug)]
pub(super) struct Candidates {
    most: usize,
    /// Seconds of silence, both rows, when the last answer came; the least silent first.
    heap: BinaryHeap<Reverse<(u32, [FlowKey; 2], u32)>>,
}

impl Candidates {
    /// For so many flows.
    pub(super) fn new(flows: usize) -> Self {
        Self {
            most: flows.min(MOST),
            heap: BinaryHeap::new(),
        }
    }

    pub(super) fn offer(&mut self, idle: u32, rows: [FlowKey; 2], answered: u32) {
        let full = self.heap.len() >= self.most;
        let least = self.heap.peek().map_or(0, |Reverse((idle, ..))| *idle);
        if full && idle <= least {
            return;
        }
        self.heap.push(Reverse((idle, rows, answered)));
        if full {
            self.heap.pop();
        }
    }

    /// Both rows of each, and when the last answer came.
    pub(super) fn into_flows(self) -> Vec<([FlowKey; 2], u32)> {
        let flows = self.heap.into_iter();
        flows
            .map(|Reverse((_, rows, answered))| (rows, answered))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use ripstop_abi::Port;

    use super::*;

    fn flow(port: u16) -> [FlowKey; 2] {
        let source_port = Port::from_host(port);
        let key = FlowKey {
            source_port,
            ..FlowKey::default()
        };
        [key; 2]
    }

    #[test]
    fn the_longest_silent_go() {
        let mut candidates = Candidates::new(2);
        for (port, idle) in [(1, 5), (2, 0), (3, 9), (4, 7), (5, 7)] {
            candidates.offer(idle, flow(port), 0);
        }
        let mut flows = candidates.into_flows();
        flows.sort();
        assert_eq!(flows, [(flow(3), 0), (flow(4), 0)]);
        let mut nobody = Candidates::new(0);
        nobody.offer(5, flow(1), 0);
        assert!(nobody.into_flows().is_empty());
        let mut few = Candidates::new(3);
        few.offer(0, flow(1), 0);
        assert_eq!(few.into_flows(), [(flow(1), 0)]);
    }
}
