//! Which pod is which: names, labels, host names.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, PodTemplateSpec, Volume};

use crate::controllers::object::{controller_ref, label};
use crate::controllers::{pod, revisions};

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The number at the end of the pod's name, if the rest is the set's name.
pub(crate) fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let name = pod
        .metadata
        .name
        .as_deref()?
        .strip_prefix(set.metadata.name.as_deref()?)?;
    let digits = name.strip_prefix('-')?;
    let number: i32 = digits.parse().ok()?;
    (number >= 0 && number.to_string() == digits).then_some(number)
}

pub(crate) fn revision(pod: &Pod) -> &str {
    label(&pod.metadata, revisions::HASH).unwrap_or_default()
}

/// The pod of an ordinal, by the template of a revision.
pub(crate) fn new_pod(
    set: &StatefulSet,
    spec: &StatefulSetSpec,
    template: &PodTemplateSpec,
    revision: &str,
    ordinal: i32,
) -> Pod {
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let mut pod = pod::from_template(template, namespace, controller_ref(set));
    let name = format!(
        "{}-{ordinal}",
        set.metadata.name.as_deref().unwrap_or_default()
    );
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME.to_owned(), name.clone());
    labels.insert(POD_INDEX.to_owned(), ordinal.to_string());
    labels.insert(revisions::HASH.to_owned(), revision.to_owned());
    let pod_spec = pod.spec.get_or_insert_default();
    pod_spec.hostname = Some(name.clone());
    pod_spec.subdomain = spec.service_name.clone().filter(|name| !name.is_empty());
    let volumes = pod_spec.volumes.get_or_insert_default();
    for claim in spec.volume_claim_templates.iter().flatten() {
        let volume = Volume {
            name: claim.metadata.name.clone().unwrap_or_default(),
            empty_dir: Some(EmptyDirVolumeSource::default()),
            ..Volume::default()
        };
        volumes.retain(|other| other.name != volume.name);
        volumes.push(volume);
    }
    if volumes.is_empty() {
        pod_spec.volumes = None;
    }
    pod.metadata.generate_name = None;
    pod.metadata.name = Some(name);
    pod
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinals_are_plain_numbers_after_the_sets_name() {
        let set: StatefulSet = serde_saphyr::from_str("{metadata: {name: web}}").unwrap();
        for (name, expected) in [
            ("web-0", Some(0)),
            ("web-12", Some(12)),
            ("web-01", None),
            ("web--1", None),
            ("web-x", None),
            ("website-0", None),
            ("web", None),
        ] {
            let pod: Pod =
                serde_saphyr::from_str(&format!("{{metadata: {{name: {name}}}}}")).unwrap();
            assert_eq!(ordinal(&set, &pod), expected, "{name}");
        }
    }
}
