//! What the API has to know about the cluster.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use ipnet::IpNet;

/// Settings of one cluster; the default is a lab with IPv4 only.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// One range per family; the first is the family of single-stack services.
    pub service_cidrs: Vec<IpNet>,
    pub node_ports: RangeInclusive<u16>,
    /// Where pods reach this server; endpoints of the `kubernetes` Service.
    pub api_endpoints: Vec<SocketAddr>,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        let v4 = IpNet::new(IpAddr::from([10, 96, 0, 0]), 16).expect("16 is a prefix length");
        Self {
            service_cidrs: vec![v4],
            node_ports: 30000..=32767,
            api_endpoints: Vec::new(),
        }
    }
}
