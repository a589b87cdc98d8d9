//! Takes a file apart into resources: YAML or JSON, several documents, lists.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Longest text taken. etcd takes 1.5 MiB a value; a file may hold many.
pub const TEXT_MAX: usize = 64 << 20;

/// Where in a file a resource stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Counted from 1.
    pub document: usize,
    /// In a list; counted from 1.
    pub item: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "document {}", self.document)?;
        self.item.map_or(Ok(()), |item| write!(f, ", item {item}"))
    }
}

/// Why a text holds no resources.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// More than [`TEXT_MAX`].
    #[error("{0} bytes long; at most {TEXT_MAX} are read")]
    TooLong(usize),
    /// Neither JSON nor YAML.
    #[error("document {document}: {reason}")]
    Syntax {
        /// Counted from 1.
        document: usize,
        /// What the parser says.
        reason: String,
    },
    /// Nothing in it.
    #[error("no resource in it")]
    Empty,
    /// A list without items.
    #[error("{0}: a list must have items")]
    NoItems(Place),
}

/// The resources in a text, as they are written; `…List` documents and plain lists are taken apart.
///
/// # Errors
/// [`ReadError`]; then nothing of the text is used.
pub fn read(text: &[u8]) -> Result<Vec<(Place, Value)>, ReadError> {
    if text.len() > TEXT_MAX {
        return Err(ReadError::TooLong(text.len()));
    }
    let mut found = Vec::new();
    for (n, document) in documents(text)?.into_iter().enumerate() {
        let place = Place { document: n + 1, item: None };
        match document {
            // Nothing between two lines of dashes.
            Value::Null => {}
            Value::Array(items) => {
                let items =
                    items.into_iter().map(|item| resources(place, item)).collect::<Result<Vec<_>, _>>()?;
                found.extend(numbered(place, items.concat()));
            }
            Value::Object(list) if list_of(&list).is_some() => {
                found.extend(numbered(place, unlisted(place, list)?))
            }
            document => found.push((place, document)),
        }
    }
    if found.is_empty() { Err(ReadError::Empty) } else { Ok(found) }
}

fn numbered(place: Place, items: Vec<Value>) -> impl Iterator<Item = (Place, Value)> {
    items.into_iter().enumerate().map(move |(n, item)| (Place { item: Some(n + 1), ..place }, item))
}

/// What a list is a list of: `NetworkPolicyList` of `NetworkPolicy`, `List` of anything (empty).
fn list_of(list: &Map<String, Value>) -> Option<&str> {
    list.get("kind")?.as_str()?.strip_suffix("List")
}

/// One of a plain list: a resource, or a list of them, as `canal get` shows several kinds.
fn resources(place: Place, item: Value) -> Result<Vec<Value>, ReadError> {
    match item {
        Value::Object(list) if list_of(&list).is_some() => unlisted(place, list),
        item => Ok(vec![item]),
    }
}

/// Items inherit what they do not say themselves.
fn unlisted(place: Place, mut list: Map<String, Value>) -> Result<Vec<Value>, ReadError> {
    let kind = list_of(&list).unwrap_or_default().to_owned();
    let api_version = list.get("apiVersion").cloned();
    let Some(Value::Array(mut items)) = list.remove("items") else { return Err(ReadError::NoItems(place)) };
    for item in &mut items {
        if let Value::Object(item) = item
            && !kind.is_empty()
        {
            item.entry("kind").or_insert_with(|| kind.as_str().into());
            if let Some(version) = &api_version {
                item.entry("apiVersion").or_insert_with(|| version.clone());
            }
        }
    }
    Ok(items)
}

/// JSON is tried first: YAML knows less of its escapes.
fn documents(text: &[u8]) -> Result<Vec<Value>, ReadError> {
    let start = text.trim_ascii_start();
    let looks_like_json = start.starts_with(b"{") || start.starts_with(b"[");
    let mut json = None;
    if looks_like_json {
        match serde_json::from_slice::<Strict>(text) {
            Ok(Strict(value)) => return Ok(vec![value]),
            Err(error) => json = Some(ReadError::Syntax { document: 1, reason: error.to_string() }),
        }
    }
    let result = yaml(text);
    match (result, json) {
        (Err(ReadError::Syntax { document: 1, .. }), Some(json)) => Err(json),
        (result, _) => result,
    }
}

fn yaml(text: &[u8]) -> Result<Vec<Value>, ReadError> {
    let mut documents = Vec::new();
    for (n, document) in serde_yaml_ng::Deserializer::from_slice(text).enumerate() {
        let wrong = |reason: String| ReadError::Syntax { document: n + 1, reason };
        let mut value = serde_yaml_ng::Value::deserialize(document).map_err(|e| wrong(e.to_string()))?;
        value.apply_merge().map_err(|e| wrong(e.to_string()))?;
        documents.push(json_of(value).map_err(wrong)?);
    }
    Ok(documents)
}

/// The same as JSON; keys that are no texts become ones, as in calicoctl.
fn json_of(value: serde_yaml_ng::Value) -> Result<Value, String> {
    use serde_yaml_ng::Value as Yaml;
    Ok(match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(value) => value.into(),
        Yaml::String(text) => text.into(),
        Yaml::Number(number) => number_of(&number)?.into(),
        Yaml::Sequence(items) => items.into_iter().map(json_of).collect::<Result<Vec<_>, _>>()?.into(),
        Yaml::Mapping(members) => {
            let mut object = Map::new();
            for (name, value) in members {
                let name = match json_of(name)? {
                    Value::String(name) => name,
                    name @ (Value::Bool(_) | Value::Number(_)) => name.to_string(),
                    _ => return Err("a name must be a text".to_owned()),
                };
                if object.contains_key(&name) {
                    return Err(format!("duplicate entry with key {name:?}"));
                }
                object.insert(name, json_of(value)?);
            }
            object.into()
        }
        Yaml::Tagged(tagged) => return Err(format!("the tag {} means nothing here", tagged.tag)),
    })
}

fn number_of(number: &serde_yaml_ng::Number) -> Result<Number, String> {
    let integer = number.as_i64().map(Number::from).or_else(|| number.as_u64().map(Number::from));
    let float = || number.as_f64().and_then(Number::from_f64);
    integer.or_else(float).ok_or_else(|| format!("{number} is no number here"))
}

/// JSON in which nothing is said twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(A::Error::custom(format!("duplicate entry with key {name:?}")));
            }
            let Strict(value) = members.next_value()?;
            object.insert(name, value);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::resource::Resource;

    fn kinds(text: &str) -> Vec<(String, Value)> {
        read(text.as_bytes())
            .unwrap()
            .into_iter()
            .map(|(place, value)| (place.to_string(), value["kind"].clone()))
            .collect()
    }

    #[test]
    fn documents_lists_and_plain_lists_are_taken_apart() {
        let text = "---\nkind: A\n---\n# only a remark\n---\nkind: BList\napiVersion: v\nitems:\n- {}\n- {kind: C}\n---\n- kind: D\n";
        assert_eq!(
            kinds(text),
            [
                ("document 1".to_owned(), json!("A")),
                ("document 3, item 1".to_owned(), json!("B")),
                ("document 3, item 2".to_owned(), json!("C")),
                ("document 4, item 1".to_owned(), json!("D")),
            ]
        );
        assert_eq!(
            kinds(r#"{"kind":"List","items":[{"kind":"X"}]}"#),
            [("document 1, item 1".to_owned(), json!("X"))]
        );
        assert_eq!(kinds("{kind: A}\n---\n{kind: B}\n").len(), 2);
        let several = "[{kind: AList, items: [{}, {}]}, {kind: B}]";
        let expected =
            [("document 1, item 1", "A"), ("document 1, item 2", "A"), ("document 1, item 3", "B")];
        assert_eq!(kinds(several), expected.map(|(place, kind)| (place.to_owned(), json!(kind))));
        let inherited = read(b"kind: BList\napiVersion: v\nitems: [{}]").unwrap();
        assert_eq!(inherited[0].1, json!({"kind": "B", "apiVersion": "v"}));
    }

    #[test]
    fn json_may_say_what_yaml_cannot() {
        assert_eq!(read(br#"{"kind":"A","x":"\ud83d\ude00\/"}"#).unwrap()[0].1["x"], "\u{1f600}/");
    }

    #[test]
    fn nothing_is_said_twice_and_odd_things_are_refused() {
        for bad in [
            "{\"a\":1,\"a\":2}",
            "a: 1\na: 2\n",
            "a: !x y\n",
            "a: .nan\n",
            "[1]: 2\n",
            "a: [",
            "{\"a\":",
            "1: a\n'1': b\n",
        ] {
            let error = read(bad.as_bytes()).unwrap_err();
            assert!(matches!(error, ReadError::Syntax { document: 1, .. }), "{bad}: {error}");
        }
        assert_eq!(read(b""), Err(ReadError::Empty));
        assert_eq!(read(b"---\n---\n"), Err(ReadError::Empty));
        assert!(matches!(read(b"kind: AList\n"), Err(ReadError::NoItems(_))));
        assert!(matches!(read(b"a: 1\n---\nb: [\n"), Err(ReadError::Syntax { document: 2, .. })));
    }

    #[test]
    fn an_item_of_a_list_that_is_nothing_is_no_resource() {
        let found = read(b"-").unwrap();
        assert_eq!(found, [(Place { document: 1, item: Some(1) }, Value::Null)]);
        assert!(Resource::check(&Value::Null, "default").is_err());
    }

    #[test]
    fn a_bomb_of_aliases_is_refused() {
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
        for n in 1..12 {
            let before = format!("*a{}", n - 1);
            text.push_str(&format!("a{n}: &a{n} [{}]\n", [before.as_str(); 9].join(",")));
        }
        assert!(matches!(read(text.as_bytes()), Err(ReadError::Syntax { .. })));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(found) = read(&text) {
                prop_assert!(found.iter().all(|(place, value)| !value.is_null() || place.item.is_some()));
            }
        }

        #[test]
        fn nor_does_what_looks_like_a_resource(text in "[-a:{}\\[\\], \n&*!|>'\"#?1.]{0,60}") {
            let head = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: t}\nspec:\n";
            for (_, value) in read(format!("{head} {text}").as_bytes()).unwrap_or_default() {
                if let Ok(resource) = Resource::check(&value, "default") {
                    prop_assert_eq!(resource.name(), "t");
                }
            }
        }
    }
}
