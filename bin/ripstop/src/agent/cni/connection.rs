//! One request per connection: a JSON line each way, and after ADD the
//! plugin's word that the runtime has the result.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use ripstop_cni_types::wire::{ACK, Reply, Request};
use ripstop_cni_types::{Code, Error, Version};
use ripstop_host::records::Record;
use serde_json::Value;

use super::CniServer;
use super::attachments::key_of;
use super::call::{self, Call};

/// A configuration with many port mappings has some kilobytes.
const MAX_REQUEST: u64 = 1 << 20;
/// The plugin has its request ready when it connects, and prints at once.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Bound under another name until its mode is right, so that nobody else can
    // connect and nobody finds it before it listens.
    let unfinished = path.with_extension("sock.new");
    let _ = fs::remove_file(&unfinished);
    let listener = UnixListener::bind(&unfinished)?;
    fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o600))?;
    fs::rename(&unfinished, path)?;
    Ok(listener)
}

pub(super) fn serve(server: &Arc<CniServer>, listener: &UnixListener) -> ! {
    loop {
        if let Err(error) = accept(server, listener) {
            // No descriptors, no threads: others end soon and free some.
            tracing::warn!(%error, "CNI connection refused");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn accept(server: &Arc<CniServer>, listener: &UnixListener) -> io::Result<()> {
    let (stream, _) = listener.accept()?;
    let server = Arc::clone(server);
    std::thread::Builder::new()
        .name("cni-request".to_owned())
        .spawn(move || {
            if let Err(error) = server.answer(&stream) {
                tracing::debug!(%error, "CNI connection ended");
            }
        })?;
    Ok(())
}

/// Whether who connected is root, or whoever the agent is: also where somebody has
/// opened the folder of the sockets to others.
///
/// # Errors
/// If not.
pub(crate) fn check_peer(stream: &UnixStream) -> io::Result<()> {
    let uid = getsockopt(stream, PeerCredentials)?.uid();
    if uid != 0 && uid != nix::unistd::geteuid().as_raw() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("user {uid} may not ask the agent"),
        ));
    }
    Ok(())
}

impl CniServer {
    fn answer(&self, stream: &UnixStream) -> io::Result<()> {
        check_peer(stream)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut line = Vec::new();
        BufReader::new(stream.take(MAX_REQUEST)).read_until(b'\n', &mut line)?;
        let request: Request = match serde_json::from_slice(&line) {
            Ok(request) => request,
            Err(error) => {
                let error = Error::new(Code::Decode, format!("request to the agent: {error}"));
                return reply(stream, Err(error), Version::NEWEST.as_str());
            }
        };
        let asked = request.config.get("cniVersion").and_then(Value::as_str);
        let version = asked.unwrap_or(Version::NEWEST.as_str());
        if request.command == "ADD" {
            return self.answer_add(stream, &request, version);
        }
        reply(stream, self.dispatch(&request), version)
    }

    fn dispatch(&self, request: &Request) -> Result<Value, Error> {
        match request.command.as_str() {
            "DEL" => self.del(&Call::read(request)?.key)?,
            "CHECK" => self.check(&Call::read(request)?, &request.config)?,
            "GC" => self.gc(&call::config(request)?)?,
            // Who gets here can have a pod attached.
            "STATUS" => drop(call::config(request)?),
            other => {
                return Err(Error::new(
                    Code::InvalidEnvironment,
                    format!("CNI_COMMAND {other:?} is not ADD, DEL, CHECK, STATUS, GC or VERSION"),
                ));
            }
        }
        Ok(Value::Null)
    }

    /// The container stays locked until the runtime has the result, so that a
    /// DEL that follows a killed ADD finds all of it or nothing.
    fn answer_add(&self, stream: &UnixStream, request: &Request, version: &str) -> io::Result<()> {
        let call = match Call::read(request) {
            Ok(call) => call,
            Err(error) => return reply(stream, Err(error), version),
        };
        let _busy = self.attachments.lock(&call.key.container_id);
        let record = match self.add(&call) {
            Ok((record, result)) => {
                let result = result.to_json(call.config.version);
                match reply(stream, Ok(result), version).and_then(|()| acknowledged(stream)) {
                    Ok(()) => return Ok(()),
                    Err(error) => {
                        tracing::info!(container = call.key.container_id, %error,
                            "undoing an ADD whose plugin went away");
                        record
                    }
                }
            }
            Err(error) => {
                tracing::warn!(container = call.key.container_id, %error, "ADD failed");
                return reply(stream, Err(error), version);
            }
        };
        self.undo(record);
        Ok(())
    }

    fn undo(&self, record: Record) {
        let key = key_of(&record);
        if let Err(error) = self.detach(record) {
            tracing::warn!(container = key.container_id, %error, "undoing ADD");
        }
    }
}

fn reply(mut stream: &UnixStream, result: Result<Value, Error>, version: &str) -> io::Result<()> {
    let reply = match result {
        Ok(value) => Reply::Result(value),
        Err(error) => Reply::Error(error.to_json(version)),
    };
    let mut line = serde_json::to_vec(&reply)?;
    line.push(b'\n');
    stream.write_all(&line)
}

fn acknowledged(mut stream: &UnixStream) -> io::Result<()> {
    let mut word = [0; ACK.len()];
    stream.read_exact(&mut word)?;
    if word == ACK {
        Ok(())
    } else {
        Err(io::Error::other("not an acknowledgement"))
    }
}
