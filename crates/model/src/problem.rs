//! What of an object makes no sense, for the people who wrote it.

use std::fmt;

use crate::ObjectKey;

/// Kinds of objects that can have a [`Problem`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    Service,
    EndpointSlice,
    Node,
    ServiceCidr,
    Pod,
    Namespace,
    NetworkPolicy,
    ClusterNetworkPolicy,
}

impl ObjectKind {
    /// `kind` of the Kubernetes API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Node => "Node",
            Self::ServiceCidr => "ServiceCIDR",
            Self::Pod => "Pod",
            Self::Namespace => "Namespace",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
        }
    }

    /// `apiVersion` of the Kubernetes API.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Service | Self::Node | Self::Pod | Self::Namespace => "v1",
            Self::EndpointSlice => "discovery.k8s.io/v1",
            Self::ServiceCidr | Self::NetworkPolicy => "networking.k8s.io/v1",
            Self::ClusterNetworkPolicy => "policy.networking.k8s.io/v1alpha2",
        }
    }

    /// Name of the kind in URLs.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Service => "services",
            Self::EndpointSlice => "endpointslices",
            Self::Node => "nodes",
            Self::ServiceCidr => "servicecidrs",
            Self::Pod => "pods",
            Self::Namespace => "namespaces",
            Self::NetworkPolicy => "networkpolicies",
            Self::ClusterNetworkPolicy => "clusternetworkpolicies",
        }
    }
}

/// An object of some kind; those of the cluster have an empty namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    pub kind: ObjectKind,
    pub key: ObjectKey,
}

impl ObjectRef {
    pub fn new(kind: ObjectKind, key: ObjectKey) -> Self {
        Self { kind, key }
    }

    /// An object without a namespace.
    pub fn of_cluster(kind: ObjectKind, name: impl Into<String>) -> Self {
        Self::new(kind, ObjectKey::new("", name))
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.namespace.as_str() {
            "" => write!(f, "{} {}", self.kind.name(), self.key.name),
            _ => write!(f, "{} {}", self.kind.name(), self.key),
        }
    }
}

/// Why something of an object is ignored: the closed set that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The object does not decode.
    Unreadable,
    /// A field has a value that the API does not allow.
    InvalidField,
    /// An address of a family that the object does not have.
    WrongFamily,
    /// Another service has the address and port, or the node port.
    AddressTaken,
    /// Another service has the health check node port.
    HealthCheckPortTaken,
    /// Another node has the pod range.
    PodRangeTaken,
    /// A table of the kernel is full.
    DoesNotFit,
    /// A pod runs that somebody else has attached.
    NotAttached,
}

impl Reason {
    /// As `reason` of an Event has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unreadable => "Unreadable",
            Self::InvalidField => "InvalidField",
            Self::WrongFamily => "WrongFamily",
            Self::AddressTaken => "AddressTaken",
            Self::HealthCheckPortTaken => "HealthCheckPortTaken",
            Self::PodRangeTaken => "PodRangeTaken",
            Self::DoesNotFit => "DoesNotFit",
            Self::NotAttached => "NotAttached",
        }
    }
}

/// A part of an object that is ignored; the rest of it works.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Problem {
    pub object: ObjectRef,
    pub reason: Reason,
    /// Names the field, what is wrong with it and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.message)
    }
}
