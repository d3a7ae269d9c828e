//! `serve-hostname`: says the pod's name, over HTTP, TCP or UDP.

use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::super::drain::{Drain, Work};
use super::super::{Failure, Identity, http, listen, tcp, udp};
use super::flags::Flags;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ServeHostname {
    port: u16,
    http: bool,
    tcp: bool,
    udp: bool,
}

impl ServeHostname {
    pub(super) fn parse(args: &[String]) -> Result<Self, Failure> {
        let flags = Flags::parse(args, &["port"], &["http", "tcp", "udp", "close"])?;
        let (tcp, udp) = (flags.switch("tcp", false)?, flags.switch("udp", false)?);
        Ok(Self {
            port: flags.port("port", 9376)?.unwrap_or(9376),
            // The flag's default is true and gives way to --tcp.
            http: flags.switch("http", true)? && !tcp,
            tcp,
            udp,
        })
    }
}

pub(super) fn start(
    wanted: &ServeHostname,
    identity: &Identity,
    drain: &Drain,
) -> Result<(), Failure> {
    let name = identity.pod.clone();
    if wanted.http || wanted.tcp {
        let (listener, plain) = (listen::tcp(wanted.port)?, wanted.tcp);
        let name = name.clone();
        tokio::spawn(tcp::accept(
            listener,
            drain.work(),
            move |stream, _, work| answer(stream, plain, name.clone(), work),
        ));
    }
    if wanted.udp {
        let socket = listen::udp(wanted.port)?;
        tokio::spawn(udp::serve(socket, move |_: SocketAddr, _| {
            let name = name.clone();
            async move { Some(name.into_bytes()) }
        }));
    }
    println!("serving the host name on port {}", wanted.port);
    Ok(())
}

async fn answer(mut stream: TcpStream, plain: bool, name: String, work: Work) {
    if plain {
        // Said without being asked. A client that left already is no matter.
        let _ = stream.write_all(name.as_bytes()).await;
        let _ = stream.shutdown().await;
        return;
    }
    http::serve(stream, work, move |_| {
        let name = name.clone();
        async move { http::text(200, name) }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_takes_the_place_of_http() {
        let parse = |line: &str| {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            ServeHostname::parse(&words).unwrap()
        };
        let plain = ServeHostname {
            port: 9376,
            http: true,
            tcp: false,
            udp: false,
        };
        assert_eq!(parse(""), plain);
        assert_eq!(
            parse("--tcp --port=80"),
            ServeHostname {
                port: 80,
                http: false,
                tcp: true,
                ..plain
            }
        );
        assert_eq!(
            parse("--http=false --udp"),
            ServeHostname {
                http: false,
                udp: true,
                ..plain
            }
        );
    }
}
