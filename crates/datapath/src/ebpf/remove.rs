//! Taking away what an engine left.

use std::collections::BTreeSet;
use std::path::Path;

use ripstop_netlink::Netlink;

use super::pins::Pins;
use super::{links, upgrade};
use crate::Error;

/// Whether programs of an engine, of whichever version, are attached.
///
/// # Errors
/// If the directory cannot be read.
pub fn is_attached(bpffs: &Path) -> Result<bool, Error> {
    match Pins::open(bpffs) {
        Ok(pins) => links::are_there(&pins),
        // No BPF file system, hence no pins.
        Err(Error::Unsupported { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes away what an engine left, of whichever version, also where the kernel
/// does not take ours. Goes on after an error.
///
/// # Errors
/// The first thing that could not be removed.
pub fn remove(bpffs: &Path) -> Result<(), Error> {
    let pins = match Pins::open(bpffs) {
        Ok(pins) => pins,
        Err(Error::Unsupported { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut netlink = Netlink::new().map_err(links::failed)?;
    remove_all(&pins, &mut netlink)
}

pub(super) fn remove_all(pins: &Pins, netlink: &mut Netlink) -> Result<(), Error> {
    // Attachments first: programs that nothing leads to need no tables.
    let half_done = upgrade::tidy(pins, netlink);
    let filters = links::retain(netlink, &BTreeSet::new());
    let sockets = pins.remove_all("link_");
    half_done
        .and(filters.map(drop))
        .and(sockets)
        .and(pins.remove_all(""))
}
