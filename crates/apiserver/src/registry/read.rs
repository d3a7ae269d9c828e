//! GET: one object, a page of a list, the start of a watch.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::{Registry, Resource};
use crate::selector::Selector;
use crate::storage::{Key, Object, TooOld};
use crate::{Reason, Status};

/// Query parameters of a list.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListOptions {
    pub(crate) selector: Selector,
    /// Objects per page; 0 for all.
    pub(crate) limit: usize,
    /// From an earlier page.
    pub(crate) token: Option<String>,
    /// The state wanted; 0 for the newest.
    pub(crate) revision: u64,
    /// Exactly that state, not a newer one.
    pub(crate) exact: bool,
}

/// A part of a list.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) objects: Vec<Arc<Object>>,
    /// The state that the whole list shows, whatever its page.
    pub(crate) revision: u64,
    /// For the next page.
    pub(crate) token: Option<String>,
    /// Objects after this page; not known with selectors.
    pub(crate) remaining: Option<usize>,
}

/// Where the next page starts.
#[derive(Serialize, Deserialize)]
struct Token {
    rv: u64,
    /// The last object of this page.
    namespace: String,
    name: String,
}

impl Registry {
    pub(crate) fn get(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<Object>, Status> {
        self.storage
            .get(&resource.collection, &Key::new(namespace, name))
            .map(|object| resource.view(object))
            .ok_or_else(|| resource.not_found(name))
    }

    /// Objects of one namespace, or of all.
    pub(crate) fn list(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<Page, Status> {
        let token = options.token.as_deref().map(decode_token).transpose()?;
        let newest = self.storage.revision();
        if options.revision > newest {
            return Err(Status::new(
                Reason::Timeout,
                format!(
                    "Too large resource version: {}, current: {newest}",
                    options.revision
                ),
            ));
        }
        let at = token.as_ref().map_or(options.revision, |token| token.rv);
        let (mut objects, revision) = if (options.exact || token.is_some()) && at != 0 {
            let objects = self.storage.list_at(&resource.collection, namespace, at);
            (objects.map_err(expired)?, at)
        } else {
            self.storage.list(&resource.collection, namespace)
        };
        if let Some(token) = &token {
            let last = Key::new(&token.namespace, &token.name);
            let start = objects.partition_point(|object| object.key() <= last);
            objects.drain(..start);
        }
        let all = options.selector.is_everything();
        if !all {
            objects.retain(|object| options.selector.matches(object));
        }
        let mut page = Page {
            objects,
            revision,
            token: None,
            remaining: None,
        };
        if options.limit > 0 && page.objects.len() > options.limit {
            page.remaining = all.then_some(page.objects.len() - options.limit);
            page.objects.truncate(options.limit);
            page.token = page.objects.last().map(|last| encode_token(revision, last));
        }
        for object in &mut page.objects {
            *object = resource.view(Arc::clone(object));
        }
        Ok(page)
    }
}

fn encode_token(rv: u64, last: &Object) -> String {
    let Key { namespace, name } = last.key();
    // Strings and a number: encoding cannot fail.
    let json = serde_json::to_vec(&Token {
        rv,
        namespace,
        name,
    })
    .unwrap_or_default();
    URL_SAFE_NO_PAD.encode(json)
}

fn decode_token(text: &str) -> Result<Token, Status> {
    let json = URL_SAFE_NO_PAD.decode(text).ok();
    json.and_then(|json| serde_json::from_slice(&json).ok())
        .ok_or_else(|| Status::bad_request("continue key is not valid: not made by this server"))
}

pub(crate) fn expired(error: TooOld) -> Status {
    Status::expired(error.to_string())
}
