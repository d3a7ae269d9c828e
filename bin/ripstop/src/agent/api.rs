//! The API server, followed from a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;

use anyhow::{Context, Result};
use ripstop_host::privileges::drop_in_thread;
use ripstop_watch::{ApiHealth, Event, Reporter};
use tokio::sync::oneshot;
use tracing::warn;

use super::feed::{Gate, Input};
use super::{Args, thread};

/// Starts to follow the API; events come through `sender` from now on. Problems
/// that are reported become Events there; once the second of what is returned is
/// told, the node's network is there for everybody.
///
/// # Errors
/// If the configuration makes no client. A server that is away is no error.
pub(crate) fn follow(
    args: &Args,
    health: Arc<ApiHealth>,
    sender: Sender<Input>,
    gate: Arc<Gate>,
) -> Result<(Reporter, oneshot::Sender<()>)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("runtime of the API client")?;
    let client = runtime.block_on(ripstop_watch::connect(
        "ripstop-agent",
        args.kubeconfig.as_deref(),
        args.api_server.as_deref(),
    ))?;
    let (reporter, recorder) = ripstop_watch::recorder(&args.node_name);
    let (up, is_up) = oneshot::channel();
    let node = args.node_name.clone();
    thread::start("api", move || {
        // It talks to a server, and reads files of the user whose it stays.
        if let Err(error) = drop_in_thread() {
            warn!(%error, "the thread of the API keeps the agent's privileges");
        }
        // A receiver that is gone means that the agent ends.
        let tell = |event| {
            gate.enter();
            drop(sender.send(Input::Api(event)));
        };
        runtime.block_on(async {
            // There is no plan before services and policies are all known.
            let unlisted = AtomicUsize::new(2);
            let synced = || {
                if unlisted.fetch_sub(1, Ordering::Relaxed) == 1 {
                    tell(Event::Synced);
                }
            };
            let services = |event| match event {
                Event::Synced => synced(),
                event => tell(event),
            };
            tokio::join!(
                ripstop_watch::watch(client.clone(), Arc::clone(&health), services),
                ripstop_watch::watch_policies(client.clone(), health, tell, synced),
                recorder.run(client.clone()),
                ripstop_watch::network_is_up(client.clone(), node, is_up),
            );
        });
    })?;
    Ok((reporter, up))
}
