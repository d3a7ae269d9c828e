//! Labels and the selectors that choose by them.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

/// Labels of an object. Strings are shared: a cluster's pods have few different
/// ones, and every node holds the labels of every pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Labels(Box<[(Arc<str>, Arc<str>)]>);

impl Labels {
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        Some(&self.0[at].1)
    }

    /// Sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// The same labels in strings that `pool` has or now gets.
    #[must_use]
    pub fn pooled(&self, pool: &mut StringPool) -> Self {
        let shared = self.0.iter().map(|(k, v)| (pool.get(k), pool.get(v)));
        Self(shared.collect())
    }
}

impl<K: Into<Arc<str>>, V: Into<Arc<str>>> FromIterator<(K, V)> for Labels {
    /// Of two values for one key the last counts.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let map: std::collections::BTreeMap<Arc<str>, Arc<str>> = pairs
            .into_iter()
            .map(|(key, value)| (key.into(), value.into()))
            .collect();
        Self(map.into_iter().collect())
    }
}

/// Strings that many objects have.
#[derive(Clone, Debug, Default)]
pub struct StringPool {
    strings: HashSet<Arc<str>>,
    /// Size at which strings that nobody has any more are thrown out.
    sweep_at: usize,
}

impl StringPool {
    pub fn get(&mut self, text: &Arc<str>) -> Arc<str> {
        if let Some(known) = self.strings.get(text) {
            return Arc::clone(known);
        }
        if self.strings.len() >= self.sweep_at.max(1024) {
            self.strings.retain(|string| Arc::strong_count(string) > 1);
            self.sweep_at = self.strings.len() * 2;
        }
        self.strings.insert(Arc::clone(text));
        Arc::clone(text)
    }
}

/// A `metav1.LabelSelector`: every requirement has to hold, so an empty one
/// selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelSelector {
    /// Sorted, so that equal selectors are equal whatever their order.
    requirements: Vec<Requirement>,
}

/// One condition on one label; `matchLabels` is [`LabelMatch::In`] with one value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    pub key: String,
    pub is: LabelMatch,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LabelMatch {
    /// Has the label, with one of these values.
    In(Vec<String>),
    /// Has not the label, or with another value.
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
}

impl LabelSelector {
    pub fn new(requirements: impl IntoIterator<Item = Requirement>) -> Self {
        let mut requirements: Vec<_> = requirements.into_iter().collect();
        for requirement in &mut requirements {
            if let LabelMatch::In(values) | LabelMatch::NotIn(values) = &mut requirement.is {
                values.sort_unstable();
                values.dedup();
            }
        }
        requirements.sort_unstable();
        requirements.dedup();
        Self { requirements }
    }

    /// The selector of `matchLabels`.
    pub fn labels<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self::new(pairs.into_iter().map(|(key, value)| Requirement {
            key: key.to_owned(),
            is: LabelMatch::In(vec![value.to_owned()]),
        }))
    }

    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|requirement| {
            let value = labels.get(&requirement.key);
            match &requirement.is {
                LabelMatch::In(values) => {
                    value.is_some_and(|value| values.iter().any(|one| one == value))
                }
                LabelMatch::NotIn(values) => {
                    value.is_none_or(|value| values.iter().all(|one| one != value))
                }
                LabelMatch::Exists => value.is_some(),
                LabelMatch::DoesNotExist => value.is_none(),
            }
        })
    }

    /// A label that everything selected has with exactly this value: to find
    /// selectors by it.
    pub fn needs(&self) -> Option<(&str, &str)> {
        self.requirements.iter().find_map(|one| match &one.is {
            LabelMatch::In(values) => match values.as_slice() {
                [value] => Some((one.key.as_str(), value.as_str())),
                _ => None,
            },
            _ => None,
        })
    }

    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }
}

impl fmt::Display for LabelSelector {
    /// As `kubectl --selector` takes it; `everything` if empty.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("everything");
        }
        for (index, Requirement { key, is }) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            match is {
                LabelMatch::In(values) if values.len() == 1 => write!(f, "{key}={}", values[0])?,
                LabelMatch::In(values) => write!(f, "{key} in ({})", values.join(","))?,
                LabelMatch::NotIn(values) => write!(f, "{key} notin ({})", values.join(","))?,
                LabelMatch::Exists => write!(f, "{key}")?,
                LabelMatch::DoesNotExist => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirement(key: &str, is: LabelMatch) -> LabelSelector {
        let key = key.to_owned();
        LabelSelector::new([Requirement { key, is }])
    }

    #[test]
    fn operators() {
        let labels: Labels = [("app", "web"), ("tier", "")].into_iter().collect();
        let values = |v: &[&str]| v.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        for (selector, expect) in [
            (LabelSelector::default(), true),
            (LabelSelector::labels([("app", "web")]), true),
            (LabelSelector::labels([("app", "web"), ("x", "y")]), false),
            (LabelSelector::labels([("tier", "")]), true),
            (LabelSelector::labels([("missing", "")]), false),
            (
                requirement("app", LabelMatch::In(values(&["a", "web"]))),
                true,
            ),
            (requirement("app", LabelMatch::In(values(&["a"]))), false),
            (requirement("x", LabelMatch::In(values(&["a"]))), false),
            (
                requirement("app", LabelMatch::NotIn(values(&["web"]))),
                false,
            ),
            (requirement("app", LabelMatch::NotIn(values(&["a"]))), true),
            (requirement("x", LabelMatch::NotIn(values(&["a"]))), true),
            (requirement("tier", LabelMatch::Exists), true),
            (requirement("x", LabelMatch::Exists), false),
            (requirement("tier", LabelMatch::DoesNotExist), false),
            (requirement("x", LabelMatch::DoesNotExist), true),
        ] {
            assert_eq!(selector.matches(&labels), expect, "{selector}");
        }
    }

    #[test]
    fn equal_whatever_the_order() {
        let selector = |pairs| LabelSelector::labels(pairs);
        let (ab, ba) = ([("a", "1"), ("b", "2")], [("b", "2"), ("a", "1")]);
        assert_eq!(selector(ab), selector(ba));
        assert_eq!(selector(ab).to_string(), "a=1,b=2");
        assert_eq!(selector(ab).needs(), Some(("a", "1")));
    }

    #[test]
    fn a_pool_forgets_what_nobody_has() {
        let mut pool = StringPool::default();
        for number in 0..10_000 {
            pool.get(&number.to_string().into());
        }
        assert!(pool.strings.len() < 4096, "{}", pool.strings.len());
    }
}
