//! Short names for pod templates.

use k8s_openapi::api::core::v1::PodTemplateSpec;

/// Letters and digits that form no words and are not mistaken for each other;
/// Kubernetes' own choice (`k8s.io/apimachinery/pkg/util/rand`).
const SAFE: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// The value of `pod-template-hash` and `controller-revision-hash`. The same
/// template gives the same hash; `collisions` is counted up when a name is
/// already taken by something else.
///
/// Kubernetes hashes its own in-memory form, so the letters differ from a real
/// cluster's; nothing may depend on them.
pub(crate) fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let text = serde_json::to_vec(template).expect("a pod template is representable as JSON");
    let mut hash = fnv32a(0x811c_9dc5, &text);
    if let Some(collisions) = collisions {
        hash = fnv32a(hash, &collisions.to_le_bytes());
    }
    safe_encode(&hash.to_string())
}

fn fnv32a(seed: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(seed, |hash, &byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

fn safe_encode(digits: &str) -> String {
    digits
        .bytes()
        .map(|digit| char::from(SAFE[usize::from(digit) % SAFE.len()]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnv_has_its_published_values() {
        assert_eq!(fnv32a(0x811c_9dc5, b""), 0x811c_9dc5);
        assert_eq!(fnv32a(0x811c_9dc5, b"a"), 0xe40c_292c);
        assert_eq!(fnv32a(0x811c_9dc5, b"foobar"), 0xbf9c_f968);
    }

    #[test]
    fn a_collision_changes_the_name() {
        let template = PodTemplateSpec::default();
        assert_eq!(
            template_hash(&template, None),
            template_hash(&template, None)
        );
        assert_ne!(
            template_hash(&template, None),
            template_hash(&template, Some(1))
        );
    }
}
