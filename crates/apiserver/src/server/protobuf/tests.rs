use proptest::prelude::*;

use super::*;
use crate::kinds;

fn spec(kind: &str) -> &'static KindSpec {
    kinds::builtin()
        .iter()
        .find(|spec| spec.kind == kind)
        .unwrap()
}

/// A length-delimited field of less than 128 bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
    field.extend_from_slice(bytes);
    field
}

fn body(kind: &str, raw: &[u8]) -> Vec<u8> {
    let meta = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
    [MAGIC.to_vec(), field(1, &meta), field(2, raw)].concat()
}

#[test]
fn a_message_is_the_json_that_it_stands_for() {
    let metadata = [field(1, b"c"), field(8, b"")].concat();
    let entry = [field(1, b"k"), field(2, b"v")].concat();
    let empty = field(1, b"e");
    let raw = [field(1, &metadata), field(2, &entry), field(2, &empty)].concat();
    assert_eq!(
        object(spec("ConfigMap"), &body("ConfigMap", &raw)).unwrap(),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": "c", "creationTimestamp": null },
            "data": { "k": "v", "e": "" },
        })
    );
    let entry = [field(1, b"k"), field(2, &[0, 255])].concat();
    let secret = object(spec("Secret"), &body("Secret", &field(2, &entry))).unwrap();
    assert_eq!(secret["data"]["k"], "AP8=");
}

#[test]
fn what_is_not_read_is_refused_not_dropped() {
    let unknown = body("ConfigMap", &field(15, b"x"));
    let status = object(spec("ConfigMap"), &unknown).unwrap_err();
    assert_eq!(status.reason, Reason::UnsupportedMediaType);
    assert!(status.message.contains("field 15 of ConfigMap"), "{status}");
    let status = object(spec("Lease"), &body("Lease", &[])).unwrap_err();
    assert_eq!(status.reason, Reason::UnsupportedMediaType);
    let status = object(spec("ConfigMap"), b"{}").unwrap_err();
    assert_eq!(status.reason, Reason::BadRequest);
}

/// Every name in the table of numbers is a field of its type.
#[test]
fn numbers_name_fields_that_exist() {
    fn walk(object: &Object, seen: &mut Vec<String>) {
        if seen.contains(&object.name) {
            return;
        }
        seen.push(object.name.clone());
        for (_, name) in numbers::of(&object.name).unwrap_or_default() {
            let name = name.trim_start_matches('*');
            // Gone from the schema, still sent by some clients.
            if (object.name.as_str(), name) == ("ObjectMeta", "selfLink") {
                continue;
            }
            let field = object.field(name);
            assert!(field.is_some(), "{} has no field {name}", object.name);
        }
        for field in object.fields.values() {
            if let Some(inner) = field.type_.as_object() {
                walk(inner, seen);
            }
        }
    }
    for kind in kinds::builtin() {
        walk(&kind.schema, &mut Vec::new());
    }
}

proptest! {
    #[test]
    fn hostile_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for kind in ["Deployment", "Ingress", "Secret"] {
            let _ = object(spec(kind), &[MAGIC, &bytes[..]].concat());
            let _ = object(spec(kind), &bytes);
            let raw: Vec<u8> = bytes.iter().take(120).copied().collect();
            let _ = object(spec(kind), &body(kind, &raw));
        }
    }
}
