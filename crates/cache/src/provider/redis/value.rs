//! What comes back from a server, as what was asked for.

use bytes::Bytes;
use redis::Value;

use super::errors::{Failure, protocol};
use crate::provider::{Error, Item};

/// Text, of whatever kind the server says it in.
pub(super) fn text(value: Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text),
        Value::Okay => Some("OK".to_owned()),
        Value::Int(number) => Some(number.to_string()),
        _ => None,
    }
}

pub(super) fn bytes(value: Value) -> Result<Option<Bytes>, Error> {
    match value {
        Value::BulkString(bytes) => Ok(Some(bytes.into())),
        Value::Nil => Ok(None),
        Value::SimpleString(text) => Ok(Some(text.into_bytes().into())),
        Value::ServerError(told) => Err(Failure::Told(told).into_error()),
        _ => Err(protocol("a value was expected")),
    }
}

pub(super) fn item(value: Value) -> Result<Option<Item>, Error> {
    Ok(bytes(value)?.map(Item::from))
}

pub(super) fn integer(value: &Value) -> Result<i64, Error> {
    match value {
        Value::Int(number) => Ok(*number),
        Value::ServerError(told) => Err(Failure::Told(told.clone()).into_error()),
        _ => Err(protocol("a number was expected")),
    }
}

pub(super) fn array(value: Value) -> Result<Vec<Value>, Error> {
    match value {
        Value::Array(values) => Ok(values),
        Value::ServerError(told) => Err(Failure::Told(told).into_error()),
        _ => Err(protocol("a list was expected")),
    }
}

/// The first error among answers that should be none.
pub(super) fn first_error(values: &[Value]) -> Result<(), Error> {
    for value in values {
        match value {
            Value::ServerError(told) => return Err(Failure::Told(told.clone()).into_error()),
            Value::Array(inner) => first_error(inner)?,
            _ => {}
        }
    }
    Ok(())
}
