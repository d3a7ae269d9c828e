//! kube-rs against the server: what the agents use.

#[expect(dead_code, reason = "each test program uses a part of it")]
mod common;

use common::Server;
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{
    Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::{self, Event};
use serde_json::json;

async fn connect(server: &Server) -> kube::Client {
    let config = Kubeconfig::read_from(server.kubeconfig()).unwrap();
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(config, &options)
        .await
        .unwrap();
    kube::Client::try_from(config).unwrap()
}

fn config_map(name: &str, value: &str) -> ConfigMap {
    let object = json!({ "metadata": { "name": name }, "data": { "k": value } });
    serde_json::from_value(object).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_and_writes() {
    let server = Server::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(connect(&server).await, "default");
    let post = PostParams::default();
    let made = maps.create(&post, &config_map("a", "1")).await.unwrap();
    let kube::Error::Api(status) = maps.create(&post, &made_again(&made)).await.unwrap_err() else {
        panic!("a status");
    };
    assert_eq!(
        (status.code, status.reason.as_str()),
        (409, "AlreadyExists")
    );
    let mut changed = made.clone();
    changed.data = Some([("k".to_owned(), "2".to_owned())].into());
    let changed = maps.replace("a", &post, &changed).await.unwrap();
    assert!(
        maps.replace("a", &post, &made).await.is_err(),
        "an old version"
    );
    let apply = PatchParams::apply("test");
    let patch = Patch::Apply(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "b" }, "data": { "x": "y" },
    }));
    maps.patch("b", &apply, &patch).await.unwrap();
    let list = maps.list(&ListParams::default().limit(1)).await.unwrap();
    assert_eq!(list.items, [changed]);
    let next = list.metadata.continue_.unwrap();
    let list = maps
        .list(&ListParams::default().continue_token(&next))
        .await
        .unwrap();
    assert_eq!(list.items[0].metadata.name.as_deref(), Some("b"));
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(maps.get_opt("a").await.unwrap().is_none());
    let metadata = maps.list_metadata(&ListParams::default()).await.unwrap();
    assert_eq!(metadata.items[0].metadata.name.as_deref(), Some("b"));
}

fn made_again(object: &ConfigMap) -> ConfigMap {
    let mut again = object.clone();
    again.metadata.resource_version = None;
    again
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_follow() {
    let server = Server::start().await;
    let client = connect(&server).await;
    for config in [
        watcher::Config::default(),
        watcher::Config::default().streaming_lists(),
        watcher::Config::default()
            .labels("app!=other")
            .fields("metadata.namespace=default"),
    ] {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
        maps.create(&PostParams::default(), &config_map("first", "1"))
            .await
            .unwrap();
        let all: Api<ConfigMap> = Api::all(client.clone());
        let mut events = watcher::watcher(all, config).boxed();
        let name = |map: &ConfigMap| map.metadata.name.clone().unwrap();
        let mut seen = Vec::new();
        let mut ready = false;
        while let Some(event) = events.next().await {
            match event.unwrap() {
                Event::Init => {}
                Event::InitApply(map) | Event::Apply(map) => seen.push(format!("+{}", name(&map))),
                Event::InitDone => ready = true,
                Event::Delete(map) => {
                    seen.push(format!("-{}", name(&map)));
                    break;
                }
            }
            if ready && seen.len() == 1 {
                maps.create(&PostParams::default(), &config_map("second", "1"))
                    .await
                    .unwrap();
            }
            if seen.len() == 2 {
                maps.delete("first", &DeleteParams::default())
                    .await
                    .unwrap();
            }
        }
        assert_eq!(seen, ["+first", "+second", "-first"]);
        maps.delete("second", &DeleteParams::default())
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_from_too_long_ago_is_gone() {
    let server = Server::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(connect(&server).await, "default");
    maps.create(&PostParams::default(), &config_map("busy", "0"))
        .await
        .unwrap();
    for round in 0..2100 {
        let change = |map: &mut ConfigMap| {
            map.data = Some([("k".to_owned(), round.to_string())].into());
        };
        server
            .client
            .modify::<ConfigMap>(Some("default"), "busy", change)
            .unwrap();
    }
    let mut events = maps
        .watch(&WatchParams::default(), "1")
        .await
        .unwrap()
        .boxed();
    let Some(Ok(WatchEvent::Error(status))) = events.next().await else {
        panic!("an error")
    };
    assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
    let old = ListParams::default()
        .at("1")
        .matching(kube::api::VersionMatch::Exact);
    let kube::Error::Api(status) = maps.list(&old).await.unwrap_err() else {
        panic!("a status")
    };
    assert_eq!(status.code, 410);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_refused() {
    let server = Server::start().await;
    let request = |path: &str, token: Option<&str>| {
        let mut config = kube::Config::new(server.url.parse().unwrap());
        config.accept_invalid_certs = true;
        config.auth_info.token = token.map(|token| token.to_owned().into());
        let client = kube::Client::try_from(config).unwrap();
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        async move { client.request_text(request).await }
    };
    let kube::Error::Api(status) = request("/api/v1/pods", None).await.unwrap_err() else {
        panic!("a status");
    };
    assert_eq!((status.code, status.reason.as_str()), (401, "Unauthorized"));
    assert!(request("/api/v1/pods", Some("wrong")).await.is_err());
    assert_eq!(request("/healthz", None).await.unwrap(), "ok");
    let token = server.pki.token();
    assert!(
        request("/api/v1/pods", Some(token))
            .await
            .unwrap()
            .contains("PodList")
    );
}
