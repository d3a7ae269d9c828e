//! ClusterNetworkPolicy.
//!
//! "Fail closed" is what its API says of a peer of an unknown kind: an Accept
//! rule then matches nothing, a Deny or Pass rule denies everything. The same is
//! done with whatever else of a rule cannot be read.

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use ripstop_model::{
    Action, ClusterNetworkPolicy, ClusterRule, ClusterSubject, LabelSelector, NamespaceScope,
    ObjectKind, ObjectRef, Peer, PortMatch, PortSet, PortsOf, Protocol, Reason, Rule, Tier,
};
use serde_json::Value;

use super::super::{Converted, Reader};
use super::selector::selector;
use super::{dry_run, ports};
use crate::objects::ClusterNetworkPolicyObject;

const MAX_PRIORITY: u16 = 1000;

/// A ClusterNetworkPolicy.
pub fn cluster_network_policy(
    object: &ClusterNetworkPolicyObject,
) -> Converted<ClusterNetworkPolicy> {
    let name = object.metadata.name.clone().unwrap_or_default();
    let mut read = Reader::new(ObjectRef::of_cluster(
        ObjectKind::ClusterNetworkPolicy,
        name.clone(),
    ));
    let spec = &object.spec;
    let tiers = [("Admin", Tier::Admin), ("Baseline", Tier::Baseline)];
    let tier = read.choice("spec.tier", spec["tier"].as_str(), Tier::Admin, tiers);
    let priority = spec["priority"]
        .as_u64()
        .and_then(|n| u16::try_from(n).ok());
    let priority = priority.filter(|n| *n <= MAX_PRIORITY).ok_or_else(|| {
        format!(
            "{} is not between 0 and {MAX_PRIORITY}; asked first",
            spec["priority"]
        )
    });
    let priority = read
        .take(|| "spec.priority".to_owned(), priority)
        .unwrap_or(0);
    let subject = subject(&mut read, &spec["subject"]);
    let mut ingress = rules(&mut read, spec, ("ingress", "from"));
    let mut egress = rules(&mut read, spec, ("egress", "to"));
    let subject = subject.unwrap_or_else(|| {
        // Nobody knows whom it means: so what it denies is denied to everybody,
        // and what it allows to nobody.
        for rules in [&mut ingress, &mut egress] {
            rules.retain(|rule| rule.action == Action::Deny);
        }
        ClusterSubject {
            namespaces: LabelSelector::default(),
            pods: LabelSelector::default(),
        }
    });
    let dry_run = dry_run(&mut read, &object.metadata);
    read.give(ClusterNetworkPolicy {
        dry_run,
        name,
        tier,
        priority,
        subject,
        ingress,
        egress,
    })
}

/// The one field of `value` that is set, if it is one of `known`.
fn one_of<'a>(
    read: &mut Reader,
    field: &str,
    value: &'a Value,
    known: &[&'static str],
) -> Option<(&'static str, &'a Value)> {
    let set = value.as_object().into_iter().flatten();
    let set: Vec<_> = set.filter(|(_, value)| !value.is_null()).collect();
    let found = match set.as_slice() {
        [(name, value)] => match known.iter().find(|known| *known == name) {
            Some(known) => Ok((*known, *value)),
            None => Err(format!("{name:?} is none of {}", known.join(", "))),
        },
        _ => Err(format!("exactly one of {} is required", known.join(", "))),
    };
    read.take(|| field.to_owned(), found)
}

fn subject(read: &mut Reader, value: &Value) -> Option<ClusterSubject> {
    let field = "spec.subject";
    let (which, value) = one_of(read, field, value, &["namespaces", "pods"])?;
    let (namespaces, pods) = pods(read, &format!("{field}.{which}"), which, value)?;
    Some(ClusterSubject { namespaces, pods })
}

/// Selectors of namespaces and of pods in them, of a `namespaces` or `pods`.
fn pods(
    read: &mut Reader,
    field: &str,
    which: &str,
    value: &Value,
) -> Option<(LabelSelector, LabelSelector)> {
    if which == "namespaces" {
        return Some((labels(read, field, value)?, LabelSelector::default()));
    }
    let mut part = |name: &str| labels(read, &format!("{field}.{name}"), &value[name]);
    Some((part("namespaceSelector")?, part("podSelector")?))
}

fn labels(read: &mut Reader, field: &str, value: &Value) -> Option<LabelSelector> {
    if value.is_null() {
        return Some(LabelSelector::default());
    }
    let decoded = serde_json::from_value::<meta::LabelSelector>(value.clone());
    let decoded = decoded.map_err(|error| format!("it is no label selector: {error}"));
    let decoded = read.take(|| field.to_owned(), decoded)?;
    selector(read, field, &decoded)
}

fn rules(read: &mut Reader, spec: &Value, (field, peers): (&str, &str)) -> Vec<ClusterRule> {
    let list = spec[field]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let rules = list
        .iter()
        .enumerate()
        .map(|(i, value)| rule(read, &format!("spec.{field}[{i}]"), peers, value));
    rules.collect()
}

fn rule(read: &mut Reader, field: &str, peers: &str, value: &Value) -> ClusterRule {
    let actions = [
        ("Accept", Action::Accept),
        ("Deny", Action::Deny),
        ("Pass", Action::Pass),
    ];
    let at = format!("{field}.action");
    // One that is not known must not let anything through.
    let text = value["action"].as_str().or(Some(""));
    let action = read.choice(&at, text, Action::Deny, actions);
    let name = value["name"].as_str().filter(|name| !name.is_empty());
    let rule = conditions(read, field, peers, value, action);
    let (action, rule) = match (rule, action) {
        (Some(rule), _) => (action, rule),
        (None, Action::Accept) => (action, NOTHING),
        (None, Action::Deny | Action::Pass) => (Action::Deny, EVERYTHING),
    };
    ClusterRule {
        name: name.map(str::to_owned),
        action,
        rule,
    }
}

const NOTHING: Rule = Rule {
    peers: Some(Vec::new()),
    ports: None,
};
const EVERYTHING: Rule = Rule {
    peers: None,
    ports: None,
};

/// `None` if a part of them cannot be read.
fn conditions(
    read: &mut Reader,
    field: &str,
    peers: &str,
    value: &Value,
    action: Action,
) -> Option<Rule> {
    let at = format!("{field}.{peers}");
    let list = value[peers].as_array().filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| "at least one peer is required".to_owned());
    let list = read.take(|| at.clone(), list)?;
    let mut all = Vec::new();
    for (i, value) in list.iter().enumerate() {
        all.extend(peer(read, &format!("{at}[{i}]"), peers, value, action)?);
    }
    let ports = match value["protocols"].as_array() {
        None => None,
        Some(protocols) => {
            let mut ports = Vec::new();
            for (i, value) in protocols.iter().enumerate() {
                ports.push(protocol(read, &format!("{field}.protocols[{i}]"), value)?);
            }
            (!ports.is_empty()).then_some(ports)
        }
    };
    Some(Rule {
        peers: Some(all),
        ports,
    })
}

fn peer(
    read: &mut Reader,
    field: &str,
    peers: &str,
    value: &Value,
    action: Action,
) -> Option<Vec<Peer>> {
    let known: &[_] = match peers {
        "from" => &["namespaces", "pods"],
        _ => &["namespaces", "pods", "nodes", "networks", "domainNames"],
    };
    let (which, value) = one_of(read, field, value, known)?;
    let at = format!("{field}.{which}");
    let texts = || {
        let list = value.as_array().into_iter().flatten();
        let texts = list.map(|one| one.as_str().unwrap_or_default());
        texts
            .enumerate()
            .map(|(i, text)| (format!("{at}[{i}]"), text))
    };
    match which {
        "networks" => {
            let mut blocks = Vec::new();
            for (at, text) in texts() {
                let cidr = read.block(|| at, text)?;
                let except = Vec::new();
                blocks.push(Peer::Block { cidr, except });
            }
            Some(blocks)
        }
        "domainNames" => {
            if action != Action::Accept {
                let problem = "domain names can only be accepted";
                read.note(Reason::InvalidField, &at, problem);
                return None;
            }
            let mut patterns = Vec::new();
            for (at, text) in texts() {
                patterns.push(Peer::Domain(read.take(|| at, text.parse())?));
            }
            Some(patterns)
        }
        "nodes" => Some(vec![Peer::Nodes(labels(read, &at, value)?)]),
        _ => {
            let (namespaces, pods) = pods(read, &at, which, value)?;
            let namespaces = NamespaceScope::Selected(namespaces);
            Some(vec![Peer::Pods { namespaces, pods }])
        }
    }
}

fn protocol(read: &mut Reader, field: &str, value: &Value) -> Option<PortMatch> {
    let known = ["tcp", "udp", "sctp", "destinationNamedPort"];
    let (which, value) = one_of(read, field, value, &known)?;
    let at = format!("{field}.{which}");
    let protocol = match which {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => {
            let name = value.as_str().filter(|name| !name.is_empty());
            let name = name.ok_or_else(|| "a port name is required".to_owned());
            return Some(PortMatch {
                protocol: PortsOf::Any,
                ports: PortSet::Named(read.take(|| at, name)?.to_owned()),
            });
        }
    };
    let at = format!("{at}.destinationPort");
    let port = &value["destinationPort"];
    if port.is_null() {
        return Some(PortMatch {
            protocol: PortsOf::Protocol(protocol),
            ports: PortSet::ALL,
        });
    }
    let number = |value: &Value| {
        let number = value.as_i64().and_then(|n| i32::try_from(n).ok());
        number.unwrap_or(0)
    };
    let (which, port) = one_of(read, &at, port, &["number", "range"])?;
    let at = format!("{at}.{which}");
    let (first, last) = match which {
        "number" => ((at.clone(), number(port)), (at, number(port))),
        _ => (
            (format!("{at}.start"), number(&port["start"])),
            (format!("{at}.end"), number(&port["end"])),
        ),
    };
    ports(read, protocol, first, last)
}
