//! Services as the ends of connections: policies see the pods behind them.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use ripstop_model::{LabelSelector, ObjectKey, Pod, Protocol};
use serde_json::Value;

use super::target::Port;
use super::world::World;

/// A Service as far as its pods and their ports go.
#[derive(Debug)]
pub(super) struct Service {
    selector: Option<LabelSelector>,
    ports: Vec<ServicePort>,
}

#[derive(Debug)]
struct ServicePort {
    name: String,
    protocol: Protocol,
    port: u16,
    target: Target,
}

#[derive(Debug)]
enum Target {
    Number(u16),
    Name(String),
}

impl Service {
    pub(super) fn read(value: &Value) -> Result<Self> {
        let object: core::Service = serde_json::from_value(value.clone())?;
        let spec = object.spec.unwrap_or_default();
        let selector = spec.selector.filter(|labels| !labels.is_empty());
        let pairs = |labels: &std::collections::BTreeMap<String, String>| {
            let pairs = labels
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str()));
            LabelSelector::labels(pairs)
        };
        let mut ports = Vec::new();
        for port in spec.ports.into_iter().flatten() {
            let number = u16::try_from(port.port)?;
            let target = match port.target_port {
                Some(IntOrString::Int(0)) | None => Target::Number(number),
                Some(IntOrString::Int(target)) => Target::Number(u16::try_from(target)?),
                Some(IntOrString::String(name)) => Target::Name(name),
            };
            let protocol = port.protocol.as_deref().unwrap_or("TCP").parse();
            ports.push(ServicePort {
                name: port.name.unwrap_or_default(),
                protocol: protocol.map_err(anyhow::Error::msg)?,
                port: number,
                target,
            });
        }
        Ok(Self {
            selector: selector.as_ref().map(pairs),
            ports,
        })
    }

    /// The pods behind one of its ports, each with its own.
    ///
    /// # Errors
    /// If there is no such port or nobody behind it.
    pub(super) fn behind<'a>(
        &self,
        world: &'a World,
        key: &ObjectKey,
        port: &str,
    ) -> Result<Vec<(&'a Pod, Port)>> {
        let (number, protocol) = match port.split_once('/') {
            Some((number, protocol)) => {
                let protocol = protocol.to_ascii_uppercase().parse::<Protocol>();
                (number, Some(protocol.map_err(anyhow::Error::msg)?))
            }
            None => (port, None),
        };
        let is_it = |one: &&ServicePort| {
            let name = one.name == number || number.parse() == Ok(one.port);
            name && protocol.is_none_or(|protocol| protocol == one.protocol)
        };
        let port = self.ports.iter().find(is_it).with_context(|| {
            let known = self
                .ports
                .iter()
                .map(|one| format!("{}/{}", one.port, one.protocol));
            let known: Vec<_> = known.collect();
            format!("--port {port}: service {key} has {}", known.join(", "))
        })?;
        let selector = self.selector.as_ref();
        let selector = selector.with_context(|| format!("service {key} selects no pods"))?;
        let selected = world.pods.values().filter(|pod| {
            pod.key.namespace == key.namespace && !pod.ended && selector.matches(&pod.labels)
        });
        let mut behind = Vec::new();
        for pod in selected {
            let number = match &port.target {
                Target::Number(number) => Some(*number),
                // A pod without such a port is not behind the service.
                Target::Name(name) => pod.port(name, port.protocol),
            };
            behind.extend(number.map(|number| {
                let protocol = port.protocol;
                (pod, Port { protocol, number })
            }));
        }
        anyhow::ensure!(
            !behind.is_empty(),
            "no pod is behind service {key}: {selector}"
        );
        Ok(behind)
    }
}
