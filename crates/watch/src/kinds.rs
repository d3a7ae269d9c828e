//! The kinds that the watch follows.

use std::fmt::Debug;
use std::hash::Hash;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use ripstop_model::{EndpointSlice, Node, ObjectKey, ObjectKind, ObjectRef, Service, ServiceCidr};
use serde::de::DeserializeOwned;

use crate::convert::{self, Converted};
use crate::objects::{ServiceCidrObject, ServiceObject};
use crate::{Event, ObjectEvent};

/// A kind that the watch follows.
pub(crate) trait Followed:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static
{
    const KIND: ObjectKind;
    /// Servers without this kind are nothing special.
    const OPTIONAL: bool = false;
    /// It comes and goes with a CustomResourceDefinition.
    const IS_CUSTOM: bool = false;
    type Model;
    type Key: Clone + Hash + Eq + Send;

    fn key(meta: &ObjectMeta) -> Self::Key;
    fn reference(key: &Self::Key) -> ObjectRef;
    fn model(&self) -> Converted<Self::Model>;
    fn event(event: ObjectEvent<Self::Model, Self::Key>) -> Event;
    /// What an object means that does not decode; `None` leaves what was known.
    fn unreadable(_key: &Self::Key) -> Option<Self::Model> {
        None
    }
    /// What an object says besides.
    fn more(&self) -> Option<Event> {
        None
    }
}

impl Followed for ServiceObject {
    const KIND: ObjectKind = ObjectKind::Service;
    type Model = Service;
    type Key = ObjectKey;

    fn key(meta: &ObjectMeta) -> ObjectKey {
        convert::key(meta)
    }
    fn reference(key: &ObjectKey) -> ObjectRef {
        ObjectRef::new(Self::KIND, key.clone())
    }
    fn model(&self) -> Converted<Service> {
        convert::service(self)
    }
    fn event(event: ObjectEvent<Service, ObjectKey>) -> Event {
        Event::Service(event)
    }
}

impl Followed for discovery::EndpointSlice {
    const KIND: ObjectKind = ObjectKind::EndpointSlice;
    type Model = EndpointSlice;
    type Key = ObjectKey;

    fn key(meta: &ObjectMeta) -> ObjectKey {
        convert::key(meta)
    }
    fn reference(key: &ObjectKey) -> ObjectRef {
        ObjectRef::new(Self::KIND, key.clone())
    }
    fn model(&self) -> Converted<EndpointSlice> {
        convert::slice(self)
    }
    fn event(event: ObjectEvent<EndpointSlice, ObjectKey>) -> Event {
        Event::Slice(event)
    }
    fn more(&self) -> Option<Event> {
        convert::endpoints_changed(self).map(Event::EndpointsChanged)
    }
}

impl Followed for core::Node {
    const KIND: ObjectKind = ObjectKind::Node;
    type Model = Node;
    type Key = String;

    fn key(meta: &ObjectMeta) -> String {
        meta.name.clone().unwrap_or_default()
    }
    fn reference(key: &String) -> ObjectRef {
        ObjectRef::of_cluster(Self::KIND, key)
    }
    fn model(&self) -> Converted<Node> {
        convert::node(self)
    }
    fn event(event: ObjectEvent<Node, String>) -> Event {
        Event::Node(event)
    }
    fn more(&self) -> Option<Event> {
        Some(Event::NodeIdentity(convert::node_identity(self)))
    }
}

impl Followed for ServiceCidrObject {
    const KIND: ObjectKind = ObjectKind::ServiceCidr;
    /// Since Kubernetes 1.33.
    const OPTIONAL: bool = true;
    type Model = ServiceCidr;
    type Key = String;

    fn key(meta: &ObjectMeta) -> String {
        meta.name.clone().unwrap_or_default()
    }
    fn reference(key: &String) -> ObjectRef {
        ObjectRef::of_cluster(Self::KIND, key)
    }
    fn model(&self) -> Converted<ServiceCidr> {
        convert::service_cidr(self)
    }
    fn event(event: ObjectEvent<ServiceCidr, String>) -> Event {
        Event::ServiceCidr(event)
    }
}
