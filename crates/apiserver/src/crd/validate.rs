//! Validation of custom resources by the keywords of their schema. Types have
//! been checked by decoding; rules in CEL (`x-kubernetes-validations`) are kept
//! and not evaluated.

use std::collections::HashMap;

use regex::Regex;
use serde_json::Value;

use crate::Cause;

/// A schema, with its patterns compiled.
#[derive(Debug)]
pub(crate) struct Schema {
    root: Value,
    patterns: HashMap<String, Regex>,
}

impl Schema {
    pub(crate) fn new(root: &Value) -> Self {
        let mut patterns = HashMap::new();
        each(root, "", &mut |schema, _| {
            if let Some(pattern) = schema["pattern"].as_str()
                && let Ok(compiled) = Regex::new(pattern)
            {
                patterns.insert(pattern.to_owned(), compiled);
            }
        });
        Self {
            root: root.clone(),
            patterns,
        }
    }

    /// What is wrong with the schema itself.
    pub(crate) fn check(root: &Value, path: &str, causes: &mut Vec<Cause>) {
        if root["type"] != "object" {
            let detail = "must be \"object\" at the root";
            causes.push(Cause::invalid(
                format!("{path}.type"),
                root["type"].clone(),
                detail,
            ));
        }
        each(root, path, &mut |schema, path| {
            const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
            if let Some(kind) = schema["type"].as_str()
                && !kind.is_empty()
                && !TYPES.contains(&kind)
            {
                causes.push(Cause::not_supported(format!("{path}.type"), kind, &TYPES));
            }
            if let Some(pattern) = schema["pattern"].as_str()
                && let Err(error) = Regex::new(pattern)
            {
                let detail = format!("must be a valid regular expression: {error}");
                causes.push(Cause::invalid(format!("{path}.pattern"), pattern, &detail));
            }
            if schema["type"] == "array" && !schema["items"].is_object() {
                causes.push(Cause::required(
                    format!("{path}.items"),
                    "must be specified",
                ));
            }
        });
    }

    /// What is wrong with a custom resource.
    pub(crate) fn validate(&self, object: &Value) -> Vec<Cause> {
        let mut causes = Vec::new();
        self.value(&self.root, object, "", &mut causes);
        causes
    }

    fn value(&self, schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
        if !schema.is_object() || value.is_null() {
            return;
        }
        if let Some(allowed) = schema["enum"].as_array()
            && !allowed.contains(value)
        {
            let names: Vec<_> = allowed
                .iter()
                .map(|it| it.as_str().map_or_else(|| it.to_string(), str::to_owned))
                .collect();
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            causes.push(Cause::not_supported(path, value.clone(), &names));
        }
        if let Some(wanted) = wrong_type(schema, value) {
            let found = type_name(value);
            let detail = format!("{path} in body must be of type {wanted}: {found:?}");
            return causes.push(Cause::type_invalid(path, found, &detail));
        }
        match value {
            Value::String(text) => self.text(schema, text, path, causes),
            Value::Number(_) => number(schema, value, path, causes),
            Value::Array(items) => self.items(schema, items, path, causes),
            Value::Object(_) => self.object(schema, value, path, causes),
            _ => {}
        }
        self.combined(schema, value, path, causes);
    }

    fn text(&self, schema: &Value, text: &str, path: &str, causes: &mut Vec<Cause>) {
        let length = text.chars().count();
        let mut wrong = |detail: String| {
            causes.push(Cause::invalid(
                path,
                text,
                &format!("{path} in body {detail}"),
            ));
        };
        if let Some(max) = limit(schema, "maxLength").filter(|max| length > *max) {
            wrong(format!("should be at most {max} chars long"));
        }
        if let Some(min) = limit(schema, "minLength").filter(|min| length < *min) {
            wrong(format!("should be at least {min} chars long"));
        }
        if let Some(pattern) = schema["pattern"].as_str()
            && self
                .patterns
                .get(pattern)
                .is_some_and(|compiled| !compiled.is_match(text))
        {
            wrong(format!("should match '{pattern}'"));
        }
        if let Some(format) = schema["format"].as_str()
            && !has_format(text, format)
        {
            wrong(format!("must be of type {format}: {text:?}"));
        }
    }

    fn items(&self, schema: &Value, items: &[Value], path: &str, causes: &mut Vec<Cause>) {
        if let Some(max) = limit(schema, "maxItems").filter(|max| items.len() > *max) {
            causes.push(Cause::too_many(path, items.len(), max));
        }
        if let Some(min) = limit(schema, "minItems").filter(|min| items.len() < *min) {
            let detail = format!("{path} in body should have at least {min} items");
            causes.push(Cause::invalid(path, items.len(), &detail));
        }
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}[{index}]");
            if items[..index]
                .iter()
                .any(|other| same_item(schema, item, other))
            {
                causes.push(Cause::duplicate(path.clone(), item.clone()));
            }
            self.value(&schema["items"], item, &path, causes);
        }
    }

    fn object(&self, schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
        let fields = value.as_object().map_or(0, serde_json::Map::len);
        for required in schema["required"].as_array().into_iter().flatten() {
            let name = required.as_str().unwrap_or_default();
            if value.get(name).is_none() {
                causes.push(Cause::required(child(path, name), ""));
            }
        }
        if let Some(max) = limit(schema, "maxProperties").filter(|max| fields > *max) {
            causes.push(Cause::too_many(path, fields, max));
        }
        if let Some(min) = limit(schema, "minProperties").filter(|min| fields < *min) {
            let detail = format!("{path} in body should have at least {min} properties");
            causes.push(Cause::invalid(path, fields, &detail));
        }
        for (name, value) in value.as_object().into_iter().flatten() {
            // Metadata has the rules of all objects.
            if path.is_empty() && name == "metadata" {
                continue;
            }
            match schema["properties"].get(name) {
                Some(property) => self.value(property, value, &child(path, name), causes),
                None => {
                    let others = &schema["additionalProperties"];
                    self.value(others, value, &child(path, name), causes);
                }
            }
        }
    }

    fn combined(&self, schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
        let list = |keyword: &str| schema[keyword].as_array().map_or(&[][..], Vec::as_slice);
        let holds = |schema: &Value| {
            let mut inner = Vec::new();
            self.value(schema, value, path, &mut inner);
            inner.is_empty()
        };
        for schema in list("allOf") {
            self.value(schema, value, path, causes);
        }
        let mut wrong = |what: &str| {
            causes.push(Cause::invalid(
                path,
                value.clone(),
                &format!("{path} in body {what}"),
            ))
        };
        let any = list("anyOf");
        if !any.is_empty() && !any.iter().any(holds) {
            wrong("must validate at least one schema (anyOf)");
        }
        let one = list("oneOf");
        if !one.is_empty() && one.iter().filter(|schema| holds(schema)).count() != 1 {
            wrong("must validate one and only one schema (oneOf)");
        }
        if schema["not"].is_object() && holds(&schema["not"]) {
            wrong("must not validate the schema (not)");
        }
    }
}

/// The type that the schema wants, if the value is of another.
fn wrong_type<'a>(schema: &'a Value, value: &Value) -> Option<&'a str> {
    if schema["x-kubernetes-int-or-string"] == true {
        let right = value.is_string() || value.is_i64();
        return (!right).then_some("integer or string");
    }
    let wanted = schema["type"].as_str()?;
    let right = match wanted {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        // 1.0 is a whole number, too.
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => true,
    };
    (!right).then_some(wanted)
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn limit(schema: &Value, keyword: &str) -> Option<usize> {
    schema[keyword]
        .as_u64()
        .and_then(|it| usize::try_from(it).ok())
}

fn child(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn number(schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let Some(number) = value.as_f64() else { return };
    let mut wrong = |detail: String| {
        causes.push(Cause::invalid(
            path,
            value.clone(),
            &format!("{path} in body {detail}"),
        ));
    };
    if let Some(max) = schema["maximum"].as_f64() {
        if schema["exclusiveMaximum"] == true && number >= max {
            wrong(format!("should be less than {max}"));
        } else if number > max {
            wrong(format!("should be less than or equal to {max}"));
        }
    }
    if let Some(min) = schema["minimum"].as_f64() {
        if schema["exclusiveMinimum"] == true && number <= min {
            wrong(format!("should be greater than {min}"));
        } else if number < min {
            wrong(format!("should be greater than or equal to {min}"));
        }
    }
    if let Some(step) = schema["multipleOf"].as_f64()
        && step > 0.0
        && (number / step).fract() != 0.0
    {
        wrong(format!("should be a multiple of {step}"));
    }
}

/// Whether a list may not have both items.
fn same_item(schema: &Value, item: &Value, other: &Value) -> bool {
    match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => item == other,
        Some("map") => schema["x-kubernetes-list-map-keys"]
            .as_array()
            .is_some_and(|keys| {
                keys.iter().filter_map(Value::as_str).all(|key| {
                    // A key that is left out has its default.
                    let of = |item: &Value| {
                        let default = &schema["items"]["properties"][key]["default"];
                        item.get(key).unwrap_or(default).clone()
                    };
                    of(item) == of(other)
                })
            }),
        _ => schema["uniqueItems"] == true && item == other,
    }
}

/// The formats that API servers check; others are notes for people.
fn has_format(text: &str, format: &str) -> bool {
    match format {
        "date-time" => crate::registry::parse_time(text).is_some(),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "cidr" => text.parse::<ipnet::IpNet>().is_ok(),
        _ => true,
    }
}

/// Visits a schema and all inside it, with their paths.
fn each(schema: &Value, path: &str, visit: &mut impl FnMut(&Value, &str)) {
    visit(schema, path);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        each(property, &format!("{path}.properties[{name}]"), visit);
    }
    for keyword in ["items", "additionalProperties", "not"] {
        if schema[keyword].is_object() {
            each(&schema[keyword], &format!("{path}.{keyword}"), visit);
        }
    }
    for keyword in ["allOf", "anyOf", "oneOf"] {
        for (index, inner) in schema[keyword].as_array().into_iter().flatten().enumerate() {
            each(inner, &format!("{path}.{keyword}[{index}]"), visit);
        }
    }
}
