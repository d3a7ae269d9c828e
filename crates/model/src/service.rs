//! Services and the endpoints behind them.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Namespace and name of a namespaced object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    pub namespace: String,
    pub name: String,
}

impl ObjectKey {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Transport protocol of a service port, with its IP protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[repr(u8)]
pub enum Protocol {
    Tcp = 6,
    Udp = 17,
    Sctp = 132,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

impl std::str::FromStr for Protocol {
    type Err = String;

    /// The names of the Kubernetes API: `TCP`, `UDP`, `SCTP`.
    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "TCP" => Ok(Self::Tcp),
            "UDP" => Ok(Self::Udp),
            "SCTP" => Ok(Self::Sctp),
            other => Err(format!("protocol {other:?} is none of TCP, UDP, SCTP")),
        }
    }
}

/// `Service.spec.type`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceKind {
    ClusterIp,
    NodePort,
    LoadBalancer,
    /// The name that the service is an alias of.
    ExternalName(String),
}

/// `internalTrafficPolicy` and `externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrafficPolicy {
    #[default]
    Cluster,
    /// Only endpoints on the node where the traffic is.
    Local,
}

/// A Service v1 as far as the network needs it.
/// <https://kubernetes.io/docs/concepts/services-networking/service/>
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    pub key: ObjectKey,
    pub kind: ServiceKind,
    /// Empty for headless and ExternalName services; else one or two, the
    /// primary family first.
    pub cluster_ips: Vec<IpAddr>,
    /// `clusterIP: None`.
    pub headless: bool,
    pub ports: Vec<ServicePort>,
    /// `publishNotReadyAddresses`: endpoints count as ready whatever their
    /// probes say.
    pub publish_not_ready: bool,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip` of `ipMode: VIP`, which is the default.
    pub load_balancer_ips: Vec<IpAddr>,
    /// Who may reach `load_balancer_ips`; everybody if empty.
    pub load_balancer_source_ranges: Vec<IpNet>,
    /// `sessionAffinity: ClientIP`: for how many seconds after its last
    /// connection a client keeps its endpoint.
    pub affinity: Option<u32>,
    pub internal_policy: TrafficPolicy,
    pub external_policy: TrafficPolicy,
    /// Port of the node that says whether it has endpoints of this service.
    pub health_check_node_port: Option<u16>,
    /// False: no proxy of the nodes is to serve it (labels
    /// `service.kubernetes.io/service-proxy-name` and `.../headless`). It has its
    /// names all the same.
    pub proxied: bool,
}

impl Service {
    /// A ClusterIP service that has neither address nor port yet.
    pub fn new(key: ObjectKey) -> Self {
        Self {
            key,
            kind: ServiceKind::ClusterIp,
            cluster_ips: Vec::new(),
            headless: false,
            ports: Vec::new(),
            publish_not_ready: false,
            external_ips: Vec::new(),
            load_balancer_ips: Vec::new(),
            load_balancer_source_ranges: Vec::new(),
            affinity: None,
            internal_policy: TrafficPolicy::Cluster,
            external_policy: TrafficPolicy::Cluster,
            health_check_node_port: None,
            proxied: true,
        }
    }
}

/// One entry of `Service.spec.ports`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// Empty if the service's only port has no name. Joins the service's port
    /// with the port of the same name in its endpoint slices.
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
    pub node_port: Option<u16>,
    pub app_protocol: Option<String>,
}

/// An EndpointSlice (discovery.k8s.io/v1) of one service and one address family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSlice {
    pub key: ObjectKey,
    /// Name of the service in the same namespace (label `kubernetes.io/service-name`).
    pub service: String,
    pub ports: Vec<SlicePort>,
    pub endpoints: Vec<SliceEndpoint>,
    /// As [`Service::proxied`]: false for those of headless services.
    pub proxied: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlicePort {
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
}

/// One endpoint of a slice. Slices are of one family, so an endpoint has one
/// address that counts (the API allows more, consumers use the first).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceEndpoint {
    pub address: IpAddr,
    pub state: EndpointState,
    pub node: Option<String>,
    pub zone: Option<String>,
    /// For the per-endpoint names of headless services.
    pub hostname: Option<String>,
    /// Name of the pod behind it, in the slice's namespace.
    pub pod: Option<String>,
    /// `hints.forZones`: clients of these zones are to use it.
    pub zone_hints: Vec<String>,
    /// `hints.forNodes`: clients on these nodes are to use it.
    pub node_hints: Vec<String>,
}

impl SliceEndpoint {
    /// A ready endpoint of which nothing but the address is known.
    pub fn new(address: IpAddr) -> Self {
        Self {
            address,
            state: EndpointState::READY,
            node: None,
            zone: None,
            hostname: None,
            pod: None,
            zone_hints: Vec::new(),
            node_hints: Vec::new(),
        }
    }
}

/// The three conditions of an endpoint, already defaulted as the API says:
/// nil `ready` and nil `serving` mean true, nil `terminating` false.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointState {
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
}

impl EndpointState {
    pub const READY: Self = Self {
        ready: true,
        serving: true,
        terminating: false,
    };
}
