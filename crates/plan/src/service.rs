//! One service with its slices: its rows.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use ripstop_model::{
    EndpointSlice, ObjectKind, ObjectRef, Problem, Reason, Service, ServiceKind, TrafficPolicy,
};

pub(crate) use crate::endpoints::is_ready;
use crate::endpoints::{self, Choice, Here};
use crate::{Frontend, FrontendKind, FrontendRow, HealthCheck, Outside, PlanConfig};

/// One frontend that a service asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Claim {
    pub(crate) frontend: Frontend,
    /// Where two services, or two addresses of one service, ask for the same:
    /// who was given an address by the API server comes before who only wrote
    /// one down. Nobody takes the cluster's DNS by an external address.
    pub(crate) rank: u8,
    kind: FrontendKind,
    /// Index into the service's ports.
    port: usize,
}

/// What a service asks for.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// Sorted; one for each frontend.
    pub(crate) claims: Vec<Claim>,
    pub(crate) problems: Vec<Problem>,
}

fn rank(kind: FrontendKind) -> u8 {
    match kind {
        FrontendKind::ClusterIp => 0,
        FrontendKind::NodePort => 1,
        FrontendKind::LoadBalancer => 2,
        FrontendKind::ExternalIp => 3,
    }
}

pub(crate) fn is_node_port(of_claim: u8) -> bool {
    of_claim == rank(FrontendKind::NodePort)
}

/// Addresses and ports at which the service asks to be reached. Headless and
/// ExternalName services have no address, hence no row, also if they have
/// external addresses: kube-proxy skips them. The cluster's DNS addresses are
/// answered by this node itself and get none either, nor do services of another
/// proxy.
pub(crate) fn asked(service: &Service, config: &PlanConfig) -> Asked {
    let mut asked = Asked::default();
    if service.cluster_ips.is_empty() || !service.proxied {
        return asked;
    }
    let mut claim = |kind, address: IpAddr| {
        let ports = service.ports.iter().enumerate();
        let claims = ports.filter_map(|(i, port)| {
            let number = match kind {
                FrontendKind::NodePort => port.node_port?,
                _ => port.port,
            };
            Some(Claim {
                frontend: Frontend {
                    address,
                    protocol: port.protocol,
                    port: number,
                },
                rank: rank(kind),
                kind,
                port: i,
            })
        });
        asked.claims.extend(claims);
    };
    let is_dns = |address: &IpAddr| config.cluster_dns.contains(address);
    for address in service.cluster_ips.iter().filter(|ip| !is_dns(ip)) {
        claim(FrontendKind::ClusterIp, *address);
    }
    for address in &config.node_port_addresses {
        if has_family(service, *address) {
            claim(FrontendKind::NodePort, *address);
        }
    }
    let external = [
        (
            "status.loadBalancer.ingress",
            FrontendKind::LoadBalancer,
            &service.load_balancer_ips,
        ),
        (
            "spec.externalIPs",
            FrontendKind::ExternalIp,
            &service.external_ips,
        ),
    ];
    for (field, kind, addresses) in external {
        for address in addresses {
            let (reason, problem) = if is_dns(address) {
                (
                    Reason::AddressTaken,
                    "the cluster's DNS has this address".to_owned(),
                )
            } else if !has_family(service, *address) {
                let families = "the service has no ClusterIP of this family";
                (Reason::WrongFamily, families.to_owned())
            } else {
                claim(kind, *address);
                continue;
            };
            asked.problems.push(Problem {
                object: ObjectRef::new(ObjectKind::Service, service.key.clone()),
                reason,
                message: format!("{field}: {address}: {problem}"),
            });
        }
    }
    // The API refuses two ports of one number and protocol; the first counts.
    asked.claims.sort_unstable();
    asked.claims.dedup_by_key(|claim| claim.frontend);
    asked
}

fn has_family(service: &Service, address: IpAddr) -> bool {
    let same = |ip: &IpAddr| ip.is_ipv4() == address.is_ipv4();
    service.cluster_ips.iter().any(same)
}

/// Plans the rows of one service; endpoints are chosen once for all frontends
/// of a port.
pub(crate) struct Rows<'a> {
    service: &'a Service,
    slices: &'a [EndpointSlice],
    here: Here<'a>,
    /// By port and whether it is IPv4.
    choices: BTreeMap<(usize, bool), Choice>,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(service: &'a Service, slices: &'a [EndpointSlice], here: Here<'a>) -> Self {
        Self {
            service,
            slices,
            here,
            choices: BTreeMap::new(),
        }
    }

    /// Where one of the service's claims leads.
    pub(crate) fn row(&mut self, claim: &Claim) -> FrontendRow {
        let service = self.service;
        let ipv4 = claim.frontend.address.is_ipv4();
        let choice = self.choices.entry((claim.port, ipv4)).or_insert_with(|| {
            let port = &service.ports[claim.port];
            let slices = self.slices.iter().filter(|slice| slice.proxied);
            endpoints::choose(service, slices, port, ipv4, self.here)
        });
        let (backends, outside) = match claim.kind {
            FrontendKind::ClusterIp => match service.internal_policy {
                TrafficPolicy::Cluster => (&choice.cluster, Outside::Cluster),
                TrafficPolicy::Local => (&choice.local, Outside::Cluster),
            },
            // Nobody asks a loopback address from outside.
            _ if claim.frontend.address.is_loopback() => (&choice.cluster, Outside::Cluster),
            _ => match service.external_policy {
                TrafficPolicy::Cluster => (&choice.cluster, Outside::Cluster),
                TrafficPolicy::Local => (&choice.cluster, Outside::Local(choice.local.clone())),
            },
        };
        FrontendRow {
            service: service.key.clone(),
            kind: claim.kind,
            backends: backends.clone(),
            outside,
            affinity: service.affinity,
            source_ranges: match claim.kind {
                FrontendKind::LoadBalancer => source_ranges(service, ipv4),
                _ => Vec::new(),
            },
        }
    }
}

/// Who may reach the service's load balancer addresses of one family. Who
/// listed ranges of the other family alone has let nobody in, not everybody.
fn source_ranges(service: &Service, ipv4: bool) -> Vec<IpNet> {
    let all = &service.load_balancer_source_ranges;
    let same = |range: &&IpNet| range.addr().is_ipv4() == ipv4;
    let mut ranges: Vec<_> = all.iter().filter(same).map(IpNet::trunc).collect();
    if ranges.is_empty() && !all.is_empty() {
        ranges.push(nobody(ipv4));
    }
    ranges.sort_unstable();
    ranges.dedup();
    ranges
}

/// The unspecified address alone: no packet has it as source.
fn nobody(ipv4: bool) -> IpNet {
    match ipv4 {
        true => IpAddr::V4(Ipv4Addr::UNSPECIFIED).into(),
        false => IpAddr::V6(Ipv6Addr::UNSPECIFIED).into(),
    }
}

/// The port at which this node says whether it has endpoints of the service.
pub(crate) fn health_port(service: &Service) -> Option<u16> {
    let asked = service.proxied
        && service.kind == ServiceKind::LoadBalancer
        && service.external_policy == TrafficPolicy::Local;
    service.health_check_node_port.filter(|_| asked)
}

/// What that port says. A dual-stack endpoint counts once: it is in slices of
/// both families.
pub(crate) fn health<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a EndpointSlice>,
    here: Here<'_>,
) -> HealthCheck {
    let mut local: Vec<IpAddr> = slices
        .filter(|slice| slice.proxied)
        .flat_map(|slice| &slice.endpoints)
        .filter(|e| is_ready(service, e) && endpoints::is_local(e, here))
        .map(|e| e.address)
        .collect();
    local.sort_unstable();
    local.dedup();
    let v4 = local.partition_point(IpAddr::is_ipv4);
    HealthCheck {
        service: service.key.clone(),
        local_endpoints: v4.max(local.len() - v4),
    }
}
