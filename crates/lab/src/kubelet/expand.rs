//! `$(VAR)` references in commands, arguments and variables.
//! <https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/>

use std::collections::BTreeMap;

/// Replaces `$(NAME)` by the value of NAME. A name without a value stays as it
/// is, `$$` is a literal `$` (so `$$(NAME)` gives `$(NAME)`), and anything else
/// after `$` means nothing.
pub(super) fn expand(text: &str, vars: &[&BTreeMap<String, String>]) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            expanded.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match vars.iter().find_map(|map| map.get(name)) {
                Some(value) => expanded.push_str(value),
                None => {
                    expanded.push_str("$(");
                    expanded.push_str(name);
                    expanded.push(')');
                }
            }
            rest = tail;
        } else {
            expanded.push('$');
            rest = after;
        }
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cases of Kubernetes' own test (third_party/forked/golang/expansion).
    #[test]
    fn as_kubernetes_expands() {
        let vars = BTreeMap::from(
            [("VAR_A", "A"), ("VAR_B", "B"), ("VAR_EMPTY", "")]
                .map(|(k, v)| (k.to_owned(), v.to_owned())),
        );
        for (text, expected) in [
            ("$(VAR_A)", "A"),
            ("___$(VAR_B)___", "___B___"),
            ("$(VAR_A)_$(VAR_B)", "A_B"),
            ("$$(VAR_B)_$(VAR_A)", "$(VAR_B)_A"),
            ("$$$(VAR_B)", "$B"),
            ("$$$$(VAR_A)", "$$(VAR_A)"),
            ("foo$(VAR_EMPTY)bar", "foobar"),
            ("$(NOPE)", "$(NOPE)"),
            ("$VAR_A", "$VAR_A"),
            ("$(VAR_A", "$(VAR_A"),
            ("foo$", "foo$"),
            ("$", "$"),
            ("$()", "$()"),
            ("\n$(VAR_A)é", "\nAé"),
        ] {
            assert_eq!(expand(text, &[&vars]), expected, "{text:?}");
        }
    }

    #[test]
    fn earlier_maps_win() {
        let map = |value: &str| BTreeMap::from([("A".to_owned(), value.to_owned())]);
        assert_eq!(expand("$(A)", &[&map("1"), &map("2")]), "1");
    }
}
