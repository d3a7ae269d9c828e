//! Links: what keeps a program attached.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use aya_obj::generated::{bpf_attach_type, bpf_cmd};

use super::{bpf, bpf_fd, info};

pub(crate) fn link_create(
    program: BorrowedFd<'_>,
    target: u32,
    attach: bpf_attach_type,
) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        program: u32,
        /// File descriptor of a cgroup, or interface index.
        target: u32,
        attach_type: u32,
        flags: u32,
        relative: u32,
        pad: u32,
        expected_revision: u64,
    }
    bpf_fd(
        bpf_cmd::BPF_LINK_CREATE,
        &mut Attributes {
            program: program.as_raw_fd() as u32,
            target,
            attach_type: attach as u32,
            flags: 0,
            relative: 0,
            pad: 0,
            expected_revision: 0,
        },
    )
}

/// Replaces a link's program; no packet or call meets the link without one.
pub(crate) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = &mut [link.as_raw_fd() as u32, program.as_raw_fd() as u32, 0, 0];
    bpf(bpf_cmd::BPF_LINK_UPDATE, attributes).map(drop)
}

/// Takes the program away from where a link of a cgroup has it, at once; without
/// the last descriptor the kernel does that in the background.
pub(crate) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    bpf(bpf_cmd::BPF_LINK_DETACH, &mut [link.as_raw_fd() as u32]).map(drop)
}

/// First part of `struct bpf_link_info`, of a cgroup link.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LinkInfo {
    kind: u32,
    pub(crate) id: u32,
    pub(crate) program: u32,
    pad: u32,
    body: [u32; 4],
    rest: [u64; 4],
}

impl LinkInfo {
    /// Of a cgroup link: the cgroup; 0 if that is gone.
    pub(crate) fn cgroup(&self) -> u64 {
        u64::from(self.body[0]) | u64::from(self.body[1]) << 32
    }
}

pub(crate) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    // SAFETY: the layout of the kind of link that we make; plain integers.
    unsafe { info(link) }
}
