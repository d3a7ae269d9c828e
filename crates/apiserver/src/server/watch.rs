//! GET with `watch`: events as lines of JSON, for as long as the client stays.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::StatusCode;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::Call;
use super::negotiate::Form;
use super::respond::{self, Response};
use crate::client::Client;
use crate::registry::{ListOptions, Resource, expired};
use crate::selector::Selector;
use crate::storage::{Change, Event, Object, frame};
use crate::table::{self, Include, Printer};
use crate::{Cause, Status};

/// Between bookmarks of an idle watch.
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);
/// A watch without `timeoutSeconds` lasts between this and twice this.
const LIFETIME: Duration = Duration::from_secs(30 * 60);
/// Told to clients that asked for the initial state as events.
const INITIAL_END: &str = "k8s.io/initial-events-end";

impl Call<'_> {
    pub(super) fn watch(&self) -> Result<Response, Status> {
        let query = self.query;
        let revision: u64 = query.number("resourceVersion")?.unwrap_or(0);
        let bookmarks = query.flag("allowWatchBookmarks")?;
        let initial = query.flag("sendInitialEvents")?;
        if initial && query.get("resourceVersionMatch") != "NotOlderThan" {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            let cause = Cause::forbidden("resourceVersionMatch", why);
            return Err(Status::invalid(
                "meta.k8s.io",
                "ListOptions",
                "",
                vec![cause],
            ));
        }
        let mut selector = query.selector(&self.resource.spec)?;
        if let Some(name) = &self.target.name {
            selector = selector.and_name(name);
        }
        let mut feed = Feed {
            client: self.api.client.clone(),
            wake: self
                .api
                .registry()
                .storage
                .subscribe(&self.resource.collection),
            resource: Arc::clone(&self.resource),
            namespace: self.target.namespace.clone(),
            selector,
            encoding: match self.form {
                Form::Table(version) => {
                    let printer = Printer::of(&self.resource.spec);
                    Encoding::Table {
                        version,
                        printer,
                        include: query.include()?,
                        first: true,
                    }
                }
                Form::Partial => Encoding::Partial,
                _ => Encoding::Whole,
            },
            revision,
            ready: VecDeque::new(),
            bookmarks: bookmarks.then(bookmark_interval),
            end: Instant::now() + lifetime(query.number("timeoutSeconds")?),
            ended: false,
        };
        let everything = revision == 0 && !query.all("sendInitialEvents").any(|it| it == "false");
        if initial || everything {
            feed.send_state()?;
            if initial && bookmarks {
                feed.push_bookmark(true);
            }
        } else if revision == 0 {
            feed.revision = self.api.registry().storage.revision();
        }
        let lines = stream::unfold(feed, |mut feed| async move {
            let line = feed.next().await?;
            Some((Ok::<_, io::Error>(Frame::data(line)), feed))
        });
        let mut response = respond::content(StatusCode::OK, "application/json", Bytes::new());
        *response.body_mut() = StreamBody::new(lines).boxed_unsync();
        Ok(response)
    }
}

fn lifetime(seconds: Option<u64>) -> Duration {
    // Spread out, so that watches that start together do not end together.
    seconds.map_or_else(
        || LIFETIME.mul_f64(rand::random_range(1.0..2.0)),
        Duration::from_secs,
    )
}

fn bookmark_interval() -> Interval {
    let mut interval = tokio::time::interval_at(Instant::now() + BOOKMARK_PERIOD, BOOKMARK_PERIOD);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

enum Encoding {
    Whole,
    Partial,
    Table {
        version: &'static str,
        printer: Printer,
        include: Include,
        first: bool,
    },
}

/// One watcher: a position in the event log of a collection.
struct Feed {
    client: Client,
    resource: Arc<Resource>,
    namespace: Option<String>,
    selector: Selector,
    encoding: Encoding,
    wake: tokio::sync::watch::Receiver<u64>,
    /// Everything up to here is in `ready` or sent.
    revision: u64,
    ready: VecDeque<Bytes>,
    bookmarks: Option<Interval>,
    end: Instant,
    ended: bool,
}

impl Feed {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            if self.ended {
                return None;
            }
            self.wake.mark_unchanged();
            if self.read_log() {
                continue;
            }
            tokio::select! {
                changed = self.wake.changed() => self.ended = changed.is_err(),
                () = tick(self.bookmarks.as_mut()) => self.push_bookmark(false),
                () = tokio::time::sleep_until(self.end) => {
                    self.ended = true;
                    if self.bookmarks.is_some() {
                        self.push_bookmark(false);
                    }
                }
            }
        }
    }

    /// Takes what is new; returns whether there is something to do now.
    fn read_log(&mut self) -> bool {
        let storage = &self.client.registry().storage;
        match storage.news(&self.resource.collection, self.revision) {
            Ok(news) => {
                self.revision = self.revision.max(news.revision);
                for event in news.events {
                    self.push_event(&event);
                }
            }
            Err(error) => {
                let status = serde_json::to_vec(&expired(error)).unwrap_or_default();
                self.ready.push_back(line("ERROR", &status));
                self.ended = true;
            }
        }
        !self.ready.is_empty() || self.ended
    }

    /// The objects as they are now, as if each had just been added.
    fn send_state(&mut self) -> Result<(), Status> {
        let options = ListOptions {
            selector: self.selector.clone(),
            revision: self.revision,
            ..ListOptions::default()
        };
        let client = self.client.clone();
        let page = client
            .registry()
            .list(&self.resource, self.namespace.as_deref(), &options)?;
        self.revision = page.revision;
        for object in &page.objects {
            let line = self.encode(Change::Added, object);
            self.ready.push_back(line);
        }
        Ok(())
    }

    fn push_event(&mut self, event: &Event) {
        if self
            .namespace
            .as_deref()
            .is_some_and(|wanted| event.object.namespace() != wanted)
        {
            return;
        }
        if self.selector.is_everything() && self.shares_frames(&event.object) {
            self.ready.push_back(event.frame());
            return;
        }
        let before = event
            .previous
            .as_ref()
            .is_some_and(|it| self.selector.matches(it));
        let after = event.change != Change::Deleted && self.selector.matches(&event.object);
        let change = match (before, after) {
            (false, false) => return,
            (false, true) => Change::Added,
            (true, true) => Change::Modified,
            (true, false) => Change::Deleted,
        };
        let line = if change == event.change && self.shares_frames(&event.object) {
            event.frame()
        } else if change == Change::Deleted
            && event.change != Change::Deleted
            && let Some(previous) = &event.previous
        {
            // It no longer matches: the client gets the last version that did.
            self.encode(
                change,
                &Object::new(previous.value.clone(), event.revision()),
            )
        } else {
            self.encode(change, &event.object)
        };
        self.ready.push_back(line);
    }

    /// Whether this watcher takes the stored bytes as they are.
    fn shares_frames(&self, object: &Object) -> bool {
        matches!(self.encoding, Encoding::Whole) && !self.resource.needs_view(object)
    }

    fn encode(&mut self, change: Change, object: &Object) -> Bytes {
        let value = match &mut self.encoding {
            Encoding::Whole if !self.resource.needs_view(object) => {
                return frame(change, &object.json);
            }
            Encoding::Whole => {
                let mut value = object.value.clone();
                value["apiVersion"] = Value::from(self.resource.spec.api_version());
                value
            }
            Encoding::Partial => table::partial(object),
            Encoding::Table {
                version,
                printer,
                include,
                first,
            } => {
                let metadata = json!({ "resourceVersion": object.revision.to_string() });
                let objects = std::iter::once(object);
                printer.table(version, metadata, objects, *include, std::mem::take(first))
            }
        };
        line(change.as_str(), value.to_string().as_bytes())
    }

    fn push_bookmark(&mut self, initial_end: bool) {
        let mut metadata = json!({
            "resourceVersion": self.revision.to_string(),
            "creationTimestamp": null,
        });
        if initial_end {
            metadata["annotations"] = json!({ INITIAL_END: "true" });
        }
        let object = match &self.encoding {
            Encoding::Whole => json!({
                "kind": self.resource.spec.kind,
                "apiVersion": self.resource.spec.api_version(),
                "metadata": metadata,
            }),
            Encoding::Partial => json!({
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
            }),
            Encoding::Table { version, .. } => json!({
                "kind": "Table",
                "apiVersion": format!("meta.k8s.io/{version}"),
                "metadata": metadata,
                "columnDefinitions": null,
                "rows": [],
            }),
        };
        self.ready
            .push_back(line("BOOKMARK", object.to_string().as_bytes()));
    }
}

fn line(kind: &str, object: &[u8]) -> Bytes {
    let mut line = format!("{{\"type\":\"{kind}\",\"object\":").into_bytes();
    line.extend_from_slice(object);
    line.extend_from_slice(b"}\n");
    Bytes::from(line)
}

async fn tick(interval: Option<&mut Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}
