//! Syntax of names, labels, ports and their like, with the API's messages.
//!
//! Each function returns what is wrong with the value; nothing when it is right.

/// `must be no more than N characters`.
pub(crate) fn max_length(limit: usize) -> String {
    format!("must be no more than {limit} characters")
}

fn pattern(message: &str, regex: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples.iter().map(|e| format!("'{e}', ")).collect();
    format!(
        "{message} (e.g. {}regex used for validation is '{regex}')",
        examples.join(" or ")
    )
}

/// The rule that an object's name follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameRule {
    /// RFC 1123 label, at most 63 characters.
    Label,
    /// RFC 1123 subdomain, at most 253 characters.
    Subdomain,
}

impl NameRule {
    /// `prefix`: the value is a `generateName`; characters will follow it.
    pub(crate) fn check(self, value: &str, prefix: bool) -> Vec<String> {
        let masked;
        let value = match value.strip_suffix('-') {
            Some(stem) if prefix && value.len() > 1 => {
                masked = format!("{stem}a");
                &masked
            }
            _ => value,
        };
        match self {
            Self::Label => dns_label(value),
            Self::Subdomain => dns_subdomain(value),
        }
    }
}

const LABEL_REGEX: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN_REGEX: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";

fn lower(c: u8) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

/// Non-empty, of the given characters, with stricter ends.
fn shape(value: &str, end: fn(u8) -> bool, middle: fn(u8) -> bool) -> bool {
    match value.as_bytes() {
        [] => false,
        [only] => end(*only),
        [first, rest @ .., last] => end(*first) && end(*last) && rest.iter().all(|c| middle(*c)),
    }
}

fn is_label(value: &str) -> bool {
    shape(value, lower, |c| lower(c) || c == b'-')
}

fn is_subdomain(value: &str) -> bool {
    value.split('.').all(is_label)
}

/// RFC 1123 label.
pub(crate) fn dns_label(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > 63 {
        wrong.push(max_length(63));
    }
    if !is_label(value) {
        wrong.push(if is_subdomain(value) {
            "must not contain dots".to_owned()
        } else {
            pattern(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
                LABEL_REGEX,
                &["my-name", "123-abc"],
            )
        });
    }
    wrong
}

/// RFC 1123 subdomain.
pub(crate) fn dns_subdomain(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > 253 {
        wrong.push(max_length(253));
    }
    if !is_subdomain(value) {
        wrong.push(pattern(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
            SUBDOMAIN_REGEX,
            &["example.com"],
        ));
    }
    wrong
}

/// `*.` and an RFC 1123 subdomain.
pub(crate) fn wildcard_subdomain(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > 253 {
        wrong.push(max_length(253));
    }
    if !value.strip_prefix("*.").is_some_and(is_subdomain) {
        wrong.push(pattern(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            &format!("\\*\\.{SUBDOMAIN_REGEX}"),
            &["*.example.com"],
        ));
    }
    wrong
}

/// RFC 1035 label.
pub(crate) fn dns_1035_label(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > 63 {
        wrong.push(max_length(63));
    }
    if !(is_label(value) && value.starts_with(|c: char| c.is_ascii_lowercase())) {
        wrong.push(pattern(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    wrong
}

const KEY_REGEX: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

fn is_label_text(value: &str) -> bool {
    shape(
        value,
        |c| c.is_ascii_alphanumeric(),
        |c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'),
    )
}

/// Key of a label or annotation, name of a finalizer: `[prefix/]name`.
pub(crate) fn label_key(value: &str) -> Vec<String> {
    const SHAPE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
    const EXAMPLES: &[&str] = &["MyName", "my.name", "123-abc"];
    let mut wrong = Vec::new();
    let parts: Vec<&str> = value.split('/').collect();
    let name = match parts[..] {
        [name] => name,
        ["", name] => {
            wrong.push("prefix part must be non-empty".to_owned());
            name
        }
        [prefix, name] => {
            let messages = dns_subdomain(prefix);
            wrong.extend(messages.into_iter().map(|m| format!("prefix part {m}")));
            name
        }
        _ => {
            let message = pattern(SHAPE, KEY_REGEX, EXAMPLES);
            return vec![format!(
                "a valid label key {message} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        wrong.push(format!("name part {}", max_length(63)));
    }
    if !is_label_text(name) {
        wrong.push(format!("name part {}", pattern(SHAPE, KEY_REGEX, EXAMPLES)));
    }
    wrong
}

/// Value of a label.
pub(crate) fn label_value(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > 63 {
        wrong.push(max_length(63));
    }
    if !value.is_empty() && !is_label_text(value) {
        wrong.push(pattern(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            &format!("({KEY_REGEX})?"),
            &["MyValue", "my_value", "12345"],
        ));
    }
    wrong
}

/// Name of a container's port (an IANA service name).
pub(crate) fn port_name(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > 15 {
        wrong.push(max_length(15));
    }
    if value.is_empty() || !value.bytes().all(|c| lower(c) || c == b'-') {
        wrong.push(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    }
    if !value.bytes().any(|c| c.is_ascii_lowercase()) {
        wrong.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        wrong.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        wrong.push("must not begin or end with a hyphen".to_owned());
    }
    wrong
}

/// Name of an environment variable.
pub(crate) fn env_name(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.is_empty() {
        wrong.push("environment variable name must be non-empty".to_owned());
    }
    if !value
        .bytes()
        .all(|c| (b' '..=b'~').contains(&c) && c != b'=')
    {
        wrong.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        );
    }
    wrong
}

/// Key of a ConfigMap or Secret.
pub(crate) fn config_key(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > 253 {
        wrong.push(max_length(253));
    }
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    if value.is_empty() || !value.bytes().all(allowed) {
        wrong.push(pattern(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match value {
        "." => wrong.push("must not be '.'".to_owned()),
        ".." => wrong.push("must not be '..'".to_owned()),
        _ if value.starts_with("..") => wrong.push("must not start with '..'".to_owned()),
        _ => {}
    }
    wrong
}

/// Name of an HTTP header.
pub(crate) fn http_header_name(value: &str) -> Vec<String> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || c == b'-';
    if !value.is_empty() && value.bytes().all(allowed) {
        return Vec::new();
    }
    vec![pattern(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

/// `10%`.
pub(crate) fn percent(value: &str) -> Vec<String> {
    let digits = value.strip_suffix('%').unwrap_or_default();
    if !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit()) {
        return Vec::new();
    }
    vec![pattern(
        "a valid percent string must be a numeric string followed by an ending '%'",
        "[0-9]+%",
        &["1%", "93%"],
    )]
}

/// A number between two others.
pub(crate) fn in_range(value: i64, low: i64, high: i64) -> Vec<String> {
    if (low..=high).contains(&value) {
        return Vec::new();
    }
    vec![format!("must be between {low} and {high}, inclusive")]
}

/// Number of a port: 1 to 65535.
pub(crate) fn port_number(value: i64) -> Vec<String> {
    in_range(value, 1, 65535)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Check = fn(&str) -> Vec<String>;

    #[test]
    fn right_values() {
        let table: &[(Check, &[&str])] = &[
            (dns_label, &["a", "0", "a-b", "0a-0"]),
            (dns_subdomain, &["a", "a.b", "node-1.example.com"]),
            (dns_1035_label, &["a", "a-1"]),
            (wildcard_subdomain, &["*.a", "*.example.com"]),
            (
                label_key,
                &["app", "a.b/C_d-e.f", "kubernetes.io/metadata.name"],
            ),
            (label_value, &["", "a", "A_b.c-9"]),
            (port_name, &["http", "h2c", "8080-tcp"]),
            (env_name, &["A", "a.b-c", "1x", "with space"]),
            (config_key, &["a", ".hidden", "A_b-c.json"]),
            (http_header_name, &["X-A", "a"]),
            (percent, &["0%", "100%"]),
        ];
        for (check, values) in table {
            for value in *values {
                assert_eq!(check(value), Vec::<String>::new(), "{value:?}");
            }
        }
    }

    #[test]
    fn wrong_values() {
        let long = "a".repeat(64);
        let table: &[(Check, &[&str])] = &[
            (dns_label, &["", "-a", "a-", "A", "a.b", "a_b", "é", &long]),
            (dns_subdomain, &["", ".", "a..b", "a.", "-a.b", "A"]),
            (dns_1035_label, &["", "0a", "a.b", &long]),
            (wildcard_subdomain, &["*", "*.", "a.*", "a.b"]),
            (label_key, &["", "/a", "a/", "a/b/c", "A/b", "-a", &long]),
            (label_value, &["-a", "a-", "a b", &long]),
            (
                port_name,
                &["", "80", "a--b", "-a", "HTTP", "sixteen-letters-"],
            ),
            (env_name, &["", "a=b", "é", "a\tb"]),
            (config_key, &["", ".", "..", "..a", "a/b"]),
            (http_header_name, &["", "a b", "a_b"]),
            (percent, &["", "%", "1", "-1%"]),
        ];
        for (check, values) in table {
            for value in *values {
                assert_ne!(check(value), Vec::<String>::new(), "{value:?}");
            }
        }
    }

    #[test]
    fn a_prefix_may_end_in_a_hyphen() {
        assert!(NameRule::Label.check("web-", true).is_empty());
        assert!(!NameRule::Label.check("web-", false).is_empty());
        assert!(!NameRule::Label.check("-", true).is_empty());
    }

    #[test]
    fn message_has_the_wording_of_the_api() {
        assert_eq!(
            dns_label("A")[0],
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
        );
    }
}
