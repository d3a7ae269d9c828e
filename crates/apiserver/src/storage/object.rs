//! A stored object: its value, and everything that is computed from it once
//! and then shared by all readers.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Namespace (empty for cluster-scoped kinds) and name. Orders as lists do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// The key that an object names itself by.
    pub(crate) fn of(value: &Value) -> Self {
        let text = |field: &str| value["metadata"][field].as_str().unwrap_or_default();
        Self::new(text("namespace"), text("name"))
    }
}

/// One version of an object; never changes.
pub(crate) struct Object {
    pub(crate) value: Value,
    /// `value` as JSON, for the journal, single reads, lists and watches.
    pub(crate) json: Bytes,
    /// `metadata.resourceVersion`.
    pub(crate) revision: u64,
    typed: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Object {
    /// Puts `revision` into the metadata and encodes the object.
    pub(crate) fn new(mut value: Value, revision: u64) -> Self {
        value["metadata"]["resourceVersion"] = Value::String(revision.to_string());
        // Encoding a Value cannot fail: its keys are strings.
        let json = Bytes::from(serde_json::to_vec(&value).unwrap_or_default());
        Self {
            value,
            json,
            revision,
            typed: OnceLock::new(),
        }
    }

    pub(crate) fn key(&self) -> Key {
        Key::of(&self.value)
    }

    pub(crate) fn name(&self) -> &str {
        self.meta("name")
    }

    pub(crate) fn namespace(&self) -> &str {
        self.meta("namespace")
    }

    pub(crate) fn uid(&self) -> &str {
        self.meta("uid")
    }

    fn meta(&self, field: &str) -> &str {
        self.value["metadata"][field].as_str().unwrap_or_default()
    }

    /// Whether deletion has been asked for.
    pub(crate) fn deleting(&self) -> bool {
        self.value["metadata"]["deletionTimestamp"].is_string()
    }

    /// The object as a Rust type. Decoded once for the first type that asks:
    /// controllers that list often pay for a clone only.
    pub(crate) fn typed<K: DeserializeOwned + Send + Sync + 'static>(
        &self,
    ) -> Result<Arc<K>, serde_json::Error> {
        if let Some(known) = self.typed.get()
            && let Ok(object) = Arc::clone(known).downcast::<K>()
        {
            return Ok(object);
        }
        let object = Arc::new(K::deserialize(&self.value)?);
        let shared: Arc<dyn Any + Send + Sync> = object.clone();
        // Lost to another type or thread: theirs stays, ours is as good.
        let _ = self.typed.set(shared);
        Ok(object)
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{}", self.key(), self.revision)
    }
}
