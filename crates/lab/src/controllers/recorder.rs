//! Events, as `kubectl describe` shows them: written when there is nothing more
//! urgent to do, and counted up when they repeat.

use std::collections::{HashMap, VecDeque};

use k8s_openapi::api::core::v1::{Event as ApiEvent, EventSource};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use ripstop_apiserver::Client;

use super::object::Key;
use super::plan::Event;

/// Events are kept for an hour (`--event-ttl`).
const LIFETIME: SignedDuration = SignedDuration::from_hours(1);

/// What makes two events the same.
type Identity = (Option<String>, &'static str, &'static str, String);

#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pending: VecDeque<(Timestamp, Event)>,
    written: HashMap<Identity, Key>,
    /// Oldest first.
    ages: VecDeque<(Timestamp, Identity)>,
    /// Distinguishes events of one instant.
    serial: u32,
}

impl Recorder {
    pub(crate) fn record(&mut self, event: Event, now: Timestamp) {
        self.pending.push_back((now, event));
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// Writes one event that waits. Losing one is not worth an error.
    pub(crate) fn write_one(&mut self, client: &Client) {
        let Some((at, event)) = self.pending.pop_front() else {
            return;
        };
        self.forget_old(client, at);
        let identity = (
            event.regarding.uid.clone(),
            event.component,
            event.reason,
            event.message.clone(),
        );
        if let Some(key) = self.written.get(&identity) {
            let again = client.modify::<ApiEvent>(key.scope(), &key.name, |event| {
                event.count = Some(event.count.unwrap_or(1) + 1);
                event.last_timestamp = Some(Time(at));
            });
            if again.is_ok() {
                return;
            }
        }
        self.serial += 1;
        let event = api_event(event, at, self.serial);
        let key = Key::of(&event.metadata);
        match client.create(&event) {
            Ok(_) => {
                self.ages.push_back((at, identity.clone()));
                self.written.insert(identity, key);
            }
            Err(status) => tracing::debug!(event = key.name, %status, "cannot write event"),
        }
    }

    fn forget_old(&mut self, client: &Client, now: Timestamp) {
        while let Some((at, _)) = self.ages.front() {
            if now.duration_since(*at) < LIFETIME {
                break;
            }
            let Some((_, identity)) = self.ages.pop_front() else {
                break;
            };
            if let Some(key) = self.written.remove(&identity) {
                // Gone with its namespace, if not now.
                let _ = client.delete::<ApiEvent>(key.scope(), &key.name, None);
            }
        }
    }
}

fn api_event(event: Event, at: Timestamp, serial: u32) -> ApiEvent {
    let Event {
        component,
        regarding,
        warning,
        reason,
        message,
    } = event;
    // Events of cluster-scoped objects are in `default`.
    let namespace = regarding
        .namespace
        .clone()
        .unwrap_or_else(|| "default".to_owned());
    let object = regarding.name.as_deref().unwrap_or_default();
    let name = format!("{object}.{:x}{serial:04x}", at.as_microsecond());
    ApiEvent {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(namespace),
            ..ObjectMeta::default()
        },
        involved_object: regarding,
        type_: Some(if warning { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message),
        source: Some(EventSource {
            component: Some(component.to_owned()),
            host: None,
        }),
        reporting_component: Some(component.to_owned()),
        first_timestamp: Some(Time(at)),
        last_timestamp: Some(Time(at)),
        count: Some(1),
        ..ApiEvent::default()
    }
}
