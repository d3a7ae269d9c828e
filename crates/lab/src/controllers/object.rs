//! The kinds that controllers read and write, and one name for any of them.

use std::sync::Arc;

use k8s_openapi::Resource;
pub(super) use k8s_openapi::api::apps::v1::{
    ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet,
};
pub(super) use k8s_openapi::api::batch::v1::Job;
pub(super) use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ObjectReference;
pub(super) use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, Pod, Secret, Service, ServiceAccount,
};
pub(super) use k8s_openapi::api::discovery::v1::EndpointSlice;
pub(super) use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use ripstop_apiserver::{Client, Watch, WatchEvent};

use super::cache::Cache;

/// Namespace (empty for cluster-scoped kinds) and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    pub(crate) fn of(meta: &ObjectMeta) -> Self {
        Self::new(
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        )
    }

    /// As the API's client wants it: `None` for cluster-scoped kinds.
    pub(crate) fn scope(&self) -> Option<&str> {
        (!self.namespace.is_empty()).then_some(&*self.namespace)
    }
}

/// A kind that controllers keep a cache of.
pub(crate) trait Cached: ripstop_apiserver::Stored {
    fn cache(caches: &Caches) -> &Cache<Self>;
    fn cache_mut(caches: &mut Caches) -> &mut Cache<Self>;
    fn object(this: Arc<Self>) -> Object;
    fn from_object(object: &Object) -> Option<&Self>;
}

/// Generates, for the listed kinds: the discriminant [`Kind`], the value
/// [`Object`], one [`Cache`] of each ([`Caches`]), and [`Cached`].
macro_rules! kinds {
    ($($kind:ident => $field:ident),+ $(,)?) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub(crate) enum Kind { $($kind),+ }

        /// An object of any of the kinds, shared.
        #[derive(Clone, Debug, PartialEq)]
        pub(crate) enum Object { $($kind(Arc<$kind>)),+ }

        #[derive(Debug, Default)]
        pub(crate) struct Caches { $(pub(crate) $field: Cache<$kind>),+ }

        $(
            impl From<$kind> for Object {
                fn from(object: $kind) -> Self { Self::$kind(Arc::new(object)) }
            }
            impl Cached for $kind {
                fn cache(caches: &Caches) -> &Cache<Self> { &caches.$field }
                fn cache_mut(caches: &mut Caches) -> &mut Cache<Self> { &mut caches.$field }
                fn object(this: Arc<Self>) -> Object { Object::$kind(this) }
                fn from_object(object: &Object) -> Option<&Self> {
                    match object {
                        Object::$kind(object) => Some(object),
                        _ => None,
                    }
                }
            }
        )+

        impl Object {
            pub(crate) fn kind(&self) -> Kind {
                match self { $(Self::$kind(_) => Kind::$kind),+ }
            }
            pub(crate) fn meta(&self) -> &ObjectMeta {
                match self { $(Self::$kind(object) => &object.metadata),+ }
            }
        }

        impl Kind {
            pub(crate) const ALL: &'static [Kind] = &[$(Kind::$kind),+];

            pub(crate) fn api_version(self) -> &'static str {
                match self { $(Self::$kind => <$kind as Resource>::API_VERSION),+ }
            }
            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$kind => <$kind as Resource>::KIND),+ }
            }

            pub(crate) fn is_namespaced(self) -> bool {
                !matches!(self, Self::Namespace | Self::Node)
            }
        }

        /// A watch of every kind.
        #[derive(Debug)]
        pub(crate) struct Watches { $($field: Watch<$kind>),+ }

        impl Watches {
            pub(crate) fn open(client: &Client) -> Self {
                Self { $($field: client.watch()),+ }
            }

            /// Hands over everything that has changed and has not been seen yet.
            pub(crate) fn drain(&mut self, mut sink: impl FnMut(News)) {
                $(
                    while let Some(event) = self.$field.try_next() {
                        News::of(event).into_iter().for_each(&mut sink);
                    }
                )+
            }

            /// Waits for the next change of anything.
            pub(crate) async fn next(&mut self) -> Option<News> {
                tokio::select! {
                    biased;
                    $(event = self.$field.next() => News::of(event),)+
                }
            }
        }

        /// Runs `$body` with the type alias `$type` bound to the kind's type.
        macro_rules! for_kind {
            ($value:expr, $type:ident => $body:expr) => {
                match $value { $(
                    $crate::controllers::object::Kind::$kind => {
                        type $type = $crate::controllers::object::$kind;
                        $body
                    }
                )+ }
            };
        }

        /// Runs `$body` with `$inner` bound to the object inside.
        macro_rules! for_object {
            ($value:expr, $inner:ident => $body:expr) => {
                match $value { $($crate::controllers::object::Object::$kind($inner) => $body),+ }
            };
        }
        pub(super) use {for_kind, for_object};
    };
}

/// What a watch tells.
#[derive(Clone, Debug)]
pub(crate) enum News {
    Applied(Object),
    Deleted(Object),
}

impl News {
    fn of<K: Cached>(event: WatchEvent<K>) -> Option<Self> {
        match event {
            WatchEvent::Applied(object) => Some(Self::Applied(K::object(Arc::new(object)))),
            WatchEvent::Deleted(object) => Some(Self::Deleted(K::object(Arc::new(object)))),
            WatchEvent::Synced => None,
        }
    }
}

kinds! {
    Namespace => namespaces,
    Node => nodes,
    ServiceAccount => service_accounts,
    ConfigMap => config_maps,
    Secret => secrets,
    Service => services,
    Deployment => deployments,
    ReplicaSet => replica_sets,
    StatefulSet => stateful_sets,
    DaemonSet => daemon_sets,
    ControllerRevision => revisions,
    Job => jobs,
    Pod => pods,
    EndpointSlice => endpoint_slices,
    Endpoints => endpoints,
    NetworkPolicy => network_policies,
    Ingress => ingresses,
    Lease => leases,
}

impl Object {
    pub(crate) fn key(&self) -> Key {
        Key::of(self.meta())
    }
}

/// How an object changed: `None` before it was there, `None` after it went.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) old: Option<Object>,
    pub(crate) new: Option<Object>,
}

impl Change {
    /// The object as it is now, or was last.
    pub(crate) fn latest(&self) -> &Object {
        self.new
            .as_ref()
            .or(self.old.as_ref())
            .expect("a change has an object before or after")
    }

    /// The object before and after, if it is of this kind.
    pub(crate) fn of<K: Cached>(&self) -> impl Iterator<Item = &K> {
        [&self.old, &self.new]
            .into_iter()
            .flatten()
            .filter_map(K::from_object)
    }

    pub(crate) fn before<K: Cached>(&self) -> Option<&K> {
        self.old.as_ref().and_then(K::from_object)
    }

    pub(crate) fn after<K: Cached>(&self) -> Option<&K> {
        self.new.as_ref().and_then(K::from_object)
    }
}

/// What events and endpoints point at.
pub(crate) fn reference<K: Cached>(object: &K) -> ObjectReference {
    let meta = object.metadata();
    ObjectReference {
        api_version: Some(K::API_VERSION.to_owned()),
        kind: Some(K::KIND.to_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

/// The owner reference that a controller writes on what it creates.
pub(crate) fn controller_ref<K: Cached>(owner: &K) -> OwnerReference {
    let meta = owner.metadata();
    OwnerReference {
        api_version: K::API_VERSION.to_owned(),
        kind: K::KIND.to_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The one owner that manages this object.
pub(crate) fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true))
}

pub(crate) fn is_controlled_by(meta: &ObjectMeta, uid: &str) -> bool {
    controller_of(meta).is_some_and(|owner| owner.uid == uid)
}

pub(crate) fn label<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(name).map(String::as_str)
}

pub(crate) fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}
