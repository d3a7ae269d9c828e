//! Questions that people ask the agent on `agent.sock` of its run directory.
//!
//! A connection carries one question, as JSON, and its answer. The status is
//! told by whoever accepts; what concerns plan and kernel together is answered by
//! the thread that writes both, between two changes.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cni::{CniServer, check_peer};
use super::engine::Kind;
use super::feed::Input;
use super::machine;
use super::names;
use super::nodes;
use super::policies::PolicyAsk;
use super::status::{Sources, Status};
use super::thread;

/// How long the agent may take for an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// And for another engine: with a hundred thousand connections it takes seconds, on
/// a machine that has no time for it minutes.
const SWITCH: Duration = Duration::from_secs(180);
/// Of the main thread, for its part of a status.
const BRIEF: Duration = Duration::from_millis(200);
/// Of a client, for its question; none is a question for the status.
const QUESTION: Duration = Duration::from_secs(2);

/// Of a question, bytes: there are manifests in some.
const MAX_QUESTION: u64 = 4 << 20;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "ask")]
pub(crate) enum Ask {
    Status,
    /// The engine's own state of all services, or of one.
    Services {
        namespace: Option<String>,
        name: Option<String>,
    },
    /// What differs between kernel and plan.
    Verify,
    /// Another engine, now and after every start.
    SetDatapath {
        engine: Kind,
    },
    /// What policies do.
    Policy(PolicyAsk),
    /// Why a name has the answer that it has.
    DnsQuery(names::ask::Query),
    /// What was asked for.
    DnsLog(names::ask::Log),
    /// The machine's network, for a report of a fault.
    Machine,
    /// The other nodes, and the ways to them.
    Nodes,
}

/// A question for the main thread, and where the answer goes.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) ask: Ask,
    answer: Sender<Result<Value, String>>,
}

impl Question {
    fn new(ask: Ask) -> (Self, Receiver<Result<Value, String>>) {
        let (answer, answered) = channel();
        (Self { ask, answer }, answered)
    }

    pub(crate) fn answer<T: Serialize>(self, answer: Result<T>) {
        // Who does not wait any more does not want to know.
        let _ = self.answer.send(value(answer));
    }
}

/// What is sent back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Reply {
    Ok(Value),
    Error(String),
}

/// Serves the socket from threads of its own.
///
/// # Errors
/// If there can be no socket there.
pub(crate) fn serve(run_dir: &Path, sources: Arc<Sources>, main: Sender<Input>) -> Result<()> {
    let path = socket(run_dir);
    let listener =
        CniServer::listen(&path).with_context(|| format!("status socket {}", path.display()))?;
    thread::start("status", move || accept(&listener, &sources, &main))
}

fn accept(listener: &UnixListener, sources: &Arc<Sources>, main: &Sender<Input>) -> ! {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                let (sources, main) = (Arc::clone(sources), main.clone());
                let tell = move || {
                    // Who leaves before the end did not want to know.
                    let _ = tell(stream, &sources, &main);
                };
                let started = std::thread::Builder::new()
                    .name("answer".to_owned())
                    .spawn(tell);
                if let Err(error) = started {
                    tracing::warn!(%error, "nobody answers at the status socket");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "status socket");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

fn tell(mut stream: UnixStream, sources: &Sources, main: &Sender<Input>) -> std::io::Result<()> {
    check_peer(&stream)?;
    stream.set_write_timeout(Some(Duration::from_secs(2)))?;
    stream.set_read_timeout(Some(QUESTION))?;
    let mut text = Vec::new();
    // Who says nothing wants the status.
    let _ = Read::by_ref(&mut stream)
        .take(MAX_QUESTION)
        .read_to_end(&mut text);
    let reply = match text.is_empty() {
        true => Ok(Ask::Status),
        false => {
            serde_json::from_slice(&text).map_err(|error| format!("no such question: {error}"))
        }
    };
    let reply = reply.and_then(|ask| match ask {
        Ask::Status => {
            // A status is told also while the main thread has no time.
            let policies = ask_main(Ask::Policy(PolicyAsk::Summary), main, BRIEF).ok();
            let policies = policies.and_then(|value| serde_json::from_value(value).ok());
            let nodes = ask_main(Ask::Nodes, main, BRIEF).ok();
            let nodes = nodes.and_then(|value| serde_json::from_value(value).ok());
            let nodes = nodes.map(nodes::with_answers);
            serde_json::to_value(sources.status(policies, nodes)).map_err(|error| error.to_string())
        }
        Ask::DnsQuery(query) => value(query.answer(&sources.names, &sources.pods.pods())),
        Ask::DnsLog(log) => value(log.read(&sources.names, &sources.pods.pods())),
        Ask::Machine => value(Ok(machine::gather())),
        ask => {
            let patience = patience(&ask);
            ask_main(ask, main, patience)
        }
    });
    let reply = match reply {
        Ok(value) => Reply::Ok(value),
        Err(error) => Reply::Error(error),
    };
    serde_json::to_writer(&stream, &reply)?;
    stream.write_all(b"\n")
}

fn value<T: Serialize>(answer: Result<T>) -> Result<Value, String> {
    answer
        .and_then(|value| Ok(serde_json::to_value(value)?))
        .map_err(|error| format!("{error:#}"))
}

fn patience(ask: &Ask) -> Duration {
    match ask {
        Ask::SetDatapath { .. } => SWITCH,
        _ => PATIENCE,
    }
}

fn ask_main(ask: Ask, main: &Sender<Input>, patience: Duration) -> Result<Value, String> {
    let (question, answered) = Question::new(ask);
    main.send(Input::Ask(question))
        .map_err(|_| "the agent ends".to_owned())?;
    answered
        .recv_timeout(patience)
        .map_err(|_| format!("the agent is busy: no answer within {patience:?}"))?
}

/// Asks the agent of a run directory.
///
/// # Errors
/// If no agent runs there, it does not answer in time, or cannot.
pub(crate) fn ask<T: DeserializeOwned>(run_dir: &Path, ask: &Ask) -> Result<T> {
    let path = socket(run_dir);
    let mut stream = UnixStream::connect(&path)
        .with_context(|| format!("no agent answers at {}", path.display()))?;
    let what = || format!("answer from {}", path.display());
    stream.set_read_timeout(Some(patience(ask) + QUESTION))?;
    serde_json::to_writer(&stream, ask).with_context(what)?;
    stream.shutdown(Shutdown::Write)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).with_context(what)?;
    match serde_json::from_str(&text).with_context(what)? {
        Reply::Ok(value) => serde_json::from_value(value).with_context(what),
        Reply::Error(error) => Err(anyhow!("{error}")),
    }
}

/// Asks for the status.
///
/// # Errors
/// As [`ask`].
pub(crate) fn ask_status(run_dir: &Path) -> Result<Status> {
    ask(run_dir, &Ask::Status)
}

fn socket(run_dir: &Path) -> PathBuf {
    run_dir.join("agent.sock")
}
