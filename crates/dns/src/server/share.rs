//! A client that asks more than the server can answer does not take the others'
//! part.
//!
//! Questions wait in one queue, whoever asks. When it grows, clients get so many
//! answers in each moment, and what they ask beyond that is thrown away, which is
//! several times cheaper than an answer. How many is found as TCP finds its rate:
//! halved while the queue is long, more bit by bit while it is short, until
//! nothing is thrown away any more. Who asks little never notices.

use std::collections::HashMap;
use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

/// How many bytes wait in a socket, and how many may.
pub type Backlog = fn(&UdpSocket) -> Option<(usize, usize)>;

const MOMENT: Duration = Duration::from_millis(1);
/// Answers for a client in a moment: with the first limit, at least, and so many
/// that there is none.
const FIRST: u32 = 64;
const LEAST: u32 = 2;
const ENOUGH: u32 = 1024;
/// A queue is long if it has this part of what it may have, and so much: two
/// hundred clients that wait for their answers are no flood.
const LONG_PART: usize = 8;
const LONG: usize = 512 << 10;
/// Short: this part of what is long.
const SHORT_PART: usize = 8;

/// What clients of one socket may have.
#[derive(Debug)]
pub(super) struct Share {
    began: Instant,
    /// Answers for each client in a moment; [`ENOUGH`] is no limit.
    each: u32,
    answered: HashMap<IpAddr, u32>,
}

impl Share {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            began: now,
            each: ENOUGH,
            answered: HashMap::new(),
        }
    }

    /// To be called for each batch of questions. `full` says that there may be
    /// more, `backlog` how many bytes wait, and how many may.
    pub(super) fn next(
        &mut self,
        now: Instant,
        full: bool,
        backlog: impl FnOnce() -> Option<(usize, usize)>,
    ) {
        // The usual case costs nothing.
        if (!full && !self.is_limited()) || now.duration_since(self.began) < MOMENT {
            return;
        }
        self.began = now;
        self.answered.clear();
        let Some((waiting, limit)) = backlog() else {
            return;
        };
        let long = (limit / LONG_PART).max(LONG).min(limit / 2);
        self.each = if waiting > long {
            (self.each / 2).clamp(LEAST, FIRST)
        } else if waiting < long / SHORT_PART {
            (self.each + self.each / 16 + 1).min(ENOUGH)
        } else {
            self.each
        };
    }

    pub(super) fn is_limited(&self) -> bool {
        self.each < ENOUGH
    }

    /// Whether a question of this client is answered.
    pub(super) fn takes(&mut self, client: IpAddr) -> bool {
        if !self.is_limited() {
            return true;
        }
        let answered = self.answered.entry(client).or_default();
        *answered += 1;
        *answered <= self.each
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 8 << 20;
    const GREEDY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 0, 1));
    const MODEST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 0, 2));

    /// Answers of one moment: `asked` questions of the greedy, then one of the
    /// modest client.
    fn moment(share: &mut Share, asked: usize) -> (usize, bool) {
        let taken = (0..asked).filter(|_| share.takes(GREEDY)).count();
        (taken, share.takes(MODEST))
    }

    #[test]
    fn the_greedy_are_limited_while_the_queue_is_long() {
        let start = Instant::now();
        let mut share = Share::new(start);
        let at = |n: u32| start + MOMENT * n;
        share.next(at(1), true, || Some((LIMIT / 2, LIMIT)));
        assert_eq!(moment(&mut share, 1000), (FIRST as usize, true));
        for n in 2..20 {
            share.next(at(n), true, || Some((LIMIT / 2, LIMIT)));
            assert!(moment(&mut share, 1000).1, "the modest is always answered");
        }
        assert_eq!(moment(&mut share, 1000).0, 0, "had its part of the moment");
        share.next(at(20), true, || Some((LIMIT / 2, LIMIT)));
        assert_eq!(moment(&mut share, 1000).0, LEAST as usize);
        // The flood has ended.
        for n in 21..400 {
            share.next(at(n), false, || Some((0, LIMIT)));
        }
        assert!(!share.is_limited());
        assert_eq!(moment(&mut share, 5000), (5000, true));
    }

    #[test]
    fn a_queue_that_is_not_long_is_no_flood() {
        let start = Instant::now();
        let mut share = Share::new(start);
        for n in 1..100 {
            share.next(start + MOMENT * n, true, || Some((LONG / 2, LIMIT)));
        }
        assert!(!share.is_limited());
        share.next(start + MOMENT * 200, false, || panic!("nobody asks"));
        share.next(start + MOMENT * 201, true, || None);
        assert!(!share.is_limited());
    }
}
