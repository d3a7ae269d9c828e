//! Services and what is around them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Header, age, list, name, number, or_none, selector, text};

pub(super) const SERVICE: &[Header] = &[
    ("Name", "string", 0),
    ("Type", "string", 0),
    ("Cluster-IP", "string", 0),
    ("External-IP", "string", 0),
    ("Port(s)", "string", 0),
    ("Age", "string", 0),
    ("Selector", "string", 1),
];

pub(super) fn service(object: &Value, now: i64) -> Vec<Value> {
    let kind = text(object, "/spec/type");
    let addresses = list(object, "/spec/clusterIPs");
    let address = match addresses.first().and_then(Value::as_str) {
        Some(first) => first,
        None => text(object, "/spec/clusterIP"),
    };
    let ports: Vec<_> = list(object, "/spec/ports")
        .iter()
        .map(|port| {
            let (number_, protocol) = (number(port, "/port"), text(port, "/protocol"));
            match number(port, "/nodePort") {
                0 => format!("{number_}/{protocol}"),
                node_port => format!("{number_}:{node_port}/{protocol}"),
            }
        })
        .collect();
    vec![
        name(object),
        json!(kind),
        or_none(address),
        json!(external_address(object)),
        or_none(&ports.join(",")),
        age(object, now),
        json!(selector(&object["spec"]["selector"], "<none>")),
    ]
}

fn external_address(object: &Value) -> String {
    let external: Vec<_> = list(object, "/spec/externalIPs")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    match text(object, "/spec/type") {
        "ExternalName" => text(object, "/spec/externalName").to_owned(),
        "LoadBalancer" => {
            let mut all = balancer(object);
            all.extend(external.iter().map(|&address| address.to_owned()));
            if all.is_empty() {
                "<pending>".to_owned()
            } else {
                all.join(",")
            }
        }
        _ if external.is_empty() => "<none>".to_owned(),
        _ => external.join(","),
    }
}

/// Addresses and names that a load balancer was given, in order.
fn balancer(object: &Value) -> Vec<String> {
    let unique: BTreeSet<_> = list(object, "/status/loadBalancer/ingress")
        .iter()
        .map(|entry| match text(entry, "/ip") {
            "" => text(entry, "/hostname"),
            address => address,
        })
        .filter(|entry| !entry.is_empty())
        .map(str::to_owned)
        .collect();
    unique.into_iter().collect()
}

pub(super) const ENDPOINTS: &[Header] = &[
    ("Name", "string", 0),
    ("Endpoints", "string", 0),
    ("Age", "string", 0),
];

pub(super) fn endpoints(object: &Value, now: i64) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in list(object, "/subsets") {
        let ports = list(subset, "/ports");
        for address in list(subset, "/addresses") {
            let ip = text(address, "/ip");
            if ports.is_empty() {
                all.push(ip.to_owned());
            }
            for port in ports {
                let port = number(port, "/port");
                let separate = if ip.contains(':') {
                    format!("[{ip}]")
                } else {
                    ip.to_owned()
                };
                all.push(format!("{separate}:{port}"));
            }
        }
    }
    vec![name(object), json!(first_few(&all)), age(object, now)]
}

/// Three, and how many more.
fn first_few(all: &[String]) -> String {
    match all {
        [] => "<none>".to_owned(),
        few if few.len() <= 3 => few.join(","),
        many => format!("{} + {} more...", many[..3].join(","), many.len() - 3),
    }
}

pub(super) const SLICE: &[Header] = &[
    ("Name", "string", 0),
    ("AddressType", "string", 0),
    ("Ports", "string", 0),
    ("Endpoints", "string", 0),
    ("Age", "string", 0),
];

pub(super) fn slice(object: &Value, now: i64) -> Vec<Value> {
    let ports: Vec<_> = list(object, "/ports")
        .iter()
        .map(|port| match number(port, "/port") {
            0 => "*".to_owned(),
            number => number.to_string(),
        })
        .collect();
    let addresses: Vec<_> = list(object, "/endpoints")
        .iter()
        .flat_map(|endpoint| list(endpoint, "/addresses"))
        .filter_map(|address| address.as_str().map(str::to_owned))
        .collect();
    let none = "<unset>".to_owned();
    vec![
        name(object),
        json!(text(object, "/addressType")),
        json!(if ports.is_empty() {
            none.clone()
        } else {
            first_few(&ports)
        }),
        json!(if addresses.is_empty() {
            none
        } else {
            first_few(&addresses)
        }),
        age(object, now),
    ]
}

pub(super) const INGRESS: &[Header] = &[
    ("Name", "string", 0),
    ("Class", "string", 0),
    ("Hosts", "string", 0),
    ("Address", "string", 0),
    ("Ports", "string", 0),
    ("Age", "string", 0),
];

pub(super) fn ingress(object: &Value, now: i64) -> Vec<Value> {
    let hosts: Vec<_> = list(object, "/spec/rules")
        .iter()
        .map(|rule| text(rule, "/host").to_owned())
        .filter(|host| !host.is_empty())
        .collect();
    let hosts = if hosts.is_empty() {
        "*".to_owned()
    } else {
        first_few(&hosts)
    };
    let ports = if list(object, "/spec/tls").is_empty() {
        "80"
    } else {
        "80, 443"
    };
    vec![
        name(object),
        or_none(text(object, "/spec/ingressClassName")),
        json!(hosts),
        json!(balancer(object).join(",")),
        json!(ports),
        age(object, now),
    ]
}

pub(super) const INGRESS_CLASS: &[Header] = &[
    ("Name", "string", 0),
    ("Controller", "string", 0),
    ("Parameters", "string", 0),
    ("Age", "string", 0),
];

pub(super) fn ingress_class(object: &Value, now: i64) -> Vec<Value> {
    let parameters = object.pointer("/spec/parameters").map(|parameters| {
        let kind = text(parameters, "/kind");
        match text(parameters, "/apiGroup") {
            "" => format!("{kind}/{}", text(parameters, "/name")),
            group => format!("{kind}.{group}/{}", text(parameters, "/name")),
        }
    });
    vec![
        name(object),
        json!(text(object, "/spec/controller")),
        or_none(&parameters.unwrap_or_default()),
        age(object, now),
    ]
}

pub(super) const SERVICE_CIDR: &[Header] = &[
    ("Name", "string", 0),
    ("CIDRs", "string", 0),
    ("Age", "string", 0),
];

pub(super) fn service_cidr(object: &Value, now: i64) -> Vec<Value> {
    let cidrs = list(object, "/spec/cidrs").iter();
    let cidrs: Vec<_> = cidrs.filter_map(Value::as_str).collect();
    vec![name(object), json!(cidrs.join(",")), age(object, now)]
}

pub(super) const POLICY: &[Header] = &[
    ("Name", "string", 0),
    ("Pod-Selector", "string", 0),
    ("Age", "string", 0),
];

pub(super) fn policy(object: &Value, now: i64) -> Vec<Value> {
    let pods = selector(&object["spec"]["podSelector"], "<none>");
    vec![name(object), json!(pods), age(object, now)]
}
