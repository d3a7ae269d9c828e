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
