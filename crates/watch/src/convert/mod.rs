//! Kubernetes objects as the model has them.
//!
//! What the API server should never have accepted is left out, and becomes a
//! [`Problem`] that names object, field and what would be right; the rest of
//! the object is as good as any other.

mod address;
mod node;
mod policy;
mod service;
mod service_cidr;
mod slice;

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use ripstop_model::{ObjectKey, ObjectRef, Problem, Protocol, Reason};

pub use node::node;
pub(crate) use policy::closed;
pub use policy::{cluster_network_policy, namespace, network_policy, node_identity, pod};
pub use service::service;
pub use service_cidr::service_cidr;
pub(crate) use slice::endpoints_changed;
pub use slice::slice;

/// What an object means, and what of it means nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted<T> {
    /// `None` if the object does not concern the network.
    pub model: Option<T>,
    pub problems: Vec<Problem>,
}

pub(crate) fn key(meta: &ObjectMeta) -> ObjectKey {
    ObjectKey::new(
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

/// Labels by which a service, or a slice, is taken from the nodes' proxies:
/// whatever their values, as kube-proxy has it.
/// <https://kubernetes.io/docs/reference/labels-annotations-taints/#servicekubernetesioservice-proxy-name>
const OWN_PROXY: [&str; 2] = [
    "service.kubernetes.io/service-proxy-name",
    "service.kubernetes.io/headless",
];

fn has_own_proxy(meta: &ObjectMeta) -> bool {
    let labels = meta.labels.as_ref();
    labels.is_some_and(|labels| OWN_PROXY.iter().any(|label| labels.contains_key(*label)))
}

/// Reads fields of one object, and notes those that make no sense.
struct Reader {
    object: ObjectRef,
    problems: Vec<Problem>,
}

impl Reader {
    fn new(object: ObjectRef) -> Self {
        Self {
            object,
            problems: Vec::new(),
        }
    }

    fn give<T>(self, model: T) -> Converted<T> {
        Converted {
            model: Some(model),
            problems: self.problems,
        }
    }

    /// Notes what is wrong with a field, which has a path as `kubectl explain`
    /// has it, with indexes.
    fn note(&mut self, reason: Reason, field: &str, problem: &str) {
        self.problems.push(Problem {
            object: self.object.clone(),
            reason,
            message: format!("{field}: {problem}"),
        });
    }

    fn take<T>(&mut self, field: impl FnOnce() -> String, result: Result<T, String>) -> Option<T> {
        result
            .map_err(|problem| self.note(Reason::InvalidField, &field(), &problem))
            .ok()
    }

    /// An address that something in a cluster can have.
    fn address(&mut self, field: impl FnOnce() -> String, text: &str) -> Option<IpAddr> {
        self.take(field, address::parse(text))
    }

    fn range(&mut self, field: impl FnOnce() -> String, text: &str) -> Option<IpNet> {
        // Kubernetes has always taken ranges with blanks around them in lists.
        let range = text.trim().parse::<IpNet>().map(|range| range.trunc());
        let problem = |_| format!("{text:?} is no address range (like 10.244.1.0/24)");
        self.take(field, range.map_err(problem))
    }

    /// A range of addresses in a policy.
    fn block(&mut self, field: impl FnOnce() -> String, text: &str) -> Option<IpNet> {
        let range = text.parse::<IpNet>().ok();
        // Nothing has such addresses: ::ffff:10.0.0.0/104 would match nobody.
        let range = range.filter(|range| !is_mapped(range));
        let problem = || format!("{text:?} is no address range (like 10.0.0.0/8 or fd00::/8)");
        self.take(field, range.map(|range| range.trunc()).ok_or_else(problem))
    }

    fn port(&mut self, field: impl FnOnce() -> String, number: i32) -> Option<u16> {
        let port = u16::try_from(number).ok().filter(|port| *port != 0);
        let problem = || format!("{number} is not between 1 and 65535");
        self.take(field, port.ok_or_else(problem))
    }

    fn protocol(&mut self, field: impl FnOnce() -> String, text: Option<&str>) -> Option<Protocol> {
        self.take(field, text.unwrap_or("TCP").parse())
    }

    /// One of a field's values by name; `default` if it is absent or none of
    /// them.
    fn choice<T>(
        &mut self,
        field: &str,
        text: Option<&str>,
        default: T,
        choices: impl IntoIterator<Item = (&'static str, T)>,
    ) -> T {
        let Some(text) = text else { return default };
        let mut names = Vec::new();
        for (name, value) in choices {
            if name == text {
                return value;
            }
            names.push(name);
        }
        let problem = format!("{text:?} is none of {}", names.join(", "));
        self.note(Reason::InvalidField, field, &problem);
        default
    }
}

/// Of IPv6 addresses that stand for IPv4 ones.
fn is_mapped(range: &IpNet) -> bool {
    match range {
        IpNet::V4(_) => false,
        IpNet::V6(v6) => v6.prefix_len() >= 96 && v6.addr().to_ipv4_mapped().is_some(),
    }
}

/// The list, or the older field for its first entry: both came with dual stack.
fn listed<'a>(list: Option<&'a Vec<String>>, first: Option<&'a String>) -> &'a [String] {
    match (list, first) {
        (Some(list), _) if !list.is_empty() => list,
        (_, Some(one)) if !one.is_empty() => std::slice::from_ref(one),
        _ => &[],
    }
}

#[cfg(test)]
mod tests;
