//! Connections between namespaces, and the plugin's words with the agent.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ripstop_cni_types::wire::{ACK, Reply, Request};
use ripstop_netlink::netns::Netns;
use serde_json::{Value, json};

use super::plugin::TestPod;
use crate::node::TestNode;

pub(super) const PORT: u16 = 8080;
/// Longer than TCP waits between the first few attempts.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server in a namespace that says everything back.
pub(super) fn serve(netns: &Netns) {
    let listener = netns
        .run(|| TcpListener::bind(("::", PORT)))
        .unwrap()
        .unwrap();
    let echo = |mut stream: TcpStream| {
        std::thread::spawn(move || {
            let mut bytes = [0; 64];
            while let Ok(length @ 1..) = stream.read(&mut bytes) {
                if stream.write_all(&bytes[..length]).is_err() {
                    break;
                }
            }
        });
    };
    std::thread::spawn(move || listener.incoming().flatten().for_each(echo));
}

/// A connection to such a server.
pub(super) struct Talk {
    what: String,
    stream: TcpStream,
}

impl Talk {
    pub(super) fn open(what: &str, from: &Netns, to: IpAddr, port: u16) -> Result<Self, String> {
        let to = SocketAddr::new(to, port);
        let connected = from.run(|| TcpStream::connect_timeout(&to, PATIENCE / 4));
        let what = format!("{what}, {to}");
        let stream = connected
            .unwrap()
            .map_err(|error| format!("{what}: {error}"))?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Ok(Self { what, stream })
    }

    /// Something there and back.
    pub(super) fn goes_on(&mut self) {
        self.stream.write_all(b"ripstop").unwrap();
        let mut back = [0; 7];
        let read = self.stream.read_exact(&mut back);
        read.unwrap_or_else(|error| panic!("{}: {error}", self.what));
        assert_eq!(&back, b"ripstop");
    }
}

/// A new connection there and back, to each address.
pub(super) fn reaches(what: &str, from: &Netns, to: &[IpAddr]) {
    for address in to {
        let talk = Talk::open(what, from, *address, PORT);
        talk.unwrap_or_else(|error| panic!("{error}")).goes_on();
    }
}

/// What our plugin says to the agent; the result.
pub(super) fn plugin(node: &TestNode, command: &str, pod: &TestPod, more: Value) -> Value {
    let mut config = json!({"cniVersion": "1.1.0", "name": "ripstop", "type": "ripstop-cni"});
    let more = more.as_object().unwrap().clone();
    config.as_object_mut().unwrap().extend(more);
    let request = Request {
        command: command.to_owned(),
        container_id: pod.id.clone(),
        netns: Some(pod.netns.path().display().to_string()),
        ifname: "eth0".to_owned(),
        args: pod.args(),
        config,
    };
    let mut line = serde_json::to_vec(&request).unwrap();
    line.push(b'\n');
    let mut stream = UnixStream::connect(node.cni_socket()).unwrap();
    stream.write_all(&line).unwrap();
    let mut answer = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        answer.extend(byte);
    }
    let _ = stream.write_all(ACK);
    match serde_json::from_slice(&answer).unwrap() {
        Reply::Result(result) => result,
        Reply::Error(error) => panic!("{command} of {}: {error}", pod.name),
    }
}
