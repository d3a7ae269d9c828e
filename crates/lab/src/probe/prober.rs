//! The process that tries, inside a pod.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::check::{Check, Client, Expect, Finding, Identity, Protocol, Task};
use super::ping;
use crate::container;

/// The verb of `ripstop lab` that calls [`main`].
pub const SUBCOMMAND: &str = "prober";

/// Attempts that are under way at once.
const CONCURRENCY: usize = 64;
/// A datagram may be lost while a neighbour is looked up; it is sent again.
const UDP_TRIES: u32 = 3;
/// Of an answer, how much is read.
const MAX_ANSWER: usize = 64 * 1024;

/// Reads a [`Task`] from standard input, enters the pod, tries everything and
/// writes the findings to standard output, in order.
pub fn main() -> ExitCode {
    let mut text = Vec::new();
    let task: Task = match io::stdin()
        .read_to_end(&mut text)
        .and_then(|_| Ok(serde_json::from_slice(&text)?))
    {
        Ok(task) => task,
        Err(error) => {
            eprintln!("{SUBCOMMAND}: started by ripstop lab probe, not by hand: {error}");
            return ExitCode::from(2);
        }
    };
    container::visit(&task.enter, || match try_all(&task) {
        Ok(findings) => {
            // Strings and numbers: cannot fail; a closed pipe has no reader.
            let _ = serde_json::to_writer(io::stdout().lock(), &findings);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    })
}

fn try_all(task: &Task) -> io::Result<Vec<Finding>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let limit = Duration::from_millis(task.timeout_ms);
    Ok(runtime.block_on(
        stream::iter(&task.checks)
            .map(|check| attempt(check, &task.own, limit))
            .buffered(CONCURRENCY)
            .collect(),
    ))
}

async fn attempt(check: &Check, own: &Client, limit: Duration) -> Finding {
    let begin = Instant::now();
    let result = match timeout(limit, reach(check, limit)).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {} ms", limit.as_millis()),
        )),
    };
    let micros = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
    let (error, by) = judge(check, own, result);
    Finding { micros, error, by }
}

/// What is wrong, and who answered.
fn judge(
    check: &Check,
    own: &Client,
    result: io::Result<Identity>,
) -> (Option<String>, Option<String>) {
    match (&check.expect, result) {
        (Expect::Refused, Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            (None, None)
        }
        (Expect::Refused, Ok(identity)) => {
            let who = identity.pod.unwrap_or_else(|| "somebody".to_owned());
            (
                Some(format!("answered by {who}, expected to be refused")),
                None,
            )
        }
        (_, Err(error)) => (Some(error.to_string()), None),
        (Expect::Connection, Ok(identity)) => (None, identity.pod),
        (Expect::Answer(pods), Ok(mut identity)) => {
            // Who reaches itself through a service is seen as its node where
            // packets are translated: its own address would be a martian one.
            if identity.pod.as_ref() == Some(&own.pod) {
                identity.client = None;
            }
            (identity.problem(pods, &own.addresses), identity.pod)
        }
    }
}

async fn reach(check: &Check, limit: Duration) -> io::Result<Identity> {
    let address = resolve(&check.host, check.port).await?;
    match check.protocol {
        Protocol::Tcp => tcp(check, address, limit).await,
        Protocol::Udp => udp(address, limit).await,
        Protocol::Icmp => ping::ping(address.ip(), limit)
            .await
            .map(|()| Identity::default()),
    }
}

/// The first address, as most programs take it.
async fn resolve(host: &str, port: u16) -> io::Result<SocketAddr> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, port));
    }
    let mut addresses = tokio::net::lookup_host((host, port))
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("name {host}: {error}")))?;
    addresses
        .next()
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("name {host}: no address")))
}

async fn tcp(check: &Check, address: SocketAddr, limit: Duration) -> io::Result<Identity> {
    let mut stream = TcpStream::connect(address).await?;
    if check.expect == Expect::Connection {
        return Ok(Identity::default());
    }
    // What agnhost answers with whom it saw, and a stand-in with all it knows.
    let request = format!(
        "GET /clientip HTTP/1.1\r\nHost: {}\r\nUser-Agent: ripstop-probe\r\nConnection: close\r\n\r\n",
        check.host
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let mut stream = stream.take(MAX_ANSWER as u64);
    let reading = stream.read_to_end(&mut answer);
    // A program that speaks something else may wait for more, or hang up: it
    // was reached, which is what was asked.
    let _ = timeout(limit / 2, reading).await;
    let text = String::from_utf8_lossy(&answer);
    Ok(Identity::read(
        text.split_once("\r\n\r\n").map_or("", |(_, body)| body),
    ))
}

async fn udp(address: SocketAddr, limit: Duration) -> io::Result<Identity> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(address).await?;
    let mut buffer = vec![0; MAX_ANSWER];
    loop {
        socket.send(b"clientip").await?;
        if let Ok(length) = timeout(limit / UDP_TRIES, socket.recv(&mut buffer)).await {
            return Ok(Identity::read(&String::from_utf8_lossy(&buffer[..length?])));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expect: Expect) -> Check {
        Check {
            host: "127.0.0.1".into(),
            port: 1,
            protocol: Protocol::Tcp,
            expect,
        }
    }

    #[test]
    fn results_are_judged() {
        let own = Client {
            pod: "x/c".into(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
        };
        let refused = || Err(io::Error::from(io::ErrorKind::ConnectionRefused));
        let from = |pod: &str| {
            Ok(Identity {
                pod: Some(pod.to_owned()),
                client: None,
            })
        };
        let seen = |pod: &str, client: &str| {
            Ok(Identity {
                pod: Some(pod.to_owned()),
                client: Some(client.parse().unwrap()),
            })
        };
        let of_a = || check(Expect::Answer(vec!["x/a".into()]));
        let table = [
            (check(Expect::Refused), refused(), None),
            (
                check(Expect::Refused),
                from("x/a"),
                Some("answered by x/a, expected to be refused"),
            ),
            (of_a(), from("x/a"), None),
            (of_a(), from("x/b"), Some("answered by x/b, expected x/a")),
            (of_a(), seen("x/a", "10.0.0.1"), None),
            (
                of_a(),
                seen("x/a", "172.30.1.11"),
                Some("the server saw 172.30.1.11, we are 10.0.0.1"),
            ),
            // Oneself, as one's node.
            (
                check(Expect::Answer(vec!["x/c".into()])),
                seen("x/c", "172.30.1.11"),
                None,
            ),
            (of_a(), refused(), Some("connection refused")),
            (check(Expect::Connection), Ok(Identity::default()), None),
        ];
        for (check, result, expect) in table {
            assert_eq!(judge(&check, &own, result).0.as_deref(), expect);
        }
    }

    #[tokio::test]
    async fn a_closed_port_is_refused_and_a_silent_server_passes() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut open = check(Expect::Answer(vec!["x/a".into()]));
        open.port = address.port();
        let limit = Duration::from_millis(200);
        let finding = attempt(&open, &Client::default(), limit).await;
        assert_eq!(finding.error, None);
        drop(listener);
        let mut closed = check(Expect::Refused);
        closed.port = address.port();
        assert_eq!(
            attempt(&closed, &Client::default(), limit).await.error,
            None
        );
    }
}
