//! AdmissionReview v1, in and out.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";
/// Kubernetes cuts longer warnings, bytes.
const WARNING_BYTES_MAX: usize = 256;
/// And drops more of them.
const WARNINGS_MAX: usize = 16;

/// A review as asked.
#[derive(Debug)]
pub(super) struct Review {
    uid: String,
    request: Value,
}

/// How it is answered.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Operations of a JSON patch.
    pub(super) patch: Vec<Value>,
    pub(super) warnings: Vec<String>,
    /// Why the object is refused.
    pub(super) denied: Option<String>,
}

impl Answer {
    pub(super) fn unchanged() -> Self {
        Self::default()
    }

    pub(super) fn denied(reason: String, warnings: Vec<String>) -> Self {
        Self { denied: Some(reason), warnings, ..Self::default() }
    }
}

impl Review {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(body: &[u8]) -> Result<Self, String> {
        let mut review: Value =
            serde_json::from_slice(body).map_err(|error| format!("it is no JSON: {error}"))?;
        for (field, expected) in [("kind", KIND), ("apiVersion", API_VERSION)] {
            let found = review.get(field);
            if found.and_then(Value::as_str) != Some(expected) {
                let found = found.map_or_else(|| "absent".to_owned(), Value::to_string);
                return Err(format!("{field} is {found}, not \"{expected}\""));
            }
        }
        let request = review.get_mut("request").map(Value::take).unwrap_or_default();
        let uid = request.get("uid").and_then(Value::as_str).unwrap_or_default().to_owned();
        if uid.is_empty() {
            return Err("request.uid is absent".to_owned());
        }
        Ok(Self { uid, request })
    }

    /// Is it about this operation on an object of this kind, itself and not a part of it?
    pub(super) fn is(&self, operation: &str, kind: &str) -> bool {
        let whole = self.text(&["subResource"]).is_empty();
        whole && self.text(&["operation"]) == operation && self.text(&["kind", "kind"]) == kind
    }

    /// The namespace; empty for objects that are in none.
    pub(super) fn namespace(&self) -> &str {
        self.text(&["namespace"])
    }

    /// The object as it is to be; none where one is deleted.
    pub(super) fn object(&self) -> Option<&Value> {
        self.request.get("object").filter(|object| object.is_object())
    }

    fn text(&self, path: &[&str]) -> &str {
        let value = path.iter().try_fold(&self.request, |value, key| value.get(*key));
        value.and_then(Value::as_str).unwrap_or_default()
    }

    /// The review with its answer, as JSON.
    pub(super) fn answered(&self, answer: Answer) -> Vec<u8> {
        let mut response = json!({"uid": self.uid, "allowed": answer.denied.is_none()});
        if let Some(reason) = answer.denied {
            response["status"] = json!({"code": 422, "reason": "Invalid", "message": reason});
        } else if !answer.patch.is_empty() {
            response["patchType"] = json!("JSONPatch");
            response["patch"] = json!(STANDARD.encode(Value::from(answer.patch).to_string()));
        }
        if !answer.warnings.is_empty() {
            let warnings = answer.warnings.into_iter().take(WARNINGS_MAX).map(shortened);
            response["warnings"] = warnings.collect();
        }
        let review = json!({"apiVersion": API_VERSION, "kind": KIND, "response": response});
        review.to_string().into_bytes()
    }
}

fn shortened(text: String) -> String {
    if text.len() <= WARNING_BYTES_MAX {
        return text;
    }
    let room = WARNING_BYTES_MAX - '…'.len_utf8();
    let fits = text.char_indices().take_while(|(at, c)| at + c.len_utf8() <= room);
    fits.map(|(_, c)| c).chain(['…']).collect()
}

/// The object, with a name if it is to get one: it comes without where `generateName` says what it begins with.
pub(super) fn with_name(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        let prefix = metadata.get("generateName").and_then(Value::as_str).map(str::to_owned);
        if let Some(prefix) = prefix.filter(|_| !metadata.contains_key("name")) {
            metadata.insert("name".to_owned(), format!("{prefix}x").into());
        }
    }
    object
}
