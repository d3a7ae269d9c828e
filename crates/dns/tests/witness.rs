//! Who is told of addresses before those who asked are.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use ripstop_dns::{
    Found, Ready, Server, ServerConfig, Sockets, UpstreamConfig, Witness, Zone, ZoneConfig,
};
use ripstop_model::ObjectKey;
use ripstop_plan::ServiceNames;
use tokio::sync::oneshot;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// How long a reply waits at most.
const WAIT: Duration = Duration::from_millis(100);

/// Has nothing of what it is told in force, ever.
#[derive(Debug, Default)]
struct Slow {
    is_deaf: AtomicBool,
    told: Mutex<Vec<(Found, oneshot::Sender<()>)>>,
}

impl Witness for Slow {
    fn listens(&self) -> bool {
        !self.is_deaf.load(Ordering::SeqCst)
    }

    fn tell(&self, found: Found) -> Option<Ready> {
        let (ring, ready) = oneshot::channel();
        self.told.lock().unwrap().push((found, ring));
        Some(ready)
    }
}

fn start(witness: Arc<Slow>) -> SocketAddr {
    let zone = Arc::new(Zone::new(ZoneConfig::default()).unwrap());
    let names = ServiceNames::Cluster {
        addresses: vec!["10.96.0.7".parse().unwrap()],
        ports: Vec::new(),
    };
    zone.update([(ObjectKey::new("shop", "web"), Some(names))]);
    zone.set_known();
    // A free port of UDP may be taken on TCP.
    let sockets = (0..10).find_map(|_| Sockets::bind(&[LOCALHOST], 0).ok());
    let sockets = sockets.unwrap();
    let address = sockets.addresses().next().unwrap();
    let config = ServerConfig {
        upstream: UpstreamConfig::default(),
        expand_search: false,
        backlog: None,
        witness: Some(witness),
    };
    for work in Server::new(zone, &config).unwrap().threads(sockets) {
        std::thread::spawn(work);
    }
    address
}

fn question(name: &str) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    let name: Name = name.parse().unwrap();
    message.add_query(Query::query(name, RecordType::A));
    message.to_vec().unwrap()
}

fn ask_udp(server: SocketAddr, name: &str) -> (Message, Duration) {
    let socket = UdpSocket::bind((LOCALHOST, 0)).unwrap();
    let start = Instant::now();
    socket.send_to(&question(name), server).unwrap();
    let mut reply = [0; 512];
    let length = socket.recv(&mut reply).unwrap();
    (
        Message::from_vec(&reply[..length]).unwrap(),
        start.elapsed(),
    )
}

fn ask_tcp(server: SocketAddr, name: &str) -> (Message, Duration) {
    let mut stream = TcpStream::connect(server).unwrap();
    let start = Instant::now();
    let question = question(name);
    let length = (question.len() as u16).to_be_bytes();
    stream
        .write_all(&[&length[..], &question].concat())
        .unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut reply).unwrap();
    (Message::from_vec(&reply).unwrap(), start.elapsed())
}

/// And not for ever: who is told late is better off than who is not.
#[test]
fn replies_wait_for_what_they_say() {
    let witness = Arc::new(Slow::default());
    let server = start(Arc::clone(&witness));
    for ask in [ask_udp, ask_tcp] {
        let (reply, took) = ask(server, "WEB.shop.svc.cluster.local.");
        assert_eq!(reply.answers.len(), 1);
        assert!(took >= WAIT, "{took:?}");
        let (found, _ring) = witness.told.lock().unwrap().pop().unwrap();
        assert_eq!(found.names, ["web.shop.svc.cluster.local"]);
        assert_eq!(found.addresses, ["10.96.0.7".parse::<IpAddr>().unwrap()]);
        // There is nothing to tell of.
        let (reply, _) = ask(server, "nobody.shop.svc.cluster.local.");
        assert!(reply.answers.is_empty());
        assert!(witness.told.lock().unwrap().is_empty());
    }
    witness.is_deaf.store(true, Ordering::SeqCst);
    for ask in [ask_udp, ask_tcp] {
        ask(server, "web.shop.svc.cluster.local.");
        assert!(witness.told.lock().unwrap().is_empty());
    }
}
