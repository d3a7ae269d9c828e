//! One object laid over another.

use serde_json::{Map, Value};

use super::Shape;
use crate::kinds::schema::{List, Type};
use crate::patch::fields::item;

/// `over` laid over `under`: what `over` has wins, the rest stays.
pub(in crate::patch) fn overlay(under: &Value, over: &Value, type_: &Type) -> Value {
    match (Shape::of_value(type_, over), under, over) {
        (shape @ (Shape::Object(_) | Shape::Map(_)), Value::Object(under), Value::Object(over)) => {
            let mut merged: Map<String, Value> = under.clone();
            for (name, value) in over {
                let value = match under.get(name) {
                    Some(under) => overlay(under, value, shape.field(name)),
                    None => value.clone(),
                };
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Shape::List(list), Value::Array(under), Value::Array(over)) => {
            Value::Array(lists(under, over, list))
        }
        _ => over.clone(),
    }
}

/// Items that both have are merged. The order is that of `over`; items that only
/// `under` has stay behind those that they followed.
fn lists(under: &[Value], over: &[Value], list: &List) -> Vec<Value> {
    let elements = |items: &[Value]| items.iter().map(|i| item(list, i)).collect::<Vec<_>>();
    let (under_names, over_names) = (elements(under), elements(over));
    let merged = |index: usize| {
        let twin = under_names
            .iter()
            .position(|name| *name == over_names[index]);
        match twin {
            Some(twin) => overlay(&under[twin], &over[index], &list.item),
            None => over[index].clone(),
        }
    };
    let in_over = |name: &Option<String>| over_names.contains(name);
    let in_under = |name: &Option<String>| under_names.contains(name);

    let mut result = Vec::with_capacity(under.len() + over.len());
    let mut next = 0;
    for (index, name) in under_names.iter().enumerate() {
        if !in_over(name) {
            result.push(under[index].clone());
            continue;
        }
        // Take the items of `over` up to and with this one, unless the order
        // of the two differs and it has been taken before.
        let Some(place) = over_names.iter().position(|other| other == name) else {
            continue;
        };
        if place < next {
            continue;
        }
        // Those that come first in `over` but later in `under` come along.
        while next <= place {
            result.push(merged(next));
            next += 1;
        }
        // New items that follow directly.
        while next < over.len() && !in_under(&over_names[next]) {
            result.push(merged(next));
            next += 1;
        }
    }
    result.extend((next..over.len()).map(merged));
    result
}
