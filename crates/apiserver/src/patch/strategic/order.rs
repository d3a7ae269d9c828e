//! The order of merged lists.

use serde_json::{Map, Value};

use super::{PatchError, directive, list};
use crate::kinds::schema::{ListPatch, Object, Type};

/// `$setElementOrder/field: [...]`: the order of the items that the patch's
/// author knows of; objects are given by their merge key alone.
const SET_ORDER: &str = "$setElementOrder/";

/// The order that the patch asks for in a field, if it does.
pub(super) fn wanted<'a>(
    patch: &'a Map<String, Value>,
    field: &str,
    path: &str,
) -> Result<Option<&'a [Value]>, PatchError> {
    patch
        .get(&format!("{SET_ORDER}{field}"))
        .map(|order| directive::items(order, path).map(Vec::as_slice))
        .transpose()
}

/// Orders the lists that the patch only gives an order for.
pub(super) fn reorder_untouched(
    object: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    schema: Option<&Object>,
    path: &str,
) -> Result<(), PatchError> {
    for (directive, order) in patch {
        let Some(name) = directive.strip_prefix(SET_ORDER) else {
            continue;
        };
        if patch.contains_key(name) {
            continue;
        }
        let key = match schema.and_then(|s| s.field(name)).map(|f| &f.type_) {
            Some(Type::List(list)) => match &list.patch {
                ListPatch::Merge(key) => key.as_deref(),
                ListPatch::Replace => continue,
            },
            _ => continue,
        };
        let path = format!("{path}.{name}");
        let order = directive::items(order, &path)?;
        if let Some(Value::Array(items)) = object.get_mut(name) {
            let before = items.clone();
            *items = arrange(std::mem::take(items), order, &before, key, &path)?;
        }
    }
    Ok(())
}

/// Puts the items that `wanted` names in its order, and weaves in the others
/// where they stood in `before` relative to these.
pub(super) fn arrange(
    items: Vec<Value>,
    wanted: &[Value],
    before: &[Value],
    key: Option<&str>,
    path: &str,
) -> Result<Vec<Value>, PatchError> {
    let place = |order: &[Value], item: &Value| {
        let label = list::label(item, key);
        order.iter().position(|o| list::label(o, key) == label)
    };
    if let Some(stray) = wanted.iter().find(|item| list::label(item, key).is_none()) {
        return Err(PatchError::Order {
            path: path.to_owned(),
            item: stray.clone(),
            key: key.unwrap_or_default().to_owned(),
        });
    }
    let (mut named, mut others): (Vec<Value>, Vec<Value>) = items
        .into_iter()
        .partition(|item| place(wanted, item).is_some());
    // Stable: items of the same label keep their order.
    named.sort_by_key(|item| place(wanted, item));
    others.sort_by_key(|item| place(before, item));

    let mut woven = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let take_other = match (others.peek(), named.peek()) {
            (None, None) => return Ok(woven),
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(other), Some(named)) => match (place(before, other), place(before, named)) {
                (Some(other), Some(named)) => other < named,
                _ => false,
            },
        };
        woven.extend(if take_other {
            others.next()
        } else {
            named.next()
        });
    }
}
