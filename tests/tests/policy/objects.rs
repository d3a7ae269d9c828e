//! A lab's objects, as the reference evaluator has them.

use ripstop_model::Pod;
use ripstop_plan::policy::Direction;
use ripstop_tests::Lab;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::probes::{Kind, Probe};
use crate::reference::{Packet, World};

/// Everything that policies are about.
pub(crate) fn world(lab: &Lab) -> World {
    let mut world = World::default();
    for one in items(lab, "namespaces") {
        let one = ripstop_watch::namespace(&decode(one))
            .model
            .expect("a namespace");
        world.namespaces.insert(one.name.clone(), one);
    }
    for one in items(lab, "nodes") {
        let one = ripstop_watch::node_identity(&decode(one));
        world.nodes.insert(one.name.clone(), one);
    }
    for one in items(lab, "pods") {
        let one = ripstop_watch::pod(&decode(one)).model.expect("a pod");
        world.pods.insert(one.key.clone(), one);
    }
    for one in items(lab, "networkpolicies") {
        let read = ripstop_watch::network_policy(&decode(one));
        assert!(read.problems.is_empty(), "{:?}", read.problems);
        let one = read.model.expect("a policy");
        world.policies.insert(one.key.clone(), one);
    }
    if !lab.try_kubectl(&["get", "clusternetworkpolicies"]).ok {
        return world;
    }
    for one in items(lab, "clusternetworkpolicies") {
        let read = ripstop_watch::cluster_network_policy(&decode(one));
        assert!(read.problems.is_empty(), "{:?}", read.problems);
        let one = read.model.expect("a policy");
        world.cluster.insert(one.name.clone(), one);
    }
    world
}

fn items(lab: &Lab, kind: &str) -> Vec<Value> {
    let list = lab.get(&[kind, "-A"]);
    list["items"].as_array().cloned().unwrap_or_default()
}

fn decode<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object of its kind")
}

impl World {
    /// Whether a connection is allowed by both of its ends, and who denies it.
    pub(crate) fn allows(&self, probe: &Probe) -> Result<(), String> {
        let (client, server) = (probe.client, probe.server);
        let protocol = match probe.kind {
            Kind::Tcp => Some(ripstop_model::Protocol::Tcp),
            Kind::Udp => Some(ripstop_model::Protocol::Udp),
            Kind::Sctp => Some(ripstop_model::Protocol::Sctp),
        };
        let ends = [
            (client, server.ip(), Direction::Egress),
            (server.ip(), client, Direction::Ingress),
        ];
        for (own, other, direction) in ends {
            let Some(pod) = self.pod(own) else { continue };
            let node = pod.node.as_deref().expect("a node");
            let (allowed, by) = World {
                own_node: node.to_owned(),
                ..self.clone()
            }
            .judge(Packet {
                pod,
                address: own,
                direction,
                other,
                protocol,
                port: server.port(),
            });
            if !allowed {
                return Err(format!("{direction} of {}: {by}", pod.key));
            }
        }
        Ok(())
    }

    fn pod(&self, address: std::net::IpAddr) -> Option<&Pod> {
        let mut pods = self.pods.values().filter(|pod| pod.is_subject());
        pods.find(|pod| pod.addresses.contains(&address))
    }
}
