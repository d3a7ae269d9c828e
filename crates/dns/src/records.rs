//! What there is at a name, written as records.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use ripstop_plan::{Headless, Host, NamedPort, ServiceNames};

use crate::Zone;
use crate::answer::Realm;
use crate::find::{Found, PortFilter, find, is_ours};
use crate::name::Name;
use crate::query::Query;
use crate::reply::{Pointer, QUESTION, Rcode, Reply, Section, kind, pointer};
use crate::table::{Key, Table};

/// Aliases that follow each other at most; more are a circle.
const ALIASES: usize = 8;
/// `dns-version`: which specification this is.
const VERSION: &[u8] = b"\x051.1.0";

/// How far the table leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Done(Rcode),
    /// To a name that is not the cluster's: the question's own, or that of an
    /// alias.
    Outside(Option<Box<Name>>),
}

/// Answers the question from the table, following aliases.
pub(crate) fn resolve(
    zone: &Zone,
    table: &Table,
    query: &Query<'_>,
    name: Name,
    reply: &mut Reply<'_>,
) -> (Step, Realm) {
    resolve_at(zone, table, query, name, QUESTION, reply)
}

/// The same for a name that is in the message at `owner`.
pub(crate) fn resolve_at(
    zone: &Zone,
    table: &Table,
    query: &Query<'_>,
    mut name: Name,
    mut owner: Pointer,
    reply: &mut Reply<'_>,
) -> (Step, Realm) {
    let realm = realm(zone, &name);
    if !zone.can_tell(&name) && is_ours(zone, table, &name) {
        return (Step::Done(Rcode::ServFail), realm);
    }
    for turn in 0..ALIASES {
        let (found, zone_label) = find(zone, table, &name);
        let target = match &found {
            Found::Outside if turn == 0 => return (Step::Outside(None), Realm::Upstream),
            Found::Outside => return (Step::Outside(Some(Box::new(name))), realm),
            Found::Service(_, ServiceNames::Alias(target)) => target,
            _ => {
                let written = write(zone, table, query.kind, &found, owner, reply);
                if found == Found::Nothing || written == Written::Nothing {
                    let start = owner + name.start(zone_label) as u16;
                    let (server, mailbox) = (&zone.server, &zone.mailbox);
                    reply.soa(Section::Authority, start, server, mailbox, zone.serial());
                }
                return match found {
                    Found::Nothing => (Step::Done(Rcode::NxDomain), realm),
                    _ => (Step::Done(Rcode::NoError), realm),
                };
            }
        };
        // The API takes names only; what else there is has no answer.
        let Ok(target) = Name::parse(target) else {
            return (Step::Done(Rcode::ServFail), realm);
        };
        let Some(at) = reply.alias(owner, &target) else {
            reply.truncate();
            return (Step::Done(Rcode::NoError), realm);
        };
        if matches!(query.kind, kind::CNAME | kind::ANY) {
            return (Step::Done(Rcode::NoError), realm);
        }
        (name, owner) = (target, at);
    }
    (Step::Done(Rcode::ServFail), realm)
}

fn realm(zone: &Zone, name: &Name) -> Realm {
    match name.below(&zone.domain) {
        Some(_) => Realm::Cluster,
        None => Realm::Reverse,
    }
}

/// Whether records of the wanted type were there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    Something,
    Nothing,
}

fn write(
    zone: &Zone,
    table: &Table,
    wanted: u16,
    found: &Found<'_>,
    owner: Pointer,
    reply: &mut Reply<'_>,
) -> Written {
    match found {
        Found::Outside | Found::Nothing | Found::Empty => Written::Nothing,
        Found::Apex => apex(zone, wanted, owner, reply),
        Found::Version if matches!(wanted, kind::TXT | kind::ANY) => {
            let written = reply.record(Section::Answer, owner, kind::TXT, &[VERSION]);
            all(written.is_some(), reply)
        }
        Found::Version => Written::Nothing,
        Found::Server => addresses(wanted, owner, zone.config.servers.iter().copied(), reply),
        Found::Pod(address) => addresses(wanted, owner, std::iter::once(*address), reply),
        Found::Service(key, names) => match (wanted, names) {
            (kind::SRV, _) => ports(zone, key, names, PortFilter::ALL, owner, reply),
            (_, ServiceNames::Cluster { addresses: ips, .. }) => {
                addresses(wanted, owner, ips.iter().copied(), reply)
            }
            (_, ServiceNames::Headless(headless)) => addresses(
                wanted,
                owner,
                headless.hosts.iter().map(|h| h.address),
                reply,
            ),
            (_, ServiceNames::Alias(_)) => Written::Nothing,
        },
        Found::Hosts(key, headless, hosts) => match wanted {
            kind::SRV => endpoints(zone, key, headless, hosts, PortFilter::ALL, owner, reply),
            _ => addresses(wanted, owner, hosts.iter().map(|h| h.address), reply),
        },
        Found::Ports(key, names, filter) => match wanted {
            kind::SRV | kind::ANY => ports(zone, key, names, *filter, owner, reply),
            _ => Written::Nothing,
        },
        Found::Pointers(address) => match wanted {
            kind::PTR | kind::ANY => pointers(zone, table, *address, owner, reply),
            _ => Written::Nothing,
        },
    }
}

/// The domain's own records, with the addresses of its server.
fn apex(zone: &Zone, wanted: u16, owner: Pointer, reply: &mut Reply<'_>) -> Written {
    let (server, mailbox) = (&zone.server, &zone.mailbox);
    match wanted {
        kind::SOA => {
            reply.soa(Section::Answer, owner, server, mailbox, zone.serial());
            Written::Something
        }
        kind::NS => {
            let data = [server.wire()];
            let Some(at) = reply.record(Section::Answer, owner, kind::NS, &data) else {
                return all(false, reply);
            };
            let at = pointer(at);
            for address in &zone.config.servers {
                reply.address(Section::Additional, at, *address);
            }
            Written::Something
        }
        _ => Written::Nothing,
    }
}

/// Those of the wanted family. Clients take the first address, so each answer
/// begins with another.
fn addresses(
    wanted: u16,
    owner: Pointer,
    addresses: impl Iterator<Item = IpAddr> + Clone,
    reply: &mut Reply<'_>,
) -> Written {
    let addresses = addresses.filter(|address| match wanted {
        kind::A => address.is_ipv4(),
        kind::AAAA => address.is_ipv6(),
        kind::ANY => true,
        _ => false,
    });
    match addresses.clone().count() {
        0 => Written::Nothing,
        count => {
            let mut from_somewhere = addresses.cycle().skip(turn() % count).take(count);
            let fit = from_somewhere.all(|ip| reply.address(Section::Answer, owner, ip));
            all(fit, reply)
        }
    }
}

fn turn() -> usize {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    TURN.fetch_add(1, Ordering::Relaxed)
}

fn all(fit: bool, reply: &mut Reply<'_>) -> Written {
    if !fit {
        reply.truncate();
    }
    Written::Something
}

/// SRV records of a service, with the addresses of their targets.
fn ports(
    zone: &Zone,
    key: &Key,
    names: &ServiceNames,
    filter: PortFilter,
    owner: Pointer,
    reply: &mut Reply<'_>,
) -> Written {
    let (ips, ports) = match names {
        ServiceNames::Cluster { addresses, ports } => (addresses, ports),
        ServiceNames::Headless(headless) => {
            return endpoints(zone, key, headless, &headless.hosts, filter, owner, reply);
        }
        ServiceNames::Alias(_) => return Written::Nothing,
    };
    let Some(target) = service_name(zone, key) else {
        return Written::Nothing;
    };
    let wanted = || ports.iter().filter(|port| filter.takes(port));
    let mut at = None;
    for port in wanted() {
        match reply.service(owner, weight(wanted().count()), port.port, &target) {
            Some(target) => at = Some(target),
            None => return all(false, reply),
        }
    }
    let Some(at) = at else {
        return Written::Nothing;
    };
    for address in ips {
        reply.address(Section::Additional, at, *address);
    }
    Written::Something
}

/// SRV records of a headless service: one for each port of each endpoint.
fn endpoints(
    zone: &Zone,
    key: &Key,
    headless: &Headless,
    hosts: &[Host],
    filter: PortFilter,
    owner: Pointer,
    reply: &mut Reply<'_>,
) -> Written {
    // Hosts are sorted by name: those with addresses of both families are one.
    let groups = || hosts.chunk_by(|a, b| a.name == b.name);
    let ports = |group: &[Host]| -> Vec<NamedPort> {
        let ports = group.iter().flat_map(|host| headless.ports(host));
        let mut ports: Vec<_> = ports.filter(|port| filter.takes(port)).cloned().collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    };
    let count = groups().map(|group| ports(group).len()).sum();
    let Some(service) = service_name(zone, key) else {
        return Written::Nothing;
    };
    if count == 0 {
        return Written::Nothing;
    }
    let mut targets = Vec::new();
    let groups: Vec<_> = groups().collect();
    let first = turn() % groups.len();
    for group in groups.iter().cycle().skip(first).take(groups.len()) {
        let Some(target) = host_name(&group[0].name, &service) else {
            continue;
        };
        for (index, port) in ports(group).iter().enumerate() {
            match reply.service(owner, weight(count), port.port, &target) {
                Some(at) if index == 0 => targets.push((at, *group)),
                Some(_) => {}
                None => return all(false, reply),
            }
        }
    }
    for (at, group) in targets {
        for host in group {
            reply.address(Section::Additional, at, host.address);
        }
    }
    Written::Something
}

/// As CoreDNS shares it out.
fn weight(records: usize) -> u16 {
    (100 / records.max(1)).max(1) as u16
}

/// Names of who has an address: a service, or endpoints of headless ones.
fn pointers(
    zone: &Zone,
    table: &Table,
    address: IpAddr,
    owner: Pointer,
    reply: &mut Reply<'_>,
) -> Written {
    let mut fit = true;
    for (key, names) in table.at(address) {
        let Some(service) = service_name(zone, key) else {
            continue;
        };
        let mut point = |name: &Name| {
            let data = [name.wire()];
            fit &= reply
                .record(Section::Answer, owner, kind::PTR, &data)
                .is_some();
        };
        match names {
            ServiceNames::Headless(headless) => headless
                .hosts
                .iter()
                .filter(|host| host.address == address)
                .filter_map(|host| host_name(&host.name, &service))
                .for_each(|name| point(&name)),
            _ => point(&service),
        }
    }
    all(fit, reply)
}

/// `<service>.<namespace>.svc.<domain>`
pub(crate) fn service_name(zone: &Zone, key: &[u8]) -> Option<Name> {
    let below = [key, b"\x03svc"].concat();
    Name::join(&below, zone.domain.wire())
}

pub(crate) fn host_name(host: &str, service: &Name) -> Option<Name> {
    let length = u8::try_from(host.len()).ok()?;
    Name::join(&[&[length], host.as_bytes()].concat(), service.wire())
}
