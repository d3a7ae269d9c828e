//! The pods of a Job.

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use k8s_openapi::jiff::Timestamp;

use super::indexes::INDEX;
use crate::controllers::object::controller_ref;
use crate::controllers::pod;

/// A pod of the template, of one index if the Job is indexed.
pub(crate) fn new(job: &Job, spec: &JobSpec, index: Option<i32>) -> Pod {
    let namespace = job.metadata.namespace.as_deref().unwrap_or_default();
    let name = job.metadata.name.clone().unwrap_or_default();
    let uid = job.metadata.uid.clone().unwrap_or_default();
    let mut pod = pod::from_template(&spec.template, namespace, controller_ref(job));
    let labels = pod.metadata.labels.get_or_insert_default();
    // A Job whose selector is written by hand keeps its labels to itself.
    if spec.manual_selector != Some(true) {
        for (key, value) in [
            ("batch.kubernetes.io/controller-uid", &uid),
            ("controller-uid", &uid),
            ("batch.kubernetes.io/job-name", &name),
            ("job-name", &name),
        ] {
            labels.insert(key.to_owned(), value.clone());
        }
    }
    if let Some(index) = index {
        labels.insert(INDEX.to_owned(), index.to_string());
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(INDEX.to_owned(), index.to_string());
        pod.metadata.generate_name = Some(format!("{name}-{index}-"));
        let pod_spec = pod.spec.get_or_insert_default();
        pod_spec
            .hostname
            .get_or_insert_with(|| format!("{name}-{index}"));
        let containers = pod_spec
            .init_containers
            .iter_mut()
            .flatten()
            .chain(&mut pod_spec.containers);
        for container in containers {
            let env = container.env.get_or_insert_default();
            if !env.iter().any(|one| one.name == "JOB_COMPLETION_INDEX") {
                env.push(index_variable());
            }
        }
    }
    pod
}

fn index_variable() -> EnvVar {
    let field = ObjectFieldSelector {
        field_path: format!("metadata.annotations['{INDEX}']"),
        ..ObjectFieldSelector::default()
    };
    EnvVar {
        name: "JOB_COMPLETION_INDEX".to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(field),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

/// When the last container of the pod ended, as well as that is known.
pub(crate) fn finished(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let ends = status
        .container_statuses
        .iter()
        .flatten()
        .filter_map(|container| {
            Some(
                container
                    .state
                    .as_ref()?
                    .terminated
                    .as_ref()?
                    .finished_at
                    .as_ref()?
                    .0,
            )
        });
    let ready = pod::condition(pod, "Ready").and_then(|ready| ready.last_transition_time.as_ref());
    ends.max()
        .or(ready.map(|time| time.0))
        .or_else(|| pod::created(&pod.metadata))
}
