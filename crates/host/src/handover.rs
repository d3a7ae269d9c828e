//! Open files handed from one process to another.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// Files in one message at most.
const FILES: usize = 16;

/// Sends files, with a byte that carries them.
///
/// # Errors
/// If the other side is gone, or there are more than 16.
pub fn send_files(stream: &UnixStream, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    if files.len() > FILES {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let raw: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let data = [IoSlice::new(b"f")];
    sendmsg::<()>(stream.as_raw_fd(), &data, &rights, MsgFlags::empty(), None)?;
    Ok(())
}

/// Takes what [`send_files`] sent. Nobody else in this process has these files,
/// and programs that it starts do not get them.
///
/// # Errors
/// If the other side is gone, or sent something else.
pub fn receive_files(stream: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut space = cmsg_space!([RawFd; FILES]);
    let mut byte = [0];
    let mut data = [IoSliceMut::new(&mut byte)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut data, Some(&mut space), flags)?;
    if message.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut files = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = part {
            // SAFETY: the kernel has just opened these descriptors for this
            // process, and they are taken from the message once.
            files.extend(
                raw.into_iter()
                    .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
            );
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_waits_in_a_socket_is_there_for_the_next_who_has_it() {
        let (here, there) = UnixStream::pair().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        send_files(&here, &[socket.as_fd()]).unwrap();
        drop(socket);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"question", address).unwrap();
        let mut files = receive_files(&there).unwrap();
        assert_eq!(files.len(), 1);
        let socket = UdpSocket::from(files.remove(0));
        let mut data = [0; 16];
        assert_eq!(socket.recv(&mut data).unwrap(), 8);
        drop(here);
        assert!(receive_files(&there).is_err());
    }
}
