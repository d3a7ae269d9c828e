//! Service of type LoadBalancer -> an address of the lab's pool for each of its
//! families, as a cloud's service controller would give it.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{
    LoadBalancerIngress, LoadBalancerStatus, PortStatus, Service, ServiceStatus,
};
use k8s_openapi::jiff::Timestamp;

use super::controller::Controller;
use super::object::{Change, Key, Object};
use super::plan::{Event, Plan};
use super::world::World;

/// `spec.loadBalancerClass` of the pool; services of another class are somebody
/// else's.
const CLASS: &str = "ripstop.dev/lab";
/// Addresses of one range that are given out at most.
const MOST: u128 = 1 << 16;

#[derive(Debug)]
pub(crate) struct LoadBalancers {
    /// At most one range per family.
    pub(crate) pools: Vec<IpNet>,
}

impl Controller for LoadBalancers {
    fn component(&self) -> &'static str {
        "service-lb-controller"
    }

    fn affected(&self, world: &World, change: &Change, add: &mut dyn FnMut(Key)) {
        let Object::Service(service) = change.latest() else {
            return;
        };
        if change.new.is_some() {
            add(Key::of(&service.metadata));
        }
        // Addresses that become free are for those that wait.
        let had = change.before::<Service>().map(ingress);
        let has_some = had.as_ref().is_some_and(|had| !had.is_empty());
        if has_some && had != change.after().map(ingress) {
            let services = world.objects.services.iter();
            services
                .filter(|service| is_ours(service) && ingress(service).is_empty())
                .for_each(|service| add(Key::of(&service.metadata)));
        }
    }

    fn decide(&self, world: &World, key: &Key, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(service) = world.objects.services.get(key) else {
            return plan;
        };
        if service.metadata.deletion_timestamp.is_some() {
            return plan;
        }
        let wanted = match is_ours(service) {
            true => self.addresses(world, service, &mut plan),
            // What we gave comes back; what others gave is theirs.
            false if is_load_balancer(service) => return plan,
            false => Vec::new(),
        };
        let wanted: Vec<_> = wanted
            .into_iter()
            .map(|address| entry(service, address))
            .collect();
        let now = service
            .status
            .as_ref()
            .and_then(|status| status.load_balancer.as_ref())
            .and_then(|balancer| balancer.ingress.as_deref())
            .unwrap_or_default();
        if now != wanted {
            let mut changed = Service::clone(service);
            changed
                .status
                .get_or_insert_with(ServiceStatus::default)
                .load_balancer = Some(LoadBalancerStatus {
                ingress: (!wanted.is_empty()).then_some(wanted),
            });
            plan.update_status(changed);
        }
        plan
    }
}

impl LoadBalancers {
    /// The service's addresses; those that it has stay.
    fn addresses(&self, world: &World, service: &Service, plan: &mut Plan) -> Vec<IpAddr> {
        let held = ingress(service);
        let spec = service.spec.as_ref();
        let asked = spec
            .and_then(|spec| spec.load_balancer_ip.as_deref())
            .and_then(|ip| ip.parse::<IpAddr>().ok());
        let mut problem = |message: String| {
            let component = self.component();
            plan.record(Event::warning(
                component,
                service,
                "SyncLoadBalancerFailed",
                message,
            ));
        };
        let mut addresses = Vec::new();
        for family in spec
            .and_then(|spec| spec.ip_families.as_ref())
            .into_iter()
            .flatten()
        {
            let same = |ip: IpAddr| ip.is_ipv4() == (family == "IPv4");
            let Some(pool) = self.pools.iter().find(|pool| same(pool.addr())) else {
                problem(format!(
                    "the lab has no pool of {family} addresses (--lb-pool)"
                ));
                continue;
            };
            let asked = asked.filter(|ip| same(*ip));
            let held = held
                .iter()
                .copied()
                .find(|ip| same(*ip) && pool.contains(ip));
            if let Some(held) = held.filter(|held| asked.is_none_or(|asked| asked == *held)) {
                addresses.push(held);
                continue;
            }
            let taken = taken(world, service);
            match asked {
                Some(asked) if !pool.contains(&asked) => {
                    problem(format!(
                        "loadBalancerIP {asked} is not in the lab's pool {pool}"
                    ));
                }
                Some(asked) if taken.contains(&asked) => {
                    problem(format!("loadBalancerIP {asked} is another service's"));
                }
                Some(asked) => addresses.push(asked),
                None => match hosts(pool).find(|ip| !taken.contains(ip)) {
                    Some(free) => addresses.push(free),
                    None => problem(format!("no address is left in the lab's pool {pool}")),
                },
            }
        }
        addresses
    }
}

/// Addresses of all other services.
fn taken(world: &World, service: &Service) -> HashSet<IpAddr> {
    let key = Key::of(&service.metadata);
    let others = world.objects.services.iter();
    others
        .filter(|other| Key::of(&other.metadata) != key)
        .flat_map(|other| ingress(other))
        .collect()
}

/// Without the address of the network, and in IPv4 without broadcast.
fn hosts(pool: &IpNet) -> impl Iterator<Item = IpAddr> + use<> {
    let (first, last) = (number(pool.network()), number(pool.broadcast()));
    let (first, last) = match last - first {
        0 | 1 => (first, last),
        _ if pool.addr().is_ipv4() => (first + 1, last - 1),
        _ => (first + 1, last),
    };
    let ipv4 = pool.addr().is_ipv4();
    (first..=last.min(first.saturating_add(MOST - 1))).map(move |number| match ipv4 {
        true => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
        false => IpAddr::V6(Ipv6Addr::from(number)),
    })
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

fn is_load_balancer(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer")
}

fn is_ours(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    let class = spec.and_then(|spec| spec.load_balancer_class.as_deref());
    is_load_balancer(service) && class.is_none_or(|class| class == CLASS)
}

/// The service's addresses of `ipMode: VIP`, or without a mode.
pub(crate) fn ingress(service: &Service) -> Vec<IpAddr> {
    let balancer = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref());
    let entries = balancer.and_then(|balancer| balancer.ingress.as_ref());
    let entries = entries.into_iter().flatten();
    entries
        .filter(|entry| entry.ip_mode.as_deref() != Some("Proxy"))
        .filter_map(|entry| entry.ip.as_deref()?.parse().ok())
        .collect()
}

fn entry(service: &Service, address: IpAddr) -> LoadBalancerIngress {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    let ports = ports.into_iter().flatten().map(|port| PortStatus {
        error: None,
        port: port.port,
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
    });
    LoadBalancerIngress {
        hostname: None,
        ip: Some(address.to_string()),
        ip_mode: Some("VIP".to_owned()),
        ports: Some(ports.collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_pools() {
        let all = |pool: &str| -> Vec<String> {
            let hosts = hosts(&pool.parse().unwrap());
            hosts.map(|ip| ip.to_string()).collect()
        };
        assert_eq!(all("192.0.2.0/30"), ["192.0.2.1", "192.0.2.2"]);
        assert_eq!(all("192.0.2.7/32"), ["192.0.2.7"]);
        assert_eq!(
            all("2001:db8::/126"),
            ["2001:db8::1", "2001:db8::2", "2001:db8::3"]
        );
        assert_eq!(all("2001:db8::/64").len(), 1 << 16);
    }
}
