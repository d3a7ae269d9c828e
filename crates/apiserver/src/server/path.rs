//! What a request's path names.

/// A resource path, taken apart. Nothing is known to exist yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Target {
    /// Empty for the core group.
    pub(super) group: String,
    pub(super) version: String,
    pub(super) namespace: Option<String>,
    pub(super) plural: String,
    pub(super) name: Option<String>,
    pub(super) subresource: Option<String>,
}

/// Everything that is served below `/api` and `/apis`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/<group>`
    Group(String),
    /// `/api/v1`, `/apis/<group>/<version>`
    Version {
        group: String,
        version: String,
    },
    Resource(Target),
    Other,
}

impl Path {
    pub(super) fn parse(path: &str) -> Self {
        let parts: Vec<String> = path
            .split('/')
            .filter(|part| !part.is_empty())
            .map(decode)
            .collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match parts.as_slice() {
            ["api"] => Self::CoreVersions,
            ["apis"] => Self::Groups,
            ["apis", group] => Self::Group((*group).to_owned()),
            ["api", version] => version_of("", version),
            ["apis", group, version] => version_of(group, version),
            ["api", version, rest @ ..] => target("", version, rest),
            ["apis", group, version, rest @ ..] => target(group, version, rest),
            _ => Self::Other,
        }
    }
}

fn version_of(group: &str, version: &str) -> Path {
    Path::Version {
        group: group.to_owned(),
        version: version.to_owned(),
    }
}

fn target(group: &str, version: &str, rest: &[&str]) -> Path {
    // `namespaces/<name>` and its subresources are about the Namespace itself.
    let (namespace, rest) = match rest {
        ["namespaces", _, "status" | "finalize"] => (None, rest),
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
        _ => (None, rest),
    };
    let (plural, name, subresource) = match rest {
        [plural] => (*plural, None, None),
        [plural, name] => (*plural, Some(*name), None),
        [plural, name, subresource] => (*plural, Some(*name), Some(*subresource)),
        _ => return Path::Other,
    };
    Path::Resource(Target {
        group: group.to_owned(),
        version: version.to_owned(),
        namespace: namespace.map(str::to_owned),
        plural: plural.to_owned(),
        name: name.map(str::to_owned),
        subresource: subresource.map(str::to_owned),
    })
}

/// Undoes percent encoding; what is not valid stays as it is.
fn decode(part: &str) -> String {
    let bytes = part.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let hex = (bytes[index] == b'%')
            .then(|| part.get(index + 1..index + 3))
            .flatten();
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                index += 3;
            }
            None => {
                decoded.push(bytes[index]);
                index += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(
        path: &str,
    ) -> (
        String,
        Option<String>,
        String,
        Option<String>,
        Option<String>,
    ) {
        match Path::parse(path) {
            Path::Resource(it) => (
                format!("{}/{}", it.group, it.version),
                it.namespace,
                it.plural,
                it.name,
                it.subresource,
            ),
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn paths_of_resources() {
        let some = |text: &str| Some(text.to_owned());
        let cases = [
            ("/api/v1/pods", ("/v1", None, "pods", None, None)),
            (
                "/api/v1/namespaces",
                ("/v1", None, "namespaces", None, None),
            ),
            (
                "/api/v1/namespaces/a",
                ("/v1", None, "namespaces", some("a"), None),
            ),
            (
                "/api/v1/namespaces/a/status",
                ("/v1", None, "namespaces", some("a"), some("status")),
            ),
            (
                "/api/v1/namespaces/a/pods",
                ("/v1", some("a"), "pods", None, None),
            ),
            (
                "/api/v1/namespaces/a/pods/b/log",
                ("/v1", some("a"), "pods", some("b"), some("log")),
            ),
            (
                "/apis/apps/v1/namespaces/a/deployments/d%2Ex",
                ("apps/v1", some("a"), "deployments", some("d.x"), None),
            ),
            (
                "/apis/x.io/v1beta1/things/t",
                ("x.io/v1beta1", None, "things", some("t"), None),
            ),
        ];
        for (path, (version, namespace, plural, name, subresource)) in cases {
            let expected = (
                version.to_owned(),
                namespace,
                plural.to_owned(),
                name,
                subresource,
            );
            assert_eq!(resource(path), expected, "{path}");
        }
        assert_eq!(Path::parse("/api/"), Path::CoreVersions);
        assert_eq!(Path::parse("/apis/apps"), Path::Group("apps".to_owned()));
        assert_eq!(Path::parse("/nonsense"), Path::Other);
        assert_eq!(Path::parse("/api/v1/namespaces/a/pods/b/c/d"), Path::Other);
        assert_eq!(decode("100%"), "100%");
    }
}
