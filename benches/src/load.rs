//! The load: a server and a client for two patterns.
//!
//! - `crr`: connect, one byte each way, the server closes first. (A client that
//!   closes first runs out of ports and measures that instead.)
//! - `rr`: one byte each way over connections that stay open, [`LOOPS`] event
//!   loops on either side, as servers have them. (A thread for each connection
//!   measures the scheduler: two switches cost more than the packets' way.)
//!
//! What is measured is the kernel's path; CPU time is read from `/proc/stat`, so
//! that work in soft interrupts counts.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ripstop_netlink::netns::Netns;
use serde::{Deserialize, Serialize};

/// Event loops of the client, and of the server.
const LOOPS: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Pattern {
    Crr,
    Rr,
}

impl Pattern {
    /// Arguments of the `load-run` that measures it for so long.
    pub(crate) fn run(self, target: SocketAddr, time: Duration) -> Vec<String> {
        let (pattern, clients) = match self {
            Self::Crr => ("crr", "4"),
            Self::Rr => ("rr", "16"),
        };
        let target = target.to_string();
        let time = time.as_millis().to_string();
        ["load-run", &target, pattern, clients, &time]
            .map(str::to_owned)
            .to_vec()
    }
}

/// What a client run measured.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Operations per second.
    pub(crate) rate: f64,
    /// CPU time of the whole machine per operation, microseconds.
    pub(crate) cpu_us: f64,
    /// Operations that failed.
    pub(crate) errors: u64,
}

impl Sample {
    /// Of the `load-run` that is this command, in a namespace.
    pub(crate) fn of(mut load: Command, place: &Netns) -> Result<Self> {
        let output = place.run(|| load.output())??;
        if !output.status.success() {
            bail!("client: {}", String::from_utf8_lossy(&output.stderr));
        }
        serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Serves both patterns on `addresses` until it is killed: it answers each byte
/// with a byte; `c` also closes, `r` waits for the next. `w` is answered with
/// the server's own address.
pub(crate) fn serve(addresses: &[SocketAddr]) -> Result<()> {
    const ACCEPTORS: usize = 4;
    many_files()?;
    let listen = |address: &SocketAddr| {
        TcpListener::bind(address).with_context(|| format!("listen on {address}"))
    };
    let listeners = addresses.iter().map(listen).collect::<Result<Vec<_>>>()?;
    let loops = (0..LOOPS)
        .map(|_| EventLoop::new())
        .collect::<io::Result<Vec<_>>>()?;
    let turn = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for events in &loops {
            scope.spawn(|| while events.wait(echo).is_ok() {});
        }
        for listener in listeners.iter().flat_map(|all| [all; ACCEPTORS]) {
            scope.spawn(|| accept(listener, &loops, &turn));
        }
    });
    Ok(())
}

/// As many as this process may have.
pub(crate) fn many_files() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    Ok(())
}

fn accept(listener: &TcpListener, loops: &[EventLoop], turn: &AtomicUsize) {
    while let Ok((mut connection, _)) = listener.accept() {
        let mut byte = [0];
        if connection.read_exact(&mut byte).is_err() {
            continue;
        }
        if byte == *b"w" {
            let own = connection.local_addr().map(|own| own.ip().to_string());
            let _ = connection.write_all(own.unwrap_or_default().as_bytes());
            continue;
        }
        let _ = connection.write_all(&byte);
        if byte == *b"r" {
            let turn = turn.fetch_add(1, Ordering::Relaxed);
            let _ = loops[turn % LOOPS].add(connection);
        }
    }
}

/// One byte in, the same byte out. False when the other end is done.
fn echo(connection: &mut TcpStream) -> bool {
    let mut byte = [0];
    connection.read_exact(&mut byte).is_ok() && connection.write_all(&byte).is_ok()
}

/// Waits for many connections at once.
struct EventLoop {
    epoll: Epoll,
    /// By descriptor, which is what epoll gives back.
    connections: Mutex<HashMap<u64, TcpStream>>,
}

impl EventLoop {
    fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            connections: Mutex::default(),
        })
    }

    fn add(&self, connection: TcpStream) -> io::Result<()> {
        connection.set_nodelay(true)?;
        let id = u64::from(connection.as_raw_fd().cast_unsigned());
        let mut connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.epoll
            .add(&connection, EpollEvent::new(EpollFlags::EPOLLIN, id))?;
        connections.insert(id, connection);
        Ok(())
    }

    /// Calls `ready` with each connection that has something to read, after at
    /// most 100 ms; one for which it says false is closed.
    fn wait(&self, mut ready: impl FnMut(&mut TcpStream) -> bool) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); 64];
        let count = self.epoll.wait(&mut events, 100_u8)?;
        let mut connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for event in &events[..count] {
            let id = event.data();
            if let Some(connection) = connections.get_mut(&id)
                && !ready(connection)
            {
                connections.remove(&id);
            }
        }
        Ok(())
    }
}

impl Sample {
    /// For the benchmark that started this process.
    pub(crate) fn print(&self) -> Result<()> {
        println!("{}", serde_json::to_string(self)?);
        Ok(())
    }
}

/// Runs `clients` against `target` until `until` returns: a thread each that
/// connects, or that many connections.
pub(crate) fn run(
    target: SocketAddr,
    pattern: Pattern,
    clients: usize,
    until: impl FnOnce(),
) -> Result<Sample> {
    let (done, errors) = (AtomicU64::new(0), AtomicU64::new(0));
    let stop = AtomicBool::new(false);
    wait_until_served(target)?;
    let cpu_before = busy_cpu_us()?;
    let start = Instant::now();
    std::thread::scope(|scope| {
        let threads = match pattern {
            Pattern::Crr => clients,
            Pattern::Rr => LOOPS,
        };
        for _ in 0..threads {
            scope.spawn(|| match pattern {
                Pattern::Crr => connect_loop(target, &stop, &done, &errors),
                Pattern::Rr => request_loop(target, clients / LOOPS, &stop, &done, &errors),
            });
        }
        until();
        stop.store(true, Ordering::Relaxed);
    });
    let seconds = start.elapsed().as_secs_f64();
    let operations = done.load(Ordering::Relaxed);
    ensure!(operations > 0, "no operation against {target} succeeded");
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    Ok(Sample {
        rate: operations as f64 / seconds,
        cpu_us: (busy_cpu_us()? - cpu_before) as f64 / operations as f64,
        errors: errors.load(Ordering::Relaxed),
    })
}

pub(crate) fn wait_until_served(target: SocketAddr) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let start = Instant::now();
    loop {
        match once(target) {
            Ok(()) => return Ok(()),
            Err(error) if start.elapsed() > PATIENCE => {
                return Err(error).with_context(|| format!("nothing serves {target}"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Connects, and gets an answer until the server ends.
pub(crate) fn once(target: SocketAddr) -> io::Result<()> {
    let mut connection = TcpStream::connect(target)?;
    connection.write_all(b"c")?;
    let mut rest = Vec::with_capacity(8);
    connection.read_to_end(&mut rest)?;
    if rest == b"c" {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// Address of the server that answers at `target`.
pub(crate) fn who(target: SocketAddr) -> io::Result<IpAddr> {
    const PATIENCE: Duration = Duration::from_millis(100);
    let mut connection = TcpStream::connect_timeout(&target, PATIENCE)?;
    connection.write_all(b"w")?;
    let mut text = String::new();
    connection.read_to_string(&mut text)?;
    text.parse()
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

fn connect_loop(target: SocketAddr, stop: &AtomicBool, done: &AtomicU64, errors: &AtomicU64) {
    while !stop.load(Ordering::Relaxed) {
        match once(target) {
            Ok(()) => done.fetch_add(1, Ordering::Relaxed),
            Err(_) => errors.fetch_add(1, Ordering::Relaxed),
        };
    }
}

/// `connections` of them, each with one request on its way.
fn request_loop(
    target: SocketAddr,
    connections: usize,
    stop: &AtomicBool,
    done: &AtomicU64,
    errors: &AtomicU64,
) {
    let run = || -> io::Result<()> {
        let events = EventLoop::new()?;
        for _ in 0..connections {
            let mut connection = TcpStream::connect(target)?;
            connection.write_all(b"r")?;
            events.add(connection)?;
        }
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            events.wait(|connection| {
                let answered = echo(connection);
                if answered {
                    count += 1;
                } else {
                    errors.fetch_add(1, Ordering::Relaxed);
                }
                answered
            })?;
        }
        done.fetch_add(count, Ordering::Relaxed);
        Ok(())
    };
    if run().is_err() {
        errors.fetch_add(1, Ordering::Relaxed);
    }
}

/// CPU time that was not idle, of all CPUs, since boot; microseconds.
/// <https://docs.kernel.org/filesystems/proc.html#miscellaneous-kernel-statistics-in-proc-stat>
fn busy_cpu_us() -> Result<u64> {
    // user nice system idle iowait irq softirq steal
    const NOT_BUSY: [usize; 3] = [3, 4, 7];
    let stat = std::fs::read_to_string("/proc/stat").context("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let ticks: u64 = line
        .split_whitespace()
        .skip(1)
        .take(8)
        .enumerate()
        .filter(|(field, _)| !NOT_BUSY.contains(field))
        .filter_map(|(_, ticks)| ticks.parse::<u64>().ok())
        .sum();
    // SAFETY: sysconf only reads.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Ok(ticks * 1_000_000 / u64::try_from(per_second).context("clock ticks per second")?)
}
