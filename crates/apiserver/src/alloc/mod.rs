//! Addresses and node ports of Services
//! (`k8s.io/kubernetes/pkg/registry/core/service/storage/alloc.go`).
//!
//! What is in use is what the stored Services have: there is no second record
//! that could disagree.

mod families;
mod pool;

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::config::ClusterConfig;
use crate::storage::Key;
use crate::{Cause, Status};
use pool::Pool;

/// The addresses and ports in use.
#[derive(Debug)]
pub(crate) struct Allocator {
    /// The cluster's own ranges first; of one family there may be several.
    ranges: Vec<(IpNet, Pool<IpAddr>)>,
    /// Addresses in use, also those of ranges that are gone.
    held: HashMap<IpAddr, Key>,
    ports: (std::ops::RangeInclusive<u16>, Pool<u16>),
}

impl Allocator {
    pub(crate) fn new(config: &ClusterConfig) -> Self {
        Self {
            ranges: config
                .service_cidrs
                .iter()
                .map(|range| (*range, Pool::default()))
                .collect(),
            held: HashMap::new(),
            ports: (config.node_ports.clone(), Pool::default()),
        }
    }

    /// Takes ranges into use, and others out of it: their addresses stay with the
    /// services that have them.
    pub(crate) fn set_ranges(&mut self, ranges: impl Iterator<Item = IpNet>) {
        let mut before = std::mem::take(&mut self.ranges);
        for range in ranges {
            if self.ranges.iter().any(|(known, _)| *known == range) {
                continue;
            }
            let pool = match before.iter().position(|(known, _)| *known == range) {
                Some(index) => before.swap_remove(index).1,
                None => {
                    let mut pool = Pool::default();
                    for (address, key) in &self.held {
                        if range.contains(address) {
                            pool.take(*address, key);
                        }
                    }
                    pool
                }
            };
            self.ranges.push((range, pool));
        }
    }

    /// Completes a Service that has its defaults and is valid in itself.
    /// Nothing is in use before [`Allocator::stored`] says so.
    ///
    /// # Errors
    /// 422 when something asked for is taken or not in range, or nothing is left.
    pub(crate) fn complete(&mut self, service: &mut Value) -> Result<(), Status> {
        let key = Key::of(service);
        let spec = &mut service["spec"];
        self.addresses(&key, spec)
            .and_then(|()| self.node_ports(&key, spec))
            .and_then(|()| self.health_port(&key, spec))
            .map_err(|cause| Status::invalid("", "Service", &key.name, vec![cause]))
    }

    /// Takes note of a stored change; none for not there.
    pub(crate) fn stored(&mut self, old: Option<&Value>, new: Option<&Value>) {
        if let Some(old) = old {
            let key = Key::of(old);
            for address in addresses_of(old) {
                if self.held.get(&address) == Some(&key) {
                    self.held.remove(&address);
                }
                self.each_range(address, |pool| pool.release(&address, &key));
            }
            for port in ports_of(old) {
                self.ports.1.release(&port, &key);
            }
        }
        if let Some(new) = new {
            let key = Key::of(new);
            for address in addresses_of(new) {
                self.held.insert(address, key.clone());
                self.each_range(address, |pool| pool.take(address, &key));
            }
            for port in ports_of(new) {
                self.ports.1.take(port, &key);
            }
        }
    }

    fn each_range(&mut self, address: IpAddr, mut f: impl FnMut(&mut Pool<IpAddr>)) {
        for (_, pool) in self
            .ranges
            .iter_mut()
            .filter(|(range, _)| range.contains(&address))
        {
            f(pool);
        }
    }

    fn addresses(&mut self, key: &Key, spec: &mut Value) -> Result<(), Cause> {
        if spec["type"] == "ExternalName" {
            return Ok(());
        }
        let mut cluster = Vec::new();
        for (range, _) in &self.ranges {
            let ipv4 = range.addr().is_ipv4();
            if !cluster.contains(&ipv4) {
                cluster.push(ipv4);
            }
        }
        let families = families::decide(spec, &cluster)?;
        if families::is_headless(spec) {
            spec["clusterIP"] = json!("None");
            spec["clusterIPs"] = json!(["None"]);
            return Ok(());
        }
        let asked = spec["clusterIPs"].as_array().cloned().unwrap_or_default();
        let mut addresses = Vec::new();
        for (index, family) in families.iter().enumerate() {
            let asked = asked
                .get(index)
                .and_then(Value::as_str)
                .filter(|it| !it.is_empty());
            let address = self.address(key, *family, asked, spec, index)?;
            addresses.push(address.to_string());
        }
        spec["clusterIP"] = json!(addresses.first());
        spec["clusterIPs"] = json!(addresses);
        Ok(())
    }

    fn address(
        &mut self,
        key: &Key,
        ipv4: bool,
        asked: Option<&str>,
        spec: &Value,
        index: usize,
    ) -> Result<IpAddr, Cause> {
        let of_family = |range: &IpNet| range.addr().is_ipv4() == ipv4;
        let Some(asked) = asked else {
            let mut ranges = self.ranges.iter_mut().filter(|(range, _)| of_family(range));
            let free = ranges.find_map(|(range, pool)| pool.next(pool::hosts(range)));
            return free.ok_or_else(|| {
                let ranges = self.shown(ipv4);
                let detail = format!("failed to allocate a serviceIP: range {ranges} is full");
                Cause::invalid(format!("spec.clusterIPs[{index}]"), "", &detail)
            });
        };
        let refuse = |why: String| {
            let detail = format!("failed to allocate IP {asked}: {why}");
            Cause::invalid("spec.clusterIPs", spec["clusterIPs"].clone(), &detail)
        };
        let address: IpAddr = asked.parse().map_err(|error| refuse(format!("{error}")))?;
        match self.held.get(&address) {
            // Also if its range has gone since.
            Some(holder) if holder == key => return Ok(address),
            Some(_) => return Err(refuse("provided IP is already allocated".to_owned())),
            None => {}
        }
        let fits = |(range, _): &(IpNet, Pool<IpAddr>)| {
            of_family(range) && range.contains(&address) && pool::is_host(range, address)
        };
        match self.ranges.iter().any(fits) {
            true => Ok(address),
            false => Err(refuse(format!(
                "the provided IP ({asked}) is not in the valid range. The range of valid IPs is {}",
                self.shown(ipv4)
            ))),
        }
    }

    /// The ranges of a family, for messages.
    fn shown(&self, ipv4: bool) -> String {
        let ranges = self.ranges.iter().map(|(range, _)| range);
        let ranges = ranges.filter(|range| range.addr().is_ipv4() == ipv4);
        ranges
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(",")
    }

    fn node_ports(&mut self, key: &Key, spec: &mut Value) -> Result<(), Cause> {
        let wanted = match spec["type"].as_str() {
            Some("NodePort") => true,
            Some("LoadBalancer") => spec["allocateLoadBalancerNodePorts"] != false,
            _ => return Ok(()),
        };
        let Some(ports) = spec["ports"].as_array_mut() else {
            return Ok(());
        };
        // One number may serve TCP and UDP of the same service, not two services.
        for (index, port) in ports.iter().enumerate() {
            self.check_port(
                key,
                &port["nodePort"],
                &format!("spec.ports[{index}].nodePort"),
            )?;
        }
        let mut given: Vec<u16> = ports
            .iter()
            .filter_map(|it| number(&it["nodePort"]))
            .collect();
        for index in 0..ports.len() {
            if !wanted || number(&ports[index]["nodePort"]).is_some() {
                continue;
            }
            // `dns` over TCP and UDP on one port gets one node port.
            let twin = ports.iter().find(|it| {
                it["port"] == ports[index]["port"]
                    && it["protocol"] != ports[index]["protocol"]
                    && number(&it["nodePort"]).is_some()
            });
            let port = match twin.and_then(|it| number(&it["nodePort"])) {
                Some(port) => port,
                None => self.next_port(&given, &format!("spec.ports[{index}].nodePort"))?,
            };
            given.push(port);
            ports[index]["nodePort"] = Value::from(port);
        }
        Ok(())
    }

    fn health_port(&mut self, key: &Key, spec: &mut Value) -> Result<(), Cause> {
        if spec["type"] != "LoadBalancer" || spec["externalTrafficPolicy"] != "Local" {
            return Ok(());
        }
        let field = "spec.healthCheckNodePort";
        if number(&spec["healthCheckNodePort"]).is_some() {
            return self.check_port(key, &spec["healthCheckNodePort"], field);
        }
        let ports = spec["ports"].as_array().map_or(&[][..], Vec::as_slice);
        let given: Vec<u16> = ports
            .iter()
            .filter_map(|it| number(&it["nodePort"]))
            .collect();
        spec["healthCheckNodePort"] = Value::from(self.next_port(&given, field)?);
        Ok(())
    }

    fn check_port(&self, key: &Key, value: &Value, field: &str) -> Result<(), Cause> {
        let Some(port) = number(value) else {
            return Ok(());
        };
        let (range, pool) = &self.ports;
        let refuse = |why: &str| Err(Cause::invalid(field, port, why));
        if !range.contains(&port) {
            let (first, last) = (range.start(), range.end());
            return refuse(&format!(
                "provided port is not in the valid range. The range of valid ports is {first}-{last}"
            ));
        }
        match pool.owner(&port) {
            Some(owner) if owner != key => refuse("provided port is already allocated"),
            _ => Ok(()),
        }
    }

    /// One that nobody has, and that is not among `given` either.
    fn next_port(&mut self, given: &[u16], field: &str) -> Result<u16, Cause> {
        let (range, pool) = &mut self.ports;
        let (first, last) = (*range.start(), *range.end());
        for _ in 0..=given.len() {
            match pool.next(pool::ports(range)) {
                Some(port) if given.contains(&port) => {}
                Some(port) => return Ok(port),
                None => break,
            }
        }
        let detail = format!("failed to allocate a nodePort: range {first}-{last} is full");
        Err(Cause::invalid(field, 0, &detail))
    }
}

fn number(value: &Value) -> Option<u16> {
    value
        .as_u64()
        .and_then(|it| u16::try_from(it).ok())
        .filter(|it| *it != 0)
}

fn addresses_of(service: &Value) -> Vec<IpAddr> {
    let list = service["spec"]["clusterIPs"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    list.iter()
        .filter_map(|it| it.as_str()?.parse().ok())
        .collect()
}

fn ports_of(service: &Value) -> Vec<u16> {
    let spec = &service["spec"];
    let ports = spec["ports"].as_array().map_or(&[][..], Vec::as_slice);
    let mut all: Vec<u16> = ports
        .iter()
        .filter_map(|it| number(&it["nodePort"]))
        .collect();
    all.extend(number(&spec["healthCheckNodePort"]));
    all
}

#[cfg(test)]
mod tests;
