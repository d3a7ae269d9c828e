//! What a scenario works with: objects that end with it, clients, waiting.

mod asker;
mod service;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Mutex;

use anyhow::Result;
use serde_json::{Value, json};

pub use asker::{Asker, Socket, refused};
pub use service::{Endpoint, Kind, Service};

use crate::cluster::{Cluster, at, eventually, merge};
use crate::engine::Family;
use crate::path::{NODES, Path, Server};
use crate::place::{Place, lock};

/// A scenario's view of the cluster.
#[derive(Debug)]
pub struct Stage<'a> {
    pub cluster: &'a Cluster,
    pub family: Family,
    pub path: Path,
    /// Begins the names of its objects.
    name: String,
    /// Paths of its objects.
    made: Mutex<Vec<String>>,
}

impl<'a> Stage<'a> {
    pub fn new(cluster: &'a Cluster, scenario: &str, path: Path, family: Family) -> Self {
        let family_name = family.name().to_lowercase();
        Self {
            cluster,
            family,
            path,
            name: format!("{scenario}-{}-{family_name}", path as u8),
            made: Mutex::default(),
        }
    }

    /// A name that no other scenario's object of the kind has.
    pub fn name(&self, what: &str) -> String {
        format!("{}-{what}", self.name)
    }

    /// Makes an object that ends with the scenario; returns it as it was made.
    ///
    /// # Errors
    /// What the API says.
    pub fn create(&self, collection: &str, object: &Value) -> Result<Value> {
        let made = self.cluster.api.create(collection, object)?;
        let name = made["metadata"]["name"].as_str().unwrap_or_default();
        lock(&self.made).push(format!("{collection}/{name}"));
        Ok(made)
    }

    /// A service with this `spec`, single-stack of the scenario's family unless
    /// that says otherwise.
    ///
    /// # Errors
    /// What the API says.
    pub fn service(&self, what: &str, spec: &Value) -> Result<Service<'_>> {
        let mut object = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": self.name(what)},
            "spec": {"ipFamilyPolicy": "SingleStack", "ipFamilies": [self.family.name()]},
        });
        merge(&mut object["spec"], spec);
        // Else it would be the one of a scenario that has just ended, at which nodes
        // that have not heard of that yet still answer for the other service.
        if object["spec"]["type"] == "LoadBalancer" {
            object["spec"]["loadBalancerIP"] = json!(self.own_ip());
        }
        let collection = "/api/v1/namespaces/default/services";
        let object = self.create(collection, &object)?;
        Ok(Service::new(self, object))
    }

    /// A service in front of one of the lasting servers, at port 80.
    ///
    /// # Errors
    /// What the API says.
    pub fn service_of(&self, server: &Server, spec: &Value) -> Result<Service<'_>> {
        let mut whole = json!({
            "selector": {"who": server.name},
            "ports": [
                {"name": "tcp", "port": 80, "targetPort": server.port, "protocol": "TCP"},
                {"name": "udp", "port": 80, "targetPort": server.port, "protocol": "UDP"},
                {"name": "sctp", "port": 80, "targetPort": server.port, "protocol": "SCTP"},
            ],
        });
        merge(&mut whole, spec);
        self.service("web", &whole)
    }

    /// A service in front of the three lasting servers of the pod network.
    ///
    /// # Errors
    /// What the API says.
    pub fn service_of_all(&self, spec: &Value) -> Result<Service<'_>> {
        let mut whole = json!({
            "selector": {"app": "web"},
            "ports": [
                {"name": "tcp", "port": 80, "targetPort": 8080, "protocol": "TCP"},
                {"name": "udp", "port": 80, "targetPort": 8080, "protocol": "UDP"},
            ],
        });
        merge(&mut whole, spec);
        self.service("web", &whole)
    }

    /// A server of the scenario's own, at ports 8080 and 8081; `spec` is merged
    /// into the pod's. Returns its name.
    ///
    /// # Errors
    /// What the API says.
    pub fn server(&self, what: &str, node: &str, stubborn: bool, spec: &Value) -> Result<String> {
        let name = self.name(what);
        let command = self.cluster.serve(&name, "8080,8081", stubborn);
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let labels = json!({"app": self.name, "who": name});
        let mut whole = json!({
            "containers": [{
                "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
            }],
        });
        merge(&mut whole, spec);
        self.cluster
            .create_pod(&name, node, &labels, &command, &whole)?;
        lock(&self.made).push(format!(
            "/api/v1/namespaces/default/pods/{name}?gracePeriodSeconds=0"
        ));
        Ok(name)
    }

    /// The selector of the scenario's own servers.
    pub fn own(&self) -> Value {
        json!({"app": self.name})
    }

    /// Waits until one of the scenario's servers is ready; returns its address.
    ///
    /// # Errors
    /// If it does not become so.
    pub fn ready(&self, pod: &str) -> Result<IpAddr> {
        let all = self.cluster.ready(pod)?;
        let own = all.into_iter().find(|address| self.family.is_of(*address));
        own.ok_or_else(|| anyhow::anyhow!("{pod} has no {} address", self.family.name()))
    }

    /// Ends a pod as `kubectl delete pod` would, without waiting for its end.
    ///
    /// # Errors
    /// What the API says.
    pub fn end(&self, pod: &str) -> Result<()> {
        let path = format!("/api/v1/namespaces/default/pods/{pod}");
        self.cluster.api.delete(&path).map(drop)
    }

    /// Clients of a place.
    ///
    /// # Errors
    /// If none can be started.
    pub fn from(&self, place: &Place) -> Result<Asker> {
        Ok(Asker::new(self.cluster.client(place)?))
    }

    /// Clients in a pod of the scenario's own, as soon as it runs.
    ///
    /// # Errors
    /// If it does not run.
    pub fn from_own(&self, pod: &str) -> Result<Asker> {
        let place = Place::pod(pod);
        eventually("the pod runs", || {
            let asker = self.from(&place)?;
            let runs = asker.run(&["true"]);
            if runs.is_err() {
                self.cluster.forget(&place);
            }
            runs.map(|_| asker)
        })
    }

    /// Clients of the path's place.
    ///
    /// # Errors
    /// If none can be started.
    pub fn client(&self) -> Result<Asker> {
        self.from(&self.path.client())
    }

    /// The address of a lasting pod or node.
    ///
    /// # Errors
    /// If it has none of the family.
    pub fn address(&self, name: &str) -> Result<IpAddr> {
        self.cluster.address(name, self.family)
    }

    /// Addresses of all nodes.
    ///
    /// # Errors
    /// If one has none of the family.
    pub fn nodes(&self) -> Result<Vec<IpAddr>> {
        NODES.iter().map(|node| self.address(node)).collect()
    }

    /// An address that no other scenario has, for `externalIPs` and as a load
    /// balancer's: of the range of those, to which the underlay has routes.
    pub fn own_ip(&self) -> IpAddr {
        let number = self.cluster.external_number();
        match self.family {
            Family::Ipv4 => Ipv4Addr::new(172, 30, 255, number).into(),
            Family::Ipv6 => {
                Ipv6Addr::new(0xfd00, 0x30, 0xff, 0, 0, 0, 0, 0xff00 + u16::from(number)).into()
            }
        }
    }

    /// A port of a lasting pod or node.
    ///
    /// # Errors
    /// If it has no address of the family.
    pub fn at(&self, name: &str, port: u16) -> Result<std::net::SocketAddr> {
        Ok(at(self.address(name)?, port))
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        for path in lock(&self.made).drain(..).rev() {
            // Scenarios delete objects themselves as well.
            let _ = self.cluster.api.delete(&path);
        }
    }
}
