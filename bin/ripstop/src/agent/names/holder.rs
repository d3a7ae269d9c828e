//! Who keeps the DNS sockets while no agent runs.
//!
//! The agent starts a process that does nothing but hold the sockets, and hands
//! them to the agent that comes next. Also when an agent is killed, questions
//! thus wait in the sockets, where its successor finds them, instead of being
//! refused. The holder ends when no agent has come for a while: then nobody will
//! answer, and asking elsewhere is better than waiting.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use ripstop_dns::Sockets;
use ripstop_host::handover::{receive_files, send_files};
use ripstop_host::privileges::{Id, become_powerless};
use tracing::{info, warn};

use crate::agent::Args;
use crate::agent::DNS_PORT;

/// First argument of a holder's command line.
pub(crate) const SUBCOMMAND: &str = "socket-holder";
/// How long sockets are kept for nobody. Resolvers wait 5 s and ask twice.
const PATIENCE: Duration = Duration::from_secs(30);
/// A holder does nothing that takes time.
const TIMEOUT: Duration = Duration::from_secs(2);
const GIVE: &[u8] = b"g";
const END: &[u8] = b"e";

/// The sockets, and the connection that tells the holder that we are there.
pub(crate) struct Held {
    pub(super) sockets: Sockets,
    pub(super) connection: Option<UnixStream>,
}

/// Sockets at the cluster DNS addresses: those that a holder has, or new ones.
///
/// # Errors
/// If somebody else serves an address.
pub(crate) fn sockets(args: &Args) -> Result<Held> {
    let path = socket(&args.run_dir);
    if let Some(held) = take_over(&path, args) {
        info!("the DNS sockets of the agent before this one are taken over");
        return Ok(held);
    }
    let sockets = Sockets::bind(&args.cluster_dns, DNS_PORT)?;
    // Without a holder a killed agent loses the questions of a moment.
    let connection = start(&path, args, &sockets)
        .inspect_err(|error| warn!("nobody keeps the DNS sockets over a restart: {error:#}"))
        .ok();
    Ok(Held {
        sockets,
        connection,
    })
}

fn take_over(path: &Path, args: &Args) -> Option<Held> {
    let mut connection = connect(path, GIVE).ok()?;
    let files = receive_files(&connection).ok()?;
    match Sockets::from_files(files, &args.cluster_dns, DNS_PORT) {
        Some(sockets) => Some(Held {
            sockets,
            connection: Some(connection),
        }),
        None => {
            // Of other addresses: the flags have changed.
            drop(connect(path, END).and_then(|mut ending| ending.read(&mut [0])));
            let _ = connection.read(&mut [0]);
            None
        }
    }
}

/// Ends the holder that an agent has left, if there is one, and removes its socket,
/// which it may not do itself.
///
/// # Errors
/// If it does not listen.
pub(crate) fn end_holder(run_dir: &Path) -> Result<()> {
    let path = socket(run_dir);
    match connect(&path, END) {
        // It says nothing; its end closes the connection.
        Ok(mut ending) => drop(ending.read(&mut [0])),
        Err(error) if is_nobody(&error) => {}
        Err(error) => return Err(error).context(path.display().to_string()),
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).context(path.display().to_string())
        }
        _ => Ok(()),
    }
}

fn is_nobody(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, NotFound};
    matches!(error.kind(), NotFound | ConnectionRefused)
}

/// The control group of the holder.
pub(crate) fn holder_group(cgroup_root: &Path) -> PathBuf {
    cgroup_root.join("ripstop-sockets")
}

fn socket(run_dir: &Path) -> PathBuf {
    run_dir.join("dns.sock")
}

fn connect(path: &Path, word: &[u8]) -> io::Result<UnixStream> {
    let mut connection = UnixStream::connect(path)?;
    connection.set_read_timeout(Some(TIMEOUT))?;
    connection.write_all(word)?;
    Ok(connection)
}

fn start(path: &Path, args: &Args, sockets: &Sockets) -> Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair().context("socket pair")?;
    ours.set_read_timeout(Some(TIMEOUT))?;
    let exe = std::env::current_exe().context("path of this program")?;
    Command::new(exe)
        .arg(SUBCOMMAND)
        .args([path, &args.cgroup_root])
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // A signal to the agent's group is not for it.
        .process_group(0)
        .spawn()
        .context("start the holder")?;
    send_files(&ours, &sockets.files()).context("sockets to the holder")?;
    // It answers when it can be asked for them.
    (&ours)
        .read_exact(&mut [0])
        .context("the holder's answer")?;
    connect(path, GIVE).context("connect to the holder")
}

/// The holder: `ripstop socket-holder SOCKET CGROUP`, sockets through standard
/// input.
pub(crate) fn main(mut args: impl Iterator<Item = String>) -> ExitCode {
    match (args.next(), args.next()) {
        (Some(path), Some(cgroup)) => match hold(Path::new(&path), Path::new(&cgroup)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        _ => ExitCode::FAILURE,
    }
}

fn hold(path: &Path, cgroup: &Path) -> io::Result<()> {
    let mut agent = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let files = Arc::new(receive_files(&agent)?);
    // Who ends the agent ends its control group as a rule: not ours.
    leave_container();
    let group = holder_group(cgroup);
    let _ = fs::create_dir(&group);
    let _ = fs::write(group.join("cgroup.procs"), "0");
    let new = path.with_extension("sock.new");
    let _ = fs::remove_file(&new);
    let listener = UnixListener::bind(&new)?;
    fs::rename(&new, path)?;
    // From here on it needs nothing but what it has open.
    become_powerless(Id::Nobody)?;
    let agents = Arc::new(AtomicUsize::new(0));
    agent.write_all(b".")?;
    watch(&agents);
    for connection in listener.incoming() {
        let mut connection = connection?;
        let (files, agents) = (Arc::clone(&files), Arc::clone(&agents));
        std::thread::spawn(move || {
            let mut word = [0];
            if connection.read_exact(&mut word).is_err() {
                return;
            }
            if word == *END {
                std::process::exit(0);
            }
            agents.fetch_add(1, Ordering::Relaxed);
            let borrowed: Vec<_> = files.iter().map(AsFd::as_fd).collect();
            if send_files(&connection, &borrowed).is_ok() {
                // Until the agent ends.
                let _ = connection.read(&mut word);
            }
            agents.fetch_sub(1, Ordering::Relaxed);
        });
    }
    Ok(())
}

/// Ends the holder when no agent was there for a while.
fn watch(agents: &Arc<AtomicUsize>) {
    let agents = Arc::clone(agents);
    std::thread::spawn(move || {
        let step = Duration::from_secs(1);
        let mut alone = Duration::ZERO;
        while alone < PATIENCE {
            std::thread::sleep(step);
            alone = match agents.load(Ordering::Relaxed) {
                0 => alone + step,
                _ => Duration::ZERO,
            };
        }
        // The socket stays; who finds nobody there makes a new one.
        std::process::exit(0);
    });
}

/// Groups are the machine's again, for a container that has been given a part of
/// them as if it were all: no process can be moved out of that. A container that
/// has its own numbers of processes stays where it is.
fn leave_container() {
    let groups = File::open("/proc/1/ns/cgroup");
    let _ = groups.map(|groups| setns(groups, CloneFlags::CLONE_NEWCGROUP));
}
