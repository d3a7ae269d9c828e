//! Questions over TCP (RFC 7766): several at a time in a connection.

use std::io;
use std::net::{IpAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, error};

use super::Shared;
use super::forward::Job;
use crate::answer::{Transport, Verdict};
use crate::log::{Observed, Source};

/// A connection on which nothing is asked for so long is closed (RFC 7766, 6.2.3).
const IDLE: Duration = Duration::from_secs(10);
const CONNECTIONS: usize = 1024;
/// Questions of one connection that wait for upstream servers.
const PIPELINE: usize = 32;
const ERROR_PAUSE: Duration = Duration::from_millis(20);

/// Serves connections at all listeners, for ever.
pub(super) async fn serve_all(shared: Arc<Shared>, listeners: Vec<StdListener>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let mut tasks = JoinSet::new();
    for listener in listeners {
        match TcpListener::from_std(listener) {
            Ok(listener) => {
                tasks.spawn(serve(
                    Arc::clone(&shared),
                    listener,
                    Arc::clone(&connections),
                ));
            }
            Err(error) => error!(%error, "DNS over TCP"),
        }
    }
    while tasks.join_next().await.is_some() {}
    // Without listeners there is still UDP, whose questions are answered here.
    std::future::pending().await
}

async fn serve(shared: Arc<Shared>, listener: TcpListener, connections: Arc<Semaphore>) {
    loop {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!(%error, "DNS over TCP");
                sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        // One too many is closed at once: its client asks again.
        let (Ok(all), Some(own)) = (
            Arc::clone(&connections).try_acquire_owned(),
            shared.connections.take(client.ip()),
        ) else {
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            // Ends with the client's close, an error or a pause: all the same.
            let _ = connection(&shared, stream, client.ip()).await;
            drop((all, own));
        });
    }
}

async fn connection(shared: &Arc<Shared>, stream: TcpStream, client: IpAddr) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut read, write) = stream.into_split();
    let write = Arc::new(Mutex::new(write));
    let slots = Arc::new(Semaphore::new(PIPELINE));
    let runtime = tokio::runtime::Handle::current();
    let mut packet = Vec::new();
    let mut reply = Vec::new();
    loop {
        let length = timeout(IDLE, read.read_u16()).await??;
        packet.resize(usize::from(length), 0);
        timeout(IDLE, read.read_exact(&mut packet)).await??;
        let start = Instant::now();
        let (outcome, source) =
            shared.decide(&packet, client, Transport::Tcp, &mut reply, &runtime);
        match outcome.verdict {
            // What is no question is no client.
            Verdict::Drop => return Ok(()),
            Verdict::Reply => {
                shared.tell_and_wait(&reply).await;
                send(&write, &reply).await?;
                note(
                    shared,
                    client,
                    &packet,
                    Observed::new(&outcome, source, start.elapsed()),
                );
            }
            _ => {
                // No more is read while so many wait.
                let slot = Arc::clone(&slots).acquire_owned().await;
                let mut job = Job {
                    packet: packet.clone(),
                    client,
                    transport: Transport::Tcp,
                    outcome,
                    reply: reply.clone(),
                };
                let (shared, write) = (Arc::clone(shared), Arc::clone(&write));
                tokio::spawn(async move {
                    let source = job.finish(&shared).await;
                    shared.tell_and_wait(&job.reply).await;
                    // Who has closed the connection does not want the answer.
                    let _ = send(&write, &job.reply).await;
                    let observed = Observed::new(&job.outcome, source, start.elapsed());
                    note(&shared, client, &job.packet, observed);
                    drop(slot);
                });
            }
        }
    }
}

fn note(shared: &Shared, client: IpAddr, packet: &[u8], observed: Observed) {
    if observed.source != Source::Dropped {
        let mut recorder = shared.stats.begin(SystemTime::now());
        recorder.observe(client, packet, observed);
    }
}

async fn send(write: &Mutex<OwnedWriteHalf>, reply: &[u8]) -> io::Result<()> {
    let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
    let message = [&length.to_be_bytes()[..], reply].concat();
    // A client that does not read holds up its own connection only.
    timeout(IDLE, write.lock().await.write_all(&message)).await??;
    Ok(())
}
