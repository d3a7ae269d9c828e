//! A Service of a scenario.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::Stage;
use crate::cluster::{at, eventually};
use crate::path::NODES;
use crate::place::Place;

/// Which of its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalIp,
}

/// An endpoint of a slice that the scenario writes itself.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint {
    pub address: IpAddr,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
}

impl Endpoint {
    pub fn ready(address: IpAddr) -> Self {
        Self {
            address,
            ready: true,
            serving: true,
            terminating: false,
        }
    }

    fn json(self) -> Value {
        json!({
            "addresses": [self.address.to_string()],
            "conditions": {
                "ready": self.ready,
                "serving": self.serving,
                "terminating": self.terminating,
            },
        })
    }
}

#[derive(Debug)]
pub struct Service<'a> {
    stage: &'a Stage<'a>,
    pub object: Value,
}

impl<'a> Service<'a> {
    pub(super) fn new(stage: &'a Stage<'a>, object: Value) -> Self {
        Self { stage, object }
    }

    pub fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// Of the API.
    pub fn path(&self) -> String {
        format!("/api/v1/namespaces/default/services/{}", self.name())
    }

    /// Its ClusterIP of the scenario's family.
    ///
    /// # Errors
    /// If it has none.
    pub fn cluster_ip(&self) -> Result<IpAddr> {
        let all = self.object["spec"]["clusterIPs"].as_array();
        let mut all = all
            .into_iter()
            .flatten()
            .filter_map(|text| text.as_str()?.parse().ok());
        all.find(|address| self.stage.family.is_of(*address))
            .with_context(|| format!("no ClusterIP: {}", self.object["spec"]))
    }

    /// Port 80 of its ClusterIP.
    ///
    /// # Errors
    /// If it has none.
    pub fn cluster(&self) -> Result<SocketAddr> {
        Ok(at(self.cluster_ip()?, 80))
    }

    /// The NodePort of the port with this name, or of the only one.
    ///
    /// # Errors
    /// If it has none.
    pub fn node_port(&self, port: &str) -> Result<u16> {
        let all = self.object["spec"]["ports"].as_array();
        let mut all = all.into_iter().flatten();
        let entry = all.find(|entry| entry["name"].as_str().unwrap_or(port) == port);
        let number = entry.and_then(|entry| entry["nodePort"].as_u64());
        let number = number.with_context(|| format!("no NodePort: {}", self.object["spec"]))?;
        Ok(number.try_into()?)
    }

    /// Waits for the address that the cluster gives it as a LoadBalancer.
    ///
    /// # Errors
    /// If it gets none.
    pub fn ingress(&self) -> Result<IpAddr> {
        eventually("a load balancer's address", || {
            let object = self.stage.cluster.api.get(&self.path())?;
            let all = object["status"]["loadBalancer"]["ingress"].as_array();
            let all = all.into_iter().flatten();
            let mut all = all.filter_map(|entry| entry["ip"].as_str()?.parse().ok());
            let own = all.find(|address| self.stage.family.is_of(*address));
            own.with_context(|| format!("status: {}", object["status"]))
        })
    }

    /// Waits until every node has it with its endpoints. A node that has not heard of
    /// it may leave what goes to one of its other addresses to one that has, and
    /// refuses it when it has heard of the service but not yet of its slices. At
    /// ClusterIPs no node answers for another.
    ///
    /// # Errors
    /// If one does not have it.
    pub fn settle(&self) -> Result<()> {
        let to = self.cluster()?;
        for node in NODES {
            let asker = self.stage.from(&Place::node(node))?;
            eventually("every node has the service", || {
                asker.tcp(to)?.answered().context(node)
            })?;
        }
        Ok(())
    }

    /// Changes it by a merge patch.
    ///
    /// # Errors
    /// What the API says.
    pub fn change(&mut self, patch: &Value) -> Result<()> {
        self.object = self.stage.cluster.api.merge(&self.path(), patch)?;
        Ok(())
    }

    /// # Errors
    /// What the API says.
    pub fn delete(&self) -> Result<()> {
        self.stage.cluster.api.delete(&self.path()).map(drop)
    }

    /// Writes an EndpointSlice for it by hand, with `port` for streams and
    /// datagrams; returns its path.
    ///
    /// # Errors
    /// What the API says.
    pub fn slice(&self, port: u16, endpoints: &[Endpoint]) -> Result<String> {
        let name = format!("{}-by-hand", self.name());
        let endpoints: Vec<Value> = endpoints.iter().map(|endpoint| endpoint.json()).collect();
        let object = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": name,
                "labels": {"kubernetes.io/service-name": self.name()},
            },
            "addressType": self.stage.family.name(),
            "ports": [
                {"name": "tcp", "port": port, "protocol": "TCP"},
                {"name": "udp", "port": port, "protocol": "UDP"},
            ],
            "endpoints": endpoints,
        });
        let collection = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
        self.stage.create(collection, &object)?;
        Ok(format!("{collection}/{name}"))
    }

    /// Replaces the endpoints of a slice.
    ///
    /// # Errors
    /// What the API says.
    pub fn set_endpoints(&self, slice: &str, endpoints: &[Endpoint]) -> Result<()> {
        let endpoints: Vec<Value> = endpoints.iter().map(|endpoint| endpoint.json()).collect();
        let patch = json!({"endpoints": endpoints});
        self.stage.cluster.api.merge(slice, &patch).map(drop)
    }

    /// Where a kind of it is reached, with the NodePort of the named port at
    /// `node`.
    ///
    /// # Errors
    /// If it has no such address.
    pub fn frontend(&self, kind: Kind, port: &str, node: &str) -> Result<SocketAddr> {
        Ok(match kind {
            Kind::ClusterIp => self.cluster()?,
            Kind::NodePort => self.stage.at(node, self.node_port(port)?)?,
            Kind::LoadBalancer => at(self.ingress()?, 80),
            Kind::ExternalIp => {
                let Some(text) = self.object["spec"]["externalIPs"][0].as_str() else {
                    bail!("no external address");
                };
                at(text.parse()?, 80)
            }
        })
    }
}
