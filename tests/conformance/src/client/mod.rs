//! The client: does what lines of JSON on standard input ask for, and tells on
//! standard output how it went. It runs in pods, on nodes, outside.

mod attempt;
mod kept;
mod socket;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::server;
use crate::wire::{Ask, Reply, Request, Told};
use attempt::Asking;
use kept::Kept;

/// Works until standard input ends.
///
/// # Errors
/// If a line is no request, or nobody reads the replies.
pub fn run() -> Result<()> {
    let (kept, output) = (Kept::default(), Mutex::new(std::io::stdout()));
    std::thread::scope(|scope| -> Result<()> {
        for line in std::io::stdin().lines() {
            let request: Request = serde_json::from_str(&line?)?;
            let (kept, output) = (&kept, &output);
            scope.spawn(move || {
                let told = work(&request.ask, kept).map_err(|error| format!("{error:#}"));
                let reply = Reply {
                    id: request.id,
                    told,
                };
                let mut line = serde_json::to_string(&reply).unwrap_or_default();
                line.push('\n');
                let mut output = output.lock().unwrap_or_else(|error| error.into_inner());
                // The suite has gone: input ends as well.
                let _ = output
                    .write_all(line.as_bytes())
                    .and_then(|()| output.flush());
            });
        }
        // Attempts that wait and servers are nobody's any more.
        std::process::exit(0);
    })
}

fn work(ask: &Ask, kept: &Kept) -> Result<Told> {
    Ok(match ask {
        Ask::Once(attempt) => Told::Outcome(attempt::once(attempt)),
        Ask::Many { attempt, count } => Told::Outcomes(attempt::many(attempt, *count)),
        Ask::Open { attempt, socket } => {
            let (outcome, asking) = Asking::begin(attempt);
            if let Some(asking) = asking {
                kept.keep(*socket, asking);
            }
            Told::Outcome(outcome)
        }
        Ask::Again { socket, bytes } => {
            let asking = kept.get(*socket).context("no such socket")?;
            let mut asking = asking.lock().unwrap_or_else(|error| error.into_inner());
            Told::Outcome(asking.again(*bytes))
        }
        Ask::Close { socket } => {
            kept.close(*socket);
            Told::Done
        }
        Ask::Serve { name, ports } => {
            server::listen(name, ports, ports)?;
            Told::Done
        }
        Ask::Http { to, path, limit_ms } => get(*to, path, Duration::from_millis(*limit_ms))?,
        Ask::Run { command } => {
            let (program, args) = command.split_first().context("no program")?;
            let mut command = Command::new(program);
            let output = command.args(args).stdin(Stdio::null()).output();
            let output = output.with_context(|| program.clone())?;
            Told::Ran {
                code: output.status.code(),
                stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            }
        }
    })
}

fn get(to: SocketAddr, path: &str, limit: Duration) -> Result<Told> {
    let mut stream = TcpStream::connect_timeout(&to, limit)?;
    stream.set_read_timeout(Some(limit))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {to}\r\n\r\n")?;
    let mut text = String::new();
    std::io::BufReader::new(stream).read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("no HTTP")?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok(Told::Http {
        status,
        body: body.to_owned(),
    })
}
