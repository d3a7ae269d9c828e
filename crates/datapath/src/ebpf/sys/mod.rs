//! bpf(2), as far as the engine needs it.
//!
//! Our own, although `aya` has one: its loader reads the kernel's whole type
//! information (5 MB) before anything else, which costs 20 ms and 18 MB of
//! memory that programs without relocations never use. `aya-obj` reads the
//! object; what is left are these few calls.

mod link;
mod map;
mod program;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya_obj::generated::bpf_cmd;

pub(crate) use link::{LinkInfo, link_create, link_detach, link_info, link_update};
pub(crate) use map::{
    ByteRows, MapShape, MapTypes, btf, btf_load, map_create, map_delete, map_delete_batch,
    map_freeze, map_get_bytes, map_lookup, map_next_key, map_put_bytes, map_read, map_read_bytes,
    map_shape, map_update, map_update_batch, map_update_bytes, map_walk,
};
#[cfg(test)]
pub(crate) use program::test_run;
pub(crate) use program::{enable_stats, has_set_retval, prog_info, prog_load};

/// One command. `A` is the part of `union bpf_attr` that the command reads.
fn bpf<A>(command: bpf_cmd, attributes: &mut A) -> io::Result<RawFd> {
    // SAFETY: the kernel reads and writes no more than the size given, and
    // pointers in it are valid by this module's construction of them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            std::ptr::from_mut(attributes),
            size_of::<A>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result as RawFd)
}

fn bpf_fd<A>(command: bpf_cmd, attributes: &mut A) -> io::Result<OwnedFd> {
    let fd = bpf(command, attributes)?;
    // SAFETY: the command returns a new descriptor, which nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// For what the kernel reads.
fn pointer<T: ?Sized>(value: &T) -> u64 {
    std::ptr::from_ref(value).cast::<u8>() as u64
}

/// For what the kernel writes.
fn pointer_mut<T: ?Sized>(value: &mut T) -> u64 {
    std::ptr::from_mut(value).cast::<u8>() as u64
}

/// Names are at most 15 bytes; longer ones are cut.
fn object_name(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    let len = name.len().min(15);
    bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
    bytes
}

#[repr(C)]
struct Pin {
    path: u64,
    fd: u32,
    flags: u32,
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let fd = object.as_raw_fd() as u32;
    let mut attributes = Pin {
        path: path.as_ptr() as u64,
        fd,
        flags: 0,
    };
    bpf(bpf_cmd::BPF_OBJ_PIN, &mut attributes).map(drop)
}

/// What is pinned there; `None` if nothing is.
pub(crate) fn pinned(path: &Path) -> io::Result<Option<OwnedFd>> {
    let path = c_path(path)?;
    let mut attributes = Pin {
        path: path.as_ptr() as u64,
        fd: 0,
        flags: 0,
    };
    match bpf_fd(bpf_cmd::BPF_OBJ_GET, &mut attributes) {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the kernel says of an object.
///
/// # Safety
/// `T` is the beginning of the information of this kind of object, and any
/// bytes are a valid `T`.
unsafe fn info<T>(object: BorrowedFd<'_>) -> io::Result<T> {
    #[repr(C)]
    struct Attributes {
        fd: u32,
        len: u32,
        info: u64,
    }
    // SAFETY: by the caller.
    let mut info = unsafe { std::mem::zeroed::<T>() };
    let (fd, len) = (object.as_raw_fd() as u32, size_of::<T>() as u32);
    let mut attributes = Attributes {
        fd,
        len,
        info: pointer_mut(&mut info),
    };
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(info)
}

/// Identity of a network namespace as programs see it: that of the calling
/// thread.
pub(crate) fn netns_cookie() -> io::Result<u64> {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").or_else(|_| {
        // A namespace whose loopback is down still has sockets.
        std::net::UdpSocket::bind("0.0.0.0:0")
    })?;
    let mut cookie = 0_u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the option is eight bytes, and so is the place for it.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(cookie)
}
