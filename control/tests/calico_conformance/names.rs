//! Names of workload endpoints.

use canal_control::model::calico::names::{NameError, WorkloadIds, segments};
use serde_json::{Map, Value, json};

use super::{same, text};

const FIELDS: [&str; 6] = ["node", "orchestrator", "endpoint", "workload", "pod", "containerid"];

fn ids(case: &Value) -> WorkloadIds {
    let [node, orchestrator, endpoint, workload, pod, container_id] =
        FIELDS.map(|field| case["ids"][field].as_str().unwrap_or_default().to_owned());
    WorkloadIds { node, orchestrator, endpoint, workload, pod, container_id }
}

fn shown(ids: WorkloadIds) -> Value {
    let values = [ids.node, ids.orchestrator, ids.endpoint, ids.workload, ids.pod, ids.container_id];
    let known = FIELDS.into_iter().zip(values).filter(|(_, value)| !value.is_empty());
    Value::Object(known.map(|(field, value)| (field.to_owned(), value.into())).collect::<Map<_, _>>())
}

pub fn decode(case: &Value) -> Result<(), String> {
    let read = WorkloadIds::parse(text(case, "name")).map_or_else(|_| json!({}), shown);
    same("ids", &read, &case["ids"])
}

pub fn encode(case: &Value) -> Result<(), String> {
    let ids = ids(case);
    let made = if case["allow_prefix"] == true { ids.prefix() } else { ids.name() };
    let (name, field) = match made {
        Ok(name) => (name, ""),
        Err(NameError::Empty(field) | NameError::Dash(field)) => (String::new(), field),
        Err(NameError::TooMany) => return Err("four fields cannot be too many".to_owned()),
    };
    same("name", name.as_str(), text(case, "name"))?;
    same("errored_field", field, text(case, "errored_field"))
}

pub fn extract4(case: &Value) -> Result<(), String> {
    same("parts", &json!(segments(text(case, "name"))), &case["parts"])
}

pub fn matches(case: &Value) -> Result<(), String> {
    let matches = ids(case).matches(text(case, "name")).unwrap_or(false);
    same("matches", &json!(matches), &case["matches"])
}
