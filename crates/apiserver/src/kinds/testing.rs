//! Tables of right and wrong objects.

use serde_json::Value;

use super::{Context, FieldValidation, KindSpec, builtin, prepare_create, prepare_update};
use crate::Status;

/// The built-in kind of this name.
pub(crate) fn kind(name: &str) -> &'static KindSpec {
    let found = builtin().iter().find(|kind| kind.kind == name);
    found.unwrap_or_else(|| panic!("no kind {name}"))
}

/// The object as the API would create it.
pub(crate) fn create(name: &str, mut object: Value) -> Result<Value, Status> {
    let mut context = Context {
        field_validation: FieldValidation::Strict,
        ..Context::default()
    };
    prepare_create(kind(name), &mut object, &mut context).map(|()| object)
}

/// The object as the API would have it after an update of `old`.
pub(crate) fn update(name: &str, mut new: Value, old: &Value) -> Result<Value, Status> {
    let mut context = Context {
        field_validation: FieldValidation::Strict,
        ..Context::default()
    };
    prepare_update(kind(name), &mut new, old, &mut context).map(|()| new)
}

/// `object` with the value at a JSON pointer set, or removed for null. Missing
/// objects on the way are made; an index equal to a list's length appends.
pub(crate) fn with(object: &Value, pointer: &str, value: Value) -> Value {
    let mut object = object.clone();
    let mut target = &mut object;
    let steps: Vec<String> = pointer[1..]
        .split('/')
        .map(|step| step.replace("~1", "/"))
        .collect();
    let (last, way) = steps.split_last().expect("a pointer has a step");
    for step in way {
        target = match target {
            Value::Array(items) => &mut items[step.parse::<usize>().unwrap()],
            other => &mut other[step.as_str()],
        };
    }
    match target {
        Value::Array(items) => {
            let index: usize = last.parse().unwrap();
            match value {
                Value::Null => drop(items.remove(index)),
                value if index == items.len() => items.push(value),
                value => items[index] = value,
            }
        }
        Value::Object(fields) if value.is_null() => drop(fields.remove(last)),
        other => other[last.as_str()] = value,
    }
    object
}

/// Each change makes `good` wrong in just that way: the causes are `expected`.
pub(crate) fn refuses(name: &str, good: &Value, table: &[(&str, Value, &str)]) {
    create(name, good.clone()).unwrap_or_else(|status| panic!("the good {name}: {status}"));
    for (pointer, value, expected) in table {
        let changed = with(good, pointer, value.clone());
        let what = format!("{name} with {pointer} = {value}");
        match create(name, changed) {
            Ok(object) => panic!("{what} is accepted: {object}"),
            Err(status) => assert_eq!(causes(&status), *expected, "{what}"),
        }
    }
}

/// Each change leaves `good` a right object.
pub(crate) fn accepts(name: &str, good: &Value, table: &[(&str, Value)]) {
    for (pointer, value) in table {
        let changed = with(good, pointer, value.clone());
        if let Err(status) = create(name, changed) {
            panic!("{name} with {pointer} = {value}: {status}");
        }
    }
}

/// Each change of a stored `good` is refused: the causes are `expected`.
pub(crate) fn refuses_update(name: &str, good: &Value, table: &[(&str, Value, &str)]) {
    let old = create(name, good.clone()).unwrap();
    for (pointer, value, expected) in table {
        let new = with(&old, pointer, value.clone());
        match update(name, new, &old) {
            Ok(object) => panic!("{name} to {pointer} = {value} is accepted: {object}"),
            Err(status) => assert_eq!(causes(&status), *expected, "{name} to {pointer} = {value}"),
        }
    }
}

/// One line for each cause.
pub(crate) fn causes(status: &Status) -> String {
    let lines: Vec<String> = status.causes().iter().map(ToString::to_string).collect();
    if lines.is_empty() {
        status.message.clone()
    } else {
        lines.join("\n")
    }
}
