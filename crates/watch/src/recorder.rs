//! Problems as Events of their objects: what `kubectl describe` shows.

use std::collections::VecDeque;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use ripstop_model::{ObjectRef, Problem};
use serde_json::json;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, warn};

/// Who reports (`source.component`).
const COMPONENT: &str = "ripstop-agent";
/// Problems that wait to be written at most; a cluster in which more is wrong has
/// it in `ripstop status`.
const WAITING: usize = 256;
/// Events that are written at once after a quiet time, and time for one more.
const BURST: u32 = 25;
const PAUSE: Duration = Duration::from_secs(2);
/// A problem that comes back within this time is the same one, still.
const SAME: Duration = Duration::from_secs(600);
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Takes problems from any thread.
#[derive(Clone, Debug)]
pub struct Reporter(Sender<Problem>);

impl Reporter {
    /// Reports a problem; never waits. False if too many are waiting.
    pub fn report(&self, problem: Problem) -> bool {
        self.0.try_send(problem).is_ok()
    }
}

/// Writes problems as Events of this node.
#[derive(Debug)]
pub struct Recorder {
    node: String,
    problems: Receiver<Problem>,
}

/// A recorder for `node` and the way to it.
pub fn recorder(node: &str) -> (Reporter, Recorder) {
    let (sender, problems) = channel(WAITING);
    let recorder = Recorder {
        node: node.to_owned(),
        problems,
    };
    (Reporter(sender), recorder)
}

impl Recorder {
    /// Writes for ever; while the API is away, problems wait.
    pub async fn run(mut self, client: Client) {
        let mut written: VecDeque<(Instant, Problem)> = VecDeque::new();
        let mut budget = Budget::new();
        while let Some(problem) = self.problems.recv().await {
            while written.front().is_some_and(|(at, _)| at.elapsed() > SAME) {
                written.pop_front();
            }
            if written.iter().any(|(_, one)| *one == problem) {
                continue;
            }
            budget.take().await;
            let mut retry = RETRY;
            while let Err(error) = self.write(&client, &problem).await {
                if let kube::Error::Api(status) = &error {
                    warn!("no event of {}: {}", problem.object, status.message);
                    break;
                }
                debug!(%error, "an event waits for the API server");
                sleep(retry).await;
                retry = (retry * 2).min(RETRY_MAX);
            }
            written.push_back((Instant::now(), problem));
        }
        // Nobody reports any more: the agent ends.
        std::future::pending().await
    }

    async fn write(&self, client: &Client, problem: &Problem) -> kube::Result<()> {
        let Some(uid) = uid(client, &problem.object).await? else {
            return Ok(());
        };
        let event = self.event(problem, uid, Timestamp::now());
        let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
        let name = event.metadata.name.as_deref().unwrap_or_default();
        let events: Api<Event> = Api::namespaced(client.clone(), namespace);
        match events.create(&PostParams::default(), &event).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let count = events.get(name).await?.count.unwrap_or(1) + 1;
                let patch = json!({"count": count, "lastTimestamp": event.last_timestamp});
                let patch = Patch::Merge(patch);
                let params = PatchParams::default();
                events.patch(name, &params, &patch).await.map(drop)
            }
            other => other.map(drop),
        }
    }

    /// The same problem of the same object gives the same name, on each node
    /// another one.
    fn event(&self, problem: &Problem, uid: String, now: Timestamp) -> Event {
        let key = &problem.object.key;
        // Where Events of objects without a namespace are.
        let namespace = match key.namespace.as_str() {
            "" => "default",
            namespace => namespace,
        };
        let what = [&uid, problem.reason.name(), &problem.message, &self.node];
        let name = format!("{}.{:016x}", key.name, fnv(&what));
        Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some(problem.object.kind.api_version().to_owned()),
                kind: Some(problem.object.kind.name().to_owned()),
                namespace: (!key.namespace.is_empty()).then(|| key.namespace.clone()),
                name: Some(key.name.clone()),
                uid: Some(uid),
                ..ObjectReference::default()
            },
            type_: Some("Warning".to_owned()),
            reason: Some(problem.reason.name().to_owned()),
            message: Some(problem.message.clone()),
            source: Some(EventSource {
                component: Some(COMPONENT.to_owned()),
                host: Some(self.node.clone()),
            }),
            reporting_component: Some(COMPONENT.to_owned()),
            reporting_instance: Some(self.node.clone()),
            count: Some(1),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            ..Event::default()
        }
    }
}

/// `None` if there is no such object any more. Events without it are not shown
/// beside their object.
async fn uid(client: &Client, object: &ObjectRef) -> kube::Result<Option<String>> {
    let kind = object.kind;
    let (group, version) = kind
        .api_version()
        .rsplit_once('/')
        .unwrap_or(("", kind.api_version()));
    let kind = ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk(group, version, object.kind.name()),
        kind.plural(),
    );
    let api: Api<DynamicObject> = match object.key.namespace.as_str() {
        "" => Api::all_with(client.clone(), &kind),
        namespace => Api::namespaced_with(client.clone(), namespace, &kind),
    };
    let found = api.get_metadata_opt(&object.key.name).await?;
    Ok(found.and_then(|object| object.metadata.uid))
}

/// FNV-1a: a name needs no secret, but to be the same tomorrow.
fn fnv(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A token bucket.
struct Budget {
    left: u32,
    since: Instant,
}

impl Budget {
    fn new() -> Self {
        Self {
            left: BURST,
            since: Instant::now(),
        }
    }

    async fn take(&mut self) {
        let periods = self.since.elapsed().as_millis() / PAUSE.as_millis();
        let periods = u32::try_from(periods).unwrap_or(u32::MAX);
        self.since += PAUSE * periods;
        self.left = self.left.saturating_add(periods).min(BURST);
        if self.left == 0 {
            sleep_until(self.since + PAUSE).await;
            self.since += PAUSE;
            self.left = 1;
        }
        self.left -= 1;
    }
}

#[cfg(test)]
mod tests {
    use ripstop_model::{ObjectKey, ObjectKind, Reason};

    use super::*;

    #[test]
    fn one_name_for_one_problem_of_one_node() {
        let (_reporter, recorder) = recorder("node1");
        let problem = Problem {
            object: ObjectRef::new(ObjectKind::Service, ObjectKey::new("shop", "web")),
            reason: Reason::WrongFamily,
            message: "spec.externalIPs: ...".to_owned(),
        };
        let name = |recorder: &Recorder, problem: &Problem| {
            let event = recorder.event(problem, "u".to_owned(), Timestamp::UNIX_EPOCH);
            assert_eq!(event.metadata.namespace.as_deref(), Some("shop"));
            event.metadata.name.unwrap()
        };
        assert_eq!(name(&recorder, &problem), name(&recorder, &problem));
        let (_reporter, other) = super::recorder("node2");
        assert_ne!(name(&recorder, &problem), name(&other, &problem));
        let reason = Reason::InvalidField;
        let another = Problem {
            reason,
            ..problem.clone()
        };
        assert_ne!(name(&recorder, &problem), name(&recorder, &another));
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_then_one_after_the_other() {
        let begin = Instant::now();
        let mut budget = Budget::new();
        for _ in 0..BURST {
            budget.take().await;
        }
        assert_eq!(begin.elapsed(), Duration::ZERO);
        for _ in 0..3 {
            budget.take().await;
        }
        assert!(begin.elapsed() >= PAUSE * 3 && begin.elapsed() < PAUSE * 4);
        sleep(PAUSE * 1000).await;
        let later = Instant::now();
        for _ in 0..=BURST {
            budget.take().await;
        }
        assert!(later.elapsed() > Duration::ZERO && later.elapsed() <= PAUSE);
    }
}
