//! `ripstop status --verify`: the kernel against the plan, without touching either.
//! Policies' rows may be very many: they are looked at in parts, and changes come
//! between.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ripstop_datapath::{Part, difference};
use serde::{Deserialize, Serialize};

use super::control::Question;
use super::effects::{Effects, lock};
use super::feed::Feed;

/// What differs between kernel and plan.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Verification {
    pub(crate) frontends: usize,
    pub(crate) pods: usize,
    /// Pods, classes and rules of policies.
    pub(crate) policy_rows: usize,
    pub(crate) drift: Vec<String>,
}

/// Questions that are being answered: the first one, as far as it has come.
#[derive(Debug, Default)]
pub(crate) struct Verifying(Vec<(Question, Verification, Part)>);

impl Verifying {
    /// How long until there is something to do.
    pub(crate) fn idle(&self) -> Duration {
        match self.0.is_empty() {
            true => Duration::MAX,
            false => Duration::ZERO,
        }
    }

    pub(crate) fn begin(&mut self, question: Question, feed: &Feed, effects: &Effects) {
        match all_but_policies(feed, effects) {
            Ok(found) => self.0.push((question, found, Part::default())),
            Err(error) => question.answer::<()>(Err(error)),
        }
    }

    /// Parts are of one engine: after a switch the first one comes again.
    pub(crate) fn begin_again(&mut self) {
        for (_, _, part) in &mut self.0 {
            *part = Part::default();
        }
    }

    /// Does one part, and answers after the last.
    pub(crate) fn go_on(&mut self, feed: &Feed, effects: &Effects) {
        let Some((question, mut found, part)) = self.0.pop() else {
            return;
        };
        let policies = &feed.tables().policy;
        found.policy_rows = policies.pods.len() + policies.classes.len() + policies.rules.len();
        let looked = lock(&effects.datapath).verify_part(feed.tables(), part);
        match looked.context("reading the kernel's policies") {
            Ok((drift, next)) => {
                found.drift.extend(drift);
                match next {
                    Some(next) => self.0.push((question, found, next)),
                    None => question.answer(Ok(found)),
                }
            }
            Err(error) => question.answer::<()>(Err(error)),
        }
    }
}

fn all_but_policies(feed: &Feed, effects: &Effects) -> Result<Verification> {
    ensure!(
        feed.is_synced(),
        "not every object has been seen yet: there is no plan to compare with"
    );
    let planned = &feed.tables().frontends;
    // No pod comes or goes between the list and the comparison.
    let datapath = lock(&effects.datapath);
    let found = datapath
        .services()
        .context("reading the kernel's services")?;
    let mut drift = difference(planned, &found);
    let pods = effects.pods.pods();
    for pod in &pods {
        let missing = datapath
            .check_pod(pod)
            .with_context(|| format!("reading what the kernel has of pod {}", pod.pod))?;
        drift.extend(missing.map(|what| format!("pod {}: {what}", pod.pod)));
    }
    Ok(Verification {
        frontends: planned.len(),
        pods: pods.len(),
        policy_rows: 0,
        drift,
    })
}
