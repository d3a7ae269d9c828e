//! A container's environment variables, as kubelet makes them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVarSource};

use super::expand::expand;
use super::facts::{ConfigError, Facts, Sources};

/// All variables of a container. `services` are the discovery variables
/// ([`super::service_env`]); the container's own come before them.
///
/// # Errors
/// If something that is not optional does not exist.
pub(super) fn environment(
    container: &Container,
    facts: &Facts<'_>,
    sources: &impl Sources,
    services: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut own = from_objects(container, facts, sources)?;
    for var in container.env.iter().flatten() {
        let value = match &var.value_from {
            Some(from) => match value_from(from, container, facts, sources)? {
                Some(value) => value,
                // Optional and absent: as if it were not written.
                None => continue,
            },
            // A variable may refer to those before it.
            None => expand(var.value.as_deref().unwrap_or_default(), &[&own, services]),
        };
        own.insert(var.name.clone(), value);
    }
    for (name, value) in services {
        own.entry(name.clone()).or_insert_with(|| value.clone());
    }
    Ok(own)
}

/// `envFrom`: all keys of objects; a later object wins.
fn from_objects(
    container: &Container,
    facts: &Facts<'_>,
    sources: &impl Sources,
) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut variables = BTreeMap::new();
    let namespace = facts.namespace();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let mut add = |key: &String, value: String| {
            // Names that no process could have are left out, as kubelet does.
            let name = format!("{prefix}{key}");
            if !name.is_empty() && !name.contains(['=', '\0']) {
                variables.insert(name, value);
            }
        };
        if let Some(reference) = &from.config_map_ref {
            match sources.config_map(namespace, &reference.name) {
                Some(map) => {
                    map.data
                        .iter()
                        .flatten()
                        .for_each(|(key, value)| add(key, value.clone()));
                }
                None if reference.optional == Some(true) => {}
                None => return Err(no_object("configmap", &reference.name)),
            }
        }
        if let Some(reference) = &from.secret_ref {
            match sources.secret(namespace, &reference.name) {
                Some(secret) => {
                    secret
                        .data
                        .iter()
                        .flatten()
                        .for_each(|(k, v)| add(k, text(&v.0)));
                }
                None if reference.optional == Some(true) => {}
                None => return Err(no_object("secret", &reference.name)),
            }
        }
    }
    Ok(variables)
}

/// `None` if it is optional and absent.
fn value_from(
    from: &EnvVarSource,
    container: &Container,
    facts: &Facts<'_>,
    sources: &impl Sources,
) -> Result<Option<String>, ConfigError> {
    let namespace = facts.namespace();
    if let Some(field) = &from.field_ref {
        return facts.field(field).map(Some);
    }
    if let Some(resource) = &from.resource_field_ref {
        return facts.resource(resource, Some(container)).map(Some);
    }
    let (kind, title, selected, optional, found) = if let Some(key) = &from.config_map_key_ref {
        let found = sources
            .config_map(namespace, &key.name)
            .map(|map| map.data.and_then(|mut data| data.remove(&key.key)));
        (
            "configmap",
            "ConfigMap",
            (&key.name, &key.key),
            key.optional,
            found,
        )
    } else if let Some(key) = &from.secret_key_ref {
        let found = sources
            .secret(namespace, &key.name)
            .map(|secret| secret.data.and_then(|mut data| data.remove(&key.key)))
            .map(|value| value.map(|bytes| text(&bytes.0)));
        (
            "secret",
            "Secret",
            (&key.name, &key.key),
            key.optional,
            found,
        )
    } else {
        return Ok(None);
    };
    match found {
        Some(Some(value)) => Ok(Some(value)),
        _ if optional == Some(true) => Ok(None),
        None => Err(no_object(kind, selected.0)),
        Some(None) => Err(ConfigError::NoKey {
            kind: title,
            namespace: namespace.to_owned(),
            name: selected.0.clone(),
            key: selected.1.clone(),
        }),
    }
}

fn no_object(kind: &'static str, name: &str) -> ConfigError {
    ConfigError::NoObject {
        kind,
        name: name.to_owned(),
    }
}

/// A variable ends at the first zero byte, so no more can be passed on.
fn text(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};

    use super::*;

    struct Objects;

    impl Sources for Objects {
        fn config_map(&self, namespace: &str, name: &str) -> Option<ConfigMap> {
            let data = serde_json::json!({"data": {"level": "debug", "a=b": "x"}});
            (namespace == "shop" && name == "settings")
                .then(|| serde_json::from_value(data).unwrap())
        }
        fn secret(&self, namespace: &str, name: &str) -> Option<Secret> {
            let data = serde_json::json!({"data": {"password": "aHVudGVyMg=="}});
            (namespace == "shop" && name == "login").then(|| serde_json::from_value(data).unwrap())
        }
    }

    fn environment_of(container: serde_json::Value) -> Result<BTreeMap<String, String>, String> {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "web", "namespace": "shop"}, "spec": {"containers": []},
        }))
        .unwrap();
        let mut container = container;
        container["name"] = "c".into();
        let facts = Facts {
            pod: &pod,
            node: "node1",
            pod_ips: &["10.0.0.1".parse().unwrap()],
            host_ips: &[],
            allocatable: &BTreeMap::new(),
        };
        let services = BTreeMap::from([("DB_SERVICE_HOST".to_owned(), "10.96.0.7".to_owned())]);
        environment(
            &serde_json::from_value(container).unwrap(),
            &facts,
            &Objects,
            &services,
        )
        .map_err(|error| error.to_string())
    }

    #[test]
    fn every_source() {
        let found = environment_of(serde_json::json!({
            "envFrom": [
                {"configMapRef": {"name": "settings"}, "prefix": "S_"},
                {"secretRef": {"name": "login"}},
                {"configMapRef": {"name": "none", "optional": true}},
            ],
            "env": [
                {"name": "A", "value": "1"},
                {"name": "B", "value": "$(A)2 $(LATER) $(S_level) $(DB_SERVICE_HOST) $$(A)"},
                {"name": "LATER", "value": "x"},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "login", "key": "password"}}},
                {"name": "NO", "valueFrom":
                    {"configMapKeyRef": {"name": "settings", "key": "no", "optional": true}}},
                {"name": "password", "value": "mine"},
                {"name": "EMPTY"},
            ],
        }))
        .unwrap();
        let expected = [
            ("A", "1"),
            ("B", "12 $(LATER) debug 10.96.0.7 $(A)"),
            ("DB_SERVICE_HOST", "10.96.0.7"),
            ("EMPTY", ""),
            ("IP", "10.0.0.1"),
            ("LATER", "x"),
            ("PW", "hunter2"),
            ("S_level", "debug"),
            ("password", "mine"),
        ];
        let found: Vec<_> = found
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn own_variables_hide_services() {
        let env = serde_json::json!({"env": [{"name": "DB_SERVICE_HOST", "value": "elsewhere"}]});
        assert_eq!(environment_of(env).unwrap()["DB_SERVICE_HOST"], "elsewhere");
    }

    #[test]
    fn what_is_missing_is_named() {
        let key = |kind: &str, name: &str, key: &str| serde_json::json!({"env": [{"name": "A", "valueFrom": {kind: {"name": name, "key": key}}}]});
        for (container, message) in [
            (
                key("configMapKeyRef", "none", "k"),
                "configmap \"none\" not found",
            ),
            (
                key("configMapKeyRef", "settings", "k"),
                "couldn't find key k in ConfigMap shop/settings",
            ),
            (
                key("secretKeyRef", "login", "k"),
                "couldn't find key k in Secret shop/login",
            ),
            (
                serde_json::json!({"envFrom": [{"secretRef": {"name": "none"}}]}),
                "secret \"none\" not found",
            ),
        ] {
            assert_eq!(environment_of(container).unwrap_err(), message);
        }
    }
}
