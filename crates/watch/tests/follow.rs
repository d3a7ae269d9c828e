//! The watch against a server that does what API servers do on bad days.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use ripstop_model::{ObjectKey, Problem, Reason};
use ripstop_watch::{ApiHealth, ApiState, Event, ObjectEvent, connect, watch, watch_policies};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// What the server answers: a status with an object, or a stream of events that
/// stays open.
enum Answer {
    Object(u16, Value),
    Events(Vec<Value>),
}

/// Gets resource (`services`), whether it is a watch, and how often that was
/// asked before.
type Script = dyn Fn(&str, bool, usize) -> Answer + Send + Sync;

#[derive(Clone)]
struct Server {
    script: Arc<Script>,
    asked: Arc<Mutex<HashMap<(String, bool), usize>>>,
}

impl Server {
    fn answer(&self, request: &Request<Incoming>) -> Response<BoxBody<Bytes, Infallible>> {
        let resource = request.uri().path().rsplit('/').next().unwrap().to_owned();
        let watched = request.uri().query().unwrap_or("").contains("watch=true");
        let times = {
            let mut asked = self.asked.lock().unwrap();
            let count = asked.entry((resource.clone(), watched)).or_default();
            std::mem::replace(count, *count + 1)
        };
        let (status, lines, open) = match (self.script)(&resource, watched, times) {
            Answer::Object(status, object) => (status, vec![object], false),
            Answer::Events(events) => (200, events, true),
        };
        let frames = lines
            .into_iter()
            .map(|line| Ok(Frame::data(format!("{line}\n").into())));
        let frames = futures::stream::iter(frames);
        let pending = futures::stream::pending();
        let body = match open {
            true => BodyExt::boxed(StreamBody::new(frames.chain(pending))),
            false => BodyExt::boxed(StreamBody::new(frames)),
        };
        Response::builder().status(status).body(body).unwrap()
    }

    async fn serve(self, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let server = self.clone();
            let service = service_fn(move |request| {
                let answer = server.answer(&request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    }
}

struct Watch {
    events: mpsc::UnboundedReceiver<Event>,
    health: Arc<ApiHealth>,
}

impl Watch {
    /// All events until the last of `awaited` has come. Events of different
    /// kinds come in any order, so these tests look at one kind at a time.
    async fn until(&mut self, mut awaited: Vec<Event>) -> Vec<Event> {
        let mut events = Vec::new();
        while !awaited.is_empty() {
            let next = tokio::time::timeout(Duration::from_secs(30), self.events.recv()).await;
            let next = next
                .expect("an event within 30 s")
                .expect("the watch goes on");
            awaited.retain(|event| *event != next);
            events.push(next);
        }
        events
    }
}

#[derive(Clone, Copy)]
enum Kinds {
    Services,
    Policies,
}

async fn follow(address: SocketAddr, kinds: Kinds) -> Watch {
    let file = tempfile::NamedTempFile::new().unwrap();
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    std::fs::write(file.path(), kubeconfig.to_string()).unwrap();
    let client = connect("test", Some(file.path()), None).await.unwrap();
    let health = Arc::new(ApiHealth::default());
    let (sender, events) = mpsc::unbounded_channel();
    let sink = move |event| {
        let _ = sender.send(event);
    };
    match kinds {
        Kinds::Services => drop(tokio::spawn(watch(client, health.clone(), sink))),
        Kinds::Policies => {
            let synced = {
                let sink = sink.clone();
                move || sink(Event::Synced)
            };
            drop(tokio::spawn(watch_policies(
                client,
                health.clone(),
                sink,
                synced,
            )));
        }
    }
    Watch { events, health }
}

async fn start(script: impl Fn(&str, bool, usize) -> Answer + Send + Sync + 'static) -> Watch {
    start_with(script, Kinds::Services).await
}

async fn start_with(
    script: impl Fn(&str, bool, usize) -> Answer + Send + Sync + 'static,
    kinds: Kinds,
) -> Watch {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server {
        script: Arc::new(script),
        asked: Arc::default(),
    };
    tokio::spawn(server.serve(listener));
    follow(address, kinds).await
}

fn list(items: Vec<Value>) -> Answer {
    Answer::Object(
        200,
        json!({"metadata": {"resourceVersion": "10"}, "items": items}),
    )
}

fn service(name: &str, version: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "resourceVersion": version.to_string()},
        "spec": {"clusterIP": "10.96.0.7", "ports": [{"port": 80}]},
    })
}

fn event(kind: &str, object: Value) -> Value {
    json!({"type": kind, "object": object})
}

fn gone() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "too old resource version", "reason": "Expired", "code": 410})
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("default", name)
}

/// Names of applied services, in order.
fn applied(events: &[Event]) -> Vec<&str> {
    let name = |event| match event {
        &Event::Service(ObjectEvent::Applied(ref service)) => Some(service.key.name.as_str()),
        _ => None,
    };
    events.iter().filter_map(name).collect()
}

#[tokio::test]
async fn lists_then_synced_then_changes() {
    let mut watch = start(|resource, watched, _| match (resource, watched) {
        ("services", false) => list(vec![service("a", 3), service("b", 4)]),
        (_, false) => list(vec![]),
        ("services", true) => Answer::Events(vec![
            event("ADDED", service("c", 11)),
            event(
                "BOOKMARK",
                json!({"kind": "Service", "apiVersion": "v1",
                    "metadata": {"resourceVersion": "12"}}),
            ),
            event("DELETED", service("a", 13)),
        ]),
        (_, true) => Answer::Events(vec![]),
    })
    .await;
    let deleted = Event::Service(ObjectEvent::Deleted(key("a")));
    let events = watch.until(vec![Event::Synced, deleted.clone()]).await;
    assert_eq!(applied(&events), ["a", "b", "c"]);
    let at = |event: &Event| events.iter().position(|e| e == event).unwrap();
    let listed = [
        Event::Service(ObjectEvent::Listed([key("a"), key("b")].into())),
        Event::Node(ObjectEvent::Listed([].into())),
        Event::Slice(ObjectEvent::Listed([].into())),
    ];
    assert!(listed.iter().all(|list| at(list) < at(&Event::Synced)));
    assert!(at(&listed[0]) < at(&deleted));
    assert_eq!(watch.health.state(), ApiState::Up);
}

/// "Gone" comes as an event of the stream, or as the answer to the request.
#[tokio::test]
async fn a_lost_place_means_a_new_list() {
    for in_stream in [true, false] {
        let mut watch = start(
            move |resource, watched, times| match (resource, watched, times) {
                ("services", false, 0) => list(vec![service("a", 3), service("b", 4)]),
                ("services", false, _) => list(vec![service("b", 4)]),
                ("services", true, 0) if in_stream => Answer::Events(vec![event("ERROR", gone())]),
                ("services", true, 0) => Answer::Object(410, gone()),
                (_, false, _) => list(vec![]),
                (_, true, _) => Answer::Events(vec![]),
            },
        )
        .await;
        let second = Event::Service(ObjectEvent::Listed([key("b")].into()));
        let events = watch.until(vec![Event::Synced, second]).await;
        assert_eq!(applied(&events), ["a", "b", "b"]);
        let synced = events.iter().filter(|e| **e == Event::Synced);
        assert_eq!(synced.count(), 1);
    }
}

#[tokio::test]
async fn objects_that_make_no_sense_leave_the_others_alone() {
    let mut nonsense = service("bad", 5);
    nonsense["spec"]["clusterIP"] = json!("ten");
    let mut undecodable = service("worse", 6);
    undecodable["spec"]["ports"] = json!("eighty");
    let items = vec![nonsense, undecodable.clone(), service("good", 7)];
    let mut watch = start(move |resource, watched, _| match (resource, watched) {
        ("services", false) => list(items.clone()),
        (_, false) => list(vec![]),
        ("services", true) => Answer::Events(vec![
            event("MODIFIED", undecodable.clone()),
            event("ADDED", service("late", 12)),
            event("DELETED", service("last", 13)),
        ]),
        (_, true) => Answer::Events(vec![]),
    })
    .await;
    // Objects that cannot be read are not gone.
    let all = [key("bad"), key("worse"), key("good")].into();
    let listed = Event::Service(ObjectEvent::Listed(all));
    let last = Event::Service(ObjectEvent::Deleted(key("last")));
    let events = watch.until(vec![Event::Synced, listed, last]).await;
    assert_eq!(applied(&events), ["bad", "good", "late"]);
    let invalid = r#"spec.clusterIPs[0]: "ten" is no IP address"#;
    let unreadable = vec![(Reason::Unreadable, String::new())];
    assert_eq!(
        problems(&events),
        [
            ("bad", vec![(Reason::InvalidField, invalid.to_owned())]),
            ("worse", unreadable.clone()),
            ("worse", unreadable),
        ]
    );
}

/// The first that does not decode comes in the middle of a watch.
#[tokio::test]
async fn a_change_that_does_not_decode_is_not_lost_without_a_word() {
    let mut undecodable = service("worse", 12);
    undecodable["spec"]["ports"] = json!("eighty");
    let items = vec![undecodable.clone(), service("good", 4)];
    let mut watch = start(
        move |resource, watched, times| match (resource, watched, times) {
            ("services", false, 0) => list(vec![service("worse", 3), service("good", 4)]),
            ("services", false, _) => list(items.clone()),
            ("services", true, 0) => Answer::Events(vec![event("MODIFIED", undecodable.clone())]),
            (_, false, _) => list(vec![]),
            (_, true, _) => Answer::Events(vec![]),
        },
    )
    .await;
    let all = Event::Service(ObjectEvent::Listed([key("worse"), key("good")].into()));
    let events = watch.until(vec![all.clone(), Event::Synced]).await;
    assert_eq!(problems(&events), []);
    let events = watch.until(vec![all]).await;
    assert_eq!(applied(&events), ["good"]);
    let unreadable = vec![(Reason::Unreadable, String::new())];
    assert_eq!(problems(&events), [("worse", unreadable)]);
}

/// What was told of problems, in order: object, reasons and messages.
fn problems(events: &[Event]) -> Vec<(&str, Vec<(Reason, String)>)> {
    let mut told = Vec::new();
    for event in events {
        if let Event::Problems(object, problems) = event {
            let short = |problem: &Problem| match problem.reason {
                // The rest is the decoder's.
                Reason::Unreadable => (Reason::Unreadable, String::new()),
                reason => (reason, problem.message.clone()),
            };
            told.push((
                object.key.name.as_str(),
                problems.iter().map(short).collect(),
            ));
        }
    }
    told
}

#[tokio::test]
async fn problems_end_when_their_object_is_right_or_gone() {
    let wrong = |name: &str, version| {
        let mut object = service(name, version);
        object["spec"]["ports"][0]["port"] = json!(70000);
        object
    };
    let items = vec![wrong("a", 1), wrong("b", 2), wrong("c", 3)];
    let mut watch = start(
        move |resource, watched, times| match (resource, watched, times) {
            ("services", false, 0) => list(items.clone()),
            ("services", false, _) => list(vec![service("a", 11)]),
            ("services", true, 0) => Answer::Events(vec![
                event("MODIFIED", service("a", 11)),
                event("DELETED", wrong("b", 12)),
                event("ERROR", gone()),
            ]),
            (_, false, _) => list(vec![]),
            (_, true, _) => Answer::Events(vec![]),
        },
    )
    .await;
    let last = Event::Service(ObjectEvent::Listed([key("a")].into()));
    let events = watch.until(vec![Event::Synced, last]).await;
    let told: Vec<_> = problems(&events)
        .into_iter()
        .map(|(name, problems)| (name, problems.len()))
        .collect();
    let expected = [("a", 1), ("b", 1), ("c", 1), ("a", 0), ("b", 0), ("c", 0)];
    assert_eq!(told, expected);
}

/// ServiceCIDR came with Kubernetes 1.33.
#[tokio::test]
async fn a_server_without_an_optional_kind() {
    for code in [403, 404] {
        let missing = move || {
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {},
                "status": "Failure", "message": "no", "reason": "NotFound", "code": code});
            Answer::Object(code, status)
        };
        let mut watch = start(move |resource, watched, _| match (resource, watched) {
            ("servicecidrs", _) => missing(),
            (_, false) => list(vec![]),
            (_, true) => Answer::Events(vec![]),
        })
        .await;
        watch.until(vec![Event::Synced]).await;
        assert_eq!(watch.health.state(), ApiState::Up);
    }
}

#[tokio::test]
async fn a_server_that_comes_late_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut watch = follow(address, Kinds::Services).await;
    while !matches!(watch.health.state(), ApiState::Away(_)) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(
        watch.events.try_recv().is_err(),
        "nothing is said of an API that is away"
    );
    let script: Arc<Script> = Arc::new(|_, watched, _| match watched {
        false => list(vec![]),
        true => Answer::Events(vec![]),
    });
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::spawn(
        Server {
            script,
            asked: Arc::default(),
        }
        .serve(listener),
    );
    watch.until(vec![Event::Synced]).await;
    assert_eq!(watch.health.state(), ApiState::Up);
}

/// Policies, with a server that has no ClusterNetworkPolicies.
#[tokio::test]
async fn a_policy_that_cannot_be_read_isolates_its_namespace() {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"}},
        "spec": {"containers": []}, "status": {"podIPs": [{"ip": "10.244.0.7"}]},
    });
    let policy = |name: &str, spec: Value| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": "default"}, "spec": spec,
        })
    };
    let policies = vec![
        policy("good", json!({"ingress": [{}]})),
        policy("bad", json!({"ingress": "all"})),
    ];
    let script = move |resource: &str, watched: bool, _| match (resource, watched) {
        ("pods", false) => list(vec![pod.clone()]),
        ("networkpolicies", false) => list(policies.clone()),
        ("clusternetworkpolicies", _) => Answer::Object(
            404,
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "not found", "reason": "NotFound", "code": 404}),
        ),
        (_, false) => list(vec![]),
        (_, true) => Answer::Events(vec![]),
    };
    let mut watch = start_with(script, Kinds::Policies).await;
    let events = watch.until(vec![Event::Synced]).await;
    let pods = events.iter().filter_map(|event| match event {
        Event::Pod(ObjectEvent::Applied(pod)) => Some((pod.key.clone(), pod.addresses.len())),
        _ => None,
    });
    assert_eq!(pods.collect::<Vec<_>>(), [(key("web"), 1)]);
    let policies = events.iter().filter_map(|event| match event {
        Event::NetworkPolicy(ObjectEvent::Applied(policy)) => {
            let rules = |rules: &Option<Vec<_>>| rules.as_ref().map(Vec::len);
            Some((
                policy.key.clone(),
                rules(&policy.ingress),
                rules(&policy.egress),
            ))
        }
        _ => None,
    });
    assert_eq!(
        policies.collect::<Vec<_>>(),
        [(key("good"), Some(1), None), (key("bad"), Some(0), Some(0))]
    );
    let problems = events.iter().filter_map(|event| match event {
        Event::Problems(object, problems) => Some((object.to_string(), problems[0].reason)),
        _ => None,
    });
    let unreadable = ("NetworkPolicy default/bad".to_owned(), Reason::Unreadable);
    assert_eq!(problems.collect::<Vec<_>>(), [unreadable]);
    assert_eq!(watch.health.state(), ApiState::Up);
}
