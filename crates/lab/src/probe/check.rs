//! What a probe tries and what it finds, as the prober in a pod gets and tells it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::container::spec::ProcessSpec;

/// Everything that one prober has to do: its standard input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Task {
    /// The container to do it in.
    pub enter: ProcessSpec,
    pub own: Client,
    pub checks: Vec<Check>,
    pub timeout_ms: u64,
}

/// Who tries.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Client {
    /// `NAMESPACE/NAME`
    pub pod: String,
    /// Under which servers shall see it.
    pub addresses: Vec<IpAddr>,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// An address or a name.
    pub host: String,
    pub port: u16,
    pub protocol: Protocol,
    pub expect: Expect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    Tcp,
    Udp,
    /// Echo request; the port is 0.
    Icmp,
}

/// What the answer has to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expect {
    /// One of these pods, as NAMESPACE/NAME, answers and has seen one of our
    /// addresses. A server that does not say who it is passes.
    Answer(Vec<String>),
    /// A TCP connection is accepted.
    Connection,
    /// Nobody serves there: refused at once.
    Refused,
}

/// What came of a [`Check`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub micros: u64,
    /// Why it is not as expected.
    pub error: Option<String>,
    /// Who answered, if they said.
    pub by: Option<String>,
}

impl Check {
    /// `10.0.0.1:80/TCP`, `[fd00::1]:53/UDP`, `web:80/TCP`, `10.0.0.1 (ping)`.
    pub fn describe(&self) -> String {
        let host = match self.host.parse::<IpAddr>() {
            Ok(IpAddr::V6(address)) if self.protocol != Protocol::Icmp => format!("[{address}]"),
            _ => self.host.clone(),
        };
        match self.protocol {
            Protocol::Tcp => format!("{host}:{}/TCP", self.port),
            Protocol::Udp => format!("{host}:{}/UDP", self.port),
            Protocol::Icmp => format!("{host} (ping)"),
        }
    }
}

/// What the body of an answer tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    /// NAMESPACE/NAME
    pub(super) pod: Option<String>,
    pub(super) client: Option<IpAddr>,
}

impl Identity {
    /// Of a stand-in's line of JSON, or of agnhost's answer to `clientip`.
    pub(super) fn read(body: &str) -> Self {
        let body = body.trim();
        let address = |text: &str| {
            let socket = text
                .parse::<std::net::SocketAddr>()
                .ok()
                .map(|address| address.ip());
            socket.or_else(|| text.parse().ok())
        };
        let Ok(value) = serde_json::from_str::<serde_json::Value>(body) else {
            return Self {
                pod: None,
                client: address(body),
            };
        };
        let (namespace, pod) = (value["namespace"].as_str(), value["pod"].as_str());
        Self {
            pod: namespace
                .zip(pod)
                .map(|(namespace, pod)| format!("{namespace}/{pod}")),
            client: value["client"].as_str().and_then(address),
        }
    }

    /// What is wrong about it, if anything.
    pub(super) fn problem(&self, expected: &[String], own: &[IpAddr]) -> Option<String> {
        if let Some(pod) = &self.pod
            && !expected.contains(pod)
        {
            let expected = expected.join(" or ");
            return Some(format!("answered by {pod}, expected {expected}"));
        }
        match self.client {
            Some(client) if !own.contains(&client) => {
                let own: Vec<_> = own.iter().map(ToString::to_string).collect();
                Some(format!(
                    "the server saw {client}, we are {}",
                    own.join(", ")
                ))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_answered_and_whom_they_saw() {
        let json = r#"{"pod":"web-0","namespace":"shop","client":"10.244.1.5:4242"}"#;
        let client = Some("10.244.1.5".parse().unwrap());
        assert_eq!(
            Identity::read(json),
            Identity {
                pod: Some("shop/web-0".into()),
                client
            }
        );
        assert_eq!(
            Identity::read("10.244.1.5:4242\n"),
            Identity { pod: None, client }
        );
        assert_eq!(Identity::read("<html>"), Identity::default());
        let v6 = Identity::read("[fd00::5]:1");
        assert_eq!(v6.client, Some("fd00::5".parse().unwrap()));
    }

    #[test]
    fn answers_are_judged() {
        let own = ["10.244.1.5".parse().unwrap()];
        let judge = |pod: &str, client: &str| {
            let identity = Identity {
                pod: (!pod.is_empty()).then(|| pod.to_owned()),
                client: client.parse().ok(),
            };
            identity.problem(&["a/b".to_owned(), "a/c".to_owned()], &own)
        };
        assert_eq!(judge("a/b", "10.244.1.5"), None);
        assert_eq!(judge("", ""), None);
        assert_eq!(
            judge("x/y", "10.244.1.5").unwrap(),
            "answered by x/y, expected a/b or a/c"
        );
        assert_eq!(
            judge("a/c", "172.30.1.11").unwrap(),
            "the server saw 172.30.1.11, we are 10.244.1.5"
        );
    }

    #[test]
    fn checks_are_described() {
        let check = |host: &str, port, protocol| Check {
            host: host.into(),
            port,
            protocol,
            expect: Expect::Refused,
        };
        assert_eq!(
            check("10.0.0.1", 80, Protocol::Tcp).describe(),
            "10.0.0.1:80/TCP"
        );
        assert_eq!(
            check("fd00::1", 53, Protocol::Udp).describe(),
            "[fd00::1]:53/UDP"
        );
        assert_eq!(
            check("web.shop", 80, Protocol::Tcp).describe(),
            "web.shop:80/TCP"
        );
        assert_eq!(
            check("fd00::1", 0, Protocol::Icmp).describe(),
            "fd00::1 (ping)"
        );
    }
}
