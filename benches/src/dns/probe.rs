//! Questions of our own, for latencies.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::names::{name, services};

/// A question for an A record.
pub(super) fn question(id: u16, name: &str) -> Vec<u8> {
    let mut packet = [id.to_be_bytes(), [1, 0], [0, 1], [0, 0], [0, 0], [0, 0]].concat();
    for label in name.split('.') {
        packet.push(u8::try_from(label.len()).unwrap_or_default());
        packet.extend_from_slice(label.as_bytes());
    }
    packet.extend_from_slice(&[0, 0, 1, 0, 1]);
    packet
}

/// Response code and number of answers.
pub(super) fn read(reply: &[u8]) -> Option<(u8, u16)> {
    let answers = u16::from_be_bytes([*reply.get(6)?, *reply.get(7)?]);
    Some((reply.get(3)? & 0xf, answers))
}

/// Asks until the names are there.
pub(super) fn wait_until_served(server: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let start = Instant::now();
    let last = services().last().map(|(key, _)| name(&key));
    let packet = question(1, &last.unwrap_or_default());
    while start.elapsed() < Duration::from_secs(30) {
        let mut reply = [0; 512];
        let sent = socket.send_to(&packet, server);
        match sent.and_then(|_| socket.recv(&mut reply)) {
            Ok(length) if read(&reply[..length]) == Some((0, 1)) => return Ok(()),
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    }
    bail!("nothing serves the names at {server}")
}

/// Round trips at `rate` questions a second, in microseconds, and how many
/// questions were never answered.
pub(super) fn latencies(
    from: IpAddr,
    server: SocketAddr,
    rate: f64,
    seconds: u64,
) -> Result<(Vec<f64>, usize)> {
    let socket = UdpSocket::bind((from, 0))?;
    socket.connect(server)?;
    socket.set_nonblocking(true)?;
    let keys: Vec<String> = services().map(|(key, _)| name(&key)).collect();
    let total = (rate * seconds as f64) as usize;
    let mut sent_at = vec![None; usize::from(u16::MAX) + 1];
    let mut found = Vec::with_capacity(total);
    socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20)?;
    let start = Instant::now();
    let mut sent = 0;
    let mut reply = [0; 1500];
    let step = Duration::from_secs_f64(1.0 / rate);
    let mut next = start;
    while sent < total && start.elapsed() < Duration::from_secs(4 * seconds) {
        let now = Instant::now();
        if now >= next {
            // Who was not given the CPU does not make up for it with a burst: it
            // would measure that.
            next = next.max(now - 10 * step) + step;
            let id = (sent & 0xffff) as u16;
            let name = &keys[sent * 7919 % keys.len()];
            let packet = match sent % 2 {
                0 => question(id, name),
                _ => question(id, &format!("{name}.n7.svc.cluster.local")),
            };
            sent_at[usize::from(id)] = Some(Instant::now());
            socket.send(&packet)?;
            sent += 1;
        }
        while let Ok(length) = socket.recv(&mut reply) {
            if length > 2 {
                let id = usize::from(u16::from_be_bytes([reply[0], reply[1]]));
                if let Some(at) = sent_at[id].take() {
                    found.push(Instant::now().duration_since(at).as_secs_f64() * 1e6);
                }
            }
        }
    }
    let lost = sent_at
        .iter()
        .flatten()
        .filter(|at| at.elapsed() > Duration::from_millis(100));
    Ok((found, lost.count()))
}
