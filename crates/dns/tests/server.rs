//! The server on loopback sockets, and its upstream servers on bad days.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use ripstop_dns::{Server, Zone, ZoneConfig};
use ripstop_model::ObjectKey;
use ripstop_plan::ServiceNames;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A server with one service, `web.shop`, on a free port.
fn start(addresses: &[IpAddr], upstream: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let zone = Arc::new(Zone::new(ZoneConfig::default()).unwrap());
    let many = (0..100u8).map(|i| IpAddr::from([10, 244, 1, i])).collect();
    let names = ServiceNames::Cluster {
        addresses: many,
        ports: Vec::new(),
    };
    zone.update([(ObjectKey::new("shop", "web"), Some(names))]);
    zone.set_known();
    // A free port of UDP may be taken on TCP.
    let bind = || Server::bind(addresses, 0, zone.clone(), upstream.clone());
    let server = (0..10).find_map(|_| bind().ok()).unwrap();
    let bound = server.addresses().collect();
    tokio::spawn(server.run());
    bound
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
    let mut reply = Message::from_vec(question).unwrap();
    reply.metadata.message_type = MessageType::Response;
    reply.metadata.truncation = truncated;
    let name = reply.queries[0].name.clone();
    if !truncated {
        let address = A(Ipv4Addr::new(192, 0, 2, 1));
        reply.add_answer(Record::from_rdata(name, 60, RData::A(address)));
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
            for reply in [&b"x"[..], &query[..length], &wrong_id, &wrong_name, &right] {
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

/// A client on UDP is told to come back on TCP, and then gets it all.
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
    assert!(ask_udp(server, &question).await.metadata.truncation);
    let mut stream = TcpStream::connect(server).await.unwrap();
    let reply = ask_tcp(&mut stream, &question).await;
    assert!(!reply.metadata.truncation);
    assert_eq!(reply.answers.len(), 1);
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let taken = UdpSocket::bind((LOCALHOST, 0)).await.unwrap();
    let address = taken.local_addr().unwrap();
    let zone = Arc::new(Zone::new(ZoneConfig::default()).unwrap());
    let error = Server::bind(&[LOCALHOST], address.port(), zone, vec![]).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with(&format!("cluster DNS address {address}/UDP: "))
    );
}
