//! When results of a probe count. Pure.

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;

/// Consecutive equal results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tally {
    success_threshold: u32,
    failure_threshold: u32,
    last: Option<bool>,
    run: u32,
}

impl Tally {
    pub(super) fn new(probe: &Probe) -> Self {
        let threshold = |given: Option<i32>, default| {
            given
                .and_then(|n| u32::try_from(n).ok())
                .filter(|&n| n > 0)
                .unwrap_or(default)
        };
        Self {
            success_threshold: threshold(probe.success_threshold, 1),
            failure_threshold: threshold(probe.failure_threshold, 3),
            last: None,
            run: 0,
        }
    }

    /// Counts a result; gives it back if there are enough of them in a row.
    pub(super) fn add(&mut self, success: bool) -> Option<bool> {
        self.run = if self.last == Some(success) {
            self.run.saturating_add(1)
        } else {
            1
        };
        self.last = Some(success);
        let threshold = if success {
            self.success_threshold
        } else {
            self.failure_threshold
        };
        (self.run >= threshold).then_some(success)
    }
}

/// The waits between attempts.
///
/// A stand-in serves from the moment its container has started; the probe's
/// initialDelaySeconds is for the start of an image that is not there. So its
/// first attempts come at once and then after 5, 10, 20, ... milliseconds until
/// one succeeds or a period has passed; meanwhile failures do not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    initial_delay: Duration,
    period: Duration,
    /// The next quick wait and how much of the period is left for them.
    quick: Option<(Duration, Duration)>,
}

const FIRST_QUICK_WAIT: Duration = Duration::from_millis(5);

impl Pace {
    pub(super) fn new(probe: &Probe, quick: bool) -> Self {
        let seconds = |given: Option<i32>, default| {
            Duration::from_secs(given.and_then(|n| u64::try_from(n).ok()).unwrap_or(default))
        };
        let period = seconds(probe.period_seconds.filter(|&n| n > 0), 10);
        Self {
            initial_delay: match quick {
                true => Duration::ZERO,
                false => seconds(probe.initial_delay_seconds, 0),
            },
            period,
            quick: quick.then_some((FIRST_QUICK_WAIT, period)),
        }
    }

    pub(super) fn initial_delay(&self) -> Duration {
        self.initial_delay
    }

    /// Whether a failure counts now.
    pub(super) fn counts(&self) -> bool {
        self.quick.is_none()
    }

    /// The wait after an attempt; `decided` if it settled the matter.
    pub(super) fn next(&mut self, decided: bool) -> Duration {
        match self.quick.take() {
            Some((wait, left)) if !decided && wait < left => {
                self.quick = Some((wait * 2, left - wait));
                wait
            }
            Some((_, left)) if !decided => left,
            _ => self.period,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(json: serde_json::Value) -> Probe {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn thresholds() {
        let mut tally = Tally::new(&probe(
            serde_json::json!({"successThreshold": 2, "failureThreshold": 3}),
        ));
        let results = [
            true, true, true, false, false, true, false, false, false, false,
        ];
        let verdicts = results.map(|result| tally.add(result));
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(
            verdicts,
            [None, yes, yes, None, None, None, None, None, no, no]
        );
    }

    #[test]
    fn defaults_are_the_apis() {
        let mut tally = Tally::new(&Probe::default());
        assert_eq!(tally.add(true), Some(true));
        assert_eq!([tally.add(false), tally.add(false)], [None, None]);
        assert_eq!(tally.add(false), Some(false));
    }

    #[test]
    fn paces() {
        let spec = probe(serde_json::json!({"initialDelaySeconds": 7, "periodSeconds": 1}));
        let mut real = Pace::new(&spec, false);
        assert_eq!(real.initial_delay(), Duration::from_secs(7));
        assert!(real.counts());
        assert_eq!(real.next(false), Duration::from_secs(1));

        let mut quick = Pace::new(&spec, true);
        assert_eq!(quick.initial_delay(), Duration::ZERO);
        let mut waits = Vec::new();
        while !quick.counts() {
            waits.push(quick.next(false).as_millis());
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 365]);
        assert_eq!(waits.iter().sum::<u128>(), 1000);
        assert_eq!(quick.next(false), Duration::from_secs(1));

        let mut quick = Pace::new(&spec, true);
        quick.next(false);
        assert_eq!(quick.next(true), Duration::from_secs(1));
        assert!(quick.counts());
    }
}
