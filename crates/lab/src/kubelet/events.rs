//! Events: what happened to a pod, for `kubectl describe` and `kubectl events`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::core::v1::{Event, EventSource, Node, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use ripstop_apiserver::Client;

use crate::clock;

/// Distinct events that are counted up rather than written again; beyond it the
/// memory starts anew.
const MAX_KNOWN: usize = 4096;

/// Writes the events of one node.
#[derive(Debug)]
pub(super) struct Recorder {
    client: Client,
    node: String,
    known: Mutex<Known>,
}

/// What makes two events the same, and the name under which they were written.
type Known = HashMap<(String, String, String), (String, String)>;

/// Whether people should worry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Normal,
    Warning,
}

impl Recorder {
    pub(super) fn new(client: Client, node: &str) -> Self {
        Self {
            client,
            node: node.to_owned(),
            known: Mutex::default(),
        }
    }

    /// An event of a pod, or of one of its containers.
    pub(super) fn pod(
        &self,
        pod: &Pod,
        container: Option<&str>,
        level: Level,
        reason: &str,
        message: &str,
    ) {
        let meta = &pod.metadata;
        let init = pod
            .spec
            .as_ref()
            .and_then(|s| s.init_containers.as_deref())
            .unwrap_or_default();
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            field_path: container.map(|name| {
                let list = match init.iter().any(|c| c.name == name) {
                    true => "initContainers",
                    false => "containers",
                };
                format!("spec.{list}{{{name}}}")
            }),
        };
        self.record(about, level, reason, message);
    }

    /// An event of the node itself.
    pub(super) fn node(&self, node: &Node, level: Level, reason: &str, message: &str) {
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            // Nodes have no namespace; their events are in the default one.
            name: node.metadata.name.clone(),
            uid: node.metadata.uid.clone(),
            ..ObjectReference::default()
        };
        self.record(about, level, reason, message);
    }

    fn record(&self, about: ObjectReference, level: Level, reason: &str, message: &str) {
        let namespace = about
            .namespace
            .clone()
            .unwrap_or_else(|| "default".to_owned());
        let place = about.field_path.clone().unwrap_or_default();
        let key = (
            about.uid.clone().unwrap_or_default(),
            format!("{reason} {place}"),
            message.to_owned(),
        );
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((namespace, name)) = known.get(&key)
            && self.again(namespace, name)
        {
            return;
        }
        let now = clock::now();
        let time = Some(Time(now));
        let name = format!(
            "{}.{:x}",
            about.name.as_deref().unwrap_or_default(),
            now.as_nanosecond()
        );
        let event = Event {
            metadata: ObjectMeta {
                namespace: Some(namespace.clone()),
                name: Some(name.clone()),
                ..ObjectMeta::default()
            },
            involved_object: about,
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            type_: Some(format!("{level:?}")),
            source: Some(EventSource {
                component: Some("kubelet".to_owned()),
                host: Some(self.node.clone()),
            }),
            first_timestamp: time.clone(),
            last_timestamp: time,
            count: Some(1),
            reporting_component: Some("kubelet".to_owned()),
            reporting_instance: Some(self.node.clone()),
            ..Event::default()
        };
        match self.client.create(&event) {
            Ok(_) => {
                if known.len() >= MAX_KNOWN {
                    known.clear();
                }
                known.insert(key, (namespace, name));
            }
            // The namespace is going away, with all that is in it.
            Err(error) => tracing::debug!(%error, reason, message, "event not recorded"),
        }
    }

    /// Counts up an event; false if it is not there any more.
    fn again(&self, namespace: &str, name: &str) -> bool {
        let count = |event: &mut Event| {
            event.count = Some(event.count.unwrap_or(1).saturating_add(1));
            event.last_timestamp = Some(Time(clock::now()));
        };
        self.client
            .modify::<Event>(Some(namespace), name, count)
            .is_ok()
    }
}
