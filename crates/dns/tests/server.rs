//! The server on loopback sockets, and its upstream servers on bad days.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use ripstop_dns::{
    Server, ServerConfig, Sockets, Stub, UpstreamConfig, UpstreamServer, UpstreamTransport, Zone,
    ZoneConfig,
};
use ripstop_model::ObjectKey;
use ripstop_plan::ServiceNames;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A server with some services, on a free port.
fn start(addresses: &[IpAddr], upstream: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let servers = upstream.iter().map(udp_server).collect();
    start_with(addresses, servers, vec![])
}

fn udp_server(address: &SocketAddr) -> UpstreamServer {
    UpstreamServer {
        address: *address,
        transport: UpstreamTransport::Udp,
    }
}

fn start_with(
    addresses: &[IpAddr],
    servers: Vec<UpstreamServer>,
    stubs: Vec<Stub>,
) -> Vec<SocketAddr> {
    let upstream = UpstreamConfig {
        servers,
        stubs,
        ..UpstreamConfig::default()
    };
    start_on(addresses, upstream)
}

fn start_on(addresses: &[IpAddr], upstream: UpstreamConfig) -> Vec<SocketAddr> {
    let zone = Arc::new(Zone::new(ZoneConfig::default()).unwrap());
    let many = (0..100u8).map(|i| IpAddr::from([10, 244, 1, i])).collect();
    let names = ServiceNames::Cluster {
        addresses: many,
        ports: Vec::new(),
    };
    let alias = ServiceNames::Alias("example.org".into());
    zone.update([
        (ObjectKey::new("shop", "web"), Some(names)),
        (ObjectKey::new("shop", "outside"), Some(alias)),
    ]);
    zone.set_known();
    // A free port of UDP may be taken on TCP.
    let sockets = (0..10)
        .find_map(|_| Sockets::bind(addresses, 0).ok())
        .unwrap();
    let bound = sockets.addresses().collect();
    let config = ServerConfig {
        upstream,
        expand_search: false,
        backlog: None,
        witness: None,
    };
    for work in Server::new(zone, &config).unwrap().threads(sockets) {
        std::thread::spawn(work);
    }
    bound
}

/// An upstream server that counts questions and answers when it is told to.
async fn upstream(delay: Duration, ttl: u32) -> (SocketAddr, Arc<AtomicUsize>, Arc<AtomicBool>) {
    let socket = Arc::new(UdpSocket::bind((LOCALHOST, 0)).await.unwrap());
    let address = socket.local_addr().unwrap();
    let (asked, well) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(true)),
    );
    let (counter, answers) = (asked.clone(), well.clone());
    tokio::spawn(async move {
        let mut query = [0; 4096];
        loop {
            let (length, client) = socket.recv_from(&mut query).await.unwrap();
            counter.fetch_add(1, Ordering::SeqCst);
            let reply = resolved_for(&query[..length], false, ttl);
            let (socket, answers) = (socket.clone(), answers.clone());
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                if answers.load(Ordering::SeqCst) {
                    socket.send_to(&reply, client).await.unwrap();
                }
            });
        }
    });
    (address, asked, well)
}

fn question(name: &str) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_str(name).unwrap(), RecordType::A));
    message
}

async fn ask_udp(server: SocketAddr, question: &Message) -> Message {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(&question.to_vec().unwrap()).await.unwrap();
    let mut reply = [0; 4096];
    let received = tokio::time::timeout(Duration::from_secs(30), socket.recv(&mut reply)).await;
    let reply = Message::from_vec(&reply[..received.unwrap().unwrap()]).unwrap();
    assert_eq!(reply.metadata.id, question.metadata.id);
    reply
}

async fn ask_tcp(stream: &mut TcpStream, question: &Message) -> Message {
    let message = question.to_vec().unwrap();
    stream.write_u16(message.len() as u16).await.unwrap();
    stream.write_all(&message).await.unwrap();
    let mut reply = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut reply).await.unwrap();
    Message::from_vec(&reply).unwrap()
}

/// The upstream's answer to a question.
fn resolved(question: &[u8], truncated: bool) -> Vec<u8> {
    resolved_for(question, truncated, 60)
}

fn resolved_for(question: &[u8], truncated: bool, ttl: u32) -> Vec<u8> {
    let mut reply = Message::from_vec(question).unwrap();
    reply.metadata.message_type = MessageType::Response;
    reply.metadata.truncation = truncated;
    let name = reply.queries[0].name.clone();
    if !truncated {
        let address = A(Ipv4Addr::new(192, 0, 2, 1));
        reply.add_answer(Record::from_rdata(name, ttl, RData::A(address)));
    }
    reply.to_vec().unwrap()
}

#[tokio::test]
async fn both_families_and_both_transports() {
    let servers = start(&[LOCALHOST, Ipv6Addr::LOCALHOST.into()], vec![]);
    assert_eq!(servers.len(), 2);
    for server in servers {
        let question = question("web.shop.svc.cluster.local.");
        let reply = ask_udp(server, &question).await;
        assert!(reply.metadata.truncation && !reply.metadata.recursion_available);
        let mut stream = TcpStream::connect(server).await.unwrap();
        for _ in 0..3 {
            assert_eq!(ask_tcp(&mut stream, &question).await.answers.len(), 100);
        }
    }
}

#[tokio::test]
async fn nobody_to_ask_is_a_failure_at_once() {
    let server = start(&[LOCALHOST], vec![])[0];
    let reply = ask_udp(server, &question("example.org.")).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
}

/// The first server is silent, the second sends forged replies before the right
/// one.
#[tokio::test]
async fn forged_and_missing_answers() {
    let silent = UdpSocket::bind((LOCALHOST, 0)).await.unwrap();
    let upstream = UdpSocket::bind((LOCALHOST, 0)).await.unwrap();
    let servers = vec![silent.local_addr().unwrap(), upstream.local_addr().unwrap()];
    tokio::spawn(async move {
        let mut query = [0; 4096];
        loop {
            let (length, client) = upstream.recv_from(&mut query).await.unwrap();
            let right = resolved(&query[..length], false);
            let mut wrong_id = right.clone();
            wrong_id[0] ^= 1;
            let wrong_name = resolved(&question("evil.org.").to_vec().unwrap(), false);
            for reply in [&b"x"[..], &wrong_id, &wrong_name, &right] {
                upstream.send_to(reply, client).await.unwrap();
            }
        }
    });
    let server = start(&[LOCALHOST], servers)[0];
    let reply = ask_udp(server, &question("example.org.")).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
    assert_eq!(reply.queries[0].name.to_ascii(), "example.org.");
    assert_eq!(reply.answers.len(), 1);
}

/// What does not fit a server's UDP is fetched over TCP, for clients of both.
#[tokio::test]
async fn truncated_answers_come_whole_over_tcp() {
    let tcp = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let address = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(address).await.unwrap();
    tokio::spawn(async move {
        let mut query = [0; 4096];
        loop {
            let (length, client) = udp.recv_from(&mut query).await.unwrap();
            udp.send_to(&resolved(&query[..length], true), client)
                .await
                .unwrap();
        }
    });
    tokio::spawn(async move {
        let (mut stream, _) = tcp.accept().await.unwrap();
        let mut query = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut query).await.unwrap();
        let reply = resolved(&query, false);
        stream.write_u16(reply.len() as u16).await.unwrap();
        stream.write_all(&reply).await.unwrap();
    });
    let server = start(&[LOCALHOST], vec![address])[0];
    let question = question("example.org.");
    assert_eq!(ask_udp(server, &question).await.answers.len(), 1);
    let mut stream = TcpStream::connect(server).await.unwrap();
    let reply = ask_tcp(&mut stream, &question).await;
    assert!(!reply.metadata.truncation);
    assert_eq!(reply.answers.len(), 1);
}

/// Asked once, an answer is there for everybody, with less time to live.
#[tokio::test]
async fn answers_are_kept_and_questions_shared() {
    let (address, asked, _) = upstream(Duration::from_millis(100), 60).await;
    let server = start(&[LOCALHOST], vec![address])[0];
    let question = question("example.org.");
    let same: Vec<_> = (0..20).map(|_| ask_udp(server, &question)).collect();
    for reply in futures::future::join_all(same).await {
        assert_eq!(reply.answers.len(), 1);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1, "asked together");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let reply = ask_udp(server, &question).await;
    assert!(
        (50..60).contains(&reply.answers[0].ttl),
        "{}",
        reply.answers[0].ttl
    );
    assert_eq!(asked.load(Ordering::SeqCst), 1, "kept");
}

/// Past its time, an answer serves while no server answers (RFC 8767).
#[tokio::test]
async fn stale_answers_are_better_than_none() {
    let (address, asked, well) = upstream(Duration::ZERO, 0).await;
    let server = start(&[LOCALHOST], vec![address])[0];
    let question = question("example.org.");
    assert_eq!(ask_udp(server, &question).await.answers.len(), 1);
    well.store(false, Ordering::SeqCst);
    let reply = ask_udp(server, &question).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
    assert_eq!(reply.answers[0].ttl, 30);
    assert!(
        asked.load(Ordering::SeqCst) > 1,
        "a fresh one was asked for"
    );
    well.store(true, Ordering::SeqCst);
}

/// Names below a stub domain are asked for at its servers and nowhere else; an
/// alias to a name of others is followed.
#[tokio::test]
async fn stub_domains_and_aliases() {
    let (others, asked, _) = upstream(Duration::ZERO, 60).await;
    let (corp, corp_asked, _) = upstream(Duration::ZERO, 60).await;
    let stub: Stub = format!("corp.example={corp}").parse().unwrap();
    let server = start_with(&[LOCALHOST], vec![udp_server(&others)], vec![stub])[0];
    for name in ["corp.example.", "a.b.corp.example."] {
        assert_eq!(ask_udp(server, &question(name)).await.answers.len(), 1);
    }
    let counts = || {
        (
            asked.load(Ordering::SeqCst),
            corp_asked.load(Ordering::SeqCst),
        )
    };
    assert_eq!(counts(), (0, 2));
    let reply = ask_udp(server, &question("outside.shop.svc.cluster.local.")).await;
    let kinds: Vec<_> = reply.answers.iter().map(|r| r.record_type()).collect();
    assert_eq!(kinds, [RecordType::CNAME, RecordType::A]);
    assert_eq!(reply.answers[1].name.to_ascii(), "example.org.");
    assert_eq!(counts(), (1, 2));
}

/// Many questions in one connection before the first answer is read.
#[tokio::test]
async fn pipelined_questions_are_all_answered() {
    let (address, ..) = upstream(Duration::from_millis(50), 60).await;
    let server = start(&[LOCALHOST], vec![address])[0];
    let mut stream = TcpStream::connect(server).await.unwrap();
    for id in 0..60_u16 {
        let name = match id % 2 {
            0 => "web.shop.svc.cluster.local.".to_owned(),
            _ => format!("n{id}.example.org."),
        };
        let mut question = question(&name);
        question.metadata.id = id;
        let message = question.to_vec().unwrap();
        stream.write_u16(message.len() as u16).await.unwrap();
        stream.write_all(&message).await.unwrap();
    }
    let mut ids = Vec::new();
    for _ in 0..60 {
        let mut reply = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut reply).await.unwrap();
        let reply = Message::from_vec(&reply).unwrap();
        assert!(!reply.answers.is_empty());
        ids.push(reply.metadata.id);
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..60).collect::<Vec<_>>());
}

/// A server over TLS is asked if its certificate is good, and not otherwise.
#[tokio::test]
async fn servers_over_tls_are_checked() {
    let signed = rcgen::generate_simple_self_signed(vec!["dns.test".to_owned()]).unwrap();
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(
        vec![signed.cert.der().clone()],
        rustls::pki_types::PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap(),
    )
    .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // Who does not trust the certificate ends the handshake.
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            tokio::spawn(async move {
                while let Ok(length) = stream.read_u16().await {
                    let mut query = vec![0; usize::from(length)];
                    stream.read_exact(&mut query).await.unwrap();
                    let reply = resolved(&query, false);
                    stream.write_u16(reply.len() as u16).await.unwrap();
                    stream.write_all(&reply).await.unwrap();
                    stream.flush().await.unwrap();
                }
            });
        }
    });
    for (name, good) in [("dns.test", true), ("other.test", false)] {
        let config = UpstreamConfig {
            servers: vec![format!("tls://{address}#{name}").parse().unwrap()],
            roots: signed.cert.pem().into_bytes(),
            ..UpstreamConfig::default()
        };
        let server = start_on(&[LOCALHOST], config)[0];
        for question in [question("example.org."), question("www.example.org.")] {
            let reply = ask_udp(server, &question).await;
            assert_eq!(reply.answers.len(), usize::from(good), "{name}");
        }
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let taken = UdpSocket::bind((LOCALHOST, 0)).await.unwrap();
    let address = taken.local_addr().unwrap();
    let error = Sockets::bind(&[LOCALHOST], address.port()).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with(&format!("cluster DNS address {address}/UDP: "))
    );
}

/// A queue that is always long: what is asked beyond a client's part is thrown
/// away, and counted.
#[test]
fn a_flood_hurts_who_makes_it() {
    const FLOOD: usize = 5000;
    let zone = Arc::new(Zone::new(ZoneConfig::default()).unwrap());
    zone.set_known();
    let config = ServerConfig {
        upstream: UpstreamConfig::default(),
        expand_search: false,
        backlog: Some(|_| Some((8 << 20, 8 << 20))),
        witness: None,
    };
    let server = Server::new(zone, &config).unwrap();
    let sockets = (0..10).find_map(|_| Sockets::bind(&[LOCALHOST], 0).ok());
    let sockets = sockets.unwrap();
    let address = sockets.addresses().next().unwrap();
    let [greedy, modest] = [1, 2].map(|n| IpAddr::from([127, 0, 0, n]));
    let clients = [greedy, modest].map(|ip| {
        let socket = std::net::UdpSocket::bind((ip, 0)).unwrap();
        socket.connect(address).unwrap();
        socket
    });
    let packet = question("web.shop.svc.cluster.local.").to_vec().unwrap();
    // All of them wait before the first is looked at.
    for _ in 0..FLOOD {
        clients[0].send(&packet).unwrap();
    }
    clients[1].send(&packet).unwrap();
    for work in server.threads(sockets) {
        std::thread::spawn(work);
    }
    clients[1]
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    clients[1].recv(&mut [0; 512]).unwrap();
    let noted = || {
        let counts = server.stats().clients().into_iter();
        let of: std::collections::HashMap<_, _> = counts.map(|(ip, a, b)| (ip, (a, b))).collect();
        of.contains_key(&modest).then_some(of)
    };
    let counts = loop {
        match noted() {
            Some(counts) => break counts,
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    assert_eq!(counts[&modest], (1, 0));
    let (answered, limited) = counts[&greedy];
    assert_eq!(answered + limited, FLOOD as u64);
    assert!(limited > 0);
    let by_source = server.stats().counts().by_source;
    assert!(by_source.contains(&(ripstop_dns::Source::Limited, limited)));
}
