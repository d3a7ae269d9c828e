//! Names in wire form.

use std::fmt;

/// Longest name with its length bytes (RFC 1035, 2.3.4).
pub(crate) const NAME_MAX: usize = 255;
pub(crate) const LABEL_MAX: usize = 63;
/// A name of 255 bytes has at most 127 labels.
const LABELS_MAX: usize = 127;

/// A text that is no domain name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no domain name: {problem}")]
pub struct NameError {
    text: String,
    problem: &'static str,
}

/// A name in lower case: length bytes, labels, a final zero. Kept in place, so
/// that nothing is allocated for a question.
#[derive(Clone)]
pub struct Name {
    bytes: [u8; NAME_MAX],
    length: u8,
    /// Where each label begins.
    starts: [u8; LABELS_MAX],
    labels: u8,
}

impl Name {
    /// The root.
    pub fn root() -> Self {
        Self {
            bytes: [0; NAME_MAX],
            length: 1,
            starts: [0; LABELS_MAX],
            labels: 0,
        }
    }

    /// Reads a name without compression from the start of `wire`. `None` if it
    /// is cut short or longer than names can be.
    pub(crate) fn read(wire: &[u8]) -> Option<Self> {
        let mut name = Self::root();
        let mut at = 0;
        loop {
            let length = usize::from(*wire.get(at)?);
            if length == 0 {
                name.length = (at + 1) as u8;
                return Some(name);
            }
            let label = wire.get(at + 1..at + 1 + length)?;
            // One byte is left for the root.
            if length > LABEL_MAX || at + 1 + length >= NAME_MAX {
                return None;
            }
            name.bytes[at] = length as u8;
            let copy = &mut name.bytes[at + 1..at + 1 + length];
            copy.copy_from_slice(label);
            copy.make_ascii_lowercase();
            name.starts[usize::from(name.labels)] = at as u8;
            name.labels += 1;
            at += 1 + length;
        }
    }

    /// # Errors
    /// If a label is empty or too long, or the whole is.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let error = |problem| NameError {
            text: text.to_owned(),
            problem,
        };
        let trimmed = text.strip_suffix('.').unwrap_or(text);
        let mut wire = Vec::with_capacity(NAME_MAX);
        for label in trimmed.split('.').filter(|_| !trimmed.is_empty()) {
            if label.is_empty() || label.len() > LABEL_MAX {
                return Err(error("a label must have 1 to 63 bytes"));
            }
            wire.push(label.len() as u8);
            wire.extend_from_slice(label.as_bytes());
        }
        wire.push(0);
        Self::read(&wire).ok_or_else(|| error("longer than 255 bytes"))
    }

    /// `first` followed by `second`. `None` if that is too long.
    pub(crate) fn join(first: &[u8], second: &[u8]) -> Option<Self> {
        let mut wire = [0; NAME_MAX];
        let whole = wire.get_mut(..first.len() + second.len())?;
        whole[..first.len()].copy_from_slice(first);
        whole[first.len()..].copy_from_slice(second);
        Self::read(whole)
    }

    pub(crate) fn wire(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// Number of labels, without the root.
    pub(crate) fn count(&self) -> usize {
        usize::from(self.labels)
    }

    /// Where label `index` begins, from the left; the root's place for the one
    /// after the last.
    pub(crate) fn start(&self, index: usize) -> usize {
        match index < self.count() {
            true => usize::from(self.starts[index]),
            false => usize::from(self.length) - 1,
        }
    }

    /// Label `index` from the left, without its length.
    pub(crate) fn label(&self, index: usize) -> &[u8] {
        &self.bytes[self.start(index) + 1..self.start(index + 1)]
    }

    /// Labels `from` to `to`, with their lengths.
    pub(crate) fn span(&self, from: usize, to: usize) -> &[u8] {
        &self.bytes[self.start(from)..self.start(to)]
    }

    /// How many labels this name has before those of `suffix`. `None` if it does
    /// not end with them.
    pub(crate) fn below(&self, suffix: &Name) -> Option<usize> {
        let labels = self.count().checked_sub(suffix.count())?;
        (self.wire().get(self.start(labels)..)? == suffix.wire()).then_some(labels)
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.wire() == other.wire()
    }
}

impl Eq for Name {}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Name {
    /// With the final dot; bytes that are no plain characters as `\123`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.labels == 0 {
            return f.write_str(".");
        }
        (0..self.count()).try_for_each(|index| {
            show(f, self.label(index))?;
            f.write_str(".")
        })
    }
}

/// A label as master files have it (RFC 1035, 5.1).
pub(crate) fn show(f: &mut impl fmt::Write, label: &[u8]) -> fmt::Result {
    label.iter().try_for_each(|byte| match byte {
        b'.' | b'\\' => write!(f, "\\{}", char::from(*byte)),
        0x21..=0x7e => f.write_char(char::from(*byte)),
        _ => write!(f, "\\{byte:03}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_wire() {
        let name = Name::parse("Web.shop.svc.Cluster.local").unwrap();
        assert_eq!(name.to_string(), "web.shop.svc.cluster.local.");
        assert_eq!((name.count(), name.label(1)), (5, &b"shop"[..]));
        assert_eq!(name.span(0, 2), b"\x03web\x04shop");
        assert_eq!(name.span(4, 5), b"\x05local");
        let domain = Name::parse("cluster.local.").unwrap();
        assert_eq!(name.below(&domain), Some(3));
        assert_eq!(domain.below(&domain), Some(0));
        assert_eq!(domain.below(&name), None);
        let other = Name::parse("xcluster.local").unwrap();
        assert_eq!(other.below(&domain), None);
        assert_eq!(Name::parse(".").unwrap(), Name::root());
        assert_eq!(
            Name::join(name.span(0, 1), domain.wire())
                .unwrap()
                .to_string(),
            "web.cluster.local."
        );
        assert_eq!(Name::read(b"\x03a.b\x00").unwrap().to_string(), "a\\.b.");
    }

    #[test]
    fn what_is_no_name() {
        for text in ["a..b", ".a", &"x".repeat(64), &["abc"; 64].join(".")] {
            assert!(Name::parse(text).is_err(), "{text}");
        }
        // 255 bytes are allowed.
        assert!(Name::parse(&["abc"; 63].join(".")).is_ok());
        for wire in [&b""[..], b"\x01", b"\x01a", b"\xc0\x0c", b"\x40a"] {
            assert!(Name::read(wire).is_none(), "{wire:?}");
        }
    }
}
