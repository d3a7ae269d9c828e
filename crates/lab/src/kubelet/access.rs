//! What the API server asks of a kubelet: logs, and commands in containers.

use std::pin::Pin;
use std::process::Stdio;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use k8s_openapi::jiff::Timestamp;
use ripstop_apiserver::pods::{ExecRequest, ExecSession, LogOptions, PodAccess, PodRef};
use ripstop_apiserver::{Reason, Status};
use tokio::process::{Child, Command};

use super::exec::{Enter, exit_code};
use super::log::{self, Filter};
use super::registry::Entry;
use super::{Kubelet, tty};

impl PodAccess for Kubelet {
    fn logs(
        &self,
        pod: PodRef,
        options: LogOptions,
    ) -> BoxFuture<'static, Result<BoxStream<'static, Bytes>, Status>> {
        let result = self.read_log(&pod, &options);
        std::future::ready(result).boxed()
    }

    fn exec(
        &self,
        pod: PodRef,
        request: ExecRequest,
    ) -> BoxFuture<'static, Result<ExecSession, Status>> {
        let entered = self
            .entry(&pod, &request.container)
            .and_then(|entry| match entry.running {
                Some((enter, _)) => Ok(enter),
                None => Err(waiting(&pod, &request.container)),
            });
        async move { start(&*entered?, &request) }.boxed()
    }
}

impl Kubelet {
    fn entry(&self, pod: &PodRef, container: &str) -> Result<Entry, Status> {
        let entry = self.context.registry.get(&pod.uid, container);
        entry.ok_or_else(|| waiting(pod, container))
    }

    fn read_log(
        &self,
        pod: &PodRef,
        options: &LogOptions,
    ) -> Result<BoxStream<'static, Bytes>, Status> {
        let entry = self.entry(pod, &options.container)?;
        let (run, follow) = match options.previous {
            true => (entry.run - 1, None),
            false => {
                let running = entry.running.as_ref().filter(|_| options.follow);
                (entry.run, running.map(|(_, log)| log.progress()))
            }
        };
        let filter = Filter {
            tail: options
                .tail_lines
                .map(|lines| usize::try_from(lines).unwrap_or(usize::MAX)),
            since: options
                .since
                .and_then(|second| Timestamp::from_second(second).ok()),
            timestamps: options.timestamps,
            limit: options.limit_bytes,
        };
        log::stream(&entry.dir, run, filter, follow).map_err(|_| {
            Status::new(
                Reason::BadRequest,
                format!(
                    "previous terminated container {:?} in pod {:?} not found",
                    options.container, pod.name
                ),
            )
        })
    }
}

fn waiting(pod: &PodRef, container: &str) -> Status {
    Status::new(
        Reason::BadRequest,
        format!(
            "container {container:?} in pod {:?} is waiting to start or has ended",
            pod.name
        ),
    )
}

fn start(enter: &Enter, request: &ExecRequest) -> Result<ExecSession, Status> {
    let failed = |error: std::io::Error| Status::internal(error);
    let command = enter
        .command(&request.command, request.tty)
        .map_err(failed)?;
    match request.tty {
        true => tty::start(command, request).map_err(failed),
        false => start_with_pipes(command, request).map_err(failed),
    }
}

fn start_with_pipes(mut command: Command, request: &ExecRequest) -> std::io::Result<ExecSession> {
    let stream = |wanted: bool| {
        if wanted {
            Stdio::piped()
        } else {
            Stdio::null()
        }
    };
    command
        .stdin(stream(request.stdin))
        .stdout(stream(request.stdout))
        .stderr(stream(request.stderr));
    let mut child = command.spawn()?;
    Ok(ExecSession {
        stdin: child
            .stdin
            .take()
            .map(|stream| Box::pin(stream) as Pin<Box<_>>),
        stdout: child
            .stdout
            .take()
            .map(|stream| Box::pin(stream) as Pin<Box<_>>),
        stderr: child
            .stderr
            .take()
            .map(|stream| Box::pin(stream) as Pin<Box<_>>),
        resize: None,
        exit: exit(child),
    })
}

/// The end of the command, which this future's end is too.
pub(super) fn exit(mut child: Child) -> BoxFuture<'static, i32> {
    async move { child.wait().await.map_or(255, exit_code) }.boxed()
}
