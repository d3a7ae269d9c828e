//! Brings the objects of manifests to the API, and away again.

use std::time::Duration;

use futures::{StreamExt, stream};
use ripstop_apiserver::Reason;

use crate::api::{Api, ApiError, Applied};
use crate::manifest::{Kinds, ManifestError, Manifests, Object, Resource, explain};

/// What became of one object.
#[derive(Debug)]
pub struct Outcome {
    /// `deployment.apps/web`
    pub label: String,
    pub result: Result<Change, Vec<ManifestError>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Created,
    Configured,
    Deleted,
    /// It was not there to be deleted.
    Absent,
}

impl Change {
    /// As kubectl says it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Deleted => "deleted",
            Self::Absent => "not found",
        }
    }
}

/// Objects on their way to the API at one time.
const AT_ONCE: usize = 64;
/// Tries of a write that the API refused because another was under way.
const CONFLICT_TRIES: u32 = 5;

/// Makes objects, which are sorted by rank, as described: those of one rank at
/// once, rank by rank.
/// One that is refused does not keep the others from being made.
pub async fn apply(api: &Api, objects: &[Object], kinds: &Kinds) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for group in objects.chunk_by(|a, b| a.rank() == b.rank()) {
        let changes = group.iter().map(|object| async {
            let resource = kinds.resource(object).map_err(|error| vec![error])?;
            apply_one(api, object, resource).await
        });
        let results = stream::iter(changes).buffered(AT_ONCE).collect().await;
        outcomes.extend(zip(group, results));
    }
    outcomes
}

/// Deletes all objects, in the opposite order.
pub async fn delete(api: &Api, manifests: &Manifests, ignore_absent: bool) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let reversed: Vec<_> = manifests.objects.iter().rev().cloned().collect();
    for group in reversed.chunk_by(|a, b| a.rank() == b.rank()) {
        let changes = group.iter().map(|object| async {
            let resource = manifests
                .kinds
                .resource(object)
                .map_err(|error| vec![error])?;
            let path = resource.path(object.namespace.as_deref(), &object.name);
            match api.delete(&path).await {
                Ok(()) => Ok(Change::Deleted),
                Err(error) if ignore_absent && is(&error, Reason::NotFound) => Ok(Change::Absent),
                Err(error) => Err(errors(object, &error)),
            }
        });
        let results = stream::iter(changes).buffered(AT_ONCE).collect().await;
        outcomes.extend(zip(group, results));
    }
    outcomes
}

async fn apply_one(
    api: &Api,
    object: &Object,
    resource: &Resource,
) -> Result<Change, Vec<ManifestError>> {
    let path = resource.path(object.namespace.as_deref(), &object.name);
    let mut tries = 0;
    loop {
        match api.apply(&path, &object.value).await {
            Ok(Applied::Created) => return Ok(Change::Created),
            Ok(Applied::Configured) => return Ok(Change::Configured),
            // A controller wrote the object between its reading and writing.
            Err(error) if is(&error, Reason::Conflict) && tries < CONFLICT_TRIES => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => return Err(errors(object, &error)),
        }
    }
}

fn zip(
    objects: &[Object],
    results: Vec<Result<Change, Vec<ManifestError>>>,
) -> impl Iterator<Item = Outcome> {
    objects.iter().zip(results).map(|(object, result)| Outcome {
        label: object.label(),
        result,
    })
}

fn is(error: &ApiError, reason: Reason) -> bool {
    error.status().is_some_and(|status| status.reason == reason)
}

fn errors(object: &Object, error: &ApiError) -> Vec<ManifestError> {
    match error.status() {
        Some(status) => explain(object, status),
        None => vec![object.error("", format!("{}: {error}", object.label()))],
    }
}
