//! Names outside of the cluster: asked for at upstream servers, and kept.
//!
//! Messages of others are read and written by hickory, also the transports are
//! its; what is here decides whom to ask, shares what is asked for by several,
//! and keeps answers.

mod cache;
mod config;
mod message;
mod resolver;
mod server;

pub use config::{ServerError, Stub, UpstreamConfig, UpstreamServer, UpstreamTransport};
pub(crate) use message::{Answer, append};
pub(crate) use resolver::{Key, Origin, Resolver};
pub use server::ServerState;
