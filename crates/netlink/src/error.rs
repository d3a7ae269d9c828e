use std::io;

/// What went wrong between us and the kernel's routing netlink.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a request.
    #[error("{operation}: {source}{}", hint(.reason))]
    Refused {
        /// What was asked for, with the object's name.
        operation: String,
        source: io::Error,
        /// The kernel's own words (extended acknowledgement); often empty.
        reason: String,
    },
    /// The socket could not be made, written or read.
    #[error("netlink socket: {operation}: {source}")]
    Socket {
        operation: &'static str,
        source: io::Error,
    },
    /// The kernel answered something that this code does not understand.
    #[error("{operation}: the kernel's answer is cut short or malformed")]
    Malformed { operation: String },
}

fn hint(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(" ({reason})")
    }
}

impl Error {
    /// The kernel's error number, if it refused the request.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } | Self::Socket { source, .. } => source.raw_os_error(),
            Self::Malformed { .. } => None,
        }
    }

    /// True if the object that the request names does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(
            self.errno(),
            // Links, routes, addresses and neighbours each have their own word for it.
            Some(libc::ENODEV | libc::ENOENT | libc::ESRCH | libc::EADDRNOTAVAIL | libc::ENXIO)
        )
    }

    /// True if the kernel has no route, or one of type unreachable, prohibit or
    /// blackhole (which has the error number EINVAL).
    pub fn is_unreachable(&self) -> bool {
        matches!(
            self.errno(),
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL)
        )
    }

    /// True if the object is there already.
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }
}
