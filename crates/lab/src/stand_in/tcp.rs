//! TCP: accepting until the end, and the identity server on each connection.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::drain::Work;
use super::listen::canonical;
use super::sniff::{Protocol, Replay, sniff};
use super::{Identity, http};

/// Longest line that is answered; a longer one is answered in pieces.
const MAX_LINE: u64 = 64 * 1024;

/// Accepts until the drain says that it is time to end, then takes what the
/// kernel has accepted already, so that nobody who got through is reset.
pub(super) async fn accept<F, A>(listener: TcpListener, mut work: Work, answer: F)
where
    F: Fn(TcpStream, SocketAddr, Work) -> A,
    A: Future<Output = ()> + 'static + Send,
{
    let connections = work.clone();
    let start = |stream: TcpStream, client| {
        // Answers are small; waiting to fill a packet only costs time. A client
        // that is gone already shows at the first read.
        let _ = stream.set_nodelay(true);
        tokio::spawn(answer(stream, canonical(client), connections.clone()));
    };
    loop {
        tokio::select! {
            biased;
            accepted = listener.accept() => match accepted {
                Ok((stream, client)) => start(stream, client),
                // Out of file descriptors, or a client that left at once.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            () = work.ending() => return,
        }
    }
}

/// Answers one client of the identity server, whatever it speaks.
pub(super) async fn identify(
    stream: TcpStream,
    client: SocketAddr,
    identity: Arc<Identity>,
    mut work: Work,
) {
    let Ok(server) = stream.local_addr().map(canonical) else {
        return;
    };
    let sniffed = tokio::select! {
        sniffed = sniff(stream) => sniffed,
        () = work.ending() => return,
    };
    // A client that breaks off is its own affair.
    let Ok(Some((protocol, stream))) = sniffed else {
        return;
    };
    match protocol {
        Protocol::Http => http::identify(stream, identity, server, client, work).await,
        Protocol::Lines => {
            let _ = lines(stream, &identity, server, client, work).await;
        }
        Protocol::Tls => {}
    }
}

#[derive(Serialize)]
struct Received<'a> {
    received: &'a str,
}

/// Answers each line with one line.
async fn lines(
    stream: Replay,
    identity: &Identity,
    server: SocketAddr,
    client: SocketAddr,
    mut work: Work,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut stream).take(MAX_LINE);
        let read = tokio::select! {
            biased;
            read = limited.read_until(b'\n', &mut line) => read?,
            () = work.ending() => 0,
        };
        if read == 0 {
            return stream.shutdown().await;
        }
        let text = String::from_utf8_lossy(&line);
        let received = Received {
            received: text.trim_end_matches(['\r', '\n']),
        };
        stream
            .write_all(&identity.answer(server, client, received))
            .await?;
    }
}
