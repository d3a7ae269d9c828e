//! Ranges that ClusterIPs come from.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A ServiceCIDR (networking.k8s.io/v1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceCidr {
    pub name: String,
    /// At most one per family.
    pub cidrs: Vec<IpNet>,
}
