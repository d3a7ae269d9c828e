//! From a service in the API to its name.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ripstop_netlink::netns::Netns;

use super::probe::{question, read};
use crate::lab::Lab;
use crate::report::{Report, Row, quantile};
use crate::rig::Server;

const SERVICES: u16 = 300;
const DNS: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 96, 0, 10), 53);

/// Asks the node's server for each new service from the moment in which the API
/// has taken it.
pub(super) fn measure(binaries: &Path, report: &mut Report) -> Result<()> {
    let lab = Lab::up(binaries, "dns-created", &["--nodes", "1"])?;
    let kubeconfig = lab.run("kubeconfig", &[])?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("api.sock");
    // Plain HTTP to the API: TLS and a process for each request are not what is
    // measured.
    let proxy = Command::new("kubectl")
        .args(["--kubeconfig", kubeconfig.trim(), "proxy", "--unix-socket"])
        .arg(&path)
        .stdout(Stdio::null())
        .spawn()
        .context("run kubectl (kubernetes-client)")?;
    let _proxy = Server(proxy);
    let start = Instant::now();
    while !path.exists() {
        ensure!(
            start.elapsed() < Duration::from_secs(10),
            "kubectl proxy does not start"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let node = Netns::open(format!("/run/netns/{}", lab.netns("node1")))?;
    let socket = node.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
    socket.connect(SocketAddr::from(DNS))?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let mut times = Vec::new();
    for number in 0..SERVICES {
        create(&path, number)?;
        times.push(until_named(&socket, number)?.as_secs_f64() * 1e3);
        std::thread::sleep(Duration::from_millis(5));
    }
    let at = |q| quantile(times.iter().copied(), q);
    report.add(Row {
        what: "dns, service taken by the API until it has its name".into(),
        ours: format!("p50 {:.2} ms, p99 {:.2} ms", at(0.5), at(0.99)),
        peer: String::new(),
        ratio: None,
        goal: "p99 5 ms (aim 2)".into(),
    });
    Ok(())
}

fn create(api: &Path, number: u16) -> Result<()> {
    let body = format!(
        r#"{{"apiVersion":"v1","kind":"Service","metadata":{{"name":"new{number}"}},"spec":{{"ports":[{{"port":80}}]}}}}"#
    );
    let mut stream = UnixStream::connect(api)?;
    write!(
        stream,
        "POST /api/v1/namespaces/default/services HTTP/1.1\r\nHost: localhost\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    let mut reply = [0; 64];
    let length = stream.read(&mut reply)?;
    let line = String::from_utf8_lossy(&reply[..length]);
    ensure!(line.contains(" 201 "), "the API says {line}");
    Ok(())
}

fn until_named(socket: &UdpSocket, number: u16) -> Result<Duration> {
    let start = Instant::now();
    let packet = question(number, &format!("new{number}.default.svc.cluster.local"));
    let mut reply = [0; 512];
    while start.elapsed() < Duration::from_secs(5) {
        socket.send(&packet)?;
        if let Ok(length) = socket.recv(&mut reply)
            && read(&reply[..length]) == Some((0, 1))
        {
            return Ok(start.elapsed());
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    bail!("service new{number} has no name after 5 s")
}
