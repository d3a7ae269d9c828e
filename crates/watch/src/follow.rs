//! Kinds followed side by side: list, then watch, again and again.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use kube::api::{ApiResource, DynamicObject};
use kube::core::error_boundary::InvalidObject;
use kube::core::{DeserializeGuard, GroupVersionKind};
use kube::runtime::watcher::{self, Error};
use kube::{Api, Client};
use ripstop_model::{Problem, Reason};
use tracing::info;

use crate::convert::Converted;
use crate::kinds::Followed;
use crate::objects::{ServiceCidrObject, ServiceObject};
use crate::{ApiHealth, Event, ObjectEvent};

/// Objects of one list request: bounds the memory of a first list.
const PAGE: u32 = 250;
/// Waiting time after the first failure; doubled up to the longest.
const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Before everything is listed again because the server has lost our place: so
/// that neither kinds nor agents do it all at once. What is there works meanwhile.
const RELIST: Duration = Duration::from_secs(1);
/// Between looks for a kind that the server does not have: it may be upgraded.
const MISSING: Duration = Duration::from_secs(60);

/// Gives `sink` every event of the API, for ever. While the API is away nothing
/// is said to `sink`; after it has lost our place, kinds are listed again.
pub async fn watch(client: Client, health: Arc<ApiHealth>, sink: impl Fn(Event) + Send + Sync) {
    let unlisted = AtomicUsize::new(4);
    let first_list_done = || {
        if unlisted.fetch_sub(1, Ordering::Relaxed) == 1 {
            sink(Event::Synced);
        }
    };
    tokio::join!(
        follow::<ServiceObject>(&client, &health, &sink, &first_list_done),
        follow::<discovery::EndpointSlice>(&client, &health, &sink, &first_list_done),
        follow::<core::Node>(&client, &health, &sink, &first_list_done),
        follow::<ServiceCidrObject>(&client, &health, &sink, &first_list_done),
    );
}

/// Follows one kind, for ever.
pub(crate) async fn follow<K: Followed>(
    client: &Client,
    health: &ApiHealth,
    sink: &(impl Fn(Event) + Sync),
    first_list_done: &(impl Fn() + Sync),
) {
    let mut stream = objects::<K>(client, Decode::Fast);
    let mut backoff = BACKOFF;
    let mut listed = HashSet::new();
    let mut teller = Teller::new(sink);
    let mut first = true;
    while let Some(next) = stream.next().await {
        let event = match next {
            Ok(event) => event,
            Err(error) if K::OPTIONAL && is_missing(&error) => {
                if std::mem::take(&mut first) {
                    info!("the server has no {}, or shows us none", K::KIND.name());
                    health.answers(K::KIND.name());
                    first_list_done();
                }
                tokio::select! {
                    () = tokio::time::sleep(jittered(MISSING)) => {}
                    () = defined::<K>(client) => {
                        // Defined is not yet served, or not in this version.
                        tokio::time::sleep(jittered(backoff)).await;
                        backoff = (backoff * 2).min(MISSING);
                    }
                }
                continue;
            }
            Err(error) => {
                health.fails(K::KIND.name(), error.to_string());
                tokio::time::sleep(jittered(backoff)).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
                if let Some(decode) = start_again(&error) {
                    if matches!(decode, Decode::Fast) {
                        // It was the same for every agent of the cluster.
                        tokio::time::sleep(jittered(RELIST)).await;
                    }
                    stream = objects::<K>(client, decode);
                }
                // A watch that goes on where it was says nothing while nothing
                // changes.
                if broke_off(&error) && client.apiserver_version().await.is_ok() {
                    health.answers(K::KIND.name());
                }
                continue;
            }
        };
        // A start is not yet an answer.
        if !matches!(event, watcher::Event::Init) {
            backoff = BACKOFF;
            health.answers(K::KIND.name());
        }
        match event {
            watcher::Event::Init => listed.clear(),
            watcher::Event::InitApply(object) => {
                listed.insert(object.key());
                teller.tell(object);
            }
            watcher::Event::InitDone => {
                let listed = std::mem::take(&mut listed);
                teller.listed(&listed);
                sink(K::event(ObjectEvent::Listed(listed)));
                if std::mem::take(&mut first) {
                    first_list_done();
                }
            }
            watcher::Event::Apply(object) => teller.tell(object),
            watcher::Event::Delete(object) => teller.deleted(object.key()),
        }
    }
}

/// Waits for the definition of a custom kind, if that can be seen.
async fn defined<K: Followed>(client: &Client) {
    if !K::IS_CUSTOM {
        return std::future::pending().await;
    }
    let definitions = ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
        "customresourcedefinitions",
    );
    let definitions: Api<DynamicObject> = Api::all_with(client.clone(), &definitions);
    let name = format!("metadata.name={}.{}", K::plural(&()), K::group(&()));
    let config = watcher::Config::default().fields(&name);
    let mut events = watcher::watcher(definitions, config).boxed();
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Apply(_) | watcher::Event::InitApply(_)) => return,
            Ok(_) => {}
            Err(_) => tokio::time::sleep(jittered(BACKOFF_MAX)).await,
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
        // The client takes an event that does not decode for a status that says
        // nothing, and would go on behind it.
        Error::WatchFailed(kube::Error::Api(status)) if status.code == 0 => Some(Decode::Guarded),
        // The watcher lists again when a stream ends with "gone", but not when
        // the request for one does.
        Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 410 => {
            Some(Decode::Fast)
        }
        _ => None,
    }
}

/// The connection to the server ended, which says nothing of this kind.
fn broke_off(error: &Error) -> bool {
    match error {
        Error::InitialListFailed(error)
        | Error::WatchStartFailed(error)
        | Error::WatchFailed(error) => matches!(
            error,
            kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_)
        ),
        _ => false,
    }
}

/// The server does not have this kind, or does not let us see it.
fn is_missing(error: &Error) -> bool {
    match error {
        Error::InitialListFailed(kube::Error::Api(status))
        | Error::WatchStartFailed(kube::Error::Api(status)) => matches!(status.code, 403 | 404),
        _ => false,
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
}

/// Tells what objects of one kind mean.
struct Teller<'a, K: Followed, S> {
    sink: &'a S,
    /// Objects of which problems were told.
    troubled: HashSet<K::Key>,
}

impl<'a, K: Followed, S: Fn(Event)> Teller<'a, K, S> {
    fn new(sink: &'a S) -> Self {
        Self {
            sink,
            troubled: HashSet::new(),
        }
    }

    /// An object as it is now. Of one that cannot be read, what was known
    /// before stays.
    fn tell(&mut self, object: Object<K>) {
        let key = object.key();
        let problems = match object.0 {
            Ok(object) => {
                object.more().into_iter().for_each(self.sink);
                let Converted { model, problems } = object.model();
                (self.sink)(K::event(match model {
                    Some(model) => ObjectEvent::Applied(model),
                    // It may have concerned us before.
                    None => ObjectEvent::Deleted(key.clone()),
                }));
                problems
            }
            Err(invalid) => {
                let meaning = K::unreadable(&key);
                let becomes = match meaning {
                    Some(_) => "means that nothing is allowed",
                    None => "is ignored",
                };
                if let Some(model) = meaning {
                    (self.sink)(K::event(ObjectEvent::Applied(model)));
                }
                vec![Problem {
                    object: K::reference(&key),
                    reason: Reason::Unreadable,
                    message: format!("the object cannot be read and {becomes}: {}", invalid.error),
                }]
            }
        };
        self.problems(key, problems);
    }

    fn deleted(&mut self, key: K::Key) {
        (self.sink)(K::event(ObjectEvent::Deleted(key.clone())));
        self.problems(key, Vec::new());
    }

    /// What is not in a complete list has no problems any more.
    fn listed(&mut self, listed: &HashSet<K::Key>) {
        let gone: Vec<_> = self.troubled.difference(listed).cloned().collect();
        for key in gone {
            self.problems(key, Vec::new());
        }
    }

    fn problems(&mut self, key: K::Key, problems: Vec<Problem>) {
        let reference = K::reference(&key);
        let told = match problems.is_empty() {
            true => self.troubled.remove(&key),
            false => {
                self.troubled.insert(key);
                true
            }
        };
        if told {
            (self.sink)(Event::Problems(reference, problems));
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
