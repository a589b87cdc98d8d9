//! Runs every case of Calico's `validation.json`: what libcalico-go's validator said of values of its own types.

use std::fs;

use canal_control::resource::validate_type;
use serde_json::Value;

#[path = "../../tests/recorded/mod.rs"]
mod recorded;

#[test]
fn every_case_is_judged_as_libcalico_go_judges_it() {
    let Some(file) = recorded::find("calico/validation.json") else { return };
    let document: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let cases = document["cases"].as_array().expect("a list of cases");
    println!("validation.json: {} cases", cases.len());
    assert!(!cases.is_empty());
    let failures: Vec<String> = cases.iter().filter_map(|case| run(case).err()).collect();
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// Types are written as Go writes them: `v3.Rule`, `numorstring.Protocol`.
fn run(case: &Value) -> Result<(), String> {
    let text = |name: &str| case[name].as_str().unwrap_or_default();
    let kind = text("type").rsplit('.').next().unwrap_or_default();
    let shown = || {
        let value: String = case["value"].to_string().chars().take(400).collect();
        format!("{} {}: {value}", text("name"), text("type"))
    };
    let errors = validate_type(kind, &case["value"]).ok_or_else(|| format!("{}: unknown type", shown()))?;
    match (case["valid"].as_bool(), errors.as_slice()) {
        (Some(true), []) | (Some(false), [_, ..]) => Ok(()),
        (Some(true), errors) => Err(format!("{}: refused: {errors:?}", shown())),
        (Some(false), []) => Err(format!("{}: accepted", shown())),
        (None, _) => Err(format!("{}: says not whether it is valid", shown())),
    }
}
