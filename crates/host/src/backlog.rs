//! How much waits in a socket.

use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

/// Bytes that wait to be received, as the kernel accounts them (with what it
/// needs for each packet), and the most that may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    pub waiting: usize,
    pub limit: usize,
}

/// Reads `SO_MEMINFO` (socket(7), Linux 4.12). `None` if the kernel has no such
/// option.
pub fn backlog(socket: impl AsFd) -> Option<Backlog> {
    // SK_MEMINFO_RMEM_ALLOC, SK_MEMINFO_RCVBUF and seven more (linux/sock_diag.h).
    let mut values = [0_u32; 9];
    let mut length = size_of::<[u32; 9]>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `values`, which has so
    // many, and the number that it wrote to `length`; the socket is open.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    (result == 0 && length as usize >= 2 * size_of::<u32>()).then(|| Backlog {
        waiting: values[0] as usize,
        limit: values[1] as usize,
    })
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn what_waits_is_counted_until_it_is_received() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let empty = backlog(&socket).unwrap();
        assert_eq!(empty.waiting, 0);
        assert!(empty.limit > 0);
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = socket.local_addr().unwrap();
        sender.send_to(&[0; 100], to).unwrap();
        assert!(backlog(&socket).unwrap().waiting >= 100);
        socket.recv(&mut [0; 200]).unwrap();
        assert_eq!(backlog(&socket).unwrap(), empty);
    }
}
