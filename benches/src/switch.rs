//! A switch of engines on a node with very many connections.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Socket, Type};

use crate::lab::Lab;
use crate::load::many_files;
use crate::report::{Report, Row, quantile};
use crate::rig::{PORT, Server};

/// Pods that have connections, how many each has, and pods that answer them: a
/// process may have some thousand files.
const CLIENTS: usize = 10;
const CONNECTIONS: u16 = 10_000;
const SERVERS: usize = 10;
/// Ports of a pod from which it connects.
const FIRST_PORT: u16 = 4_000;
/// One after the other, so often.
const ENGINES: [&str; 2] = ["ebpf", "nftables"];
const ROUNDS: usize = 3;

/// Servers, their service, and clients, all on one node.
fn manifest(bench: &str) -> String {
    let pod = |name: &str, number: usize, command: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\n\
             metadata: {{name: {name}{number}, labels: {{app: {name}}}}}\n\
             spec:\n  containers:\n  - name: main\n    image: bench\n    command: {command}\n"
        )
    };
    let serve = format!("[\"{bench}\", \"load-serve\", \"0.0.0.0:{PORT}\"]");
    let servers = (0..SERVERS).map(|n| pod("server", n, &serve));
    let clients = (0..CLIENTS).map(|n| pod("client", n, "[\"sleep\", \"3600\"]"));
    let service = format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: server}}\n\
         spec:\n  selector: {{app: server}}\n  ports: [{{port: {PORT}}}]\n"
    );
    servers.chain(clients).chain([service]).collect()
}

pub(crate) fn measure(binaries: &Path, report: &mut Report) -> Result<()> {
    let bench = std::env::current_exe()?;
    let bench = bench.to_str().context("path of the benchmark")?;
    let mut file = tempfile::NamedTempFile::with_suffix(".yaml")?;
    file.write_all(manifest(bench).as_bytes())?;
    let file = file.path().to_str().context("temporary path")?.to_owned();

    report.progress("switch: a lab of one node, with connections");
    // The eBPF engine would lead those of its own time at the socket, once.
    let args = ["--nodes", "1", "--datapath", "nftables", "-f", &file];
    let lab = Lab::up(binaries, "switch", &args)?;
    let service = lab.get(&["service", "server"])?;
    let service = service
        .pointer("/spec/clusterIP")
        .and_then(|ip| ip.as_str());
    let target = format!("{}:{PORT}", service.context("the service has no address")?);
    let clients = (0..CLIENTS).map(|n| Holder::start(&lab, bench, &format!("client{n}"), &target));
    let mut clients = clients.collect::<Result<Vec<_>>>()?;
    for client in &mut clients {
        client.wait()?;
    }
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (engine, times) in ENGINES.into_iter().zip(&mut times) {
            report.progress(&format!("switch: to {engine}"));
            let (time, flows) = took(&lab.switch(engine)?)?;
            ensure!(flows >= held(), "{flows} flows of {} taken over", held());
            times.push(time);
            for client in &mut clients {
                client.ask()?;
            }
        }
    }
    for (engine, times) in ENGINES.into_iter().zip(times) {
        let at = |q| quantile(times.iter().copied(), q);
        report.add(Row {
            what: format!("switch to {engine}, {} connections of pods stay", held()),
            ours: format!("{:.0} ms ({:.0} to {:.0})", at(0.5), at(0.0), at(1.0)),
            peer: String::new(),
            ratio: None,
            goal: String::new(),
        });
    }
    Ok(())
}

fn held() -> usize {
    CLIENTS * usize::from(CONNECTIONS)
}

/// Milliseconds, and flows, of what `ripstop datapath set` says.
fn took(said: &str) -> Result<(f64, usize)> {
    let numbers = said.rsplit_once(" in ").and_then(|(_, rest)| {
        let (time, rest) = rest.split_once(" ms, ")?;
        let (flows, _) = rest.split_once(' ')?;
        Some((time.parse().ok()?, flows.parse().ok()?))
    });
    numbers.with_context(|| format!("what a switch said: {said}"))
}

/// `load-hold` in a pod.
struct Holder {
    _process: Server,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Holder {
    fn start(lab: &Lab, bench: &str, pod: &str, target: &str) -> Result<Self> {
        let mut process = lab.piped("exec", &[pod, "--", bench, "load-hold", target])?;
        let input = process.stdin.take().context("input of a client")?;
        let output = process.stdout.take().context("output of a client")?;
        Ok(Self {
            _process: Server(process),
            input,
            output: BufReader::new(output),
        })
    }

    /// Every connection is asked, and answers.
    fn ask(&mut self) -> Result<()> {
        writeln!(self.input)?;
        self.wait()
    }

    fn wait(&mut self) -> Result<()> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(
            line.trim() == "all answer",
            "connections of a pod: {line:?}"
        );
        Ok(())
    }
}

/// The other end of [`Holder`]: connects, and asks over each connection whenever it
/// gets a line.
pub(crate) fn hold(target: SocketAddr) -> Result<()> {
    many_files()?;
    let ports = FIRST_PORT..FIRST_PORT + CONNECTIONS;
    let mut held = ports
        .map(|port| connect(port, target))
        .collect::<io::Result<Vec<_>>>()
        .with_context(|| format!("connect to {target}"))?;
    for line in [Ok(String::new())].into_iter().chain(io::stdin().lines()) {
        line?;
        let silent = held
            .iter_mut()
            .filter_map(|connection| ask(connection).err());
        match silent.count() {
            0 => println!("all answer"),
            silent => println!("{silent} do not answer"),
        }
    }
    Ok(())
}

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

fn connect(port: u16, target: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    socket.connect(&target.into())?;
    let mut connection = TcpStream::from(socket);
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    // Who accepts it waits for that.
    ask(&mut connection)?;
    Ok(connection)
}

fn ask(connection: &mut TcpStream) -> io::Result<()> {
    connection.write_all(b"r")?;
    connection.read_exact(&mut [0])
}
