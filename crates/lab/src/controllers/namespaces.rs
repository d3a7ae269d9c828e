//! What every namespace has: a service account for its pods, and the
//! certificate by which they know the API server.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;

use super::controller::Controller;
use super::object::{Change, Key, Object};
use super::plan::Plan;
use super::world::World;

const ACCOUNT: &str = "default";
const ROOT_CA: &str = "kube-root-ca.crt";

/// Keys are namespaces.
#[derive(Debug)]
pub(crate) struct NamespaceDefaults {
    /// PEM of the API server's authority, if pods are to have it.
    pub(crate) root_ca: Option<String>,
}

impl Controller for NamespaceDefaults {
    fn component(&self) -> &'static str {
        "serviceaccount-controller"
    }

    fn affected(&self, _world: &World, change: &Change, add: &mut dyn FnMut(Key)) {
        let latest = change.latest();
        let key = latest.key();
        match latest {
            Object::Namespace(_) => add(key),
            Object::ServiceAccount(_) if key.name == ACCOUNT => add(Key::new("", key.namespace)),
            Object::ConfigMap(_) if key.name == ROOT_CA => add(Key::new("", key.namespace)),
            _ => {}
        }
    }

    fn decide(&self, world: &World, key: &Key, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let namespace = world.objects.namespaces.get(key);
        let leaves = |namespace: &Namespace| namespace.metadata.deletion_timestamp.is_some();
        if namespace.is_none_or(|namespace| leaves(namespace)) {
            return plan;
        }
        let named = |name: &str| ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(key.name.clone()),
            ..ObjectMeta::default()
        };
        if world
            .objects
            .service_accounts
            .get(&Key::new(&*key.name, ACCOUNT))
            .is_none()
        {
            plan.create(
                ServiceAccount {
                    metadata: named(ACCOUNT),
                    ..ServiceAccount::default()
                },
                None,
            );
        }
        let Some(root_ca) = &self.root_ca else {
            return plan;
        };
        let data = Some(BTreeMap::from([("ca.crt".to_owned(), root_ca.clone())]));
        match world
            .objects
            .config_maps
            .get(&Key::new(&*key.name, ROOT_CA))
        {
            None => {
                plan.create(
                    ConfigMap {
                        metadata: named(ROOT_CA),
                        data,
                        ..ConfigMap::default()
                    },
                    None,
                );
            }
            Some(present) if present.data != data => {
                plan.update(ConfigMap {
                    data,
                    ..ConfigMap::clone(present)
                });
            }
            Some(_) => {}
        }
        plan
    }
}
