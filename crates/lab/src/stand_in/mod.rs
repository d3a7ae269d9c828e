//! A server that takes the place of an image that the lab cannot have.
//!
//! Runs in the container's own process ([`crate::container`]) on one thread. It
//! listens on every port that the container declares and answers each request
//! with who it is and who asked, over HTTP/1.1, HTTP/2, gRPC health checks, plain
//! TCP lines and UDP. It also understands the arguments of Kubernetes' own test
//! image, agnhost, so that published network tests run against it.

mod agnhost;
mod drain;
mod grpc;
mod http;
mod listen;
mod sniff;
mod tcp;
mod udp;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use crate::container::notify::Notifier;

/// Where Kubernetes looks for a container's last words.
/// <https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/>
const TERMINATION_LOG: &str = "/dev/termination-log";

/// What to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StandIn {
    pub identity: Identity,
    pub role: Role,
}

/// Who answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    pub pod: String,
    pub namespace: String,
    pub node: String,
    pub container: String,
    pub image: String,
    /// The pod's addresses; not part of an answer, which gives the one it used.
    pub addresses: Vec<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// Answers on these ports; with none it idles until it is told to end.
    Serve { tcp: Vec<u16>, udp: Vec<u16> },
    /// agnhost with these arguments, the subcommand first.
    Agnhost { args: Vec<String> },
}

/// What every answer says, whatever the protocol.
#[derive(Debug, Serialize)]
struct Answer<'a, R> {
    pod: &'a str,
    namespace: &'a str,
    node: &'a str,
    container: &'a str,
    image: &'a str,
    server: SocketAddr,
    client: SocketAddr,
    #[serde(flatten)]
    request: R,
}

impl Identity {
    /// One line of JSON: who we are, the two ends, and what was asked.
    fn answer(&self, server: SocketAddr, client: SocketAddr, request: impl Serialize) -> Vec<u8> {
        let answer = Answer {
            pod: &self.pod,
            namespace: &self.namespace,
            node: &self.node,
            container: &self.container,
            image: &self.image,
            server,
            client,
            request,
        };
        // Strings and numbers under string keys: cannot fail.
        let mut line = serde_json::to_vec(&answer).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// Why a stand-in ended other than by being told to.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Listen(#[from] listen::ListenError),
    #[error("{0}")]
    Usage(String),
    #[error("starting: {0}")]
    Runtime(std::io::Error),
}

/// Serves until SIGTERM, then finishes what is under way. `started` is let go
/// when all ports listen.
pub fn main(config: &StandIn, env: &BTreeMap<String, String>, started: Notifier) -> ExitCode {
    let run = async {
        match &config.role {
            Role::Serve { tcp, udp } => serve(&config.identity, tcp, udp, started)
                .await
                .map(|()| ExitCode::SUCCESS),
            Role::Agnhost { args } => agnhost::run(args, &config.identity, env, started).await,
        }
    };
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)
        .and_then(|runtime| runtime.block_on(run));
    result.unwrap_or_else(|failure| {
        eprintln!("{failure}");
        // Only a courtesy to `kubectl describe`; the log has it too.
        let _ = std::fs::write(TERMINATION_LOG, failure.to_string());
        ExitCode::FAILURE
    })
}

async fn serve(
    identity: &Identity,
    tcp: &[u16],
    udp: &[u16],
    started: Notifier,
) -> Result<(), Failure> {
    let term = drain::on_term().map_err(Failure::Runtime)?;
    // All or none: a container with half its ports would only confuse.
    let streams = tcp
        .iter()
        .map(|&port| listen::tcp(port))
        .collect::<Result<Vec<_>, _>>()?;
    let datagrams = udp
        .iter()
        .map(|&port| listen::udp(port))
        .collect::<Result<Vec<_>, _>>()?;
    drop(started);
    println!("{}", greeting(&identity.image, tcp, udp));

    let drain = drain::Drain::new();
    let identity = std::sync::Arc::new(identity.clone());
    for listener in streams {
        let identity = identity.clone();
        tokio::spawn(tcp::accept(
            listener,
            drain.work(),
            move |stream, client, work| tcp::identify(stream, client, identity.clone(), work),
        ));
    }
    for socket in datagrams {
        tokio::spawn(udp::identify(socket, identity.clone()));
    }
    drain.run(term).await;
    Ok(())
}

fn greeting(image: &str, tcp: &[u16], udp: &[u16]) -> String {
    let ports: Vec<String> = tcp
        .iter()
        .map(|port| format!("{port}/TCP"))
        .chain(udp.iter().map(|port| format!("{port}/UDP")))
        .collect();
    match ports.is_empty() {
        true => format!("stand-in for {image}: no ports declared, idle"),
        false => format!("stand-in for {image}: listening on {}", ports.join(", ")),
    }
}
