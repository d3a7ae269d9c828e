//! Where connections come from: a client program that runs there.

use std::collections::HashMap;
use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ripstop_tests::Lab;

use crate::wire::{Ask, Reply, Request, Told};

/// For a client that hangs: no request takes as long.
const LIMIT: Duration = Duration::from_secs(120);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// In a pod of the suite's namespace.
    Pod(String),
    /// A process of a node, in no pod.
    Node(String),
    /// On a machine that is not of the cluster.
    Outside,
}

impl Place {
    pub fn pod(name: &str) -> Self {
        Self::Pod(name.to_owned())
    }

    pub fn node(name: &str) -> Self {
        Self::Node(name.to_owned())
    }

    fn exec_args(&self) -> Vec<String> {
        match self {
            Self::Pod(name) => vec![name.clone()],
            Self::Node(name) => vec![format!("node/{name}")],
            Self::Outside => vec!["--outside".to_owned()],
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(name) => write!(f, "pod {name}"),
            Self::Node(name) => write!(f, "{name}"),
            Self::Outside => write!(f, "outside"),
        }
    }
}

type Waiting = Arc<Mutex<HashMap<u64, Sender<Result<Told, String>>>>>;

/// A client program in a place. Dropped, it is ended.
#[derive(Debug)]
pub struct Client {
    place: Place,
    child: Mutex<Child>,
    input: Mutex<ChildStdin>,
    waiting: Waiting,
    next: AtomicU64,
    complaints: Arc<Mutex<String>>,
}

impl Client {
    /// # Errors
    /// If `ripstop lab exec` cannot be started.
    pub fn start(lab: &Lab, place: &Place, program: &str) -> Result<Self> {
        let mut args = place.exec_args();
        args.extend(["--", program, "client"].map(str::to_owned));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command: Command = lab.command("exec", &args);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().context("ripstop lab exec")?;
        let (Some(input), Some(output), Some(mut errors)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            bail!("no pipes");
        };
        let (waiting, complaints) = (Waiting::default(), Arc::new(Mutex::new(String::new())));
        let (told, complained) = (Arc::clone(&waiting), Arc::clone(&complaints));
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Ok(reply) = serde_json::from_str::<Reply>(&line)
                    && let Some(sender) = lock(&told).remove(&reply.id)
                {
                    let _ = sender.send(reply.told);
                }
            }
            let mut text = String::new();
            let _ = errors.read_to_string(&mut text);
            *lock(&complained) = text;
            // Who waits learns that there will be no answer.
            lock(&told).clear();
        });
        Ok(Self {
            place: place.clone(),
            child: Mutex::new(child),
            input: Mutex::new(input),
            waiting,
            next: AtomicU64::new(0),
            complaints,
        })
    }

    /// Asks the client for something and waits until it is done.
    ///
    /// # Errors
    /// What the client says, or that it is no more.
    pub fn ask(&self, ask: Ask) -> Result<Told> {
        let id = self.number();
        let (sender, receiver) = channel();
        lock(&self.waiting).insert(id, sender);
        let mut line = serde_json::to_vec(&Request { id, ask })?;
        line.push(b'\n');
        let sent = lock(&self.input).write_all(&line);
        let told = sent.ok().and_then(|()| receiver.recv_timeout(LIMIT).ok());
        let Some(told) = told else {
            let complaint = lock(&self.complaints);
            bail!(
                "the client ({}) has ended: {}",
                self.place,
                complaint.trim()
            );
        };
        told.map_err(|error| anyhow::anyhow!("{}: {error}", self.place))
    }

    /// A number that this client has not had yet.
    pub fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut child = lock(&self.child);
        let _ = child.kill();
        let _ = child.wait();
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
