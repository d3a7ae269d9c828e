//! Three kinds followed side by side: list, then watch, again and again.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DeserializeGuard;
use kube::core::error_boundary::InvalidObject;
use kube::runtime::watcher::{self, Error};
use kube::{Api, Client, Resource};
use ripstop_model::{EndpointSlice, Node, ObjectKey, Service};
use serde::de::DeserializeOwned;
use tracing::warn;

use crate::convert::{self, Invalid};
use crate::{ApiHealth, Event, ObjectEvent};

/// Objects of one list request: bounds the memory of a first list.
const PAGE: u32 = 250;
/// Waiting time after the first failure; doubled up to the longest.
const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Gives `sink` every event of the API, for ever. While the API is away nothing
/// is said to `sink`; after it has lost our place, kinds are listed again.
pub async fn watch(client: Client, health: Arc<ApiHealth>, sink: impl Fn(Event) + Send + Sync) {
    let unlisted = AtomicUsize::new(3);
    let first_list_done = || {
        if unlisted.fetch_sub(1, Ordering::Relaxed) == 1 {
            sink(Event::Synced);
        }
    };
    tokio::join!(
        follow::<core::Service>(&client, &health, &sink, &first_list_done),
        follow::<discovery::EndpointSlice>(&client, &health, &sink, &first_list_done),
        follow::<core::Node>(&client, &health, &sink, &first_list_done),
    );
}

/// A kind that the watch follows.
trait Followed: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static {
    const KIND: &'static str;
    type Model;
    type Key: std::hash::Hash + Eq + Send;

    fn key(meta: &ObjectMeta) -> Self::Key;
    /// `None` if the object does not concern the network.
    fn model(&self) -> Result<Option<Self::Model>, Invalid>;
    fn event(event: ObjectEvent<Self::Model, Self::Key>) -> Event;
}

impl Followed for core::Service {
    const KIND: &'static str = "Service";
    type Model = Service;
    type Key = ObjectKey;

    fn key(meta: &ObjectMeta) -> ObjectKey {
        convert::key(meta)
    }
    fn model(&self) -> Result<Option<Service>, Invalid> {
        convert::service(self).map(Some)
    }
    fn event(event: ObjectEvent<Service, ObjectKey>) -> Event {
        Event::Service(event)
    }
}

impl Followed for discovery::EndpointSlice {
    const KIND: &'static str = "EndpointSlice";
    type Model = EndpointSlice;
    type Key = ObjectKey;

    fn key(meta: &ObjectMeta) -> ObjectKey {
        convert::key(meta)
    }
    fn model(&self) -> Result<Option<EndpointSlice>, Invalid> {
        convert::slice(self)
    }
    fn event(event: ObjectEvent<EndpointSlice, ObjectKey>) -> Event {
        Event::Slice(event)
    }
}

impl Followed for core::Node {
    const KIND: &'static str = "Node";
    type Model = Node;
    type Key = String;

    fn key(meta: &ObjectMeta) -> String {
        meta.name.clone().unwrap_or_default()
    }
    fn model(&self) -> Result<Option<Node>, Invalid> {
        convert::node(self).map(Some)
    }
    fn event(event: ObjectEvent<Node, String>) -> Event {
        Event::Node(event)
    }
}

/// Follows one kind, for ever.
async fn follow<K: Followed>(
    client: &Client,
    health: &ApiHealth,
    sink: &(impl Fn(Event) + Sync),
    first_list_done: &(impl Fn() + Sync),
) {
    let mut stream = objects::<K>(client, Decode::Fast);
    let mut backoff = BACKOFF;
    let mut listed = HashSet::new();
    let mut first = true;
    while let Some(next) = stream.next().await {
        let event = match next {
            Ok(event) => event,
            Err(error) => {
                health.fails(K::KIND, error.to_string());
                tokio::time::sleep(jittered(backoff)).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
                if let Some(decode) = start_again(&error) {
                    stream = objects::<K>(client, decode);
                }
                continue;
            }
        };
        // A start is not yet an answer.
        if !matches!(event, watcher::Event::Init) {
            backoff = BACKOFF;
            health.answers(K::KIND);
        }
        match event {
            watcher::Event::Init => listed.clear(),
            watcher::Event::InitApply(object) => {
                listed.insert(object.key());
                object.tell(sink);
            }
            watcher::Event::InitDone => {
                let listed = std::mem::take(&mut listed);
                sink(K::event(ObjectEvent::Listed(listed)));
                if std::mem::take(&mut first) {
                    first_list_done();
                }
            }
            watcher::Event::Apply(object) => object.tell(sink),
            watcher::Event::Delete(object) => sink(K::event(ObjectEvent::Deleted(object.key()))),
        }
    }
}

/// How objects are decoded.
#[derive(Clone, Copy)]
enum Decode {
    /// As they come; one that does not decode spoils its whole list.
    Fast,
    /// Through a value in between, which costs twice the time and memory, but
    /// tells the object that does not decode from its neighbours.
    Guarded,
}

/// Whether an error needs a new list, and how to decode it.
fn start_again(error: &Error) -> Option<Decode> {
    match error {
        Error::InitialListFailed(kube::Error::SerdeError(_))
        | Error::WatchFailed(kube::Error::SerdeError(_)) => Some(Decode::Guarded),
        // The watcher lists again when a stream ends with "gone", but not when
        // the request for one does.
        Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 410 => {
            Some(Decode::Fast)
        }
        _ => None,
    }
}

/// An object, or what kept it from being one.
struct Object<K>(Result<K, InvalidObject>);

impl<K: Followed> Object<K> {
    fn key(&self) -> K::Key {
        match &self.0 {
            Ok(object) => K::key(object.meta()),
            Err(invalid) => K::key(&invalid.metadata),
        }
    }

    /// Tells what the object means; one that makes no sense is reported, and
    /// what was known of it before stays.
    fn tell(self, sink: &impl Fn(Event)) {
        match self.0.as_ref().map(K::model) {
            Ok(Ok(Some(model))) => sink(K::event(ObjectEvent::Applied(model))),
            // It may have concerned us before.
            Ok(Ok(None)) => sink(K::event(ObjectEvent::Deleted(self.key()))),
            Ok(Err(invalid)) => warn!("ignored {invalid}"),
            Err(invalid) => {
                let object = convert::key(&invalid.metadata);
                warn!("ignored {} {object}: {}", K::KIND, invalid.error);
            }
        }
    }
}

type Events<K> = BoxStream<'static, watcher::Result<watcher::Event<Object<K>>>>;

fn objects<K: Followed>(client: &Client, decode: Decode) -> Events<K> {
    let config = watcher::Config::default().page_size(PAGE);
    match decode {
        Decode::Fast => watcher::watcher(Api::<K>::all(client.clone()), config)
            .map(|event| event.map(|e| wrap(e, |object| Object(Ok(object)))))
            .boxed(),
        Decode::Guarded => {
            watcher::watcher(Api::<DeserializeGuard<K>>::all(client.clone()), config)
                .map(|event| event.map(|e| wrap(e, |guard| Object(guard.0))))
                .boxed()
        }
    }
}

fn wrap<A, B>(event: watcher::Event<A>, f: impl FnOnce(A) -> B) -> watcher::Event<B> {
    match event {
        watcher::Event::Apply(object) => watcher::Event::Apply(f(object)),
        watcher::Event::Delete(object) => watcher::Event::Delete(f(object)),
        watcher::Event::Init => watcher::Event::Init,
        watcher::Event::InitApply(object) => watcher::Event::InitApply(f(object)),
        watcher::Event::InitDone => watcher::Event::InitDone,
    }
}

/// Between half and one and a half of `time`, so that the agents of a cluster
/// do not come back in step.
fn jittered(time: Duration) -> Duration {
    time.mul_f64(rand::random_range(0.5..1.5))
}
