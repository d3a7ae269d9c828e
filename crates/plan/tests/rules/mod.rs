//! The rules, object by object, with no thought for speed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use ripstop_model::{
    EndpointSlice, Node, ObjectKey, Service, ServiceCidr, ServiceKind, ServicePort, SliceEndpoint,
    TrafficPolicy,
};
use ripstop_plan::{
    Backend, Frontend, FrontendKind, FrontendRow, HealthCheck, NodeRoute, Outside, PlanConfig,
    Range, Tables,
};

/// The objects that exist; a history is a walk through such worlds.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) config: PlanConfig,
    pub(crate) services: BTreeMap<ObjectKey, Service>,
    pub(crate) slices: BTreeMap<ObjectKey, EndpointSlice>,
    pub(crate) nodes: BTreeMap<String, Node>,
    pub(crate) service_cidrs: BTreeMap<String, ServiceCidr>,
}

/// Who counts first where several ask for one frontend.
const KINDS: [FrontendKind; 4] = [
    FrontendKind::ClusterIp,
    FrontendKind::NodePort,
    FrontendKind::LoadBalancer,
    FrontendKind::ExternalIp,
];

impl World {
    pub(crate) fn new(config: PlanConfig) -> Self {
        Self {
            config,
            ..Self::default()
        }
    }

    pub(crate) fn tables(&self) -> Tables {
        Tables {
            frontends: self.frontends(),
            routes: self.routes(),
            ranges: self.ranges(),
            ..Tables::default()
        }
    }

    fn frontends(&self) -> BTreeMap<Frontend, FrontendRow> {
        let mut rows = BTreeMap::new();
        for kind in KINDS {
            for service in self.services.values() {
                for address in self.addresses(service, kind) {
                    for port in &service.ports {
                        let number = match kind {
                            FrontendKind::NodePort => port.node_port,
                            _ => Some(port.port),
                        };
                        if let Some(number) = number {
                            let frontend = Frontend {
                                address,
                                protocol: port.protocol,
                                port: number,
                            };
                            rows.entry(frontend)
                                .or_insert_with(|| self.row(service, kind, port, address));
                        }
                    }
                }
            }
        }
        rows
    }

    fn addresses(&self, service: &Service, kind: FrontendKind) -> Vec<IpAddr> {
        let all = match kind {
            FrontendKind::ClusterIp => &service.cluster_ips,
            FrontendKind::NodePort => &self.config.node_port_addresses,
            FrontendKind::ExternalIp => &service.external_ips,
            FrontendKind::LoadBalancer => &service.load_balancer_ips,
        };
        let is_dns =
            |ip: &IpAddr| kind != FrontendKind::NodePort && self.config.cluster_dns.contains(ip);
        let served = |ip: &IpAddr| {
            let mut own = service.cluster_ips.iter();
            service.proxied && own.any(|own| own.is_ipv4() == ip.is_ipv4())
        };
        let all = all.iter().copied();
        all.filter(|ip| served(ip) && !is_dns(ip)).collect()
    }

    fn row(
        &self,
        service: &Service,
        kind: FrontendKind,
        port: &ServicePort,
        address: IpAddr,
    ) -> FrontendRow {
        let ipv4 = address.is_ipv4();
        let all = self.endpoints_of_port(service, port, ipv4);
        let external = kind != FrontendKind::ClusterIp;
        let local = |policy| policy == TrafficPolicy::Local;
        FrontendRow {
            service: service.key.clone(),
            kind,
            backends: match !external && local(service.internal_policy) {
                true => self.local(service, &all).into(),
                false => self.cluster(service, &all).into(),
            },
            outside: match external && !address.is_loopback() && local(service.external_policy) {
                true => Outside::Local(self.local(service, &all).into()),
                false => Outside::Cluster,
            },
            affinity: service.affinity,
            source_ranges: match kind {
                FrontendKind::LoadBalancer => source_ranges(service, ipv4),
                _ => Vec::new(),
            },
        }
    }

    /// kube-proxy's rules for traffic policy Cluster.
    fn cluster(&self, service: &Service, all: &[(&SliceEndpoint, u16)]) -> Vec<Backend> {
        let ready = only(all, |e| is_ready(service, e));
        if ready.is_empty() {
            return listed(&only(all, |e| is_draining(service, e)));
        }
        let own_node = &self.config.node;
        let for_node = |e: &SliceEndpoint| e.node_hints.contains(own_node);
        if ready.iter().all(|(e, _)| !e.node_hints.is_empty())
            && ready.iter().any(|(e, _)| for_node(e))
        {
            return listed(&only(&ready, for_node));
        }
        let own_zone = self.nodes.get(own_node).and_then(|node| node.zone.clone());
        if let Some(zone) = own_zone {
            let for_zone = |e: &SliceEndpoint| e.zone_hints.contains(&zone);
            if ready.iter().all(|(e, _)| !e.zone_hints.is_empty())
                && ready.iter().any(|(e, _)| for_zone(e))
            {
                return listed(&only(&ready, for_zone));
            }
        }
        listed(&ready)
    }

    /// kube-proxy's rules for traffic policy Local.
    fn local(&self, service: &Service, all: &[(&SliceEndpoint, u16)]) -> Vec<Backend> {
        let here = only(all, |e| e.node.as_ref() == Some(&self.config.node));
        let ready = only(&here, |e| is_ready(service, e));
        match ready.is_empty() {
            true => listed(&only(&here, |e| is_draining(service, e))),
            false => listed(&ready),
        }
    }

    fn slices_of<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = &'a EndpointSlice> {
        self.slices.values().filter(|slice| {
            slice.service == service.key.name && slice.key.namespace == service.key.namespace
        })
    }

    pub(crate) fn endpoints_of<'a>(
        &'a self,
        service: &'a Service,
    ) -> impl Iterator<Item = &'a SliceEndpoint> {
        self.slices_of(service).flat_map(|slice| &slice.endpoints)
    }

    fn endpoints_of_port<'a>(
        &'a self,
        service: &'a Service,
        port: &ServicePort,
        ipv4: bool,
    ) -> Vec<(&'a SliceEndpoint, u16)> {
        let mut all = Vec::new();
        for slice in self.slices_of(service).filter(|slice| slice.proxied) {
            let mut ports = slice.ports.iter();
            let target = ports.find(|p| p.name == port.name && p.protocol == port.protocol);
            if let Some(target) = target {
                let endpoints = slice.endpoints.iter();
                let endpoints = endpoints.filter(|e| e.address.is_ipv4() == ipv4);
                all.extend(endpoints.map(|e| (e, target.port)));
            }
        }
        all
    }

    fn routes(&self) -> BTreeMap<IpNet, NodeRoute> {
        let own = self.nodes.get(&self.config.node);
        let own = own.map_or(&[][..], |node| &node.pod_cidrs);
        let mut seen: BTreeSet<IpNet> = own.iter().copied().collect();
        let mut routes = BTreeMap::new();
        let others = self.nodes.values();
        for node in others.filter(|node| node.name != self.config.node) {
            for &cidr in &node.pod_cidrs {
                let via = node
                    .address_like(cidr.addr())
                    .or(node.addresses.first().copied());
                if let (true, Some(via)) = (seen.insert(cidr), via) {
                    let node = node.name.clone();
                    routes.insert(cidr, NodeRoute { node, via });
                }
            }
        }
        routes
    }

    fn ranges(&self) -> BTreeMap<IpNet, Range> {
        let mut ranges = BTreeMap::new();
        // What is said last counts.
        for net in &self.config.no_masquerade {
            ranges.insert(*net, Range::Excluded);
        }
        let objects = self.service_cidrs.values().flat_map(|object| &object.cidrs);
        for net in self.config.service_cidrs.iter().chain(objects) {
            ranges.insert(*net, Range::Services);
        }
        for address in self.nodes.values().flat_map(|node| &node.addresses) {
            ranges.insert(IpNet::from(*address), Range::Node);
        }
        for dns in &self.config.cluster_dns {
            ranges.insert(IpNet::from(*dns), Range::Node);
        }
        let nodes = self.nodes.values().flat_map(|node| &node.pod_cidrs);
        for net in self.config.cluster_cidrs.iter().chain(nodes) {
            ranges.insert(*net, Range::Pods);
        }
        ranges
    }

    pub(crate) fn health(&self) -> BTreeMap<u16, HealthCheck> {
        let mut health = BTreeMap::new();
        for service in self.services.values().filter(|s| s.proxied) {
            let (Some(port), ServiceKind::LoadBalancer, TrafficPolicy::Local) = (
                service.health_check_node_port,
                &service.kind,
                service.external_policy,
            ) else {
                continue;
            };
            let count = |ipv4| {
                let slices = self.slices_of(service).filter(|slice| slice.proxied);
                let endpoints = slices.flat_map(|slice| &slice.endpoints).filter(|e| {
                    e.address.is_ipv4() == ipv4
                        && is_ready(service, e)
                        && e.node.as_ref() == Some(&self.config.node)
                });
                endpoints.map(|e| e.address).collect::<BTreeSet<_>>().len()
            };
            health.entry(port).or_insert_with(|| HealthCheck {
                service: service.key.clone(),
                local_endpoints: count(true).max(count(false)),
            });
        }
        health
    }
}

fn is_ready(service: &Service, endpoint: &SliceEndpoint) -> bool {
    endpoint.state.ready || service.publish_not_ready
}

fn is_draining(service: &Service, endpoint: &SliceEndpoint) -> bool {
    !is_ready(service, endpoint) && endpoint.state.serving && endpoint.state.terminating
}

fn only<'a>(
    all: &[(&'a SliceEndpoint, u16)],
    keep: impl Fn(&SliceEndpoint) -> bool,
) -> Vec<(&'a SliceEndpoint, u16)> {
    all.iter().filter(|(e, _)| keep(e)).copied().collect()
}

fn listed(endpoints: &[(&SliceEndpoint, u16)]) -> Vec<Backend> {
    let backend = |(e, port): &(&SliceEndpoint, u16)| Backend {
        address: e.address,
        port: *port,
    };
    let set: BTreeSet<Backend> = endpoints.iter().map(backend).collect();
    set.into_iter().collect()
}

fn source_ranges(service: &Service, ipv4: bool) -> Vec<IpNet> {
    let all = &service.load_balancer_source_ranges;
    let of_family: BTreeSet<IpNet> = all
        .iter()
        .copied()
        .filter(|range| range.addr().is_ipv4() == ipv4)
        .collect();
    match (all.is_empty(), of_family.is_empty(), ipv4) {
        (false, true, true) => vec!["0.0.0.0/32".parse().unwrap()],
        (false, true, false) => vec!["::/128".parse().unwrap()],
        _ => of_family.into_iter().collect(),
    }
}
