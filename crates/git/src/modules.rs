//! `.gitmodules`: which repository is where (gitmodules(5), git-config(1) «Syntax»).

use super::object::is_safe;
use super::{Fault, Result};

/// A submodule as it is configured.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Module {
    pub name: String,
    pub path: Vec<u8>,
    pub url: String,
    /// `update = none`: not checked out.
    pub skipped: bool,
}

/// Reads the text. A submodule without path or address is left out; so is one whose name could lead out of `.git/modules`.
///
/// # Errors
/// For what git could not read either.
pub fn parse(text: &[u8]) -> Result<Vec<Module>> {
    let mut modules: Vec<Module> = Vec::new();
    let mut current = None;
    let mut rest = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    loop {
        rest = rest.trim_ascii_start();
        match rest.first() {
            None => break,
            Some(b'#' | b';') => skip_line(&mut rest),
            Some(b'[') => current = section(&mut rest)?.map(|name| position(&mut modules, name)),
            Some(_) => {
                let (key, value) = variable(&mut rest)?;
                if let Some(module) = current.and_then(|position: usize| modules.get_mut(position)) {
                    set(module, &key, value);
                }
            }
        }
    }
    modules.retain(|module| !module.path.is_empty() && !module.url.is_empty() && is_safe_name(&module.name));
    Ok(modules)
}

fn position(modules: &mut Vec<Module>, name: String) -> usize {
    modules.iter().position(|module| module.name == name).unwrap_or_else(|| {
        modules.push(Module { name, ..Module::default() });
        modules.len() - 1
    })
}

fn set(module: &mut Module, key: &str, value: Vec<u8>) {
    match key {
        "path" => module.path = value,
        "url" => module.url = String::from_utf8(value).unwrap_or_default(),
        "update" => module.skipped = value == b"none",
        _ => {}
    }
}

/// Every part must be one that git would write (git `check_submodule_name`).
fn is_safe_name(name: &str) -> bool {
    !name.starts_with('-')
        && !name.chars().any(char::is_control)
        && name.split('/').all(|part| is_safe(part.as_bytes()))
}

fn skip_line(rest: &mut &[u8]) {
    let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    *rest = &rest[end..];
}

fn broken() -> Fault {
    Fault::server("a `.gitmodules` that cannot be read")
}

/// `[submodule "NAME"]`; none for another section.
fn section(rest: &mut &[u8]) -> Result<Option<String>> {
    let mut bytes = rest[1..].iter().copied().enumerate();
    let (mut name, mut sub, mut quoted) = (Vec::new(), None::<Vec<u8>>, false);
    loop {
        let (at, byte) = bytes.next().filter(|(_, byte)| *byte != b'\n').ok_or_else(broken)?;
        match (quoted, byte) {
            (true, b'\\') => {
                let (_, byte) = bytes.next().filter(|(_, byte)| *byte != b'\n').ok_or_else(broken)?;
                sub.get_or_insert_default().push(byte);
            }
            (_, b'"') => {
                quoted = !quoted;
                sub.get_or_insert_default();
            }
            (true, byte) => sub.get_or_insert_default().push(byte),
            (false, b']') => {
                *rest = &rest[at + 2..];
                break;
            }
            (false, byte) => name.push(byte),
        }
    }
    let ours = name.trim_ascii().eq_ignore_ascii_case(b"submodule");
    Ok(sub.filter(|_| ours).and_then(|sub| String::from_utf8(sub).ok()))
}

/// `key = value`, with quotes, escapes, comments and continued lines.
fn variable(rest: &mut &[u8]) -> Result<(String, Vec<u8>)> {
    let length = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'-').count();
    let key = String::from_utf8_lossy(&rest[..length]).to_ascii_lowercase();
    *rest = &rest[length..];
    let blank = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r')).count();
    *rest = &rest[blank..];
    match rest.first() {
        _ if length == 0 => Err(broken()),
        Some(b'=') => {
            *rest = &rest[1..];
            Ok((key, value(rest)?))
        }
        None | Some(b'\n' | b'#' | b';') => {
            skip_line(rest);
            Ok((key, Vec::new()))
        }
        Some(_) => Err(broken()),
    }
}

fn value(rest: &mut &[u8]) -> Result<Vec<u8>> {
    let (mut value, mut quoted) = (Vec::new(), false);
    // Up to here nothing is trimmed at the end.
    let mut kept = 0;
    let mut bytes = rest.iter().copied().enumerate();
    let end = loop {
        let Some((at, byte)) = bytes.next() else { break rest.len() };
        match byte {
            b'\n' if quoted => return Err(broken()),
            b'\n' => break at,
            b'"' => quoted = !quoted,
            b'#' | b';' if !quoted => {
                let line = rest[at..].iter().position(|byte| *byte == b'\n');
                break line.map_or(rest.len(), |length| at + length);
            }
            b'\\' => {
                value.extend(escaped(bytes.next().map(|(_, byte)| byte))?);
                kept = value.len();
                continue;
            }
            b' ' | b'\t' | b'\r' if !quoted && value.is_empty() => continue,
            byte => value.push(byte),
        }
        if quoted || !byte.is_ascii_whitespace() && byte != b'"' {
            kept = value.len();
        }
    };
    if quoted {
        return Err(broken());
    }
    value.truncate(kept);
    *rest = &rest[end..];
    Ok(value)
}

fn escaped(byte: Option<u8>) -> Result<Option<u8>> {
    match byte {
        Some(b'\n') => Ok(None),
        Some(b'n') => Ok(Some(b'\n')),
        Some(b't') => Ok(Some(b'\t')),
        Some(b'b') => Ok(Some(8)),
        Some(byte @ (b'"' | b'\\')) => Ok(Some(byte)),
        _ => Err(broken()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> String {
        match parse(text.as_bytes()) {
            Ok(modules) => modules
                .iter()
                .map(|it| format!("{}|{}|{}|{}", it.name, String::from_utf8_lossy(&it.path), it.url, it.skipped))
                .collect::<Vec<_>>()
                .join(" "),
            Err(_) => "broken".to_owned(),
        }
    }

    #[test]
    fn texts() {
        let table = [
            ("[submodule \"a\"]\n\tpath = lib/a\n\turl = ../a.git\n", "a|lib/a|../a.git|false"),
            ("[submodule \"a\"] path = x ; c\n url = \"u#v\" # c\n update=none", "a|x|u#v|true"),
            ("# c\n[core]\npath = y\n[SubModule \"q\\\"\"]\nPATH=p\nurl=u \\\n v  \n", "q\"|p|u  v|false"),
            (
                "[submodule \"a\"]\npath=x\n[submodule \"b\"]\nurl=y\npath=z\n[submodule \"a\"]\nurl=w",
                "a|x|w|false b|z|y|false",
            ),
            ("[submodule \"../x\"]\npath=x\nurl=y", ""),
            ("[submodule \"a/.git/b\"]\npath=x\nurl=y", ""),
            ("[submodule \"a\"]\npath\nurl=y", ""),
            ("", ""),
            ("[submodule \"a\"\npath=x", "broken"),
            ("[submodule \"a\"]\npath=\"x", "broken"),
            ("[submodule \"a\"]\npath=\\x", "broken"),
            ("[submodule \"a\"]\n=x", "broken"),
        ];
        for (text, expected) in table {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_ends(text in r#"([\[\]"\\=#; \n\tax./-]|submodule|path|url){0,60}"#) {
            for module in parse(text.as_bytes()).unwrap_or_default() {
                prop_assert!(!module.name.split('/').any(|part| part == ".."));
            }
        }
    }
}
