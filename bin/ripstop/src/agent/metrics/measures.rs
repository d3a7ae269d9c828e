//! What the main thread measures of itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

/// Upper ends of buckets, seconds. From what one service takes to what the
/// scalability SLI of Kubernetes still tells apart.
pub(crate) const ENDS: [f64; 16] = [
    0.000_1, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0,
    60.0,
];

#[derive(Debug, Default)]
pub(crate) struct Durations {
    /// The last is for what is longer than all ends.
    buckets: [AtomicU64; ENDS.len() + 1],
    micros: AtomicU64,
}

impl Durations {
    pub(crate) fn add(&self, took: Duration) {
        let bucket = ENDS.iter().position(|end| took.as_secs_f64() <= *end);
        let bucket = &self.buckets[bucket.unwrap_or(ENDS.len())];
        bucket.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    pub(super) fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let counts = self.buckets.iter().map(|b| b.load(Ordering::Relaxed));
        ENDS.into_iter().zip(counts)
    }

    pub(super) fn beyond(&self) -> u64 {
        self.buckets[ENDS.len()].load(Ordering::Relaxed)
    }

    pub(super) fn sum(&self) -> f64 {
        self.micros.load(Ordering::Relaxed) as f64 / 1e6
    }
}

#[derive(Debug, Default)]
pub(crate) struct Measures {
    /// A change written to the kernel.
    pub(crate) syncs: Durations,
    /// From a change of endpoints to its being in the kernel.
    pub(crate) programming: Durations,
}

impl Measures {
    /// Changes that happened at these times are in the kernel now.
    pub(crate) fn programmed(&self, changed: &[Timestamp]) {
        let now = Timestamp::now();
        for changed in changed {
            // A clock that is ahead of ours has measured nothing.
            if let Ok(took) = Duration::try_from(now.duration_since(*changed)) {
                self.programming.add(took);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_in_one_bucket() {
        let durations = Durations::default();
        for micros in [1, 100, 101, 1_000_000, 61_000_000] {
            durations.add(Duration::from_micros(micros));
        }
        let counts: Vec<u64> = durations.buckets().map(|(_, count)| count).collect();
        assert_eq!(counts[..2], [2, 1]);
        assert_eq!(counts[11], 1);
        assert_eq!(counts.iter().sum::<u64>(), 4);
        assert_eq!(durations.beyond(), 1);
        assert!((durations.sum() - 62.000_202).abs() < 1e-9);
    }

    #[test]
    fn what_has_not_happened_yet_is_not_measured() {
        let measures = Measures::default();
        let now = Timestamp::now();
        let later = now + Duration::from_secs(3600);
        measures.programmed(&[now - Duration::from_secs(3), later]);
        assert_eq!(
            measures.programming.buckets().map(|(_, n)| n).sum::<u64>(),
            1
        );
        assert!(measures.programming.sum() >= 3.0);
    }
}
