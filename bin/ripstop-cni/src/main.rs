//! The CNI plugin: hands what the runtime says to the agent of this node, and
//! the agent's answer to the runtime.
//! <https://github.com/containernetworking/cni/blob/main/SPEC.md>
//!
//! It does nothing itself, so that it starts and ends within a millisecond. Called
//! `loopback`, it is that plugin.

mod loopback;

use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use ripstop_cni_types::wire::{ACK, Reply, Request};
use ripstop_cni_types::{Code, Config, Error, Version};
use serde_json::Value;

/// Where the agent listens unless the configuration's `socket` says otherwise.
const DEFAULT_SOCKET: &str = "/run/ripstop/cni.sock";

fn main() -> ExitCode {
    let command = variable("CNI_COMMAND");
    if command.is_empty() && env::args_os().len() > 1 {
        println!("ripstop-cni {} (CNI plugin)", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let mut input = Vec::new();
    let config = match io::stdin().read_to_end(&mut input) {
        Ok(_) => serde_json::from_slice(&input)
            .map_err(|error| Error::new(Code::Decode, format!("standard input: {error}"))),
        Err(error) => Err(Error::new(Code::Io, format!("standard input: {error}"))),
    };
    let asked = version_asked(config.as_ref().unwrap_or(&Value::Null));
    match config
        .map_err(Failure::Ours)
        .and_then(|config| run(command, config))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Ours(error)) => fail(&error.to_json(&asked)),
        Err(Failure::Agents(error)) => fail(&error),
        Err(Failure::AfterResult(error)) => {
            eprintln!("ripstop-cni: {error}");
            ExitCode::FAILURE
        }
    }
}

/// An error to print: found by this program, or by the agent.
enum Failure {
    Ours(Error),
    Agents(Value),
    /// The result is printed already, and a runtime reads one document. Failing
    /// is right all the same: it is not known whether the agent, which went
    /// away, keeps the pod, and a runtime calls DEL after a failure.
    AfterResult(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

fn run(command: String, config: Value) -> Result<(), Failure> {
    match command.as_str() {
        "VERSION" => {
            let asked = config.get("cniVersion").and_then(Value::as_str);
            return print(&Version::result(asked));
        }
        "ADD" | "DEL" | "CHECK" | "STATUS" | "GC" => {}
        "" => return Err(Error::new(Code::InvalidEnvironment, "CNI_COMMAND is not set").into()),
        other => {
            let message = format!("CNI_COMMAND {other:?} is not a command of CNI 1.1.0");
            return Err(Error::new(Code::InvalidEnvironment, message).into());
        }
    }
    Config::version_of(&config)?;
    let request = Request {
        container_id: variable("CNI_CONTAINERID"),
        netns: env::var("CNI_NETNS").ok(),
        ifname: variable("CNI_IFNAME"),
        args: variable("CNI_ARGS"),
        command,
        config,
    };
    if is_loopback() {
        return match loopback::run(&request)? {
            Value::Null => Ok(()),
            result => print(&result),
        };
    }
    let mut agent = connect(&request)?;
    match ask(&mut agent, &request)? {
        Reply::Error(error) => Err(Failure::Agents(error)),
        Reply::Result(result) => {
            if !result.is_null() {
                print(&result)?;
            }
            if request.command == "ADD" {
                // Only now does the agent keep what it made.
                agent
                    .write_all(ACK)
                    .map_err(|error| Failure::AfterResult(lost(&error)))?;
            }
            Ok(())
        }
    }
}

/// Whether a runtime called this program by the link of that name.
fn is_loopback() -> bool {
    let name = env::args_os().next().unwrap_or_default();
    Path::new(&name).file_name() == Some(loopback::NAME.as_ref())
}

fn connect(request: &Request) -> Result<UnixStream, Error> {
    let path = request
        .config
        .get("socket")
        .and_then(Value::as_str)
        .unwrap_or(DEFAULT_SOCKET);
    UnixStream::connect(path).map_err(|error| {
        let code = if request.command == "STATUS" {
            Code::NotAvailable
        } else {
            Code::TryAgainLater
        };
        Error::new(
            code,
            format!("the agent of this node does not answer at {path}"),
        )
        .details(format!("{error}; is `ripstop agent` running?"))
    })
}

fn ask(agent: &mut UnixStream, request: &Request) -> Result<Reply, Error> {
    let mut line = serde_json::to_vec(request)
        .map_err(|error| Error::new(Code::Decode, format!("request: {error}")))?;
    line.push(b'\n');
    agent.write_all(&line).map_err(|error| lost(&error))?;
    let mut answer = Vec::new();
    BufReader::new(agent)
        .read_until(b'\n', &mut answer)
        .map_err(|error| lost(&error))?;
    if answer.is_empty() {
        return Err(lost(&"it closed the connection"));
    }
    serde_json::from_slice(&answer)
        .map_err(|error| Error::new(Code::Decode, format!("the agent's answer: {error}")))
}

fn lost(error: &dyn std::fmt::Display) -> Error {
    Error::new(Code::TryAgainLater, "the agent of this node went away").details(error.to_string())
}

fn print(value: &Value) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")
        .and_then(|()| out.flush())
        .map_err(|error| Error::new(Code::Io, format!("standard output: {error}")).into())
}

fn fail(error: &Value) -> ExitCode {
    // The runtime reads it here also when the exit status says failure.
    let _ = writeln!(io::stdout(), "{error}");
    ExitCode::FAILURE
}

fn version_asked(config: &Value) -> String {
    let asked = config.get("cniVersion").and_then(Value::as_str);
    asked.unwrap_or(Version::NEWEST.as_str()).to_owned()
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}
