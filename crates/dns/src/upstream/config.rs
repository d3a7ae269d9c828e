//! Whom to ask.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::Name;

const PORT: u16 = 53;
/// DNS over TLS (RFC 7858).
const TLS_PORT: u16 = 853;

/// How questions travel to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamTransport {
    /// And TCP for what does not fit.
    Udp,
    Tcp,
    /// The name in the server's certificate; without one, its address.
    Tls(Option<String>),
}

/// A server that resolves names of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamServer {
    pub address: SocketAddr,
    pub transport: UpstreamTransport,
}

/// Names that have servers of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stub {
    pub domain: Name,
    pub servers: Vec<UpstreamServer>,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct UpstreamConfig {
    pub servers: Vec<UpstreamServer>,
    pub stubs: Vec<Stub>,
    /// Certificates (PEM) that servers over TLS are checked against.
    pub roots: Vec<u8>,
    /// Bytes of answers to keep; 0 for the default.
    pub cache_bytes: usize,
}

/// A server that cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    #[error(
        "upstream server {0:?} is none of IP, IP:PORT, tcp://IP[:PORT], tls://IP[:PORT][#NAME]"
    )]
    Server(String),
    #[error("stub domain {0:?} is not DOMAIN=SERVER[,SERVER...] (like corp.example=192.0.2.53)")]
    Stub(String),
}

impl UpstreamConfig {
    /// Servers of a resolv.conf(5).
    pub fn parse_resolv_conf(text: &str) -> Vec<UpstreamServer> {
        text.lines()
            .filter_map(|line| line.trim().strip_prefix("nameserver"))
            .filter_map(|rest| {
                // A zone is of an interface of the node.
                let address = rest.split_whitespace().next()?.split('%').next()?;
                Some(UpstreamServer::udp(address.parse().ok()?))
            })
            .collect()
    }

    /// Leaves out this server's own addresses: it would ask itself for ever.
    #[must_use]
    pub fn without(mut self, ours: &[IpAddr]) -> Self {
        let others = |server: &UpstreamServer| !ours.contains(&server.address.ip());
        self.servers.retain(others);
        for stub in &mut self.stubs {
            stub.servers.retain(others);
        }
        self
    }
}

impl UpstreamServer {
    pub fn udp(address: IpAddr) -> Self {
        Self {
            address: SocketAddr::new(address, PORT),
            transport: UpstreamTransport::Udp,
        }
    }
}

impl FromStr for UpstreamServer {
    type Err = ServerError;

    fn from_str(text: &str) -> Result<Self, ServerError> {
        let error = || ServerError::Server(text.to_owned());
        let (transport, port, rest) = if let Some(rest) = text.strip_prefix("tcp://") {
            (UpstreamTransport::Tcp, PORT, rest)
        } else if let Some(rest) = text.strip_prefix("tls://") {
            match rest.split_once('#') {
                Some((_, "")) => return Err(error()),
                Some((rest, name)) => {
                    let name = Some(name.to_owned());
                    (UpstreamTransport::Tls(name), TLS_PORT, rest)
                }
                None => (UpstreamTransport::Tls(None), TLS_PORT, rest),
            }
        } else {
            (UpstreamTransport::Udp, PORT, text)
        };
        let address = rest
            .parse()
            .or_else(|_| rest.parse().map(|ip: IpAddr| SocketAddr::new(ip, port)))
            .map_err(|_| error())?;
        Ok(Self { address, transport })
    }
}

impl fmt::Display for UpstreamServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.transport {
            UpstreamTransport::Udp => write!(f, "{}", self.address),
            UpstreamTransport::Tcp => write!(f, "tcp://{}", self.address),
            UpstreamTransport::Tls(None) => write!(f, "tls://{}", self.address),
            UpstreamTransport::Tls(Some(name)) => write!(f, "tls://{}#{name}", self.address),
        }
    }
}

impl FromStr for Stub {
    type Err = ServerError;

    fn from_str(text: &str) -> Result<Self, ServerError> {
        let error = || ServerError::Stub(text.to_owned());
        let (domain, servers) = text.split_once('=').ok_or_else(error)?;
        let domain = Name::parse(domain).map_err(|_| error())?;
        if domain.count() == 0 {
            return Err(error());
        }
        let servers = servers
            .split(',')
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        Ok(Self { domain, servers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_in_words() {
        for (text, shown) in [
            ("192.0.2.1", "192.0.2.1:53"),
            ("192.0.2.1:5353", "192.0.2.1:5353"),
            ("2001:db8::1", "[2001:db8::1]:53"),
            ("[2001:db8::1]:54", "[2001:db8::1]:54"),
            ("tcp://192.0.2.1", "tcp://192.0.2.1:53"),
            ("tls://192.0.2.1", "tls://192.0.2.1:853"),
            (
                "tls://192.0.2.1:54#dns.example",
                "tls://192.0.2.1:54#dns.example",
            ),
        ] {
            let server: UpstreamServer = text.parse().unwrap();
            assert_eq!(server.to_string(), shown);
        }
        for text in [
            "",
            "dns.example",
            "tls://192.0.2.1#",
            "udp://192.0.2.1",
            "192.0.2.1:x",
        ] {
            assert!(text.parse::<UpstreamServer>().is_err(), "{text}");
        }
        let stub: Stub = "corp.example=192.0.2.1,tls://192.0.2.2".parse().unwrap();
        assert_eq!(
            (stub.domain.to_string().as_str(), stub.servers.len()),
            ("corp.example.", 2)
        );
        for text in ["corp.example", ".=192.0.2.1", "corp.example="] {
            assert!(text.parse::<Stub>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_nodes_own_servers() {
        let text = "# nameserver 192.0.2.9\nsearch a\nnameserver 192.0.2.1\n nameserver fe80::1%eth0\nnameserver x\n";
        let servers = UpstreamConfig::parse_resolv_conf(text);
        let shown: Vec<_> = servers.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["192.0.2.1:53", "[fe80::1]:53"]);
    }
}
