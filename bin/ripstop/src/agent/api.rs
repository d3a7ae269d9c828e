//! The API server, followed from a thread of its own.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use anyhow::{Context, Result};
use ripstop_watch::{ApiHealth, Reporter};

use super::args::PodNameMode;
use super::feed::Input;
use super::{Args, thread};

/// Starts to follow the API; events come through `sender` from now on. Problems
/// that are reported become Events there.
///
/// # Errors
/// If the configuration makes no client. A server that is away is no error.
pub(crate) fn follow(
    args: &Args,
    health: Arc<ApiHealth>,
    sender: Sender<Input>,
) -> Result<Reporter> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("runtime of the API client")?;
    let client = runtime.block_on(ripstop_watch::connect(args.kubeconfig.as_deref()))?;
    let (reporter, recorder) = ripstop_watch::recorder(&args.node_name);
    // Names of pods are the only ones that need to know pods.
    let verified = args.pod_names == PodNameMode::Verified;
    thread::start("api", move || {
        // A receiver that is gone means that the agent ends.
        let tell = |event| drop(sender.send(Input::Api(event)));
        runtime.block_on(async {
            let watch = ripstop_watch::watch(client.clone(), Arc::clone(&health), tell);
            let pods = async {
                if verified {
                    ripstop_watch::watch_pods(client.clone(), health, tell).await;
                }
            };
            tokio::join!(watch, pods, recorder.run(client.clone()));
        });
    })?;
    Ok(reporter)
}
