//! Comparisons on a machine whose speed drifts and jumps: short turns, many of
//! them, forth and back.

use std::time::Duration;

use anyhow::Result;

use crate::load::Sample;
use crate::report::{Ratio, median};

/// How long a side is measured at a time: short, so that what disturbs one side
/// most often disturbs the other, too, or is one of many. Not a part of a second,
/// which is how often much happens on a machine.
const TURN: Duration = Duration::from_millis(270);
/// The first turn, which is not counted: after it a client has used all of its
/// ports, and each new connection finds the last one of its port still
/// remembered, as from then on.
const WARM_UP: Duration = Duration::from_millis(1500);
/// Rounds below which there is no interval to speak of.
const FEWEST: usize = 6;

/// How often the sides are measured. A round is two turns of each: in some order,
/// and back. Another order each time, so that what happens again and again does not
/// always meet the same side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rounds(usize);

impl Rounds {
    /// So that each side is measured for so many seconds in all.
    pub(crate) fn of_seconds(seconds: u64) -> Self {
        let turns = Duration::from_secs(seconds).as_millis() / TURN.as_millis();
        Self(FEWEST.max(usize::try_from(turns / 2).unwrap_or(usize::MAX)))
    }

    /// The samples of each side, in the order of the turns.
    pub(crate) fn measure<T>(
        self,
        sides: &[T],
        sample: impl Fn(&T, Duration) -> Result<Sample>,
    ) -> Result<Vec<Vec<Sample>>> {
        for side in sides {
            sample(side, WARM_UP)?;
        }
        let mut samples = vec![Vec::with_capacity(2 * self.0); sides.len()];
        let mut orders = Orders(0x9e37_79b9_7f4a_7c15);
        for _ in 0..self.0 {
            let order = orders.next(sides.len());
            for side in order.iter().chain(order.iter().rev()).copied() {
                samples[side].push(sample(&sides[side], TURN)?);
            }
        }
        Ok(samples)
    }
}

/// Orders by chance, the same in every run.
struct Orders(u64);

impl Orders {
    /// Of so many.
    fn next(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            // xorshift64 (Marsaglia, 2003).
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            let below = last as u64 + 1;
            order.swap(last, (self.0 % below) as usize);
        }
        order
    }
}

/// Ours divided by the peer's: the median over the rounds.
pub(crate) fn compare(ours: &[Sample], peer: &[Sample]) -> Ratio {
    let rounds = || ours.chunks_exact(2).zip(peer.chunks_exact(2));
    let of = |figure: fn(&[Sample]) -> f64| -> Vec<f64> {
        let ratios = rounds().map(|(ours, peer)| figure(ours) / figure(peer));
        ratios.collect()
    };
    let (rates, costs) = (of(rate), of(cost));
    Ratio {
        ratio: median(rates.iter().copied()),
        interval: interval(rates),
        cpu_ratio: Some(median(costs.iter().copied())),
        cpu_interval: interval(costs),
    }
}

/// Operations per second in some turns of the same length.
fn rate(turns: &[Sample]) -> f64 {
    turns.iter().map(|turn| turn.rate).sum()
}

/// CPU time per operation in such turns.
fn cost(turns: &[Sample]) -> f64 {
    let busy: f64 = turns.iter().map(|turn| turn.cpu_us * turn.rate).sum();
    busy / rate(turns)
}

/// Where the true median is with 95 % confidence, whatever the distribution: the
/// sign test's interval, from one of the sorted values to its mirror image. `None`
/// of so few values that they cannot say.
fn interval(mut values: Vec<f64>) -> Option<(f64, f64)> {
    values.sort_by(f64::total_cmp);
    // So likely all but `outside` on either side are on one side of the median.
    let n = values.len();
    let mut likely = 0.5_f64.powi(i32::try_from(n).ok()?);
    let mut sum = 2.0 * likely;
    let mut outside = 0;
    while sum <= 0.05 {
        outside += 1;
        #[expect(clippy::cast_precision_loss, reason = "numbers of rounds")]
        let next = (n + 1 - outside) as f64 / outside as f64;
        likely *= next;
        sum += 2.0 * likely;
    }
    let first = outside.checked_sub(1)?;
    Some((values[first], values[n - 1 - first]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(rate: f64, cpu_us: f64) -> Sample {
        Sample {
            rate,
            cpu_us,
            errors: 0,
        }
    }

    /// The ranks in tables of the sign test.
    #[test]
    fn intervals_are_those_of_the_sign_test() {
        let of = |n: i32| interval((1..=n).map(f64::from).collect());
        assert_eq!(of(5), None);
        for (n, low, high) in [(6, 1, 6), (9, 2, 8), (12, 3, 10), (20, 6, 15), (40, 14, 27)] {
            assert_eq!(of(n), Some((low.into(), high.into())), "{n}");
        }
    }

    #[test]
    fn a_drift_is_no_difference() {
        let turns = |first: f64| -> Vec<Sample> {
            // A B B A, ever slower.
            let at = |round: u32, back: f64| {
                let when = f64::from(round) * 4.0 + first + back;
                sample(1000.0 - when, 10.0)
            };
            let rounds = (0..10).map(|round| [at(round, 0.0), at(round, 3.0 - 2.0 * first)]);
            rounds.flatten().collect()
        };
        let ratio = compare(&turns(0.0), &turns(1.0));
        assert!((ratio.ratio - 1.0).abs() < 1e-9, "{ratio:?}");
        assert_eq!(ratio.cpu_ratio, Some(1.0));
    }

    #[test]
    fn sides_take_turns_forth_and_back() {
        let order = std::cell::RefCell::new(String::new());
        let samples = Rounds(100).measure(&["a", "b"], |side, length| {
            if length == TURN {
                *order.borrow_mut() += side;
            }
            Ok(sample(1.0, 1.0))
        });
        assert_eq!(samples.unwrap()[0].len(), 200);
        let order = order.into_inner();
        let rounds = |one| order.as_bytes().chunks(4).filter(|of| *of == one).count();
        let (forth, back) = (rounds(b"abba"), rounds(b"baab"));
        assert_eq!(forth + back, 100);
        assert!((30..70).contains(&forth), "{forth}");
    }
}
