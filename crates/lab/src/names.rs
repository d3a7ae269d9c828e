//! What a lab, a node and a pod may be called.

use thiserror::Error;

/// A name that would not survive as a namespace, a cgroup or a DNS label.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{what} {name:?} is not a valid name: {why}; use 1 to {MAX_LABEL} of a-z, 0-9 and -, \
     beginning and ending with a letter or digit"
)]
pub struct InvalidName {
    pub what: &'static str,
    pub name: String,
    pub why: &'static str,
}

/// RFC 1035, 2.3.4: octets in a label.
const MAX_LABEL: usize = 63;

/// Checks an RFC 1123 label, as Kubernetes does for names of Services and
/// Namespaces. A lab's name must be one because a dot ends it in the names of
/// its network namespaces.
///
/// # Errors
/// The first rule that `name` breaks. `what` says what the name is for.
pub fn check_label(what: &'static str, name: &str) -> Result<(), InvalidName> {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let why = if name.is_empty() {
        "it is empty"
    } else if name.len() > MAX_LABEL {
        "it is too long"
    } else if name.contains(|c: char| c.is_ascii_uppercase()) {
        "it has upper-case letters"
    } else if !name.chars().all(|c| alphanumeric(c) || c == '-') {
        "it has a character that is none of a-z, 0-9 and -"
    } else if !name.starts_with(alphanumeric) || !name.ends_with(alphanumeric) {
        "it begins or ends with -"
    } else {
        return Ok(());
    };
    Err(InvalidName {
        what,
        name: name.to_owned(),
        why,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        let longest = "a".repeat(63);
        for good in ["a", "0", "default", "a-b", "ci-7", longest.as_str()] {
            assert_eq!(check_label("lab", good), Ok(()), "{good}");
        }
        let too_long = "a".repeat(64);
        for (bad, why) in [
            ("", "it is empty"),
            (too_long.as_str(), "it is too long"),
            ("Default", "it has upper-case letters"),
            ("a.b", "it has a character that is none of a-z, 0-9 and -"),
            ("../x", "it has a character that is none of a-z, 0-9 and -"),
            ("ä", "it has a character that is none of a-z, 0-9 and -"),
            ("-a", "it begins or ends with -"),
            ("a-", "it begins or ends with -"),
        ] {
            assert_eq!(check_label("lab", bad).unwrap_err().why, why, "{bad}");
        }
    }
}
