//! Domain names that somebody asks about.

use std::collections::HashSet;

use super::peer::DomainPattern;

/// Some patterns, asked together: one look-up for each label of a name, however
/// many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DomainSet {
    exact: HashSet<String>,
    below: HashSet<String>,
}

impl DomainSet {
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.below.is_empty()
    }

    /// Whether any of them means `name`, as [`DomainPattern::matches`] does.
    pub fn matches(&self, name: &str) -> bool {
        if self.is_empty() {
            return false;
        }
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if self.exact.contains(&name) {
            return true;
        }
        let dots = name.match_indices('.').filter(|(at, _)| *at > 0);
        dots.into_iter()
            .any(|(at, _)| self.below.contains(&name[at + 1..]))
    }

    /// Whether some pattern is in here that is not in `other`.
    pub fn has_more_than(&self, other: &Self) -> bool {
        !self.exact.is_subset(&other.exact) || !self.below.is_subset(&other.below)
    }
}

impl<'a> FromIterator<&'a DomainPattern> for DomainSet {
    fn from_iter<I: IntoIterator<Item = &'a DomainPattern>>(patterns: I) -> Self {
        let mut set = Self::default();
        for pattern in patterns {
            let (name, below) = pattern.parts();
            let names = if below {
                &mut set.below
            } else {
                &mut set.exact
            };
            names.insert(name.to_owned());
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_each_pattern_by_itself() {
        let patterns = ["kubernetes.io", "*.kubernetes.io", "*.a.b", "x.a.b"];
        let names = [
            "kubernetes.io",
            "Kubernetes.IO.",
            "www.kubernetes.io",
            "latest.blog.kubernetes.io",
            "my-kubernetes.io",
            ".kubernetes.io",
            "io",
            "",
            ".",
            "a.b",
            "x.a.b",
            "y.x.a.b",
        ];
        for count in 0..=patterns.len() {
            let some: Vec<DomainPattern> = patterns[..count]
                .iter()
                .map(|pattern| pattern.parse().unwrap())
                .collect();
            let set: DomainSet = some.iter().collect();
            for name in names {
                let expected = some.iter().any(|pattern| pattern.matches(name));
                assert_eq!(set.matches(name), expected, "{name:?} among {some:?}");
            }
        }
    }

    #[test]
    fn more_than_before() {
        let set = |patterns: &[&str]| -> DomainSet {
            let patterns: Vec<DomainPattern> =
                patterns.iter().map(|one| one.parse().unwrap()).collect();
            patterns.iter().collect()
        };
        let both = set(&["a.b", "*.a.b"]);
        assert!(both.has_more_than(&set(&["a.b"])));
        assert!(both.has_more_than(&set(&["*.a.b"])));
        assert!(!set(&["a.b"]).has_more_than(&both));
        assert!(!both.has_more_than(&both));
    }
}
