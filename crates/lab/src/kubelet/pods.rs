//! Which pods there are: a task for each that is bound to one of our nodes.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use ripstop_apiserver::WatchEvent;
use tokio::sync::watch;

use super::Context;
use super::node::Node;
use super::task::{PodTask, Wanted};

/// Follows the API's pods for as long as the lab runs.
pub(super) async fn run(context: Arc<Context>, nodes: Vec<Arc<Node>>) {
    let nodes: HashMap<String, Arc<Node>> = nodes
        .into_iter()
        .map(|node| (node.spec.name.clone(), node))
        .collect();
    let mut tasks: HashMap<String, watch::Sender<Wanted>> = HashMap::new();
    let mut events = context.client.watch::<Pod>();
    loop {
        match events.next().await {
            WatchEvent::Applied(pod) => {
                let Some(uid) = pod.metadata.uid.clone() else {
                    continue;
                };
                let wanted = Wanted {
                    pod: Arc::new(pod),
                    gone: false,
                };
                if let Some(task) = tasks.get(&uid) {
                    task.send_replace(wanted);
                } else if let Some(node) = node_of(&wanted.pod, &nodes) {
                    let (sender, receiver) = watch::channel(wanted);
                    tasks.insert(uid, sender);
                    tokio::spawn(PodTask::new(Arc::clone(node), receiver).run());
                }
            }
            WatchEvent::Deleted(pod) => {
                let uid = pod.metadata.uid.clone().unwrap_or_default();
                if let Some(task) = tasks.remove(&uid) {
                    task.send_replace(Wanted {
                        pod: Arc::new(pod),
                        gone: true,
                    });
                }
            }
            WatchEvent::Synced => {}
        }
    }
}

fn node_of<'a>(pod: &Pod, nodes: &'a HashMap<String, Arc<Node>>) -> Option<&'a Arc<Node>> {
    nodes.get(pod.spec.as_ref()?.node_name.as_ref()?)
}
