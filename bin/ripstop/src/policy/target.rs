//! The two ends of a connection, as people name them, and its port.

use std::net::IpAddr;

use anyhow::{Context, Result, bail, ensure};
use ripstop_model::{ObjectKey, Pod, Protocol};
use ripstop_plan::policy::{Direction, PolicyTables};
use serde_json::{Value, json};

use super::world::World;

/// One end of a connection.
#[derive(Clone, Debug)]
pub(super) enum Target<'a> {
    Pod(&'a Pod),
    Address(IpAddr),
}

impl<'a> Target<'a> {
    /// `NAME`, `NAMESPACE/NAME` or an address; the address of a pod is the pod.
    pub(super) fn parse(world: &'a World, text: &str) -> Result<Self> {
        if let Ok(address) = text.parse::<IpAddr>() {
            let pod = world
                .pods
                .values()
                .find(|pod| pod.addresses.contains(&address));
            return Ok(pod.map_or(Self::Address(address), Self::Pod));
        }
        let key = match text.split_once('/') {
            Some((namespace, name)) => ObjectKey::new(namespace, name),
            None => ObjectKey::new(&world.namespace, text),
        };
        let known = || {
            let names: Vec<_> = world.pods.keys().map(ToString::to_string).collect();
            match names.is_empty() {
                true => "the manifests make no pods".to_owned(),
                false => format!("there are {}", names.join(", ")),
            }
        };
        let pod = world.pods.get(&key);
        pod.map(Self::Pod)
            .with_context(|| format!("no pod {key} and no address {text}: {}", known()))
    }

    pub(super) fn name(&self) -> String {
        match self {
            Self::Pod(pod) => pod.key.to_string(),
            Self::Address(address) => address.to_string(),
        }
    }

    fn key(&self) -> Option<&ObjectKey> {
        match self {
            Self::Pod(pod) => Some(&pod.key),
            Self::Address(_) => None,
        }
    }
}

/// The addresses of a connection between two ends, of one family.
pub(super) fn addresses(
    world: &World,
    from: &Target<'_>,
    to: &Target<'_>,
) -> Result<(IpAddr, IpAddr)> {
    let sources = match from {
        Target::Pod(pod) => pod.addresses.to_vec(),
        Target::Address(address) => vec![*address],
    };
    let destinations = match (to, from.key()) {
        (Target::Pod(pod), Some(by)) => world.seen_by(pod, by),
        (Target::Pod(pod), None) => pod.addresses.to_vec(),
        (Target::Address(address), _) => vec![*address],
    };
    let like = |a: &IpAddr, b: &IpAddr| a.is_ipv4() == b.is_ipv4();
    let mut pairs = sources.iter().flat_map(|a| {
        let same = destinations.iter().filter(move |b| like(a, b));
        same.map(move |b| (*a, *b))
    });
    pairs.next().with_context(|| {
        format!(
            "{} and {} have no addresses of one family",
            from.name(),
            to.name()
        )
    })
}

/// A port and its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) protocol: Protocol,
    pub(super) number: u16,
}

impl Port {
    /// `80`, `53/UDP`, or the name of a port of the pod that is asked.
    pub(super) fn parse(text: &str, to: &Target<'_>) -> Result<Self> {
        let (port, protocol) = match text.split_once('/') {
            Some((port, protocol)) => {
                let protocol = protocol.to_ascii_uppercase().parse();
                (port, Some(protocol.map_err(anyhow::Error::msg)?))
            }
            None => (text, None),
        };
        if let Ok(number) = port.parse::<u16>() {
            ensure!(number > 0, "--port 0: a port is 1 to 65535");
            let protocol = protocol.unwrap_or(Protocol::Tcp);
            return Ok(Self { protocol, number });
        }
        ensure!(
            !port.bytes().all(|byte| byte.is_ascii_digit()),
            "--port {port:?}: a port is 1 to 65535, or a name"
        );
        let Target::Pod(pod) = to else {
            bail!(
                "--port {port:?}: {} is no pod, so its ports have no names",
                to.name()
            );
        };
        let found = pod.ports.iter().find(|one| {
            *one.name == *port && protocol.is_none_or(|protocol| protocol == one.protocol)
        });
        let found = found.with_context(|| {
            let names: Vec<_> = pod.ports.iter().map(|one| &*one.name).collect();
            match names.is_empty() {
                true => format!("--port {port:?}: no port of {} has a name", pod.key),
                false => format!("--port {port:?}: {} has {}", pod.key, names.join(", ")),
            }
        })?;
        Ok(Self {
            protocol: found.protocol,
            number: found.port,
        })
    }
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol)
    }
}

/// What one end's policies say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Side {
    pub(super) allowed: bool,
    pub(super) by: String,
}

impl Side {
    /// `what`: why there is nothing to ask, for ends that policies do not select.
    pub(super) fn new(
        tables: &PolicyTables,
        end: &Target<'_>,
        direction: Direction,
        (own, other): (IpAddr, IpAddr),
        port: Port,
    ) -> Self {
        let Target::Pod(pod) = end else {
            return Self::open("no pod of the manifests");
        };
        if pod.host_network {
            return Self::open("on the network of its node: no policy selects it");
        }
        let outcome = tables.judge(own, direction, other, port.protocol as u8, port.number);
        match outcome {
            Some(outcome) => Self {
                allowed: outcome.allowed,
                by: tables.attribution(outcome).to_string(),
            },
            None => Self::open("it has ended"),
        }
    }

    fn open(by: &str) -> Self {
        Self {
            allowed: true,
            by: by.to_owned(),
        }
    }

    pub(super) fn json(&self) -> Value {
        json!({"allowed": self.allowed, "by": self.by})
    }
}
