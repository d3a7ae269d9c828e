//! Questions over UDP: as many at once as are there.

use std::io::{IoSlice, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};
use tokio::runtime::Handle;
use tracing::debug;

use super::forward::{Job, failure};
use super::share::Share;
use super::{Shared, wait};
use crate::answer::{Transport, Verdict};
use crate::log::{Observed, Source};

/// Longest question; with EDNS options they have a few hundred bytes.
const QUERY_MAX: usize = 2048;
/// Questions that are answered together.
const BATCH: usize = 32;
/// After an error of the socket, so that a lasting one does not take a CPU.
const ERROR_PAUSE: Duration = Duration::from_millis(20);
/// For names that are known from before or will be in a moment: better a late
/// answer than a failure.
const PATIENCE: Duration = Duration::from_secs(1);

/// A question of a batch.
#[derive(Clone, Copy)]
struct Asked {
    length: usize,
    client: SockaddrStorage,
    observed: Option<Observed>,
    /// Its client has had its part.
    limited: bool,
}

pub(super) fn serve(shared: &Arc<Shared>, socket: &Arc<UdpSocket>, runtime: &Handle) {
    shared.zone.wait_known(PATIENCE);
    let fd = socket.as_raw_fd();
    let mut packets = vec![[0_u8; QUERY_MAX]; BATCH];
    let mut replies = vec![Vec::new(); BATCH];
    let mut receive = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
    let mut send = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
    let mut asked: Vec<Asked> = Vec::with_capacity(BATCH);
    let mut share = Share::new(Instant::now());
    while !shared.ending.load(Ordering::Relaxed) {
        asked.clear();
        {
            let mut slices: Vec<_> = packets.iter_mut().map(|p| [IoSliceMut::new(p)]).collect();
            let wait = MsgFlags::MSG_WAITFORONE;
            match recvmmsg(fd, &mut receive, slices.iter_mut(), wait, None) {
                Ok(received) => asked.extend(received.filter_map(|message| {
                    Some(Asked {
                        length: message.bytes,
                        client: message.address?,
                        observed: None,
                        limited: false,
                    })
                })),
                Err(error) => {
                    debug!(%error, "DNS over UDP");
                    thread::sleep(ERROR_PAUSE);
                    continue;
                }
            }
        }
        let start = Instant::now();
        share.next(start, asked.len() == BATCH, || shared.backlog?(socket));
        for ((asked, packet), reply) in asked.iter_mut().zip(&packets).zip(&mut replies) {
            if share.is_limited()
                && let Some(client) = address(&asked.client)
                && !share.takes(client.ip())
            {
                asked.limited = true;
                continue;
            }
            asked.observed = one(
                shared,
                socket,
                runtime,
                &packet[..asked.length],
                asked,
                reply,
            );
        }
        let answered = asked
            .iter()
            .zip(&replies)
            .filter(|(asked, _)| has_reply(asked));
        let (clients, slices): (Vec<_>, Vec<_>) = answered
            .map(|(asked, reply)| (Some(asked.client), [IoSlice::new(reply)]))
            .unzip();
        // A client that is gone by now is its own affair.
        let mut sent = 0;
        while sent < slices.len() {
            let flags = MsgFlags::empty();
            match sendmmsg(fd, &mut send, &slices[sent..], &clients[sent..], [], flags) {
                Ok(results) => sent += results.count().max(1),
                Err(_) => sent += 1,
            }
        }
        let took = start.elapsed();
        let mut recorder = shared.stats.begin(SystemTime::now());
        for (asked, packet) in asked.iter().zip(&packets) {
            if let (Some(observed), Some(client)) = (asked.observed, address(&asked.client)) {
                let observed = Observed { took, ..observed };
                recorder.observe(client.ip(), &packet[..asked.length], observed);
            }
            if asked.limited
                && let Some(client) = address(&asked.client)
            {
                recorder.limited(client.ip());
            }
        }
    }
    // What comes now waits in the socket for the next agent.
    loop {
        thread::park();
    }
}

/// Answers one question, or has it answered later. What is to be noted now.
fn one(
    shared: &Arc<Shared>,
    socket: &Arc<UdpSocket>,
    runtime: &Handle,
    packet: &[u8],
    asked: &Asked,
    reply: &mut Vec<u8>,
) -> Option<Observed> {
    let client = address(&asked.client)?;
    let (outcome, source) = shared.decide(packet, client.ip(), Transport::Udp, reply, runtime);
    match outcome.verdict {
        Verdict::Drop => return Some(Observed::new(&outcome, source, Duration::ZERO)),
        Verdict::Reply => {
            let observed = Observed::new(&outcome, source, Duration::ZERO);
            let Some(ready) = shared.tell(reply) else {
                return Some(observed);
            };
            let Some(permit) = shared.limits.take(client.ip()) else {
                return Some(observed);
            };
            let (packet, reply) = (packet.to_vec(), reply.clone());
            let (shared, socket, start) = (Arc::clone(shared), Arc::clone(socket), Instant::now());
            runtime.spawn(async move {
                wait(ready).await;
                let _ = socket.send_to(&reply, client);
                let took = start.elapsed();
                let mut recorder = shared.stats.begin(SystemTime::now());
                recorder.observe(client.ip(), &packet, Observed { took, ..observed });
                drop(permit);
            });
            return None;
        }
        _ => {}
    }
    let Some(permit) = shared.limits.take(client.ip()) else {
        failure(packet, reply);
        return Some(Observed {
            rcode: 2,
            ..Observed::new(&outcome, Source::Refused, Duration::ZERO)
        });
    };
    let mut job = Job {
        packet: packet.to_vec(),
        client: client.ip(),
        transport: Transport::Udp,
        outcome,
        reply: reply.clone(),
    };
    let (shared, socket, start) = (Arc::clone(shared), Arc::clone(socket), Instant::now());
    runtime.spawn(async move {
        let source = job.finish(&shared).await;
        shared.tell_and_wait(&job.reply).await;
        let _ = socket.send_to(&job.reply, client);
        let observed = Observed::new(&job.outcome, source, start.elapsed());
        let mut recorder = shared.stats.begin(SystemTime::now());
        recorder.observe(job.client, &job.packet, observed);
        drop(permit);
    });
    None
}

fn has_reply(asked: &Asked) -> bool {
    asked
        .observed
        .is_some_and(|observed| observed.source != Source::Dropped)
}

fn address(client: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = client
        .as_sockaddr_in()
        .map(|a| SocketAddr::from((a.ip(), a.port())));
    let v6 = || {
        let a = client.as_sockaddr_in6()?;
        // A link-local client is answered on its own link.
        let address = std::net::SocketAddrV6::new(a.ip(), a.port(), 0, a.scope_id());
        Some(SocketAddr::from(address))
    };
    v4.or_else(v6)
}
