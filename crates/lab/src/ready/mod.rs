//! Waits until a cluster is ready: its nodes, its workloads, their endpoints.

mod cluster;
mod pending;

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::api::{Api, ApiError};
use cluster::COLLECTIONS;
pub use cluster::{Cluster, Table};
pub use pending::{Pending, is_ready, pending, services_without_pods};

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The nodes take pods.
    Nodes,
    /// Nothing is pending.
    All,
}

/// How a wait ended.
#[derive(Debug)]
pub struct Outcome {
    pub cluster: Cluster,
    /// Empty if all is ready.
    pub pending: Vec<Pending>,
}

/// News of one collection.
enum News {
    /// What there is; older knowledge is void.
    All(usize, Vec<serde_json::Value>),
    Change(usize, serde_json::Value, bool),
}

/// Reads the cluster once.
///
/// # Errors
/// If the API does not answer.
pub async fn read(api: &Api) -> Result<Cluster, ApiError> {
    let mut cluster = Cluster::default();
    for (number, path) in COLLECTIONS.iter().enumerate() {
        for object in api.list(path).await? {
            cluster.put(number, object, false);
        }
    }
    Ok(cluster)
}

/// Waits for `scope` and for `nodes` nodes, at most `timeout`. `progress` is
/// called with what is known whenever that changes.
///
/// # Errors
/// If the API ends.
pub async fn wait(
    api: &Api,
    nodes: usize,
    scope: Scope,
    timeout: Duration,
    mut progress: impl FnMut(&Cluster, &[Pending]),
) -> Result<Outcome, ApiError> {
    let deadline = Instant::now() + timeout;
    let (sender, mut news) = mpsc::unbounded_channel();
    // Dropped at the end, which ends the watches.
    let mut watches = JoinSet::new();
    for number in 0..COLLECTIONS.len() {
        watches.spawn(follow(api.clone(), number, sender.clone()));
    }
    drop(sender);
    let mut cluster = Cluster::default();
    let mut listed = [false; COLLECTIONS.len()];
    loop {
        let received = tokio::select! {
            received = news.recv() => received,
            () = tokio::time::sleep_until(deadline) => {
                let pending = waiting(&cluster, nodes, scope);
                return Ok(Outcome { cluster, pending });
            }
        };
        let Some(first) = received else {
            // All watches ended: one of them knows why.
            while let Some(ended) = watches.join_next().await {
                if let Ok(Err(error)) = ended {
                    return Err(error);
                }
            }
            let pending = waiting(&cluster, nodes, scope);
            return Ok(Outcome { cluster, pending });
        };
        store(&mut cluster, &mut listed, first);
        while let Ok(more) = news.try_recv() {
            store(&mut cluster, &mut listed, more);
        }
        if listed.contains(&false) {
            continue;
        }
        let left = waiting(&cluster, nodes, scope);
        progress(&cluster, &left);
        if left.is_empty() {
            return Ok(Outcome {
                cluster,
                pending: left,
            });
        }
    }
}

/// Adds to what is said about pods their last warning: the reason that a
/// container waits for is often only in an event.
///
/// # Errors
/// If the API does not answer.
pub async fn add_warnings(api: &Api, all: &mut [Pending]) -> Result<(), ApiError> {
    let events = api.list("/api/v1/events").await?;
    for pending in all {
        if let Some(message) = last_warning(&events, &pending.what)
            && !pending.why.contains(message)
        {
            pending.why = format!("{}; {message}", pending.why);
        }
    }
    Ok(())
}

/// Message of the newest warning about `what` (`pod shop/web-0`).
fn last_warning<'a>(events: &'a [serde_json::Value], what: &str) -> Option<&'a str> {
    let is_about = |event: &&serde_json::Value| {
        let object = &event["involvedObject"];
        let text = |field: &str| object[field].as_str().unwrap_or_default();
        let subject = format!("pod {}/{}", text("namespace"), text("name"));
        text("kind") == "Pod" && subject == what && event["type"] == "Warning"
    };
    let newest = events
        .iter()
        .filter(is_about)
        .max_by_key(|event| event["lastTimestamp"].as_str().unwrap_or_default());
    newest?["message"].as_str()
}

/// What is pending, nodes that are not known yet included.
fn waiting(cluster: &Cluster, nodes: usize, scope: Scope) -> Vec<Pending> {
    let mut all = match scope {
        Scope::Nodes => pending::nodes(cluster),
        Scope::All => pending(cluster),
    };
    if cluster.nodes.len() < nodes {
        all.push(Pending {
            what: "nodes".to_owned(),
            why: format!("{} of {nodes} are registered", cluster.nodes.len()),
        });
    }
    all
}

fn store(cluster: &mut Cluster, listed: &mut [bool], news: News) {
    match news {
        News::All(number, objects) => {
            listed[number] = true;
            for object in objects {
                cluster.put(number, object, false);
            }
        }
        News::Change(number, object, deleted) => cluster.put(number, object, deleted),
    }
}

/// Sends what a collection has and then its changes, until nobody listens.
async fn follow(
    api: Api,
    number: usize,
    news: mpsc::UnboundedSender<News>,
) -> Result<(), ApiError> {
    let path = COLLECTIONS[number];
    let mut list = api.get(path).await?;
    let version = list["metadata"]["resourceVersion"]
        .as_str()
        .unwrap_or("0")
        .to_owned();
    let items = match list["items"].take() {
        serde_json::Value::Array(items) => items,
        _ => Vec::new(),
    };
    let mut events = api.watch(path, &version).await?;
    if news.send(News::All(number, items)).is_err() {
        return Ok(());
    }
    while let Some((kind, object)) = events.next().await? {
        let deleted = kind == "DELETED";
        if !deleted && kind != "ADDED" && kind != "MODIFIED" {
            continue;
        }
        if news.send(News::Change(number, object, deleted)).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_newest_warning_of_a_pod() {
        let event = |kind: &str, name: &str, at: &str, message: &str| {
            json!({
                "involvedObject": {"kind": "Pod", "namespace": "shop", "name": name},
                "type": kind, "lastTimestamp": at, "message": message
            })
        };
        let events = [
            event("Warning", "a", "2026-01-01T00:00:02Z", "no address is free"),
            event("Warning", "a", "2026-01-01T00:00:01Z", "older"),
            event("Normal", "a", "2026-01-01T00:00:03Z", "Scheduled"),
            event("Warning", "b", "2026-01-01T00:00:04Z", "another pod's"),
        ];
        assert_eq!(
            last_warning(&events, "pod shop/a"),
            Some("no address is free")
        );
        assert_eq!(last_warning(&events, "pod shop/c"), None);
        assert_eq!(last_warning(&events, "service shop/a"), None);
    }
}
