//! JSON as Go's decoder reads it: names of members in any case, `null` for the zero value, unknown members ignored.
//!
//! Maps (labels, annotations) keep their keys as they are. A value of the wrong type is an error, as in Go.

use serde::de::value::{MapDeserializer, StrDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Map, Value};

/// Reads one value.
///
/// # Errors
/// What `serde_json` says: syntax, or a member of the wrong type.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    from_value(&serde_json::from_slice(bytes)?)
}

/// The same from a tree.
pub fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, Error> {
    T::deserialize(Go(value))
}

/// A member of an object; an exact match of the name goes before one that differs in case. `null` is no member.
pub fn member<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let exact = object.get(name);
    let found =
        exact.or_else(|| object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v));
    found.filter(|value| !value.is_null())
}

/// Hands a value to serde with Go's habits.
struct Go<'de>(&'de Value);

/// `null` is the zero value of whatever is asked for.
macro_rules! zero_if_null {
    ($($method:ident => $visit:ident($zero:expr),)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            if self.0.is_null() { visitor.$visit($zero) } else { self.deserialize_any(visitor) }
        }
    )*};
}

impl<'de> Deserializer<'de> for Go<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(items) => visitor.visit_seq(Items(items.iter())),
            Value::Object(object) => visitor.visit_map(Entries { rest: object.iter(), value: None }),
            Value::String(text) => visitor.visit_borrowed_str(text),
            simple => simple.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Object(object) => visitor.visit_map(Members { object, rest: fields.iter(), value: None }),
            Value::Null => visitor.visit_map(nothing()),
            // Serde would take one for the fields in order.
            Value::Array(_) => Err(serde::de::Error::invalid_type(Unexpected::Seq, &visitor)),
            other => other.deserialize_any(visitor),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_map(nothing()),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_seq(Items([].iter())),
            _ => self.deserialize_any(visitor),
        }
    }

    zero_if_null! {
        deserialize_bool => visit_bool(false),
        deserialize_i64 => visit_i64(0),
        deserialize_u16 => visit_u16(0),
        deserialize_f64 => visit_f64(0.0),
        deserialize_str => visit_borrowed_str(""),
        deserialize_string => visit_borrowed_str(""),
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u32 u64 u128 f32 char bytes byte_buf unit unit_struct tuple tuple_struct enum identifier
        ignored_any
    }
}

/// An object without members.
fn nothing<'de>() -> MapDeserializer<'de, std::iter::Empty<(&'de str, &'de str)>, Error> {
    MapDeserializer::new(std::iter::empty())
}

/// The elements of a list.
struct Items<'de>(std::slice::Iter<'de, Value>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        self.0.next().map(|item| seed.deserialize(Go(item))).transpose()
    }
}

/// All entries of a map.
struct Entries<'de> {
    rest: serde_json::map::Iter<'de>,
    value: Option<&'de Value>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((key, value)) = self.rest.next() else { return Ok(None) };
        self.value = Some(value);
        seed.deserialize(StrDeserializer::<Error>::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(Go(self.value.take().unwrap_or(&Value::Null)))
    }
}

/// The members of an object that a structure has a field for, under the field's name.
struct Members<'de> {
    object: &'de Map<String, Value>,
    rest: std::slice::Iter<'static, &'static str>,
    value: Option<&'de Value>,
}

impl<'de> MapAccess<'de> for Members<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        for field in self.rest.by_ref() {
            if let Some(value) = member(self.object, field) {
                self.value = Some(value);
                return seed.deserialize((*field).into_deserializer()).map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(Go(self.value.take().unwrap_or(&Value::Null)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Inner {
        node_name: String,
        on: bool,
        order: Option<f64>,
        count: i64,
        labels: BTreeMap<String, String>,
        list: Vec<String>,
        inner: Option<Box<Inner>>,
    }

    fn read(text: &str) -> Result<Inner, String> {
        from_slice(text.as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn names_match_in_any_case_and_an_exact_match_goes_first() {
        let expected = Inner { node_name: "b".into(), on: true, ..Inner::default() };
        assert_eq!(read(r#"{"NODENAME":"a","nodeName":"b","On":true,"other":[1]}"#), Ok(expected));
    }

    #[test]
    fn null_is_the_zero_value_everywhere() {
        let text = r#"{"nodeName":null,"on":null,"order":null,"count":null,"labels":{"A":null},"list":["x",null],
            "inner":{"Inner":null,"labels":null,"list":null}}"#;
        let expected = Inner {
            labels: [("A".into(), String::new())].into(),
            list: vec!["x".into(), String::new()],
            inner: Some(Box::default()),
            ..Inner::default()
        };
        assert_eq!(read(text), Ok(expected));
        assert_eq!(from_slice::<Inner>(b"null").unwrap(), Inner::default());
    }

    #[test]
    fn whole_numbers_are_fractions_but_not_the_other_way_round() {
        assert_eq!(read(r#"{"order":-1}"#).unwrap().order, Some(-1.0));
        assert!(read(r#"{"count":1.5}"#).unwrap_err().contains("floating point"));
        assert!(read(r#"{"on":"true"}"#).unwrap_err().contains("expected a boolean"));
        assert!(read("[]").is_err() && read("{} {}").is_err() && read("").is_err());
    }
}
