//! Commands in containers over a WebSocket: the subprotocols
//! `v5.channel.k8s.io` (kubectl since 1.29) and `v4.channel.k8s.io` (kube-rs).
//!
//! The first byte of each message says what it is about. v5 adds a message that
//! closes a channel, so that a command can see the end of its input.

use std::pin::Pin;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::request::Parts;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::Api;
use super::respond::Response;
use crate::Status;
use crate::pods::{ExecRequest, ExecSession, PodAccess, PodRef};

const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
/// A Status at the end.
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// v5 only; the next byte is the channel that is closed.
const CLOSE: u8 = 255;

/// Bytes of output per message.
const CHUNK: usize = 32 << 10;

type Input = Pin<Box<dyn AsyncWrite + Send>>;
type Output = Pin<Box<dyn AsyncRead + Send>>;

/// Answers with the upgrade; the command starts when the client is there.
pub(super) async fn upgrade(
    api: &Api,
    pod: PodRef,
    request: ExecRequest,
    parts: &mut Parts,
) -> Result<Response, Status> {
    let upgrade = WebSocketUpgrade::from_request_parts(parts, &())
        .await
        .map_err(|error| {
            Status::bad_request(format!("exec needs a WebSocket ({V5} or {V4}): {error}"))
        })?
        .protocols([V5, V4]);
    let Some(protocol) = upgrade.selected_protocol().map(|it| it.as_bytes().to_vec()) else {
        return Err(Status::bad_request(format!(
            "exec speaks the subprotocols {V5} and {V4}"
        )));
    };
    let v5 = protocol == V5.as_bytes();
    let pods = Arc::clone(&api.pods);
    let response = upgrade.on_upgrade(move |socket| run(socket, v5, pods, pod, request));
    Ok(response.map(|body| body.map_err(std::io::Error::other).boxed_unsync()))
}

async fn run(
    socket: WebSocket,
    v5: bool,
    pods: Arc<dyn PodAccess>,
    pod: PodRef,
    request: ExecRequest,
) {
    let (mut sink, stream) = socket.split();
    let status = match pods.exec(pod, request).await {
        Ok(session) => serve(&mut sink, stream, v5, session).await,
        Err(status) => serde_json::to_value(&status).unwrap_or_default(),
    };
    // The client may be gone; then there is nobody to tell.
    let text = status.to_string();
    let _ = sink.send(message(ERROR, text.as_bytes())).await;
    // Without this code clients report a broken connection.
    let close = CloseFrame {
        code: close_code::NORMAL,
        reason: "".into(),
    };
    let _ = sink.send(Message::Close(Some(close))).await;
}

/// Moves bytes until the command has ended and its output is sent. Returns the
/// Status that says how it ended.
async fn serve(
    sink: &mut SplitSink<WebSocket, Message>,
    stream: SplitStream<WebSocket>,
    v5: bool,
    session: ExecSession,
) -> Value {
    let ExecSession {
        stdin,
        stdout,
        stderr,
        resize,
        exit,
    } = session;
    let (sender, mut outgoing) = mpsc::channel::<Message>(16);
    let outputs = futures::future::join(
        pump(STDOUT, stdout, sender.clone()),
        pump(STDERR, stderr, sender.clone()),
    );
    let input = receive(stream, v5, stdin, resize);
    drop(sender);
    let send = async {
        while let Some(message) = outgoing.recv().await {
            if sink.send(message).await.is_err() {
                break;
            }
        }
        // Whatever is still in the channel has nobody to go to.
        outgoing.close();
    };
    let command = async { futures::join!(exit, outputs, send).0 };
    tokio::pin!(command);
    tokio::select! {
        code = &mut command => ended(code),
        () = input => {
            // The client has gone: dropping `exit` ends the command.
            Value::Null
        }
    }
}

/// Output of the command to the client, until it ends.
async fn pump(channel: u8, output: Option<Output>, sender: mpsc::Sender<Message>) {
    let Some(mut output) = output else { return };
    let mut buffer = BytesMut::with_capacity(CHUNK + 1);
    loop {
        buffer.reserve(CHUNK + 1);
        buffer.put_u8(channel);
        match output.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if sender
            .send(Message::Binary(buffer.split().freeze()))
            .await
            .is_err()
        {
            return;
        }
    }
}

/// Input of the client to the command; returns when the client has gone.
async fn receive(
    mut stream: SplitStream<WebSocket>,
    v5: bool,
    mut stdin: Option<Input>,
    resize: Option<mpsc::Sender<(u16, u16)>>,
) {
    while let Some(Ok(message)) = stream.next().await {
        let data: Bytes = match message {
            Message::Binary(data) => data,
            Message::Text(text) => Bytes::from(text),
            Message::Close(_) => return,
            Message::Ping(_) | Message::Pong(_) => continue,
        };
        match data.split_first() {
            Some((&STDIN, input)) => {
                if let Some(open) = &mut stdin {
                    let written = open.write_all(input).await.is_ok() && open.flush().await.is_ok();
                    // A command may close its input and go on.
                    if !written {
                        stdin = None;
                    }
                }
            }
            Some((&RESIZE, size)) => {
                let size: Value = serde_json::from_slice(size).unwrap_or_default();
                let side = |field: &str| size[field].as_u64().and_then(|it| u16::try_from(it).ok());
                if let (Some(resize), Some(columns), Some(rows)) =
                    (&resize, side("Width"), side("Height"))
                {
                    // A full queue means that a newer size follows or nobody reads.
                    let _ = resize.try_send((columns, rows));
                }
            }
            Some((&CLOSE, [STDIN])) if v5 => {
                if let Some(mut open) = stdin.take() {
                    let _ = open.shutdown().await;
                }
            }
            _ => {}
        }
    }
}

fn message(channel: u8, data: &[u8]) -> Message {
    let mut bytes = BytesMut::with_capacity(data.len() + 1);
    bytes.put_u8(channel);
    bytes.put_slice(data);
    Message::Binary(bytes.freeze())
}

/// kubectl takes its own exit code from the cause.
fn ended(code: i32) -> Value {
    if code == 0 {
        return json!({ "metadata": {}, "status": "Success" });
    }
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "reason": "NonZeroExitCode",
        "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
    })
}
