//! What happens in a container's own process, before and as it runs.
//!
//! The node loop starts the lab's own executable again for every container and
//! every `exec`; this module is that process's main function. It enters the
//! pod's namespaces, makes the container's root and becomes the program. In a
//! fresh process of one thread that is ordinary code, which may allocate and
//! report errors; after a fork of the lab's many threads it could not.

mod dev;
pub mod notify;
mod root;
pub mod spec;
mod supervise;

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid, setsid};

use crate::rootless;
use notify::Notifier;
use spec::{ProcessSpec, Run, Surroundings, User};
use supervise::{Leash, Side, split};

/// First argument of the executable that makes it call [`main`].
pub const SUBCOMMAND: &str = "lab-container";

/// Exit status of a container that could not be started, as containerd gives it.
pub const EXIT_NOT_STARTED: u8 = 128;

/// Why a container's process could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("reading process specification {path}: {source}")]
    Spec { path: PathBuf, source: io::Error },
    #[error("joining cgroup {path}: {source}")]
    Cgroup { path: PathBuf, source: io::Error },
    #[error("entering {what} namespace {path}: {source}")]
    Namespace {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("making the container's root: {step}: {source}")]
    Root { step: String, source: io::Error },
    #[error("error mounting {source_path} to {target}: {source}")]
    Mount {
        source_path: PathBuf,
        target: PathBuf,
        source: io::Error,
    },
    #[error("host name {name:?}: {source}")]
    Hostname { name: String, source: io::Error },
    #[error("standard input: {0}")]
    Input(io::Error),
    #[error("making the container's process: {0}")]
    Fork(nix::Error),
    #[error("becoming user {uid}, group {gid}: {source}")]
    User {
        uid: u32,
        gid: u32,
        source: io::Error,
    },
    #[error("working directory {path}: {source}")]
    WorkingDir { path: PathBuf, source: io::Error },
    // The words of runc, which people search for.
    #[error("unable to start container process: exec: {program:?}: {reason}")]
    Exec { program: String, reason: String },
}

/// Becomes what the file named by the first argument says. Returns when that
/// ended, or could not begin.
pub fn main(args: impl IntoIterator<Item = String>) -> ExitCode {
    let Some(path) = args.into_iter().next() else {
        eprintln!("{SUBCOMMAND}: started by the lab for each container, not by hand");
        return ExitCode::from(2);
    };
    let spec = match read_spec(Path::new(&path)) {
        Ok(spec) => spec,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(EXIT_NOT_STARTED);
        }
    };
    let notifier = match spec.notify.then(Notifier::from_stdin).transpose() {
        Ok(notifier) => notifier.unwrap_or_else(Notifier::none),
        Err(error) => {
            eprintln!("{}", SetupError::Input(error));
            return ExitCode::from(EXIT_NOT_STARTED);
        }
    };
    run(&spec, notifier, |spec, leash, notifier| {
        // A session of its own: signals of the lab's terminal are not for it. It
        // is no group leader, so this cannot fail.
        let _ = setsid();
        inside(spec, leash, notifier)
    })
}

/// Runs the command of `spec` in its container with the caller's own terminal
/// or streams; gives the command's exit code. The caller has one thread.
pub fn exec(spec: &ProcessSpec) -> ExitCode {
    run(spec, Notifier::none(), inside)
}

/// Runs `work` in the namespaces of a container; gives its exit code. The caller
/// has one thread.
pub fn visit(spec: &ProcessSpec, work: impl FnOnce() -> ExitCode) -> ExitCode {
    run(
        spec,
        Notifier::none(),
        |spec, leash, notifier| match set_up(spec, leash) {
            Ok(()) => work(),
            Err(error) => {
                notifier.failed(&error);
                ExitCode::from(EXIT_NOT_STARTED)
            }
        },
    )
}

/// Splits in two; `inside` is what the container's process does.
fn run(
    spec: &ProcessSpec,
    mut notifier: Notifier,
    inside: impl FnOnce(&ProcessSpec, Leash, Notifier) -> ExitCode,
) -> ExitCode {
    match before_split(spec).and_then(|()| split().map_err(SetupError::Fork)) {
        Ok(Side::Parent(supervisor)) => {
            notifier.pid(supervisor.child().as_raw());
            drop(notifier);
            supervisor.wait().into()
        }
        Ok(Side::Child(leash)) => inside(spec, leash, notifier),
        Err(error) => {
            notifier.failed(&error);
            ExitCode::from(EXIT_NOT_STARTED)
        }
    }
}

/// The container's process.
fn inside(spec: &ProcessSpec, leash: Leash, notifier: Notifier) -> ExitCode {
    if let Err(error) = set_up(spec, leash) {
        notifier.failed(&error);
        return ExitCode::from(EXIT_NOT_STARTED);
    }
    match &spec.run {
        Run::StandIn(stand_in) => crate::stand_in::main(stand_in, &spec.env, notifier),
        Run::Program(words) => {
            notifier.failed(&execute(words, spec));
            ExitCode::from(EXIT_NOT_STARTED)
        }
    }
}

/// Reads the specification and removes it: it is for one process, once.
fn read_spec(path: &Path) -> Result<ProcessSpec, SetupError> {
    let failed = |source| SetupError::Spec {
        path: path.to_owned(),
        source,
    };
    let bytes = std::fs::read(path).map_err(failed)?;
    std::fs::remove_file(path).map_err(failed)?;
    serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))
}

/// What the container's process inherits.
fn before_split(spec: &ProcessSpec) -> Result<(), SetupError> {
    if let Some(cgroup) = &spec.cgroup {
        let failed = |source| SetupError::Cgroup {
            path: cgroup.clone(),
            source,
        };
        crate::cgroup::join(cgroup).map_err(failed)?;
    }
    match &spec.surroundings {
        Surroundings::New(_) => unshare(CloneFlags::CLONE_NEWPID).map_err(SetupError::Fork),
        Surroundings::Join { pid } => {
            enter("process", &namespace(*pid, "pid"), CloneFlags::CLONE_NEWPID)
        }
    }
}

/// Everything between the start of the process and its program.
fn set_up(spec: &ProcessSpec, leash: Leash) -> Result<(), SetupError> {
    if spec.terminal {
        take_terminal().map_err(SetupError::Input)?;
    }
    enter("network", &spec.netns, CloneFlags::CLONE_NEWNET)?;
    match &spec.surroundings {
        Surroundings::New(new) => root::enter(new)?,
        Surroundings::Join { pid } => {
            enter(
                "host name",
                &namespace(*pid, "uts"),
                CloneFlags::CLONE_NEWUTS,
            )?;
            enter("mount", &namespace(*pid, "mnt"), CloneFlags::CLONE_NEWNS)?;
        }
    }
    let dir = spec.working_dir.as_deref().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(dir)
        .and_then(|()| std::env::set_current_dir(dir))
        .map_err(|source| SetupError::WorkingDir {
            path: dir.to_owned(),
            source,
        })?;
    // In a user namespace there is nobody else.
    let alone = |user: &&User| rootless::is_inside() && user.uid == 0 && user.gid == 0;
    if let Some(user) = spec.user.as_ref().filter(|user| !alone(user)) {
        become_user(user).map_err(|source| SetupError::User {
            uid: user.uid,
            gid: user.gid,
            source: source.into(),
        })?;
    }
    leash.die_with_parent().map_err(SetupError::Fork)
}

/// Path of a namespace of the process `pid`.
fn namespace(pid: u32, kind: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/{kind}"))
}

fn enter(what: &'static str, path: &Path, kind: CloneFlags) -> Result<(), SetupError> {
    File::open(path)
        .and_then(|file| Ok(setns(file, kind)?))
        .map_err(|source| SetupError::Namespace {
            what,
            path: path.to_owned(),
            source,
        })
}

/// A session leader without a terminal gets the first one that it opens.
fn take_terminal() -> io::Result<()> {
    File::options()
        .read(true)
        .write(true)
        .open("/proc/self/fd/0")
        .map(drop)
}

fn become_user(user: &User) -> nix::Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups)?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)
}

/// Executes the program; what is returned is why it could not be.
fn execute(words: &[String], spec: &ProcessSpec) -> SetupError {
    let Some((program, args)) = words.split_first() else {
        return SetupError::Exec {
            program: String::new(),
            reason: "no command".to_owned(),
        };
    };
    let error = Command::new(program)
        .args(args)
        .env_clear()
        .envs(&spec.env)
        .exec();
    let reason = match error.kind() {
        io::ErrorKind::NotFound if !program.contains('/') => {
            "executable file not found in $PATH".to_owned()
        }
        io::ErrorKind::NotFound => format!("stat {program}: no such file or directory"),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    };
    SetupError::Exec {
        program: program.clone(),
        reason,
    }
}
