//! What the cluster's names mean, for the DNS server.
//! <https://github.com/kubernetes/dns/blob/master/docs/specification.md>

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ripstop_model::{EndpointSlice, ObjectKey, Service};

use crate::service::is_ready;

/// The names of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceNames {
    /// Of `<service>.<namespace>.svc`: the cluster addresses, or those of a
    /// headless service's ready endpoints. Sorted, of both families.
    pub addresses: Vec<IpAddr>,
    /// Of `<host>.<service>.<namespace>.svc`: a headless service's ready
    /// endpoints by host name (a StatefulSet's pod name), or by address where
    /// an endpoint has no host name.
    pub hosts: BTreeMap<String, Vec<IpAddr>>,
}

/// Names below the cluster domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// By `<service>.<namespace>`, as a question has it.
    services: HashMap<Box<str>, ServiceNames>,
    /// How many services each namespace has: the name of a namespace exists as
    /// long as there is one below it.
    namespaces: HashMap<Box<str>, usize>,
}

/// What there is at a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup<'a> {
    /// NXDOMAIN.
    NoSuchName,
    /// The name exists; empty, or of one family only, means no data of that type.
    Addresses(&'a [IpAddr]),
}

impl Names {
    /// Sets or removes the names of one service.
    pub fn set(&mut self, service: &ObjectKey, names: Option<ServiceNames>) {
        let key = format!("{}.{}", service.name, service.namespace).into_boxed_str();
        match names {
            Some(names) => {
                if self.services.insert(key, names).is_none() {
                    let namespace = service.namespace.clone().into_boxed_str();
                    *self.namespaces.entry(namespace).or_default() += 1;
                }
            }
            None => {
                if self.services.remove(&key).is_none() {
                    return;
                }
                if let Some(count) = self.namespaces.get_mut(service.namespace.as_str()) {
                    *count -= 1;
                    if *count == 0 {
                        self.namespaces.remove(service.namespace.as_str());
                    }
                }
            }
        }
    }

    /// Number of services with a name.
    pub fn len(&self) -> usize {
        self.services.len()
    }

    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// Looks up a name below the cluster domain, without the domain, in lower
    /// case, labels separated by dots: `web.default.svc`. The domain itself is
    /// the empty name.
    pub fn lookup(&self, name: &str) -> Lookup<'_> {
        const EXISTS: Lookup<'static> = Lookup::Addresses(&[]);
        if name.is_empty() || name == "svc" {
            return EXISTS;
        }
        let Some(name) = name.strip_suffix(".svc") else {
            return Lookup::NoSuchName;
        };
        let Some(last) = name.rfind('.') else {
            return match self.namespaces.contains_key(name) {
                true => EXISTS,
                false => Lookup::NoSuchName,
            };
        };
        let service = match name[..last].rfind('.') {
            Some(dot) => dot + 1,
            None => 0,
        };
        let Some(names) = self.services.get(&name[service..]) else {
            return Lookup::NoSuchName;
        };
        if service == 0 {
            return Lookup::Addresses(&names.addresses);
        }
        match names.hosts.get(&name[..service - 1]) {
            Some(addresses) => Lookup::Addresses(addresses),
            None => Lookup::NoSuchName,
        }
    }
}

/// The names of a service with its slices. `None` if it has none: ExternalName
/// services have no address, and a headless service without a ready endpoint
/// does not exist for DNS (2.4.1 of the specification).
pub(crate) fn names<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a EndpointSlice>,
) -> Option<ServiceNames> {
    let mut names = ServiceNames::default();
    if service.headless {
        for endpoint in slices.flat_map(|slice| &slice.endpoints) {
            if !is_ready(service, endpoint) {
                continue;
            }
            let host = match &endpoint.hostname {
                Some(host) => host.clone(),
                None => endpoint.address.to_string().replace(['.', ':'], "-"),
            };
            names.addresses.push(endpoint.address);
            names.hosts.entry(host).or_default().push(endpoint.address);
        }
        for addresses in names.hosts.values_mut() {
            addresses.sort_unstable();
            addresses.dedup();
        }
    } else {
        names.addresses.extend(&service.cluster_ips);
    }
    names.addresses.sort_unstable();
    names.addresses.dedup();
    (!names.addresses.is_empty()).then_some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Names {
        let mut names = Names::default();
        let web = ServiceNames {
            addresses: vec!["10.96.0.7".parse().unwrap()],
            hosts: BTreeMap::new(),
        };
        let db = ServiceNames {
            addresses: vec![
                "10.244.1.2".parse().unwrap(),
                "fd00:244::2".parse().unwrap(),
            ],
            hosts: BTreeMap::from([("db-0".to_owned(), vec!["10.244.1.2".parse().unwrap()])]),
        };
        names.set(&ObjectKey::new("shop", "web"), Some(web));
        names.set(&ObjectKey::new("shop", "db"), Some(db));
        names
    }

    #[test]
    fn exactly_the_names_there_are() {
        let names = table();
        let count = |name| match names.lookup(name) {
            Lookup::NoSuchName => None,
            Lookup::Addresses(addresses) => Some(addresses.len()),
        };
        let cases = [
            ("", Some(0)),
            ("svc", Some(0)),
            ("shop.svc", Some(0)),
            ("web.shop.svc", Some(1)),
            ("db.shop.svc", Some(2)),
            ("db-0.db.shop.svc", Some(1)),
            ("db-1.db.shop.svc", None),
            ("db-0.web.shop.svc", None),
            ("a.db-0.db.shop.svc", None),
            ("web.shop", None),
            ("web.shop.svc.default.svc", None),
            ("other.svc", None),
            ("web.other.svc", None),
            (".svc", None),
            ("..svc", None),
            ("web..svc", None),
            ("svc.svc", None),
        ];
        for (name, expected) in cases {
            assert_eq!(count(name), expected, "{name:?}");
        }
    }

    #[test]
    fn a_namespace_ends_with_its_last_service() {
        let mut names = table();
        names.set(&ObjectKey::new("shop", "web"), None);
        names.set(&ObjectKey::new("shop", "web"), None);
        assert_eq!(names.lookup("shop.svc"), Lookup::Addresses(&[]));
        names.set(&ObjectKey::new("shop", "db"), None);
        assert_eq!(names, Names::default());
    }
}
