//! JSON as Go's decoder reads it, which is what everybody's configuration and every token server is tried with: the first value
//! counts and what follows it does not, a field's name may be in another case, `null` is like no field, and of what is not known
//! nothing is asked.

use serde_json::{Map, Value};

pub type Object = Map<String, Value>;

/// The object at the beginning of `text`; an empty one for `null` and for no text at all.
///
/// # Errors
/// Where it stops being JSON. serde's own message would quote what it met, which may be a password.
pub fn object(text: &[u8]) -> Result<Object, String> {
    // Editors on Windows begin a file with a byte order mark.
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    match serde_json::Deserializer::from_slice(text).into_iter::<Value>().next() {
        None | Some(Ok(Value::Null)) => Ok(Object::new()),
        Some(Ok(Value::Object(object))) => Ok(object),
        Some(Ok(_)) => Err("it is not an object".to_owned()),
        Some(Err(error)) => Err(format!("line {}, column {}", error.line(), error.column())),
    }
}

/// What is called `name`, the exact spelling last.
pub fn fields<'a>(object: &'a Object, name: &str) -> impl Iterator<Item = &'a Value> {
    let of_that_name = object.iter().filter(|(key, value)| key.eq_ignore_ascii_case(name) && !value.is_null());
    // The map is sorted: capitals come first.
    of_that_name.map(|(_, value)| value)
}

/// The text of a field; none where it is empty, as Go does not tell the two apart.
///
/// # Errors
/// The field is something else.
pub fn text(object: &Object, name: &str) -> Result<Option<String>, String> {
    let Some(value) = fields(object, name).last() else { return Ok(None) };
    let text = value.as_str().ok_or_else(|| format!("`{name}` is not text"))?;
    Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
}

/// The members of a field that is an object.
///
/// # Errors
/// The field is something else.
pub fn members<'a>(object: &'a Object, name: &str) -> Result<Vec<(&'a String, &'a Value)>, String> {
    let mut members = Vec::new();
    for value in fields(object, name) {
        members.extend(value.as_object().ok_or_else(|| format!("`{name}` is not an object"))?);
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_as_go_finds_them() {
        let cases = [
            (r#"{"auth":"a"}"#, Ok(Some("a"))),
            (r#"{"AUTH":"a"}"#, Ok(Some("a"))),
            (r#"{"Auth":"a","auth":"b"}"#, Ok(Some("b"))),
            (r#"{"Auth":"a","auth":null}"#, Ok(Some("a"))),
            (r#"{"auth":null}"#, Ok(None)),
            (r#"{"auth":""}"#, Ok(None)),
            (r#"{"other":{"auth":"a"}}"#, Ok(None)),
            (r#"{"auth":5}"#, Err("`auth` is not text")),
            ("\u{feff}{\"auth\":\"a\"}\r\n", Ok(Some("a"))),
            (r#"{"auth":"a"} WARNING: more"#, Ok(Some("a"))),
            ("null", Ok(None)),
            ("", Ok(None)),
            (" \n", Ok(None)),
        ];
        for (json, expected) in cases {
            let found = object(json.as_bytes()).and_then(|object| text(&object, "auth"));
            assert_eq!(found, expected.map(|text| text.map(str::to_owned)).map_err(str::to_owned), "{json}");
        }
        for json in ["[]", "5", "{", "{\"a\":", "hunter2", "\u{0}", "\"x\""] {
            object(json.as_bytes()).expect_err(json);
        }
    }
}
