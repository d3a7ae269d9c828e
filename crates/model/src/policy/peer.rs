//! Who is at the other end, and at which ports.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnet::IpNet;

use crate::{LabelSelector, Protocol};

/// A rule's conditions, of either kind of policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// `None`: everybody. An empty list is nobody: what is left of a list
    /// whose entries made no sense.
    pub peers: Option<Vec<Peer>>,
    /// `None`: every port of every protocol. An empty list is none.
    pub ports: Option<Vec<PortMatch>>,
}

/// One kind of other end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    Pods {
        namespaces: NamespaceScope,
        pods: LabelSelector,
    },
    /// Every address of `cidr` that is in none of `except`.
    Block { cidr: IpNet, except: Vec<IpNet> },
    /// The addresses of these nodes.
    Nodes(LabelSelector),
    /// The addresses that these names have been resolved to.
    Domain(DomainPattern),
}

/// The namespaces of a peer's pods.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamespaceScope {
    /// The policy's own.
    Own,
    Selected(LabelSelector),
}

/// Ports of one entry of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortMatch {
    pub protocol: PortsOf,
    pub ports: PortSet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortsOf {
    Protocol(Protocol),
    /// Whatever protocol the named port has.
    Any,
}

impl PortsOf {
    pub fn includes(self, protocol: Protocol) -> bool {
        match self {
            Self::Protocol(one) => one == protocol,
            Self::Any => true,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PortSet {
    Range(RangeInclusive<u16>),
    /// A container port of the destination pod.
    Named(String),
}

impl PortSet {
    pub const ALL: Self = Self::Range(0..=u16::MAX);
}

impl PartialOrd for PortSet {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PortSet {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |set: &Self| match set {
            Self::Range(range) => (0, *range.start(), *range.end(), String::new()),
            Self::Named(name) => (1, 0, 0, name.clone()),
        };
        key(self).cmp(&key(other))
    }
}

impl fmt::Display for PortMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.ports {
            PortSet::Range(range) if *range == (0..=u16::MAX) => f.write_str("*")?,
            PortSet::Range(range) if range.start() == range.end() => {
                write!(f, "{}", range.start())?
            }
            PortSet::Range(range) => write!(f, "{}-{}", range.start(), range.end())?,
            PortSet::Named(name) => f.write_str(name)?,
        }
        match self.protocol {
            PortsOf::Protocol(protocol) => write!(f, "/{protocol}"),
            PortsOf::Any => Ok(()),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pods { namespaces, pods } => match namespaces {
                NamespaceScope::Own => write!(f, "pods {pods}"),
                NamespaceScope::Selected(one) => write!(f, "pods {pods} in namespaces {one}"),
            },
            Self::Block { cidr, except } => {
                write!(f, "{cidr}")?;
                for (index, one) in except.iter().enumerate() {
                    write!(f, "{}{one}", if index == 0 { " except " } else { ", " })?;
                }
                Ok(())
            }
            Self::Nodes(nodes) => write!(f, "nodes {nodes}"),
            Self::Domain(pattern) => write!(f, "{pattern}"),
        }
    }
}

/// A domain name, or with a leading `*.` all names below one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainPattern {
    /// Lower case, without a dot at the end.
    name: String,
    below: bool,
}

impl DomainPattern {
    /// The name, and whether those below it are meant.
    pub(super) fn parts(&self) -> (&str, bool) {
        (&self.name, self.below)
    }

    /// Whether `name` (any case, a dot at the end or not) is meant.
    pub fn matches(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name);
        if !self.below {
            return name.eq_ignore_ascii_case(&self.name);
        }
        // Not zero labels: `*.a.b` is not `a.b`.
        let Some(at) = name.len().checked_sub(self.name.len() + 1) else {
            return false;
        };
        at > 0
            && name.is_char_boundary(at)
            && name[at..].starts_with('.')
            && name[at + 1..].eq_ignore_ascii_case(&self.name)
    }
}

impl FromStr for DomainPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, below) = match text.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        let is_label = |label: &str| {
            let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
            let bytes = label.as_bytes();
            edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|b| inner(*b))
        };
        if name.split('.').count() < 2 || !name.split('.').all(is_label) {
            return Err(format!(
                "{text:?} is no domain name (like kubernetes.io or *.kubernetes.io)"
            ));
        }
        Ok(Self {
            name: name.to_ascii_lowercase(),
            below,
        })
    }
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.below { "*." } else { "" }, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::DomainPattern;

    /// The examples of the API's documentation.
    #[test]
    fn domain_names() {
        for (pattern, name, expect) in [
            ("kubernetes.io", "kubernetes.io", true),
            ("kubernetes.io", "Kubernetes.IO.", true),
            ("kubernetes.io", "www.kubernetes.io", false),
            ("kubernetes.io", "my-kubernetes.io", false),
            ("kubernetes.io", "wikipedia.org", false),
            ("blog.kubernetes.io", "www.kubernetes.io", false),
            ("*.kubernetes.io", "www.kubernetes.io", true),
            ("*.kubernetes.io.", "latest.blog.kubernetes.io", true),
            ("*.kubernetes.io", "kubernetes.io", false),
            ("*.kubernetes.io", ".kubernetes.io", false),
            ("*.kubernetes.io", "my-kubernetes.io", false),
        ] {
            let parsed: DomainPattern = pattern.parse().unwrap();
            assert_eq!(parsed.matches(name), expect, "{pattern} {name}");
        }
        for wrong in ["", "io", "*", "*.io", "a..b", "-a.b", "a.*.b", "a.b "] {
            assert!(wrong.parse::<DomainPattern>().is_err(), "{wrong}");
        }
    }
}
