//! NetworkPolicy.

use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use ripstop_model::{
    LabelSelector, NamespaceScope, NetworkPolicy, ObjectKey, ObjectKind, ObjectRef, Peer,
    PortMatch, PortSet, PortsOf, Reason, Rule,
};

use super::super::{Converted, Reader, key};
use super::selector::selector;
use super::{dry_run, ports};

/// What a policy means that cannot be read: nothing passes in its namespace.
pub(crate) fn closed(key: ObjectKey) -> NetworkPolicy {
    NetworkPolicy {
        key,
        pod_selector: LabelSelector::default(),
        ingress: Some(Vec::new()),
        egress: Some(Vec::new()),
        dry_run: false,
    }
}

/// A NetworkPolicy with its `policyTypes` defaulted as the API does.
pub fn network_policy(object: &networking::NetworkPolicy) -> Converted<NetworkPolicy> {
    let key = key(&object.metadata);
    let mut read = Reader::new(ObjectRef::new(ObjectKind::NetworkPolicy, key.clone()));
    let default = networking::NetworkPolicySpec::default();
    let spec = object.spec.as_ref().unwrap_or(&default);
    let pod_selector = spec.pod_selector.as_ref();
    // Nobody knows whom it means: so everybody.
    let pod_selector = pod_selector
        .and_then(|one| selector(&mut read, "spec.podSelector", one))
        .unwrap_or_default();
    let (is_ingress, is_egress) = types(&mut read, spec);
    let ingress = spec.ingress.iter().flatten().enumerate().map(|(i, rule)| {
        let at = format!("spec.ingress[{i}]");
        Rule {
            peers: peers(&mut read, &format!("{at}.from"), rule.from.as_deref()),
            ports: port_list(&mut read, &format!("{at}.ports"), rule.ports.as_deref()),
        }
    });
    let ingress: Vec<_> = ingress.collect();
    let egress = spec.egress.iter().flatten().enumerate().map(|(i, rule)| {
        let at = format!("spec.egress[{i}]");
        Rule {
            peers: peers(&mut read, &format!("{at}.to"), rule.to.as_deref()),
            ports: port_list(&mut read, &format!("{at}.ports"), rule.ports.as_deref()),
        }
    });
    let egress: Vec<_> = egress.collect();
    let dry_run = dry_run(&mut read, &object.metadata);
    read.give(NetworkPolicy {
        dry_run,
        key,
        pod_selector,
        ingress: is_ingress.then_some(ingress),
        egress: is_egress.then_some(egress),
    })
}

/// Whether a policy is about ingress and about egress. Without types: always
/// about ingress, and about egress if it has rules for it.
fn types(read: &mut Reader, spec: &networking::NetworkPolicySpec) -> (bool, bool) {
    let types = spec.policy_types.as_deref().unwrap_or_default();
    if types.is_empty() {
        let has_egress = spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
        return (true, has_egress);
    }
    let mut about = (false, false);
    for (i, type_) in types.iter().enumerate() {
        match type_.as_str() {
            "Ingress" => about.0 = true,
            "Egress" => about.1 = true,
            other => {
                let problem = format!("{other:?} is none of Ingress, Egress; both are isolated");
                read.note(
                    Reason::InvalidField,
                    &format!("spec.policyTypes[{i}]"),
                    &problem,
                );
                about = (true, true);
            }
        }
    }
    about
}

/// `None` (everybody) only if the list is empty as it was written.
fn peers(
    read: &mut Reader,
    field: &str,
    peers: Option<&[networking::NetworkPolicyPeer]>,
) -> Option<Vec<Peer>> {
    let peers = peers.filter(|peers| !peers.is_empty())?;
    let readable = peers
        .iter()
        .enumerate()
        .filter_map(|(i, one)| peer(read, &format!("{field}[{i}]"), one));
    Some(readable.collect())
}

fn peer(read: &mut Reader, field: &str, peer: &networking::NetworkPolicyPeer) -> Option<Peer> {
    let has_selector = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
    match (&peer.ip_block, has_selector) {
        (Some(_), true) => {
            let problem = "ipBlock cannot stand beside podSelector or namespaceSelector";
            read.note(Reason::InvalidField, field, problem);
            None
        }
        (None, false) => {
            let problem = "one of podSelector, namespaceSelector and ipBlock is required";
            read.note(Reason::InvalidField, field, problem);
            None
        }
        (Some(block), false) => ip_block(read, &format!("{field}.ipBlock"), block),
        (None, true) => {
            let namespaces = match &peer.namespace_selector {
                None => NamespaceScope::Own,
                Some(one) => NamespaceScope::Selected(selector(
                    read,
                    &format!("{field}.namespaceSelector"),
                    one,
                )?),
            };
            let pods = match &peer.pod_selector {
                None => LabelSelector::default(),
                Some(one) => selector(read, &format!("{field}.podSelector"), one)?,
            };
            Some(Peer::Pods { namespaces, pods })
        }
    }
}

fn ip_block(read: &mut Reader, field: &str, block: &networking::IPBlock) -> Option<Peer> {
    let cidr = read.block(|| format!("{field}.cidr"), &block.cidr)?;
    let mut except = Vec::new();
    for (i, text) in block.except.iter().flatten().enumerate() {
        let at = || format!("{field}.except[{i}]");
        // An exception that cannot be read takes the block with it: who was to
        // be kept out must not come in.
        let one = read.block(at, text)?;
        let inside = match cidr.contains(&one) && one != cidr {
            true => Ok(()),
            false => Err(format!("{one} is not inside of {cidr}")),
        };
        read.take(at, inside)?;
        except.push(one);
    }
    Some(Peer::Block { cidr, except })
}

/// `None` (every port) only if the list is empty as it was written.
fn port_list(
    read: &mut Reader,
    field: &str,
    ports: Option<&[networking::NetworkPolicyPort]>,
) -> Option<Vec<PortMatch>> {
    let ports = ports.filter(|ports| !ports.is_empty())?;
    let readable = ports
        .iter()
        .enumerate()
        .filter_map(|(i, one)| port(read, &format!("{field}[{i}]"), one));
    Some(readable.collect())
}

fn port(read: &mut Reader, field: &str, port: &networking::NetworkPolicyPort) -> Option<PortMatch> {
    let protocol = read.protocol(|| format!("{field}.protocol"), port.protocol.as_deref())?;
    let end_field = format!("{field}.endPort");
    let number = match (&port.port, port.end_port) {
        (Some(IntOrString::Int(number)), _) => *number,
        (_, Some(_)) => {
            let problem = "endPort needs a port that is a number";
            read.note(Reason::InvalidField, &end_field, problem);
            return None;
        }
        (None, None) => {
            let protocol = PortsOf::Protocol(protocol);
            let ports = PortSet::ALL;
            return Some(PortMatch { protocol, ports });
        }
        (Some(IntOrString::String(name)), None) => {
            let named = match name.is_empty() {
                true => Err("a port has a number or a name".to_owned()),
                false => Ok(PortSet::Named(name.clone())),
            };
            let ports = read.take(|| format!("{field}.port"), named)?;
            let protocol = PortsOf::Protocol(protocol);
            return Some(PortMatch { protocol, ports });
        }
    };
    let first = (format!("{field}.port"), number);
    let last = match port.end_port {
        None => first.clone(),
        Some(end) => (end_field, end),
    };
    ports(read, protocol, first, last)
}
