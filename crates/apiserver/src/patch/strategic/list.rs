//! Lists that a patch merges.
//!
//! The merge key of ports is the number alone, but a port is known by number and
//! protocol. Kubernetes confuses 53/TCP and 53/UDP for that reason
//! (kubernetes/kubernetes#39188). `$setElementOrder`, which kubectl sends along,
//! tells how many items of a key the list should have in the end; with it and
//! the key of server-side apply both are treated right.

use serde_json::Value;

use super::{PatchError, directive, merge_object, order, shape, strip};
use crate::kinds::schema::{List, ListKind, ListPatch, Object, Type};

/// Merges `patch` into `current`, then puts the items in order.
///
/// # Errors
/// If an item of the patch lacks the merge key, or its directive is unknown.
pub(super) fn merge(
    current: &[Value],
    patch: &[Value],
    wanted: Option<&[Value]>,
    list: &List,
    path: &str,
) -> Result<Vec<Value>, PatchError> {
    let ListPatch::Merge(Some(key)) = &list.patch else {
        let mut merged = current.to_vec();
        merged.extend(patch.iter().filter(|v| !current.contains(v)).cloned());
        return order::arrange(merged, wanted.unwrap_or(patch), current, None, path);
    };
    let mut merge = Merge {
        items: current.to_vec(),
        key,
        list,
        wanted,
        path,
    };
    if patch
        .iter()
        .any(|item| item.get(directive::PATCH).is_some_and(|d| d == "replace"))
    {
        let given = patch
            .iter()
            .filter(|item| item.get(directive::PATCH).is_none());
        return Ok(given.filter_map(strip).collect());
    }
    // Deletions first: what follows may bring an item of the same key.
    for item in patch
        .iter()
        .filter(|item| item.get(directive::PATCH).is_some())
    {
        merge.delete(item)?;
    }
    let given: Vec<Value> = patch
        .iter()
        .filter(|item| item.get(directive::PATCH).is_none())
        .cloned()
        .collect();
    for item in &given {
        merge.put(item)?;
    }
    let wanted = wanted.unwrap_or(&given);
    order::arrange(merge.items, wanted, current, Some(key), path)
}

struct Merge<'a> {
    items: Vec<Value>,
    /// The merge key.
    key: &'a str,
    list: &'a List,
    wanted: Option<&'a [Value]>,
    path: &'a str,
}

impl Merge<'_> {
    fn delete(&mut self, item: &Value) -> Result<(), PatchError> {
        let directive = &item[directive::PATCH];
        if directive != "delete" {
            return Err(PatchError::Directive {
                path: self.path.to_owned(),
                directive: directive.clone(),
            });
        }
        let value = self.key_of(item)?.clone();
        let mut left = self.wanted_with(&value).unwrap_or(0);
        let key = self.key;
        self.items.retain(|item| {
            let keep = item.get(key) != Some(&value) || left > 0;
            if item.get(key) == Some(&value) && left > 0 {
                left -= 1;
            }
            keep
        });
        Ok(())
    }

    fn put(&mut self, item: &Value) -> Result<(), PatchError> {
        let value = self.key_of(item)?;
        let same: Vec<usize> = (0..self.items.len())
            .filter(|&i| self.items[i].get(self.key) == Some(value))
            .collect();
        let twin = same
            .iter()
            .find(|&&i| self.identity(&self.items[i]) == self.identity(item));
        let room = self.wanted_with(value).is_some_and(|n| n > same.len());
        let target = match (twin, same.first()) {
            (Some(&twin), _) => Some(twin),
            (None, Some(&first)) if !room => Some(first),
            _ => None,
        };
        match target {
            Some(index) => {
                let path = self.path;
                let (Some(current), Some(item)) =
                    (self.items[index].as_object_mut(), item.as_object())
                else {
                    return Ok(());
                };
                merge_object(current, item, item_schema(self.list), path)
            }
            None => {
                self.items.extend(strip(item));
                Ok(())
            }
        }
    }

    fn key_of<'i>(&self, item: &'i Value) -> Result<&'i Value, PatchError> {
        let Some(object) = item.as_object() else {
            return Err(PatchError::Shape {
                path: self.path.to_owned(),
                found: shape(item),
                wanted: "an object",
            });
        };
        object.get(self.key).ok_or_else(|| PatchError::NoMergeKey {
            path: self.path.to_owned(),
            item: item.clone(),
            key: self.key.to_owned(),
        })
    }

    /// How many items with this value of the merge key there should be; none
    /// if the patch does not say.
    fn wanted_with(&self, value: &Value) -> Option<usize> {
        let wanted = self.wanted?;
        Some(
            wanted
                .iter()
                .filter(|item| item.get(self.key) == Some(value))
                .count(),
        )
    }

    /// The values of all fields that tell items apart, defaults filled in.
    fn identity<'i>(&'i self, item: &'i Value) -> Vec<Option<&'i Value>> {
        let ListKind::Map(keys) = &self.list.kind else {
            return vec![item.get(self.key)];
        };
        let schema = item_schema(self.list);
        keys.iter()
            .map(|key| {
                let default = schema.and_then(|s| s.field(key)?.default.as_ref());
                item.get(key).or(default)
            })
            .collect()
    }
}

fn item_schema(list: &List) -> Option<&Object> {
    match &list.item {
        Type::Object(schema) => Some(schema),
        _ => None,
    }
}

/// What the order of a list goes by: the merge key's value, or the scalar itself.
pub(super) fn label<'a>(item: &'a Value, key: Option<&str>) -> Option<&'a Value> {
    match key {
        Some(key) => item.get(key),
        None => Some(item),
    }
}
