//! The Container Network Interface, version 1.1.0, and the words that the
//! plugin and the agent exchange.
//! <https://github.com/containernetworking/cni/blob/main/SPEC.md>
//!
//! Types only: the plugin (`bin/ripstop-cni`) reads its environment and hands a
//! [`wire::Request`] to the agent over a Unix socket; the agent does the work.
//! Few dependencies, because the plugin is started for every pod.

mod args;
mod config;
mod error;
mod result;
mod version;
pub mod wire;

pub use args::PodArgs;
pub use config::{Attachment, Config, PortMapping};
pub use error::{Code, Error};
pub use result::{AddResult, Interface, Ip, Route};
pub use version::Version;
