use k8s_openapi::api::core::v1::{ConfigMap, Container, Namespace, Pod, PodSpec};

use super::*;
use crate::Reason;

fn config_map(name: &str, value: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("default".to_owned()),
            ..ObjectMeta::default()
        },
        data: Some([("k".to_owned(), value.to_owned())].into()),
        ..ConfigMap::default()
    }
}

fn pod(name: &str, node: Option<&str>) -> Pod {
    let container = Container {
        name: "c".to_owned(),
        image: Some("image".to_owned()),
        ..Container::default()
    };
    Pod {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("default".to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            containers: vec![container],
            node_name: node.map(str::to_owned),
            ..PodSpec::default()
        }),
        ..Pod::default()
    }
}

#[test]
fn writes_and_reads_back() {
    let client = Store::open(None).unwrap().client();
    let made = client.create(&config_map("a", "1")).unwrap();
    assert!(made.metadata.uid.is_some() && made.metadata.creation_timestamp.is_some());
    assert_eq!(
        client.create(&config_map("a", "2")).unwrap_err().reason,
        Reason::AlreadyExists
    );

    let changed = client
        .modify::<ConfigMap>(Some("default"), "a", |it| {
            it.data = Some([("k".to_owned(), "2".to_owned())].into());
        })
        .unwrap();
    assert_ne!(
        changed.metadata.resource_version,
        made.metadata.resource_version
    );
    // A change that changes nothing is no write.
    let same = client
        .modify::<ConfigMap>(Some("default"), "a", |_| {})
        .unwrap();
    assert_eq!(same, changed);
    // `made` is old by now.
    assert_eq!(client.update(&made).unwrap_err().reason, Reason::Conflict);

    assert_eq!(client.list::<ConfigMap>(Some("default")).len(), 1);
    assert!(client.list::<ConfigMap>(Some("kube-system")).is_empty());
    client
        .delete::<ConfigMap>(Some("default"), "a", None)
        .unwrap();
    assert_eq!(client.get::<ConfigMap>(Some("default"), "a"), None);
    let missing = client
        .delete::<ConfigMap>(Some("default"), "a", None)
        .unwrap_err();
    assert_eq!(missing.to_string(), "configmaps \"a\" not found");
}

#[test]
fn namespaces_must_exist() {
    let client = Store::open(None).unwrap().client();
    assert_eq!(client.list::<Namespace>(None).len(), 4);
    let mut object = config_map("a", "1");
    object.metadata.namespace = Some("nowhere".to_owned());
    let status = client.create(&object).unwrap_err();
    assert_eq!(status.to_string(), "namespaces \"nowhere\" not found");
}

#[test]
fn status_and_spec_are_separate() {
    let client = Store::open(None).unwrap().client();
    client.create(&pod("p", None)).unwrap();
    let running = client
        .modify_status::<Pod>(Some("default"), "p", |pod| {
            pod.status.get_or_insert_default().phase = Some("Running".to_owned());
            pod.spec.get_or_insert_default().node_name = Some("ignored".to_owned());
        })
        .unwrap();
    assert_eq!(running.status.unwrap().phase.as_deref(), Some("Running"));
    assert_eq!(running.spec.unwrap().node_name, None);
    let changed = client
        .modify::<Pod>(Some("default"), "p", |pod| {
            pod.status = None;
            pod.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
        })
        .unwrap();
    assert_eq!(changed.status.unwrap().phase.as_deref(), Some("Running"));
}

#[test]
fn a_bound_pod_is_deleted_gracefully() {
    let client = Store::open(None).unwrap().client();
    client.create(&pod("bound", Some("node1"))).unwrap();
    client.create(&pod("waiting", None)).unwrap();
    client
        .delete::<Pod>(Some("default"), "waiting", None)
        .unwrap();
    assert_eq!(client.get::<Pod>(Some("default"), "waiting"), None);
    client
        .delete::<Pod>(Some("default"), "bound", Some(5))
        .unwrap();
    let marked = client.get::<Pod>(Some("default"), "bound").unwrap();
    assert!(marked.metadata.deletion_timestamp.is_some());
    assert_eq!(marked.metadata.deletion_grace_period_seconds, Some(5));
    client
        .delete::<Pod>(Some("default"), "bound", Some(0))
        .unwrap();
    assert_eq!(client.get::<Pod>(Some("default"), "bound"), None);
}

#[tokio::test]
async fn a_watch_sees_everything_once() {
    let client = Store::open(None).unwrap().client();
    client.create(&config_map("a", "1")).unwrap();
    let mut watch = client.watch::<ConfigMap>();
    let name = |it: &ConfigMap| it.metadata.name.clone().unwrap();
    assert!(matches!(watch.next().await, WatchEvent::Applied(it) if name(&it) == "a"));
    assert_eq!(watch.next().await, WatchEvent::Synced);
    assert_eq!(watch.try_next(), None);
    let later = tokio::spawn(async move {
        let event = watch.next().await;
        (watch, event)
    });
    tokio::task::yield_now().await;
    client.create(&config_map("b", "1")).unwrap();
    let (mut watch, event) = later.await.unwrap();
    assert!(matches!(event, WatchEvent::Applied(it) if name(&it) == "b"));
    client
        .delete::<ConfigMap>(Some("default"), "a", None)
        .unwrap();
    assert!(matches!(watch.next().await, WatchEvent::Deleted(it) if name(&it) == "a"));
    // Far behind: intermediate versions may be missing, the last is not.
    for round in 0..5000 {
        client
            .modify::<ConfigMap>(Some("default"), "b", |it| {
                it.data = Some([("k".to_owned(), round.to_string())].into());
            })
            .unwrap();
    }
    client
        .delete::<ConfigMap>(Some("default"), "b", None)
        .unwrap();
    client.create(&config_map("c", "1")).unwrap();
    let mut known = BTreeMap::from([("b".to_owned(), ())]);
    while let Some(event) = watch.try_next() {
        match event {
            WatchEvent::Applied(it) => known.insert(name(&it), ()),
            WatchEvent::Deleted(it) => known.remove(&name(&it)),
            WatchEvent::Synced => None,
        };
    }
    assert_eq!(known.into_keys().collect::<Vec<_>>(), ["c"]);
}

#[test]
fn objects_survive_in_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let store = Store::open(Some(&path)).unwrap();
    let made = store.client().create(&config_map("a", "1")).unwrap();
    store.client().create(&config_map("b", "1")).unwrap();
    store
        .client()
        .delete::<ConfigMap>(Some("default"), "b", None)
        .unwrap();
    drop(store);
    let client = Store::open(Some(&path)).unwrap().client();
    assert_eq!(client.list::<ConfigMap>(None), [made]);
    assert_eq!(client.list::<Namespace>(None).len(), 4);
}
