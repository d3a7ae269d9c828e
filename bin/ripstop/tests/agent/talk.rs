//! Connections between namespaces.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use ripstop_netlink::netns::Netns;

pub(crate) const PORT: u16 = 8080;
/// Longer than TCP waits between the first few attempts.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server in a namespace that says everything back.
pub(crate) fn serve(netns: &Netns) {
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
pub(crate) struct Talk {
    what: String,
    stream: TcpStream,
}

impl Talk {
    pub(crate) fn open(what: &str, from: &Netns, to: IpAddr, port: u16) -> Result<Self, String> {
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
    pub(crate) fn goes_on(&mut self) {
        self.stream.write_all(b"ripstop").unwrap();
        let mut back = [0; 7];
        let read = self.stream.read_exact(&mut back);
        read.unwrap_or_else(|error| panic!("{}: {error}", self.what));
        assert_eq!(&back, b"ripstop");
    }

    /// What is said now does not come there.
    pub(crate) fn is_silent(&mut self) {
        self.stream.write_all(b"ripstop").unwrap();
        self.stream
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        let read = self.stream.read(&mut [0; 7]);
        let waits = matches!(&read, Err(error) if error.kind() == ErrorKind::WouldBlock);
        assert!(waits, "{}: {read:?}", self.what);
    }
}

/// A new connection there and back, to each address.
pub(crate) fn reaches(what: &str, from: &Netns, to: &[IpAddr]) {
    for address in to {
        let talk = Talk::open(what, from, *address, PORT);
        talk.unwrap_or_else(|error| panic!("{error}")).goes_on();
    }
}
