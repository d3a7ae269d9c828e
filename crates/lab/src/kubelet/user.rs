//! Which user runs a container.

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::container::spec::User;

/// For images that are said to have a user other than root: which one, only the
/// image knew. This is "nobody".
const NOT_ROOT: u32 = 65_534;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("container's runAsUser breaks non-root policy")]
pub(super) struct RootRefused;

/// `None`: the lab's own user, as an image without a user has root.
///
/// # Errors
/// If the container must not run as root but says that it does.
pub(super) fn user(pod: &Pod, container: &Container) -> Result<Option<User>, RootRefused> {
    let own = container.security_context.clone().unwrap_or_default();
    let of_pod = pod
        .spec
        .as_ref()
        .and_then(|s| s.security_context.clone())
        .unwrap_or_default();
    let id = |own: Option<i64>, of_pod: Option<i64>| {
        own.or(of_pod).and_then(|id| u32::try_from(id).ok())
    };
    let not_root = own
        .run_as_non_root
        .or(of_pod.run_as_non_root)
        .unwrap_or(false);
    let uid = match id(own.run_as_user, of_pod.run_as_user) {
        Some(0) if not_root => return Err(RootRefused),
        None if not_root => Some(NOT_ROOT),
        uid => uid,
    };
    let gid = id(own.run_as_group, of_pod.run_as_group);
    let groups: Vec<u32> = of_pod
        .supplemental_groups
        .into_iter()
        .flatten()
        .chain(of_pod.fs_group)
        .filter_map(|gid| u32::try_from(gid).ok())
        .collect();
    let given = uid.is_some() || gid.is_some() || !groups.is_empty();
    Ok(given.then(|| User {
        uid: uid.unwrap_or(0),
        gid: gid.unwrap_or(0),
        groups,
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn who_runs_it() {
        let found = |of_pod: Value, own: Value| {
            let pod = json!({"spec": {"securityContext": of_pod, "containers": []}});
            let container = json!({"name": "c", "securityContext": own});
            user(
                &serde_json::from_value(pod).unwrap(),
                &serde_json::from_value(container).unwrap(),
            )
        };
        let user = |uid, gid, groups: &[u32]| {
            Ok(Some(User {
                uid,
                gid,
                groups: groups.to_vec(),
            }))
        };
        assert_eq!(found(json!({}), json!({})), Ok(None));
        assert_eq!(
            found(
                json!({"runAsUser": 1000, "runAsGroup": 2000, "fsGroup": 3000}),
                json!({})
            ),
            user(1000, 2000, &[3000])
        );
        assert_eq!(
            found(json!({"runAsUser": 1000}), json!({"runAsUser": 7})),
            user(7, 0, &[])
        );
        assert_eq!(
            found(json!({"runAsNonRoot": true}), json!({})),
            user(NOT_ROOT, 0, &[])
        );
        assert_eq!(
            found(json!({"runAsNonRoot": true}), json!({"runAsUser": 0})),
            Err(RootRefused)
        );
    }
}
