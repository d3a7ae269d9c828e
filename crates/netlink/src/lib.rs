//! Netlink, and the network namespaces that sockets belong to.
//!
//! A synchronous socket sends many requests at once.
//!
//! [`link`], [`address`], [`route`] and [`neighbour`] build [`Request`]s;
//! [`Netlink::execute`] sends any number of them in one message to the kernel,
//! which works them off in order. Only the last one asks for an
//! acknowledgement: the kernel always answers a request that failed, so silence
//! about the others means that they are done.

pub mod address;
mod attributes;
pub mod conntrack;
mod error;
pub mod link;
pub mod neighbour;
pub mod netns;
pub mod nftables;
mod request;
pub mod route;
pub mod rule;
mod socket;
pub mod sockets;
pub mod sysctl;
pub mod traffic;
mod write;

pub use error::Error;
pub use request::Request;
pub use socket::Netlink;
