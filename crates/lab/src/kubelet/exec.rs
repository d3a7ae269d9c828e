//! Further processes in a container that runs: `exec`, probes and hooks.

use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::image::base_name;
use crate::container::SUBCOMMAND;
use crate::container::spec::{ProcessSpec, Run, Surroundings};
use crate::stand_in::{Identity, Role, StandIn};

/// What of a probe's output is kept, as kubelet does.
const MAX_OUTPUT: u64 = 10 * 1024;

/// In a container's directory: the [`ProcessSpec`] of whoever wants to join it.
pub(crate) const ENTER_FILE: &str = "enter.json";

/// The way into a container.
#[derive(Clone, Debug)]
pub(super) struct Enter {
    /// The lab's own executable.
    pub(super) exe: PathBuf,
    /// Where specifications of processes are put.
    pub(super) dir: PathBuf,
    /// Everything but the command.
    pub(super) base: ProcessSpec,
    /// The container takes the place of agnhost: that program is in it.
    agnhost: Option<Identity>,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Done {
    /// 128 and the signal if it was killed.
    pub(super) exit_code: i32,
    /// Both streams.
    pub(super) output: String,
}

impl Enter {
    /// Into a container whose first process is `pid`, started by `spec`.
    pub(super) fn new(exe: &Path, dir: &Path, spec: &ProcessSpec, pid: u32) -> Self {
        let base = ProcessSpec {
            surroundings: Surroundings::Join { pid },
            notify: false,
            run: Run::Program(Vec::new()),
            ..spec.clone()
        };
        let agnhost = match &spec.run {
            Run::StandIn(StandIn {
                identity,
                role: Role::Agnhost { .. },
            }) => Some(identity.clone()),
            _ => None,
        };
        Self {
            exe: exe.to_owned(),
            dir: dir.to_owned(),
            base,
            agnhost,
        }
    }

    /// Leaves the way in where `ripstop lab exec` and `probe` find it.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn publish(&self) -> io::Result<()> {
        std::fs::rename(
            write_spec(&self.dir, &self.base)?,
            self.dir.join(ENTER_FILE),
        )
    }

    /// The command, to be given streams and started once.
    ///
    /// # Errors
    /// If its specification cannot be written.
    pub(super) fn command(&self, words: &[String], terminal: bool) -> io::Result<Command> {
        let mut spec = ProcessSpec {
            terminal,
            run: self.what_runs(words),
            ..self.base.clone()
        };
        if terminal {
            spec.env
                .entry("TERM".to_owned())
                .or_insert_with(|| "xterm".to_owned());
        }
        let mut command = launcher(&self.exe, &write_spec(&self.dir, &spec)?);
        command.kill_on_drop(true);
        Ok(command)
    }

    fn what_runs(&self, words: &[String]) -> Run {
        match (&self.agnhost, words) {
            (Some(identity), [program, args @ ..]) if base_name(program) == "agnhost" => {
                let (identity, args) = (identity.clone(), args.to_vec());
                Run::StandIn(StandIn {
                    identity,
                    role: Role::Agnhost { args },
                })
            }
            _ => Run::Program(words.to_vec()),
        }
    }

    /// Runs it to its end and collects what it says.
    ///
    /// # Errors
    /// If it cannot be started, or does not end within `limit`: then it is killed.
    pub(super) async fn output(&self, words: &[String], limit: Duration) -> io::Result<Done> {
        let mut command = self.command(words, false)?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let run = async {
            let (status, out, err) = tokio::join!(child.wait(), collect(out), collect(err));
            let output = String::from_utf8_lossy(&[out, err].concat()).into_owned();
            Ok(Done {
                exit_code: exit_code(status?),
                output,
            })
        };
        match tokio::time::timeout(limit, run).await {
            Ok(done) => done,
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("command {:?} timed out after {limit:?}", words.join(" ")),
            )),
        }
    }
}

async fn collect(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    if let Some(stream) = stream {
        let mut limited = stream.take(MAX_OUTPUT);
        // What was read before an error is worth having.
        let _ = limited.read_to_end(&mut kept).await;
        let mut rest = limited.into_inner();
        let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
    }
    kept
}

/// The lab's executable as a container's process. Its own environment is empty:
/// variables of the container are not for the loader of this program.
pub(super) fn launcher(exe: &Path, spec: &Path) -> Command {
    let mut command = Command::new(exe);
    command.arg(SUBCOMMAND).arg(spec).env_clear();
    command.envs(crate::rootless::environment());
    command
}

/// Writes a specification to a file of its own, which the process removes.
///
/// # Errors
/// If the file cannot be written.
pub(super) fn write_spec(dir: &Path, spec: &ProcessSpec) -> io::Result<PathBuf> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = dir.join(format!("process-{}-{number}.json", std::process::id()));
    // It may hold secrets.
    let file = std::fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    serde_json::to_writer(io::BufWriter::new(file), spec)?;
    Ok(path)
}

pub(super) fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .or(status.signal().map(|signal| 128 + signal))
        .unwrap_or(255)
}
