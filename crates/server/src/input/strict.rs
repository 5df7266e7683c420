//! JSON that can mean only one thing: no key twice in an object, nothing too deep, no NUL.
//!
//! Two readers of one body could otherwise each take another of two equal keys: the one that checks and the one that acts.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

use recache_api::FieldProblem;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Problems that are told of one request; a body that is wrong everywhere is not worth a longer list.
pub(crate) const FAULTS_MAX: usize = 100;

/// Why a body cannot be read.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It is no JSON; the text says where it ends to be.
    NotJson(String),
    /// It is JSON, but ambiguous, or with what cannot be kept.
    Fields(Vec<FieldProblem>),
}

/// Reads one JSON value.
pub(crate) fn read(bytes: &[u8], depth_max: usize) -> Result<Value, Fault> {
    let reading = Reading { path: RefCell::default(), faults: RefCell::default(), depth_max };
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let read = (&reading).deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    let faults = reading.faults.into_inner();
    match read {
        Ok(value) if faults.is_empty() => Ok(value),
        Err(error) if faults.is_empty() => Err(Fault::NotJson(error.to_string())),
        Ok(_) | Err(_) => Err(Fault::Fields(faults)),
    }
}

/// One token of a JSON pointer (RFC 6901), escaped.
pub(crate) fn token(text: &str) -> String {
    text.replace('~', "~0").replace('/', "~1")
}

struct Reading {
    path: RefCell<Vec<String>>,
    faults: RefCell<Vec<FieldProblem>>,
    depth_max: usize,
}

impl Reading {
    fn pointer(&self) -> String {
        self.path.borrow().iter().fold(String::new(), |pointer, part| pointer + "/" + &token(part))
    }

    fn fault(&self, message: impl Into<String>) {
        let mut faults = self.faults.borrow_mut();
        if faults.len() < FAULTS_MAX {
            faults.push(FieldProblem { pointer: self.pointer(), message: message.into() });
        }
    }

    fn below<T>(&self, part: String, read: impl FnOnce() -> T) -> T {
        self.path.borrow_mut().push(part);
        let read = read();
        self.path.borrow_mut().pop();
        read
    }

    fn text(&self, text: &str) {
        if text.contains('\0') {
            self.fault("holds a NUL character, which cannot be stored");
        }
    }

    fn check_depth<E: serde::de::Error>(&self) -> Result<(), E> {
        if self.path.borrow().len() < self.depth_max {
            return Ok(());
        }
        self.fault(format!("is nested deeper than {} levels", self.depth_max));
        Err(E::custom("nested too deep"))
    }
}

impl<'de> DeserializeSeed<'de> for &Reading {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &Reading {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        self.text(value);
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        self.text(&value);
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        self.check_depth()?;
        let mut elements = Vec::new();
        while let Some(element) =
            self.below(elements.len().to_string(), || sequence.next_element_seed(self))?
        {
            elements.push(element);
        }
        Ok(Value::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        self.check_depth()?;
        let mut object = Map::new();
        let mut told = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if self.faults.borrow().len() >= FAULTS_MAX {
                return Err(A::Error::custom("too much is wrong"));
            }
            self.text(&key);
            if object.contains_key(&key) && told.insert(key.clone()) {
                self.below(key.clone(), || self.fault("is given more than once"));
            }
            let value = self.below(key.clone(), || map.next_value_seed(self))?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<(String, String)> {
        match read(text.as_bytes(), 4) {
            Err(Fault::Fields(faults)) => {
                faults.into_iter().map(|fault| (fault.pointer, fault.message)).collect()
            }
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn ordinary_json_is_read_as_it_is() {
        let text = r#"{"a":[1,-2,3.5,true,null,"x\u00e9"],"b":{"c":{}}}"#;
        assert_eq!(read(text.as_bytes(), 4).unwrap(), serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn keys_given_twice_are_found_wherever_they_stand_and_however_they_are_spelled() {
        let found = faults(r#"{"a":1,"a":2,"a":3,"b":[{"c/d":1},{"c/d":1,"c\/d":2}],"e":1,"\u0065":2}"#);
        let pointers: Vec<_> = found.iter().map(|(pointer, _)| pointer.as_str()).collect();
        assert_eq!(pointers, ["/a", "/b/1/c~1d", "/e"]);
    }

    #[test]
    fn depth_has_an_end() {
        assert!(read(br#"[[[[1]]]]"#, 4).is_ok());
        let found = faults("[[[[[1]]]]]");
        assert_eq!(found[0].0, "/0/0/0/0");
        let bomb = "[".repeat(1_000_000);
        assert!(read(bomb.as_bytes(), 64).is_err());
        assert!(read(bomb.as_bytes(), usize::MAX).is_err(), "the reader has a limit of its own");
    }

    #[test]
    fn nul_is_refused_in_values_and_keys() {
        assert_eq!(faults(r#"{"a":"x\u0000"}"#)[0].0, "/a");
        assert_eq!(faults(r#"{"a\u0000":1}"#)[0].0, "");
    }

    #[test]
    fn what_is_no_json_is_told_with_its_place() {
        for text in ["", "{", "1 2", "{\"a\":}", "\"\\ud800\"", "NaN", "1e999", "\u{feff}{}"] {
            assert!(matches!(read(text.as_bytes(), 4), Err(Fault::NotJson(_))), "{text}");
        }
        assert!(matches!(read(b"\"\xff\"", 4), Err(Fault::NotJson(_))));
    }

    #[test]
    fn list_of_faults_is_bounded() {
        let text = format!("[{}]", vec![r#"{"a":1,"a":2}"#; 5_000].join(","));
        assert_eq!(faults(&text).len(), FAULTS_MAX);
    }
}
