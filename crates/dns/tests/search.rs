//! A search list that is walked by the server gives what a walk of the resolver
//! itself gives, for the resolvers of two C libraries and any cluster.

mod common;

use std::collections::BTreeSet;
use std::net::IpAddr;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name as ForeignName, RData, RecordType};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use ripstop_dns::{Asker, Name, Transport, Verdict, Zone, answer};
use ripstop_model::ObjectKey;
use ripstop_plan::ServiceNames;

const NDOTS: usize = 5;

/// What one question gives.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reply {
    Data(BTreeSet<IpAddr>),
    NoData,
    NoName,
    Failure,
}

/// What a resolver's caller gets.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Looked {
    Found(BTreeSet<IpAddr>),
    NotFound,
    Failed,
}

struct World {
    zone: Zone,
    search: Vec<Name>,
    expand: bool,
}

impl World {
    fn ask(&self, name: &str, kind: RecordType) -> Reply {
        let mut question = Message::query();
        let Ok(foreign) = ForeignName::from_ascii(format!("{}.", name.trim_end_matches('.')))
        else {
            return Reply::NoName;
        };
        question.add_query(Query::query(foreign, kind));
        let asker = Asker {
            search: if self.expand { &self.search } else { &[] },
            ..Asker::new(Transport::Udp)
        };
        let mut out = Vec::new();
        let outcome = answer(&self.zone, &question.to_vec().unwrap(), asker, &mut out);
        // Nobody is there to be asked: names of others fail.
        if outcome.verdict != Verdict::Reply {
            return Reply::Failure;
        }
        let reply = Message::from_vec(&out).unwrap();
        let data: BTreeSet<IpAddr> = reply
            .answers
            .iter()
            .filter_map(|record| match &record.data {
                RData::A(a) => Some(IpAddr::from(a.0)),
                RData::AAAA(aaaa) => Some(IpAddr::from(aaaa.0)),
                _ => None,
            })
            .collect();
        match reply.metadata.response_code {
            ResponseCode::NoError if data.is_empty() => Reply::NoData,
            ResponseCode::NoError => Reply::Data(data),
            ResponseCode::NXDomain => Reply::NoName,
            _ => Reply::Failure,
        }
    }

    fn elements(&self, name: &str) -> Vec<String> {
        let join = |element: &Name| format!("{name}.{element}");
        self.search.iter().map(join).collect()
    }

    /// `__res_context_search` of glibc, for one or both families: a name without
    /// data and a failing server are passed over, and the last resort is the name
    /// as it is, unless it is a single word.
    fn glibc(&self, name: &str, kinds: &[RecordType]) -> Looked {
        let dots = name.matches('.').count();
        let as_is = (dots >= NDOTS).then(|| name.to_owned());
        let last = (dots < NDOTS && dots > 0).then(|| name.to_owned());
        let mut failed = false;
        for name in as_is.into_iter().chain(self.elements(name)).chain(last) {
            let replies: Vec<Reply> = kinds.iter().map(|kind| self.ask(&name, *kind)).collect();
            let mut found = BTreeSet::new();
            for reply in &replies {
                match reply {
                    Reply::Data(data) => found.extend(data),
                    Reply::Failure => failed = true,
                    _ => {}
                }
            }
            if !found.is_empty() {
                return Looked::Found(found);
            }
        }
        match failed {
            true => Looked::Failed,
            false => Looked::NotFound,
        }
    }

    /// `name_from_dns_search` of musl: only names that do not exist are passed
    /// over, and one reply that says so is enough for that.
    fn musl(&self, name: &str, kinds: &[RecordType]) -> Looked {
        let elements = match name.matches('.').count() >= NDOTS {
            true => Vec::new(),
            false => self.elements(name),
        };
        for name in elements.into_iter().chain([name.to_owned()]) {
            let replies: Vec<Reply> = kinds.iter().map(|kind| self.ask(&name, *kind)).collect();
            if replies.contains(&Reply::Failure) {
                return Looked::Failed;
            }
            if replies.contains(&Reply::NoName) {
                continue;
            }
            let data = replies.into_iter().filter_map(|reply| match reply {
                Reply::Data(data) => Some(data),
                _ => None,
            });
            let found: BTreeSet<IpAddr> = data.flatten().collect();
            return match found.is_empty() {
                true => Looked::NotFound,
                false => Looked::Found(found),
            };
        }
        Looked::NotFound
    }
}

const LABELS: [&str; 4] = ["a", "b", "svc", "x"];

fn services() -> impl Strategy<Value = Vec<(ObjectKey, Option<ServiceNames>)>> {
    let one = (
        select(&LABELS[..]),
        select(&LABELS[..]),
        0..4_u8,
        1..250_u8,
        select(&LABELS[..]),
    );
    let one = one.prop_map(|(name, namespace, sort, n, other)| {
        let v4 = IpAddr::from([10, 96, 0, n]);
        let v6 = common::ip(&format!("fd00:96::{n:x}"));
        let cluster = |addresses: Vec<IpAddr>| ServiceNames::Cluster {
            addresses,
            ports: Vec::new(),
        };
        let names = match sort {
            0 => cluster(vec![v4]),
            1 => cluster(vec![v6]),
            2 => cluster(vec![v4, v6]),
            _ => ServiceNames::Alias(format!("{other}.{namespace}.svc.cluster.local").into()),
        };
        (ObjectKey::new(namespace, name), Some(names))
    });
    vec(one, 0..6)
}

fn lists() -> impl Strategy<Value = Vec<Name>> {
    let domains = [
        "a.svc.cluster.local",
        "b.svc.cluster.local",
        "svc.cluster.local",
        "cluster.local",
        "example.org",
        "local",
    ];
    // As kubelet has it: the pod's namespace first, then anything.
    let first = select(domains[..2].to_vec());
    (first, vec(select(domains.to_vec()), 0..4)).prop_map(|(first, rest)| {
        let list = std::iter::once(first).chain(rest);
        list.map(|name| Name::parse(name).unwrap()).collect()
    })
}

fn wanted() -> impl Strategy<Value = String> {
    let mut labels = LABELS.to_vec();
    labels.extend(["cluster", "local"]);
    prop_oneof![
        vec(select(labels), 1..7).prop_map(|labels| labels.join(".")),
        (select(&LABELS[..]), select(&LABELS[..]))
            .prop_map(|(name, namespace)| format!("{name}.{namespace}.svc.cluster.local")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_walk_here_ends_where_the_resolvers_ends(
        services in services(),
        search in lists(),
        names in vec(wanted(), 1..6),
    ) {
        let zone = Zone::new(common::config()).unwrap();
        zone.update(services);
        zone.set_known();
        let mut world = World { zone, search, expand: false };
        use RecordType::{A, AAAA};
        // Of these a later step looks like the first step of another walk.
        let first = world.search[0].to_string();
        let is_own = |name: &String| {
            let later = world.elements(name).into_iter().skip(1);
            let mut steps = later.chain([format!("{name}.")]);
            steps.any(|step| step.ends_with(&first))
        };
        let (names, _): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| !is_own(name));
        for name in names {
            for kinds in [&[A][..], &[AAAA], &[A, AAAA]] {
                world.expand = false;
                let expected = (world.glibc(&name, kinds), world.musl(&name, kinds));
                world.expand = true;
                let found = (world.glibc(&name, kinds), world.musl(&name, kinds));
                prop_assert_eq!(expected, found, "{} {:?} through {:?}", name, kinds, world.search);
            }
        }
    }
}
