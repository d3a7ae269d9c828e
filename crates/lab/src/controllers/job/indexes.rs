//! Indexed Jobs: which of `0..completions` are done, and which lack a pod.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;

use super::Work;
use crate::controllers::object::annotation;
use crate::controllers::pod;

pub(crate) const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// A set of indexes, written as `0-2,5`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Indexes(BTreeSet<i32>);

impl Indexes {
    fn parse(text: &str) -> Self {
        let ranges = text.split(',').filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.parse::<i32>().ok()?..=last.parse::<i32>().ok()?)
        });
        Self(ranges.flatten().collect())
    }

    pub(crate) fn len(&self) -> i32 {
        i32::try_from(self.0.len()).unwrap_or(i32::MAX)
    }
}

impl std::fmt::Display for Indexes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut rest = self.0.iter().copied().peekable();
        let mut separator = "";
        while let Some(first) = rest.next() {
            let mut last = first;
            while let Some(next) = rest.next_if(|next| *next == last + 1) {
                last = next;
            }
            match last - first {
                0 => write!(f, "{separator}{first}")?,
                // Two neighbours are listed, as Kubernetes does.
                1 => write!(f, "{separator}{first},{last}")?,
                _ => write!(f, "{separator}{first}-{last}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

pub(crate) fn of(pod: &Pod) -> Option<i32> {
    annotation(&pod.metadata, INDEX)?.parse().ok()
}

/// Indexes of which a pod has succeeded, now or earlier.
pub(crate) fn completed(work: &Work<'_>) -> Indexes {
    let told = work
        .job
        .status
        .as_ref()
        .and_then(|status| status.completed_indexes.as_deref());
    let mut completed = Indexes::parse(told.unwrap_or_default());
    let completions = work.spec.completions.unwrap_or(0);
    completed
        .0
        .extend(work.in_phase("Succeeded").filter_map(|pod| of(pod)));
    completed.0.retain(|index| *index < completions);
    completed
}

/// Indexes that need a pod, lowest first.
pub(crate) fn missing<'a>(work: &'a Work<'_>) -> impl Iterator<Item = i32> + 'a {
    let wait_for_end = work.spec.pod_replacement_policy.as_deref() == Some("Failed");
    let taken: BTreeSet<i32> = work
        .pods
        .iter()
        .filter(|pod| pod::is_active(pod) || (wait_for_end && !pod::is_terminal(pod)))
        .filter_map(|pod| of(pod))
        .chain(completed(work).0)
        .collect();
    (0..work.spec.completions.unwrap_or(0)).filter(move |index| !taken.contains(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_as_ranges() {
        for (list, text) in [
            (vec![], ""),
            (vec![3], "3"),
            (vec![0, 1], "0,1"),
            (vec![0, 1, 2, 5], "0-2,5"),
            (vec![1, 3, 4, 5, 7, 8], "1,3-5,7,8"),
        ] {
            let indexes = Indexes(list.into_iter().collect());
            assert_eq!(indexes.to_string(), text);
            assert_eq!(Indexes::parse(text), indexes);
        }
    }
}
