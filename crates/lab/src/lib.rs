//! A whole cluster network on one machine.
//!
//! Owns what stands in for the rest of Kubernetes: the underlay, node
//! namespaces, controllers, the node loop and stand-in containers. The network
//! itself is not the lab's: agents and CNI plugin are the ones that a real
//! cluster runs, as processes of their own.

mod announce;
pub mod api;
pub mod apply;
pub mod cgroup;
mod clock;
pub mod container;
pub mod controllers;
pub mod daemon;
pub mod demo;
pub mod enter;
pub mod kubelet;
pub mod lifecycle;
pub mod manifest;
pub mod names;
pub mod paths;
pub mod plan;
pub mod probe;
pub mod ready;
pub mod rootless;
pub mod stand_in;
pub mod target;
pub mod text;
pub mod underlay;
