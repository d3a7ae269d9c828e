//! Kinds of the network besides Services.

mod endpoint_slice;
mod endpoints;
mod ingress;
mod policy;
mod service_cidr;

pub(super) use endpoint_slice::RULES as ENDPOINT_SLICE;
pub(super) use endpoints::RULES as ENDPOINTS;
pub(super) use ingress::{CLASS_RULES as INGRESS_CLASS, RULES as INGRESS};
pub(super) use policy::RULES as NETWORK_POLICY;
pub(super) use service_cidr::RULES as SERVICE_CIDR;

#[cfg(test)]
mod tests;
