//! canal's own words: what `canal show … -o json` and `canal status` answer.

use serde_json::Value;
use std::collections::BTreeMap;

/// Adds up the drop counters in the answer of `canal show drops`, by reason.
///
/// Accepts a map from reason to number, and a list of objects that have a reason and a number, at any depth: several
/// workers or ports may each have their own list.
pub fn drops(answer: &Value) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    add(answer, &mut sums);
    sums
}

fn add(value: &Value, sums: &mut BTreeMap<String, u64>) {
    const NAMES: [&str; 2] = ["reason", "name"];
    const COUNTS: [&str; 4] = ["packets", "count", "total", "frames"];
    match value {
        Value::Array(items) => items.iter().for_each(|item| add(item, sums)),
        Value::Object(fields) => {
            let name = NAMES.iter().find_map(|n| fields.get(*n)?.as_str());
            let count = COUNTS.iter().find_map(|n| fields.get(*n)?.as_u64());
            if let (Some(name), Some(count)) = (name, count) {
                *sums.entry(name.to_owned()).or_insert(0) += count;
                return;
            }
            for (key, field) in fields {
                match field.as_u64() {
                    Some(n) => *sums.entry(key.clone()).or_insert(0) += n,
                    None => add(field, sums),
                }
            }
        }
        _ => {}
    }
}

/// What grew between two readings.
pub fn growth(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    after
        .iter()
        .map(|(reason, n)| (reason.clone(), n.saturating_sub(before.get(reason).copied().unwrap_or(0))))
        .filter(|(_, n)| *n > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn counters_of_either_shape_are_added_up() {
        let map = json!({"drops": {"vtep_unknown": 3}});
        let list =
            json!([{"reason": "vtep_unknown", "packets": 1}, {"reason": "vtep_unknown", "packets": 2}]);
        let expected = BTreeMap::from([("vtep_unknown".to_owned(), 3)]);
        assert_eq!((drops(&map), drops(&list)), (expected.clone(), expected));
    }

    #[test]
    fn only_growth_is_growth() {
        let before = BTreeMap::from([("a".to_owned(), 3), ("b".to_owned(), 1)]);
        let after = BTreeMap::from([("a".to_owned(), 5), ("b".to_owned(), 1), ("c".to_owned(), 2)]);
        assert_eq!(growth(&before, &after), BTreeMap::from([("a".to_owned(), 2), ("c".to_owned(), 2)]));
    }
}
