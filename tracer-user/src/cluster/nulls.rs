//! `null` where the API has a value: the API server's decoder takes it for an empty one.

use serde_json::Value;

/// Maps of strings to strings.
const STRING_MAPS: [&str; 5] = [
    "annotations",
    "labels",
    "matchLabels",
    "nodeSelector",
    "selector",
];
/// Lists of strings; others are lists of objects.
const STRING_LISTS: [&str; 8] = [
    "args",
    "clusterIPs",
    "command",
    "except",
    "externalIPs",
    "podCIDRs",
    "policyTypes",
    "values",
];

/// The object with empty values for `null` in maps and lists, where there are any. (A field that is `null`
/// is one that is absent, which needs no help.)
pub(super) fn filled(object: &Value) -> Option<Value> {
    let mut object = object.clone();
    fill("", &mut object).then_some(object)
}

/// Whether something was filled in.
fn fill(field: &str, value: &mut Value) -> bool {
    let mut any = false;
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if value.is_null() && STRING_MAPS.contains(&field) {
                    *value = Value::String(String::new());
                    any = true;
                } else {
                    any |= fill(key, value);
                }
            }
        }
        Value::Array(list) => {
            for item in list {
                if item.is_null() {
                    *item = if STRING_LISTS.contains(&field) {
                        Value::String(String::new())
                    } else {
                        Value::Object(serde_json::Map::new())
                    };
                    any = true;
                } else {
                    any |= fill(field, item);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    any
}
