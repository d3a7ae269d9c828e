//! `netexec`: the HTTP and UDP server of Kubernetes' network tests.

use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, Response, header};
use hyper::body::Incoming;
use serde::Serialize;
use tokio::net::TcpStream;

use super::super::drain::{Drain, Work};
use super::super::http::{Body, respond, serve, text};
use super::super::{Failure, Identity, listen, tcp, udp};
use super::flags::Flags;
use super::{dial, query};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct NetExec {
    http: Option<u16>,
    udp: Option<u16>,
}

impl NetExec {
    pub(super) fn parse(args: &[String]) -> Result<Self, Failure> {
        let names = [
            "http-port",
            "udp-port",
            "sctp-port",
            "udp-listen-addresses",
            "http-override",
        ];
        let flags = Flags::parse(args, &[names.as_slice(), &["delay-shutdown"]].concat(), &[])?;
        Ok(Self {
            http: flags.port("http-port", 8080)?,
            udp: flags.port("udp-port", 8081)?,
        })
    }
}

pub(super) fn start(wanted: &NetExec, identity: &Identity, drain: &Drain) -> Result<(), Failure> {
    let http = wanted.http.map(listen::tcp).transpose()?;
    let datagrams = wanted.udp.map(listen::udp).transpose()?;
    if let Some(listener) = http {
        let name = identity.pod.clone();
        tokio::spawn(tcp::accept(
            listener,
            drain.work(),
            move |stream, client, work| connection(stream, client, name.clone(), work),
        ));
    }
    if let Some(socket) = datagrams {
        let name = identity.pod.clone();
        tokio::spawn(udp::serve(socket, move |client, datagram| {
            let reply = datagram_reply(&name, client, &String::from_utf8_lossy(&datagram));
            async move { reply.map(String::into_bytes) }
        }));
    }
    println!(
        "started HTTP server on port {:?}, UDP server on port {:?}",
        wanted.http, wanted.udp
    );
    Ok(())
}

/// The commands over UDP; an unknown one gets no answer, as in agnhost.
fn datagram_reply(name: &str, client: SocketAddr, asked: &str) -> Option<String> {
    let asked = asked.trim();
    match asked
        .split_once(' ')
        .map_or((asked, ""), |(command, rest)| (command, rest))
    {
        (command, _) if command.eq_ignore_ascii_case("hostname") => Some(name.to_owned()),
        (command, _) if command.eq_ignore_ascii_case("clientip") => Some(client.to_string()),
        (command, rest) if command.eq_ignore_ascii_case("echo") => Some(rest.to_owned()),
        _ => None,
    }
}

async fn connection(stream: TcpStream, client: SocketAddr, name: String, work: Work) {
    serve(stream, work, move |request| {
        let name = name.clone();
        async move { answer(request, client, &name).await }
    })
    .await;
}

async fn answer(request: Request<Incoming>, client: SocketAddr, name: &str) -> Response<Body> {
    let query = request.uri().query();
    let get = |name| query::get(query, name);
    match request.uri().path() {
        "/" => text(200, format!("NOW: {}", crate::clock::now())),
        "/hostname" | "/hostName" => text(200, name),
        "/clientip" => text(200, client.to_string()),
        "/healthz" => text(200, ""),
        "/echo" => match get("code").map_or(Ok(200), |code| code.parse()) {
            Ok(code) => text(code, get("msg").unwrap_or_default()),
            Err(_) => text(400, "argument 'code' must be an integer or empty"),
        },
        "/header" => {
            let value = get("key").and_then(|key| request.headers().get(key).cloned());
            text(
                200,
                value.map_or_else(Vec::new, |value| value.as_bytes().to_vec()),
            )
        }
        "/redirect" => redirect(get("location"), get("code")),
        "/dial" => match dial::dial(query).await {
            Ok(report) => respond(200, "application/json", report),
            Err(problem) => text(400, problem),
        },
        "/shell" => match get("shellCommand").or_else(|| get("cmd")) {
            Some(command) => shell(&command).await,
            None => text(400, "shellCommand parameter is required"),
        },
        "/exit" => exit(get("code"), get("wait")),
        path => text(404, format!("{path}: not a path of netexec\n")),
    }
}

fn redirect(location: Option<String>, code: Option<String>) -> Response<Body> {
    let code = code.and_then(|code| code.parse().ok()).unwrap_or(302);
    let mut response = text(code, "");
    match location.map(http::HeaderValue::try_from) {
        Some(Ok(location)) => {
            response.headers_mut().insert(header::LOCATION, location);
            response
        }
        _ => text(400, "location parameter is required"),
    }
}

#[derive(Serialize)]
struct ShellReport {
    output: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
}

async fn shell(command: &str) -> Response<Body> {
    let report = match tokio::process::Command::new("sh")
        .arg("-c")
        .arg(command)
        .output()
        .await
    {
        Ok(done) => ShellReport {
            output: String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned(),
            error: if done.status.success() {
                String::new()
            } else {
                done.status.to_string()
            },
        },
        Err(error) => ShellReport {
            output: String::new(),
            error: error.to_string(),
        },
    };
    respond(
        200,
        "application/json",
        serde_json::to_vec(&report).unwrap_or_default(),
    )
}

/// Ends the process, after `wait` if given. The answer may not get out: that is
/// the same in agnhost.
fn exit(code: Option<String>, wait: Option<String>) -> Response<Body> {
    let code = code.and_then(|code| code.parse().ok()).unwrap_or(0);
    let wait = wait
        .and_then(|wait| super::flags::duration(&wait))
        .unwrap_or(Duration::ZERO);
    tokio::spawn(async move {
        // At least long enough for the answer to be written.
        tokio::time::sleep(wait.max(Duration::from_millis(5))).await;
        std::process::exit(code)
    });
    text(200, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams() {
        let client: SocketAddr = "[fd00::1]:7".parse().unwrap();
        let cases = [
            ("hostname\n", Some("pod-a")),
            ("hostName", Some("pod-a")),
            ("clientip", Some("[fd00::1]:7")),
            ("echo a b", Some("a b")),
            ("echo", Some("")),
            ("other", None),
        ];
        for (asked, reply) in cases {
            assert_eq!(
                datagram_reply("pod-a", client, asked).as_deref(),
                reply,
                "{asked:?}"
            );
        }
    }

    #[test]
    fn ports() {
        let parse = |line: &str| {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            NetExec::parse(&words).unwrap()
        };
        assert_eq!(
            parse(""),
            NetExec {
                http: Some(8080),
                udp: Some(8081)
            }
        );
        assert_eq!(
            parse("--http-port=83 --udp-port -1"),
            NetExec {
                http: Some(83),
                udp: None
            }
        );
    }
}
