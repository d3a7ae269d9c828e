//! Network policies, and what they select.
//!
//! A part of a policy that makes no sense is read in the way that allows less: a
//! peer that cannot be read is nobody, ports that cannot be read are none, and a
//! policy whose pods cannot be told isolates all that it might mean.

mod cluster;
mod network;
mod selector;
mod subject;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use ripstop_model::{PortMatch, PortSet, PortsOf, Protocol, Reason};

use super::Reader;

pub use cluster::cluster_network_policy;
pub(crate) use network::closed;
pub use network::network_policy;
pub use subject::{namespace, node_identity, pod};

/// Annotation of a policy that is not to be enforced: "true".
const DRY_RUN: &str = "ripstop.io/dry-run";

/// Whether a policy is only to be tried. What makes no sense does not open it.
fn dry_run(read: &mut Reader, meta: &ObjectMeta) -> bool {
    let value = meta.annotations.as_ref().and_then(|all| all.get(DRY_RUN));
    match value.map(String::as_str) {
        Some("true") => true,
        None | Some("false") => false,
        Some(other) => {
            let field = format!("metadata.annotations[{DRY_RUN}]");
            let problem = format!("{other:?} is none of true, false; it is enforced");
            read.note(Reason::InvalidField, &field, &problem);
            false
        }
    }
}

/// Ports from `first` to `last`.
fn ports(
    read: &mut Reader,
    protocol: Protocol,
    (field, first): (String, i32),
    (last_field, last): (String, i32),
) -> Option<PortMatch> {
    let first = read.port(|| field.clone(), first)?;
    let last = read.port(|| last_field.clone(), last)?;
    let in_order = match first <= last {
        true => Ok(()),
        false => Err(format!("{last} is less than {field}, which is {first}")),
    };
    read.take(|| last_field, in_order)?;
    Some(PortMatch {
        protocol: PortsOf::Protocol(protocol),
        ports: PortSet::Range(first..=last),
    })
}

#[cfg(test)]
mod tests;
