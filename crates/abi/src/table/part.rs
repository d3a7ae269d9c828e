//! Packets that come in parts (RFC 791, 3.2; RFC 8200, 4.5): only the first has
//! ports, and what it was is remembered for the others.

use crate::layout::layout;
use crate::{Address, Port};

/// A place for one of them, of those that its sender has: who sends many at once
/// loses its own.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartKey {
    /// A pod; `::` for all others together, who may call themselves anything.
    pub owner: Address,
    pub place: u32,
}

/// The first part, let pass.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    pub source: Address,
    pub destination: Address,
    /// Of the packet.
    pub id: u32,
    pub protocol: u32,
    /// For who translates.
    pub source_port: Port,
    pub destination_port: Port,
    /// When it came, seconds since boot.
    pub last: u32,
}

layout! {
    PartKey { owner, place }
    Part { source, destination, id, protocol, source_port, destination_port, last }
}
