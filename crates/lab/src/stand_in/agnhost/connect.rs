//! `connect HOST:PORT`: tries once and says how it went, in one word.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use tokio::net::{TcpStream, UdpSocket, lookup_host};

use super::super::Failure;
use super::flags::{Flags, duration, invalid};

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Connect {
    address: String,
    protocol: Protocol,
    timeout: Option<Duration>,
    udp_data: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Protocol {
    Tcp,
    Udp,
}

/// How it failed; printed as tests expect it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Dns,
    Timeout,
    Refused,
    Other,
}

impl Connect {
    pub(super) fn parse(args: &[String]) -> Result<Self, Failure> {
        let flags = Flags::parse(args, &["timeout", "protocol", "udp-data"], &[])?;
        let &[address] = flags.positional.as_slice() else {
            return Err(Failure::Usage(
                "connect: wanted one argument, HOST:PORT".to_owned(),
            ));
        };
        let protocol = match flags.text("protocol") {
            None | Some("tcp") => Protocol::Tcp,
            Some("udp") => Protocol::Udp,
            Some(other) => return Err(invalid("protocol", other, "tcp or udp")),
        };
        let timeout = match flags.text("timeout") {
            None => Duration::ZERO,
            Some(text) => {
                duration(text).ok_or_else(|| invalid("timeout", text, "a duration as in 5s"))?
            }
        };
        Ok(Self {
            address: address.to_owned(),
            protocol,
            // agnhost's default, 0, is to wait for as long as the kernel does.
            timeout: (!timeout.is_zero()).then_some(timeout),
            udp_data: flags.text("udp-data").unwrap_or("UNKNOWN").to_owned(),
        })
    }
}

pub(super) async fn run(wanted: &Connect) -> ExitCode {
    let attempt = attempt(wanted);
    let result = match wanted.timeout {
        Some(limit) => tokio::time::timeout(limit, attempt)
            .await
            .unwrap_or(Err(Outcome::Timeout)),
        None => attempt.await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(outcome) => {
            eprintln!("{}", format!("{outcome:?}").to_uppercase());
            ExitCode::FAILURE
        }
    }
}

async fn attempt(wanted: &Connect) -> Result<(), Outcome> {
    let addresses: Vec<SocketAddr> = lookup_host(&wanted.address)
        .await
        .map_err(|_| Outcome::Dns)?
        .collect();
    let mut last = Outcome::Dns;
    for address in addresses {
        let tried = match wanted.protocol {
            Protocol::Tcp => TcpStream::connect(address).await.map(drop),
            Protocol::Udp => exchange(address, wanted.udp_data.as_bytes()).await,
        };
        match tried {
            Ok(()) => return Ok(()),
            Err(error) => last = outcome(&error),
        }
    }
    Err(last)
}

async fn exchange(address: SocketAddr, data: &[u8]) -> io::Result<()> {
    let socket = match address {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?,
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).await?,
    };
    socket.connect(address).await?;
    socket.send(data).await?;
    socket.recv(&mut [0; 1]).await.map(drop)
}

fn outcome(error: &io::Error) -> Outcome {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Outcome::Refused,
        io::ErrorKind::TimedOut => Outcome::Timeout,
        _ => Outcome::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let connect = Connect::parse(&words("svc:80 --timeout=3s --protocol udp")).unwrap();
        assert_eq!(connect.protocol, Protocol::Udp);
        assert_eq!(connect.timeout, Some(Duration::from_secs(3)));
        assert_eq!(connect.address, "svc:80");
        assert_eq!(Connect::parse(&words("svc:80")).unwrap().timeout, None);
        assert!(Connect::parse(&words("svc:80 --protocol sctp")).is_err());
        assert!(Connect::parse(&[]).is_err());
    }
}
