//! How a lab begins: a lock, a record, a control group, and a daemon that makes
//! the rest.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::record::{Lock, Record, RecordError, State, state};
use super::teardown::{Keep, Removed, TeardownError, namespaces, tear_down};
use super::{Preflight, Problem};
use crate::cgroup;
use crate::daemon;
use crate::daemon::report::{self, Report};
use crate::paths::LabPaths;
use crate::plan::LabOptions;

/// Why a lab did not start. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "lab {name:?} is running; see it: ripstop lab status --name {name}; \
         end it: ripstop lab down --name {name}; or take another --name"
    )]
    Running { name: String },
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Leftovers(TeardownError),
    #[error(transparent)]
    Machine(Problem),
    #[error("{message} (log: {log})")]
    Daemon { message: String, log: String },
}

impl StartError {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// What there is under a lab's name before it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Nothing,
    /// Objects of a lab whose processes ended.
    Objects,
}

/// A lab whose API answers; its agents are on their way.
#[derive(Debug)]
pub struct Started {
    pub url: String,
    /// What an earlier lab of this name had left, other than its objects.
    pub removed: Removed,
}

/// Whether a lab of this name can start, without making anything.
///
/// # Errors
/// [`StartError::Running`], or if that cannot be told.
pub fn look(paths: &LabPaths) -> Result<Found, StartError> {
    match state(paths).map_err(StartError::io(paths.lock().display().to_string()))? {
        State::Running => Err(StartError::Running {
            name: paths.name().to_owned(),
        }),
        State::Dead if paths.journal().exists() => Ok(Found::Objects),
        State::Dead | State::Absent => Ok(Found::Nothing),
    }
}

/// Starts the daemon and waits until its API answers. What an earlier lab of
/// this name left is removed before, but for its objects.
///
/// # Errors
/// The lab is torn down again before one is returned, but for
/// [`StartError::Running`], which is somebody else's.
pub fn start(options: &LabOptions, machine: &Preflight) -> Result<Started, StartError> {
    let paths = LabPaths::new(&options.name);
    let Some(lock) =
        Lock::take(&paths).map_err(StartError::io(paths.root().display().to_string()))?
    else {
        return Err(StartError::Running {
            name: options.name.clone(),
        });
    };
    // The objects of an earlier lab outlive also a start that fails.
    let keep = match paths.journal().exists() {
        true => Keep::Objects,
        false => Keep::Nothing,
    };
    let result = start_locked(options, machine, &paths, &lock);
    if result.is_err() {
        // The log is what explains it; the error has its last words.
        let _ = tear_down(&paths, keep);
    }
    result
}

fn start_locked(
    options: &LabOptions,
    machine: &Preflight,
    paths: &LabPaths,
    lock: &Lock,
) -> Result<Started, StartError> {
    let earlier = Record::read(paths).ok();
    let cgroup = machine.cgroups.join(paths.cgroup());
    let removed = match cgroup.exists() || !namespaces(paths).is_empty() || earlier.is_some() {
        true => tear_down(paths, Keep::Objects)
            .map_err(|mut errors| StartError::Leftovers(errors.remove(0)))?,
        false => Removed::default(),
    };
    let record = Record {
        options: options.clone(),
        pid: 0,
        url: earlier.map(|record| record.url).unwrap_or_default(),
        started: String::new(),
    };
    record.write(paths)?;
    let group = cgroup.join("daemon");
    fs::create_dir_all(&group).map_err(StartError::io(group.display().to_string()))?;

    let mut child = spawn(paths, &group, lock)?;
    let stdout = child.stdout.take();
    let mut reports = BufReader::new(stdout.ok_or_else(|| StartError::Io {
        what: "the daemon's reports".to_owned(),
        source: io::ErrorKind::BrokenPipe.into(),
    })?);
    match report::read(&mut reports) {
        Some(Report::Serving(url)) => Ok(Started { url, removed }),
        report => Err(daemon_failed(report, &paths.daemon_log())),
    }
}

fn spawn(paths: &LabPaths, group: &Path, lock: &Lock) -> Result<Child, StartError> {
    let exe = std::env::current_exe().map_err(StartError::io("this program"))?;
    let log_path = paths.daemon_log();
    let log = File::create(&log_path).map_err(StartError::io(log_path.display().to_string()))?;
    let procs = cgroup::procs(group).map_err(StartError::io(group.display().to_string()))?;
    let lock = lock.share().map_err(StartError::io("the lab's lock"))?;
    let mut command = Command::new(&exe);
    command
        .args(["lab", daemon::SUBCOMMAND, "--name", paths.name()])
        .current_dir("/")
        .stdin(Stdio::from(lock))
        .stdout(Stdio::piped())
        .stderr(log);
    let detach = move || {
        // "0" is whoever writes it (cgroup-v2.rst).
        nix::unistd::write(procs.as_fd(), b"0")?;
        // Signals of the terminal are for `up` alone.
        nix::unistd::setsid()?;
        Ok(())
    };
    // SAFETY: the closure makes two system calls, one on a file that is open
    // already; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(detach) };
    let child = command
        .spawn()
        .map_err(StartError::io(exe.display().to_string()))?;
    cgroup::add(group, child.id()).map_err(StartError::io(group.display().to_string()))?;
    Ok(child)
}

/// What it said, or else the end of its log.
fn daemon_failed(report: Option<Report>, log: &Path) -> StartError {
    let message = match report {
        Some(Report::Failed(message)) => message,
        _ => {
            let text = fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<_> = text.lines().rev().take(5).collect();
            let last: Vec<_> = lines.into_iter().rev().collect();
            match last.is_empty() {
                true => "the lab's daemon ended without a word".to_owned(),
                false => format!("the lab's daemon ended: {}", last.join("\n")),
            }
        }
    };
    StartError::Daemon {
        message,
        log: log.display().to_string(),
    }
}
