//! Changes of a part of an object that is someone else's, as JSON Patch (RFC 6902).
//!
//! A patch says first what it rests on: if someone changed that since it was read, the API server refuses the whole of it,
//! and the object is read and planned for again. Nobody's edit is overwritten unseen.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::object::Key;

/// A patch of one object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Patch {
    /// Where the object lies.
    pub key: Key,
    /// What is tested and done, in this order: all of it or nothing.
    pub operations: Vec<Operation>,
}

/// One operation. Paths are JSON pointers (RFC 6901).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Operation {
    /// The value must be just this.
    Test {
        /// Where.
        path: String,
        /// What.
        value: Value,
    },
    /// Sets a field that is not there.
    Add {
        /// Where.
        path: String,
        /// What.
        value: Value,
    },
    /// Sets a field that is there.
    Replace {
        /// Where.
        path: String,
        /// What.
        value: Value,
    },
    /// Removes a field that is there.
    Remove {
        /// Where.
        path: String,
    },
}

impl Patch {
    /// Whether `object` is what the patch rests on.
    pub fn fits(&self, object: &Value) -> bool {
        self.operations.iter().all(|operation| match operation {
            Operation::Test { path, value } => object.pointer(path) == Some(value),
            Operation::Add { .. } => true,
            Operation::Replace { path, .. } | Operation::Remove { path } => object.pointer(path).is_some(),
        })
    }

    /// `object` with the patch; none if it does not fit.
    pub fn applied(&self, object: &Value) -> Option<Value> {
        let mut patched = object.clone();
        for operation in self.operations.iter().filter(|_| self.fits(object)) {
            let (path, value) = match operation {
                Operation::Test { .. } => continue,
                Operation::Add { path, value } | Operation::Replace { path, value } => (path, Some(value)),
                Operation::Remove { path } => (path, None),
            };
            let (parent, field) = path.rsplit_once('/')?;
            let fields = patched.pointer_mut(parent)?.as_object_mut()?;
            match value {
                Some(value) => drop(fields.insert(field.to_owned(), value.clone())),
                None => drop(fields.remove(field)),
            }
        }
        self.fits(object).then_some(patched)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::object::Kind;

    fn patch(operations: Value) -> Patch {
        let key = Key::new(Kind::HttpRoute, "n", "r");
        Patch { key, operations: serde_json::from_value(operations).unwrap() }
    }

    #[test]
    fn a_patch_is_done_as_a_whole_or_not_at_all() {
        let object = json!({"rules": [{"name": "a", "weight": 1}]});
        let set = json!({"op": "replace", "path": "/rules/0/weight", "value": 2});
        let named = |name: &str| json!({"op": "test", "path": "/rules/0/name", "value": name});
        let weight = |patch: Patch| patch.applied(&object).map(|done| done["rules"][0]["weight"].clone());
        assert_eq!(weight(patch(json!([named("a"), set]))), Some(json!(2)));
        assert_eq!(weight(patch(json!([named("b"), set]))), None);
        assert_eq!(weight(patch(json!([set, named("b")]))), None);
        assert_eq!(weight(patch(json!([{"op": "remove", "path": "/rules/0/weight"}]))), Some(Value::Null));
        assert_eq!(weight(patch(json!([{"op": "remove", "path": "/rules/0/filters"}]))), None);
        let add = json!({"op": "add", "path": "/rules/0/filters", "value": []});
        let done = patch(json!([add])).applied(&object).unwrap();
        assert_eq!(done["rules"][0]["filters"], json!([]));
    }
}
