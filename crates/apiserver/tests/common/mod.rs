//! A server on a free port of the loopback interface, and kubectl against it.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use ripstop_apiserver::pki::Pki;
use ripstop_apiserver::pods::{ExecRequest, ExecSession, LogOptions, PodAccess, PodRef};
use ripstop_apiserver::{Client, Reason, Status, Store, serve};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::task::JoinHandle;

pub(crate) struct Server {
    dir: tempfile::TempDir,
    pub(crate) url: String,
    pub(crate) pki: Pki,
    pub(crate) client: Client,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a kubectl did.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// The output of a kubectl that must have succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self.stdout
    }

    /// The errors of a kubectl that must have failed.
    #[track_caller]
    pub(crate) fn failed(self) -> String {
        assert_ne!(self.code, Some(0), "{self:#?}");
        self.stderr
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let pki = Pki::open(&dir.path().join("pki"), &["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(dir.path().join("kubeconfig"), pki.kubeconfig("test", &url)).unwrap();
        let client = Store::open(None).unwrap().client();
        let server = serve(
            client.clone(),
            vec![listener],
            pki.tls().unwrap(),
            Arc::new(Host),
        );
        let task = tokio::spawn(async move { server.await.unwrap() });
        Self {
            dir,
            url,
            pki,
            client,
            task,
        }
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// A kubectl with a home of its own.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .args(args)
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.dir.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    pub(crate) async fn kubectl(&self, args: &[&str]) -> Outcome {
        self.kubectl_with(args, "").await
    }

    /// With something on its standard input.
    pub(crate) async fn kubectl_with(&self, args: &[&str], input: &str) -> Outcome {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // It may end without reading everything.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        Outcome {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Applies manifests, which must succeed.
    pub(crate) async fn apply(&self, manifests: &str) -> String {
        let outcome = self.kubectl_with(&["apply", "-f", "-"], manifests).await;
        outcome.ok()
    }
}

/// Says why a test cannot run.
pub(crate) fn without_kubectl() -> bool {
    let found = std::process::Command::new("kubectl")
        .args(["version", "--client"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !found {
        println!("skipped: there is no kubectl on this machine");
    }
    !found
}

/// Pods whose containers are the machine itself.
struct Host;

impl PodAccess for Host {
    fn logs(
        &self,
        pod: PodRef,
        options: LogOptions,
    ) -> BoxFuture<'static, Result<BoxStream<'static, Bytes>, Status>> {
        let lines = [
            format!("pod {}, container {}\n", pod.name, options.container),
            format!("tail {:?}, follow {}\n", options.tail_lines, options.follow),
        ];
        let lines = stream::iter(lines.map(Bytes::from)).boxed();
        Box::pin(std::future::ready(Ok(lines)))
    }

    fn exec(
        &self,
        _pod: PodRef,
        request: ExecRequest,
    ) -> BoxFuture<'static, Result<ExecSession, Status>> {
        Box::pin(async move {
            let pipe = |wanted| {
                if wanted {
                    Stdio::piped()
                } else {
                    Stdio::null()
                }
            };
            let mut child = Command::new(&request.command[0])
                .args(&request.command[1..])
                .stdin(pipe(request.stdin))
                .stdout(pipe(request.stdout))
                .stderr(pipe(request.stderr))
                .kill_on_drop(true)
                .spawn()
                .map_err(|error| Status::new(Reason::InternalError, error.to_string()))?;
            Ok(ExecSession {
                stdin: child.stdin.take().map(|it| Box::pin(it) as _),
                stdout: child.stdout.take().map(|it| Box::pin(it) as _),
                stderr: child.stderr.take().map(|it| Box::pin(it) as _),
                resize: None,
                exit: Box::pin(async move { child.wait().await.unwrap().code().unwrap_or(255) }),
            })
        })
    }
}
