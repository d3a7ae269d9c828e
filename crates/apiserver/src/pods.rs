//! What the API server asks of whoever runs the pods: their logs, and commands
//! inside them. In a real cluster this is the kubelet's own server.

use std::fmt;
use std::pin::Pin;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use crate::Status;

/// A pod that exists in the API and is bound to a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodRef {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// Query parameters of `pods/<name>/log`. The container exists in the pod's spec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    pub container: String,
    /// Go on with what the container writes from now.
    pub follow: bool,
    /// Only this many lines from the end.
    pub tail_lines: Option<u64>,
    /// Of the container's previous run.
    pub previous: bool,
    /// Only what was written after this time (seconds since the epoch).
    pub since: Option<i64>,
    /// Each line after its time (RFC 3339).
    pub timestamps: bool,
    pub limit_bytes: Option<u64>,
}

/// Query parameters of `pods/<name>/exec`. The container exists in the pod's spec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecRequest {
    pub container: String,
    pub command: Vec<String>,
    pub stdin: bool,
    pub stdout: bool,
    /// Never together with `tty`.
    pub stderr: bool,
    pub tty: bool,
}

/// A started command. Streams that were not asked for are none.
pub struct ExecSession {
    /// Dropped when the client has no more input.
    pub stdin: Option<Pin<Box<dyn AsyncWrite + Send>>>,
    pub stdout: Option<Pin<Box<dyn AsyncRead + Send>>>,
    pub stderr: Option<Pin<Box<dyn AsyncRead + Send>>>,
    /// Terminal sizes: columns, rows.
    pub resize: Option<mpsc::Sender<(u16, u16)>>,
    /// The exit code; 128 + n when a signal n ended the command.
    /// Dropping it before it is ready ends the command.
    pub exit: BoxFuture<'static, i32>,
}

impl fmt::Debug for ExecSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecSession")
            .field("stdin", &self.stdin.is_some())
            .field("stdout", &self.stdout.is_some())
            .field("stderr", &self.stderr.is_some())
            .finish_non_exhaustive()
    }
}

/// Implemented by the node loop.
pub trait PodAccess: Send + Sync {
    /// The log of one container. The stream ends with the log, or with the
    /// container when following.
    fn logs(
        &self,
        pod: PodRef,
        options: LogOptions,
    ) -> BoxFuture<'static, Result<BoxStream<'static, Bytes>, Status>>;

    /// Starts a command in a running container.
    fn exec(
        &self,
        pod: PodRef,
        request: ExecRequest,
    ) -> BoxFuture<'static, Result<ExecSession, Status>>;
}

/// For a server without nodes: every request is refused.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPods;

impl PodAccess for NoPods {
    fn logs(
        &self,
        pod: PodRef,
        _options: LogOptions,
    ) -> BoxFuture<'static, Result<BoxStream<'static, Bytes>, Status>> {
        Box::pin(std::future::ready(Err(nobody(&pod))))
    }

    fn exec(
        &self,
        pod: PodRef,
        _request: ExecRequest,
    ) -> BoxFuture<'static, Result<ExecSession, Status>> {
        Box::pin(std::future::ready(Err(nobody(&pod))))
    }
}

fn nobody(pod: &PodRef) -> Status {
    Status::new(
        crate::Reason::ServiceUnavailable,
        format!("no node runs pod {}/{}", pod.namespace, pod.name),
    )
}
