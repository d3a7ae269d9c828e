//! When a service leads where it should.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, ChildStdin, ChildStdout};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::now;
use crate::rig::Server;

/// `load-probe` in the first pod: connects to what it is told until the right
/// pod answers, and says when that was.
pub(super) struct Probe {
    _process: Server,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Probe {
    pub(super) fn new(mut process: Child) -> Result<Self> {
        let input = process.stdin.take().context("input of the probe")?;
        let output = process.stdout.take().context("output of the probe")?;
        Ok(Self {
            _process: Server(process),
            input,
            output: BufReader::new(output),
        })
    }

    pub(super) fn reached(&mut self, service: SocketAddr, pod: IpAddr) -> Result<Duration> {
        self.ask(&format!("{service} {pod}"))
    }

    pub(super) fn reached_any(&mut self, service: SocketAddr) -> Result<Duration> {
        self.ask(&service.to_string())
    }

    fn ask(&mut self, question: &str) -> Result<Duration> {
        writeln!(self.input, "{question}")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        match line.trim().parse() {
            Ok(nanos) => Ok(Duration::from_nanos(nanos)),
            Err(_) => bail!("{question}: {}", line.trim()),
        }
    }
}

/// The other end of [`Probe`].
pub(crate) fn probe() -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(30);
    for line in std::io::stdin().lines() {
        let line = line?;
        let (target, wanted) = line.split_once(' ').unwrap_or((&line, ""));
        let target: SocketAddr = target.parse()?;
        let start = now()?;
        let reached = loop {
            match crate::load::who(target) {
                Ok(pod) if wanted.is_empty() || pod.to_string() == wanted => {
                    break now()?.as_nanos().to_string();
                }
                other if now()? - start > PATIENCE => break format!("not reached: {other:?}"),
                _ => std::thread::sleep(Duration::from_micros(50)),
            }
        };
        println!("{reached}");
    }
    Ok(())
}
