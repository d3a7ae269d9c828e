//! A search list that is walked by the server gives what a walk of the resolver
//! itself gives: for the resolvers of two C libraries, any cluster, any list, any
//! name, meant as it is or not, and any number of dots.

mod common;

use std::cell::RefCell;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{Name as ForeignName, RData, Record, RecordType};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use ripstop_dns::{
    Name, Server, ServerConfig, Sockets, UpstreamConfig, UpstreamServer, UpstreamTransport, Zone,
};
use ripstop_model::ObjectKey;
use ripstop_plan::{Headless, Host, ServiceNames};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// The namespace of the pod that asks.
const NAMESPACE: &str = "a";

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

/// What the world outside says: the same of a name whenever it is asked.
fn outside(question: &[u8]) -> Vec<u8> {
    let question = Message::from_vec(question).unwrap();
    let query = &question.queries[0];
    let mut reply = Message::new(
        question.metadata.id,
        MessageType::Response,
        question.metadata.op_code,
    );
    reply.metadata.recursion_available = true;
    reply.add_query(query.clone());
    let mut hasher = DefaultHasher::new();
    query.name().to_lowercase().to_string().hash(&mut hasher);
    let hash = hasher.finish();
    let byte = (hash >> 8) as u8;
    let mut add = |data| {
        reply.add_answer(Record::from_rdata(query.name().clone(), 60, data));
    };
    match (hash % 6, query.query_type()) {
        (0 | 1, RecordType::A) => add(RData::A(A::new(192, 0, 2, byte))),
        (1 | 2, RecordType::AAAA) => {
            add(RData::AAAA(AAAA::new(
                0x2001,
                0xdb8,
                0,
                0,
                0,
                0,
                0,
                byte.into(),
            )));
        }
        (0..=2, _) => {}
        (3, _) => reply.metadata.response_code = ResponseCode::ServFail,
        (_, _) => reply.metadata.response_code = ResponseCode::NXDomain,
    }
    reply.to_vec().unwrap()
}

/// Two servers of the same names: one that walks, one that does not.
struct Servers {
    zone: Arc<Zone>,
    walking: (Arc<Server>, SocketAddr),
    plain: SocketAddr,
}

static SERVERS: LazyLock<Mutex<Servers>> = LazyLock::new(|| {
    let upstream = UdpSocket::bind((LOCALHOST, 0)).unwrap();
    let address = upstream.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut packet = [0; 4096];
        while let Ok((length, client)) = upstream.recv_from(&mut packet) {
            upstream
                .send_to(&outside(&packet[..length]), client)
                .unwrap();
        }
    });
    let zone = Arc::new(Zone::new(common::config()).unwrap());
    zone.set_known();
    let start = |expand_search| {
        let upstream = UpstreamConfig {
            servers: vec![UpstreamServer {
                address,
                transport: UpstreamTransport::Udp,
            }],
            ..UpstreamConfig::default()
        };
        let config = ServerConfig {
            upstream,
            expand_search,
            backlog: None,
            witness: None,
        };
        let server = Arc::new(Server::new(Arc::clone(&zone), &config).unwrap());
        let sockets = (0..10).find_map(|_| Sockets::bind(&[LOCALHOST], 0).ok());
        let sockets = sockets.unwrap();
        let address = sockets.addresses().next().unwrap();
        for work in server.threads(sockets) {
            std::thread::spawn(work);
        }
        (server, address)
    };
    Mutex::new(Servers {
        plain: start(false).1,
        walking: start(true),
        zone,
    })
});

/// A cluster and a pod's list, with or without a server that walks it.
struct World<'a> {
    servers: &'a Servers,
    socket: UdpSocket,
    /// The list as kubelet writes it.
    search: Vec<Name>,
    walking: bool,
    known: RefCell<HashMap<(String, RecordType), Reply>>,
}

impl<'a> World<'a> {
    fn new(servers: &'a Servers, search: &[Name], walking: bool) -> Self {
        let socket = UdpSocket::bind((LOCALHOST, 0)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let server = if walking {
            servers.walking.1
        } else {
            servers.plain
        };
        socket.connect(server).unwrap();
        Self {
            servers,
            socket,
            search: search.to_vec(),
            walking,
            known: RefCell::default(),
        }
    }

    /// The list of the pod.
    fn list(&self) -> Vec<Name> {
        let mut list = self.search.clone();
        if self.walking {
            list[0] = Name::parse(&format!("{NAMESPACE}.search.cluster.local")).unwrap();
        }
        list
    }

    fn ask(&self, name: &str, kind: RecordType) -> Reply {
        let name = format!("{}.", name.trim_end_matches('.'));
        let key = (name, kind);
        if let Some(reply) = self.known.borrow().get(&key) {
            return reply.clone();
        }
        let reply = match self.walking {
            true => self.ask_server(&key.0, kind),
            false => self.ask_without(&key.0, kind),
        };
        self.known.borrow_mut().insert(key, reply.clone());
        reply
    }

    /// What names below `search` are, said in other words than the server's: the
    /// first of the walk that exists.
    fn ask_without(&self, name: &str, kind: RecordType) -> Reply {
        let Some(below) = name.strip_suffix("search.cluster.local.") else {
            return self.ask_server(name, kind);
        };
        let labels: Vec<&str> = below.split_terminator('.').collect();
        if !below.is_empty() && !below.ends_with('.') {
            return self.ask_server(name, kind);
        }
        let [wanted @ .., namespace] = &labels[..] else {
            return Reply::NoData;
        };
        if wanted.is_empty() {
            return Reply::NoData;
        }
        let name = wanted.join(".");
        let first = self.ask_server(&format!("{name}.{namespace}.svc.cluster.local."), kind);
        if first != Reply::NoName || *namespace != NAMESPACE {
            return first;
        }
        let rest = self.search[1..].iter().map(|e| format!("{name}.{e}"));
        let as_is = (wanted.len() > 1).then(|| format!("{name}."));
        for name in rest.chain(as_is) {
            if name.contains(".search.cluster.local.") {
                break;
            }
            match self.ask_server(&name, kind) {
                Reply::NoName => {}
                Reply::Failure => break,
                reply => return reply,
            }
        }
        Reply::NoName
    }

    fn ask_server(&self, name: &str, kind: RecordType) -> Reply {
        let Ok(foreign) = ForeignName::from_ascii(name) else {
            return Reply::NoName;
        };
        let mut question = Message::query();
        question.metadata.recursion_desired = true;
        question.add_query(Query::query(foreign, kind));
        let question = question.to_vec().unwrap();
        self.socket.send(&question).unwrap();
        let mut reply = [0; 4096];
        let length = self.socket.recv(&mut reply).unwrap();
        let mut reply = Message::from_vec(&reply[..length]).unwrap();
        if reply.metadata.truncation {
            reply = over_tcp(self.socket.peer_addr().unwrap(), &question);
        }
        assert_eq!(reply.metadata.id.to_be_bytes(), question[..2]);
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
        self.list().iter().map(join).collect()
    }

    /// `__res_context_search` of glibc, for one or both families: a name without
    /// data and a failing server are passed over, and the last resort is the name
    /// as it is, unless it is a single word and `no-tld-query` is set.
    fn glibc(&self, name: &str, kinds: &[RecordType], ndots: usize, no_tld: bool) -> Looked {
        let dots = name.matches('.').count();
        let absolute = name.ends_with('.');
        let first = absolute || dots >= ndots;
        let elements = match absolute {
            true => Vec::new(),
            false => self.elements(name),
        };
        let as_is = first.then(|| name.to_owned());
        let last = (!first && (dots > 0 || !no_tld)).then(|| name.to_owned());
        let mut failed = false;
        for name in as_is.into_iter().chain(elements).chain(last) {
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
    fn musl(&self, name: &str, kinds: &[RecordType], ndots: usize) -> Looked {
        let elements = match name.matches('.').count() >= ndots || name.ends_with('.') {
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

fn over_tcp(server: SocketAddr, question: &[u8]) -> Message {
    let mut stream = TcpStream::connect(server).unwrap();
    let length = u16::try_from(question.len()).unwrap().to_be_bytes();
    stream.write_all(&[&length, question].concat()).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut reply = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut reply).unwrap();
    Message::from_vec(&reply).unwrap()
}

const LABELS: [&str; 4] = ["a", "b", "svc", "x"];

fn services() -> impl Strategy<Value = Vec<(ObjectKey, Option<ServiceNames>)>> {
    let one = (
        select(&LABELS[..]),
        select(&LABELS[..]),
        0..6_u8,
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
            3 => ServiceNames::Headless(Headless {
                hosts: vec![Host {
                    name: other.into(),
                    address: v4,
                    ports: 0,
                }],
                port_sets: vec![Vec::new()],
            }),
            4 => ServiceNames::Alias(format!("{other}.{namespace}.svc.cluster.local").into()),
            _ => ServiceNames::Alias(format!("{other}{n}.example.org").into()),
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
        "search.cluster.local",
        "b.search.cluster.local",
        "example.org",
        "local",
    ];
    vec(select(domains.to_vec()), 0..5).prop_map(|rest| {
        // As kubelet has it: the pod's namespace first, then anything.
        let list = std::iter::once("a.svc.cluster.local").chain(rest);
        list.map(|name| Name::parse(name).unwrap()).collect()
    })
}

fn wanted() -> impl Strategy<Value = String> {
    let mut labels = LABELS.to_vec();
    labels.extend(["cluster", "local", "search"]);
    let tails = [
        "svc",
        "svc.cluster",
        "svc.cluster.local",
        "search.cluster.local",
        "search",
    ];
    let name = prop_oneof![
        4 => vec(select(labels), 1..7).prop_map(|labels| labels.join(".")),
        4 => (vec(select(&LABELS[..]), 1..4), select(tails.to_vec()))
            .prop_map(|(labels, tail)| format!("{}.{tail}", labels.join("."))),
        // Up to names that are too long with an element of a list.
        1 => (1..4_usize, 1..60_usize).prop_map(|(labels, last)| {
            format!("{}{}", format!("{}.", "x".repeat(60)).repeat(labels), "y".repeat(last))
        }),
    ];
    (name, any::<bool>()).prop_map(|(name, absolute)| match absolute {
        true => format!("{name}."),
        false => name,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_walk_here_ends_where_the_resolvers_ends(
        services in services(),
        search in lists(),
        names in vec(wanted(), 1..8),
        ndots in 0..8_usize,
        no_tld in any::<bool>(),
    ) {
        let servers = SERVERS.lock().unwrap();
        servers.zone.retain(|_| false);
        servers.zone.update(services);
        let without = World::new(&servers, &search, false);
        let with = World::new(&servers, &search, true);
        with.servers.walking.0.set_search(LOCALHOST, Some(with.list().into()));
        use RecordType::{A, AAAA};
        for name in names {
            for kinds in [&[A][..], &[AAAA], &[A, AAAA]] {
                let look = |world: &World<'_>| (
                    world.glibc(&name, kinds, ndots, no_tld),
                    world.musl(&name, kinds, ndots),
                );
                prop_assert_eq!(
                    look(&without), look(&with),
                    "{} {:?} ndots {} through {:?}", name, kinds, ndots, search
                );
            }
        }
    }
}
