//! A pod's status to the API, and its removal.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::status::pod_status;
use super::task::PodTask;
use crate::clock;

/// Writes the pod's status if it differs from what the API has.
pub(super) fn publish(task: &PodTask) {
    let now = Time(clock::second());
    let status = pod_status(&task.pod, &task.state, &task.node.spec.addresses, &now);
    settle(task, &status);
    if task.state.gone || task.pod.status.as_ref() == Some(&status) {
        return;
    }
    let (namespace, name) = (
        task.pod.metadata.namespace.as_deref(),
        task.pod.metadata.name.as_deref(),
    );
    let written =
        task.node
            .context
            .client
            .modify_status::<Pod>(namespace, name.unwrap_or_default(), |pod| {
                // Another pod may have the name by now.
                if pod.metadata.uid.as_ref() == Some(&task.uid) {
                    // With what others have put there meanwhile.
                    let addresses = &task.node.spec.addresses;
                    pod.status = Some(pod_status(pod, &task.state, addresses, &now));
                }
            });
    if let Err(error) = written {
        tracing::debug!(pod = name, %error, "status not written");
    }
}

/// Tells the batch when this pod is no longer a reason to wait.
fn settle(task: &PodTask, status: &k8s_openapi::api::core::v1::PodStatus) {
    let conditions = status.conditions.iter().flatten();
    let ready = conditions
        .into_iter()
        .any(|c| c.type_ == "Ready" && c.status == "True");
    let over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if ready || over {
        task.node.context.batch.settled(&task.uid);
    }
}

/// Lets the API remove the pod, and removes its files.
pub(super) fn finish(task: &PodTask) {
    publish(task);
    let context = &task.node.context;
    context.batch.settled(&task.uid);
    context.registry.removed(&task.uid);
    let meta = &task.pod.metadata;
    let name = meta.name.as_deref().unwrap_or_default();
    let dir = context.paths.pod_dir(&task.node.spec.name, &task.uid);
    match std::fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %dir.display(), %error, "cannot remove");
        }
        _ => {}
    }
    let current = context.client.get::<Pod>(meta.namespace.as_deref(), name);
    if current.is_some_and(|pod| pod.metadata.uid.as_ref() == Some(&task.uid))
        && let Err(error) = context
            .client
            .delete::<Pod>(meta.namespace.as_deref(), name, Some(0))
    {
        tracing::debug!(pod = name, %error, "not removed");
    }
}
