//! The condition NetworkUnavailable of this node: where a cloud's controller sets
//! it, nothing is scheduled there before whoever makes the network takes it back
//! (<https://kubernetes.io/docs/reference/node/node-status/#condition>).

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::sleep;
use tracing::{debug, warn};

const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Waits until `up` says that pods can be attached, then sets the condition to
/// False. What the API refuses is said once and tried again: rights may come.
pub async fn network_is_up(client: Client, node: String, up: oneshot::Receiver<()>) {
    if up.await.is_err() {
        // The agent ends before it was ready.
        return;
    }
    let nodes: Api<Node> = Api::all(client);
    let since = Timestamp::now();
    let mut retry = RETRY;
    let mut said = false;
    loop {
        let patch = Patch::Strategic(condition(since, Timestamp::now()));
        match nodes
            .patch_status(&node, &PatchParams::default(), &patch)
            .await
        {
            Ok(_) => return,
            Err(kube::Error::Api(status)) if !said => {
                said = true;
                warn!("the node's NetworkUnavailable stays: {}", status.message);
            }
            Err(error) => debug!(%error, "the node's condition waits for the API server"),
        }
        sleep(retry).await;
        retry = (retry * 2).min(RETRY_MAX);
    }
}

fn condition(since: Timestamp, now: Timestamp) -> Value {
    json!({"status": {"conditions": [{
        "type": "NetworkUnavailable",
        "status": "False",
        "reason": "RipstopIsUp",
        "message": "ripstop is ready for pods",
        "lastTransitionTime": Time(since),
        "lastHeartbeatTime": Time(now),
    }]}})
}
