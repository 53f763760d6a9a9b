//! `RUN --mount=`: keys, values and which of them go together.

use std::ops::Range;

use crate::suggest::did_you_mean;
use crate::{Diagnostic, Mount, MountKind, Sharing, Span, Word, expand, values};

const TYPES: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];
const SHARINGS: [&str; 3] = ["shared", "private", "locked"];
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "required",
    "size",
    "id",
    "sharing",
    "mode",
    "uid",
    "gid",
    "env",
];

impl Mount {
    /// The mount with all its values expanded by `expand`, checked as a whole.
    ///
    /// Values that are numbers or keywords (`uid=$UID`, `sharing=$S`) are only known now: while a file is parsed, they are left
    /// at their defaults when they hold a `$`. The words of the result are final and must not be expanded again.
    ///
    /// # Errors
    /// A [`Diagnostic`] at the mount's place: an expansion that failed, a value that is none, keys that exclude each other.
    pub fn expand(
        &self,
        expand: &mut dyn FnMut(&str) -> Result<String, expand::ExpandError>,
    ) -> Result<Mount, Diagnostic> {
        let fail = |message: String| Diagnostic::error(message, self.span.clone());
        let mut options = Vec::new();
        for option in options_of(&self.text).map_err(fail)? {
            let value = match option.value {
                Some(value) => Some(expand(&value).map_err(|error| fail(error.message))?),
                None => None,
            };
            options.push(MountOption { value, ..option });
        }
        let draft = Draft::read(&options, |_| self.span.clone()).map_err(fail)?;
        draft.finish(&self.text, self.span.clone()).map_err(fail)
    }
}

/// Reads a mount as written. `place` gives the place of a range of `text`.
pub(crate) fn parse(
    text: &str,
    escape: char,
    span: Span,
    place: impl Fn(Range<usize>) -> Span,
) -> Result<Mount, Diagnostic> {
    let fail = |message: String| Diagnostic::error(message, span.clone());
    let mut options = options_of(text).map_err(fail)?;
    for option in &mut options {
        let Some(value) = option.value.as_mut() else { continue };
        if value.contains('$') {
            option.deferred = true;
            if option.key == "from" && !value.ends_with('$') {
                let error = fail("`from` of a mount takes no variables".to_owned());
                return Err(error.with_hint("give the image a name with `FROM $X AS name` and mount from that"));
            }
        } else if !is_word(&option.key) {
            *value = expand::word(value, escape, &|_: &str| None).map_err(|error| fail(error.message))?.text;
        }
    }
    let error_at = |(message, hint): (String, Option<String>)| Diagnostic { hint, ..fail(message) };
    check_keys(&options).map_err(error_at)?;
    let draft = Draft::read(&options, place).map_err(fail)?;
    draft.finish(text, span.clone()).map_err(fail)
}

/// Keys whose values stay words in the syntax tree.
fn is_word(key: &str) -> bool {
    matches!(key, "from" | "source" | "target" | "id" | "env")
}

struct MountOption {
    /// In lower case, aliases resolved.
    key: String,
    /// `None`: there was no `=`.
    value: Option<String>,
    /// Where the value is in the mount's text.
    at: Range<usize>,
    /// The value is not known yet.
    deferred: bool,
}

fn options_of(text: &str) -> Result<Vec<MountOption>, String> {
    let mut options = Vec::new();
    for (field, at) in csv_fields(text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (field.as_str(), None),
        };
        let value_at = at.end - value.as_ref().map_or(0, String::len).min(at.len())..at.end;
        let key = key.to_lowercase();
        let key = match key.as_str() {
            "src" => "source",
            "dst" | "destination" => "target",
            "ro" => "readonly",
            "rw" => "readwrite",
            other => other,
        };
        options.push(MountOption { key: key.to_owned(), value, at: value_at, deferred: false });
    }
    Ok(options)
}

/// The fields of one line of CSV (Go `encoding/csv` without lazy quotes), with their places.
fn csv_fields(text: &str) -> Result<Vec<(String, Range<usize>)>, String> {
    if text.is_empty() {
        return Err("`--mount` has no options".to_owned());
    }
    let mut fields = Vec::new();
    let mut at = 0;
    loop {
        let start = at;
        let field = match text[at..].starts_with('"') {
            true => csv_quoted(text, &mut at)?,
            false => {
                at += text[at..].find(',').unwrap_or(text.len() - at);
                text[start..at].to_owned()
            }
        };
        if field.contains('"') && !text[start..].starts_with('"') {
            return Err(format!("`--mount={text}` has a quote inside of a field"));
        }
        fields.push((field, start..at));
        if at == text.len() {
            return Ok(fields);
        }
        if !text[at..].starts_with(',') {
            return Err(format!("`--mount={text}` has text after a closing quote"));
        }
        at += 1;
    }
}

fn csv_quoted(text: &str, at: &mut usize) -> Result<String, String> {
    let mut field = String::new();
    *at += 1;
    loop {
        let Some(length) = text[*at..].find('"') else {
            return Err(format!("`--mount={text}` has an open quote"));
        };
        field.push_str(&text[*at..*at + length]);
        *at += length + 1;
        if !text[*at..].starts_with('"') {
            return Ok(field);
        }
        field.push('"');
        *at += 1;
    }
}

fn check_keys(options: &[MountOption]) -> Result<(), (String, Option<String>)> {
    for option in options {
        let key = option.key.as_str();
        if !KEYS.contains(&key) {
            return Err((format!("unknown mount option `{key}`"), did_you_mean(key, KEYS)));
        }
        let Some(value) = option.value.as_ref().filter(|_| !option.deferred) else { continue };
        let known: &[&str] = match key {
            "type" => &TYPES,
            "sharing" => &SHARINGS,
            _ => continue,
        };
        if !known.contains(&value.to_lowercase().as_str()) {
            let message = if key == "type" { "unknown mount type" } else { "unknown `sharing` of a mount" };
            return Err((format!("{message} `{value}`"), did_you_mean(value, known.iter().copied())));
        }
    }
    Ok(())
}

/// What was read so far.
#[derive(Default)]
struct Draft {
    kind: Option<&'static str>,
    from: Option<Word>,
    source: Option<Word>,
    target: Option<Word>,
    id: Option<Word>,
    env: Option<Word>,
    read_only: Option<bool>,
    required: Option<bool>,
    size_bytes: Option<u64>,
    sharing: Option<Sharing>,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    /// Which keys there were, with values known or not.
    keys: Vec<String>,
    /// The type is not known yet: nothing can be said about what goes together.
    kind_deferred: bool,
}

impl Draft {
    fn read(options: &[MountOption], place: impl Fn(Range<usize>) -> Span) -> Result<Draft, String> {
        let mut draft = Draft::default();
        for option in options {
            draft.keys.push(option.key.clone());
            if option.deferred && !is_word(&option.key) {
                draft.kind_deferred |= option.key == "type";
                continue;
            }
            match &option.value {
                Some(value) => draft.set(&option.key, value, place(option.at.clone()))?,
                None => draft.set_bare(&option.key)?,
            }
        }
        Ok(draft)
    }

    fn set_bare(&mut self, key: &str) -> Result<(), String> {
        match key {
            "readonly" => self.read_only = Some(true),
            "readwrite" => self.read_only = Some(false),
            "required" => self.required = Some(true),
            _ => return Err(format!("mount option `{key}` needs a value: `{key}=value`")),
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: &str, span: Span) -> Result<(), String> {
        let word = || Some(Word { text: value.to_owned(), span });
        let invalid = || format!("invalid value `{value}` of mount option `{key}`");
        let boolean = || values::boolean(value).ok_or_else(invalid);
        match key {
            "type" => self.kind = Some(keyword(value, &TYPES).ok_or_else(|| format!("unknown mount type `{value}`"))?),
            "from" => self.from = word(),
            "source" => self.source = word(),
            "target" => self.target = word(),
            "id" => self.id = word(),
            "env" => self.env = word(),
            "readonly" => self.read_only = Some(boolean()?),
            "readwrite" => self.read_only = Some(!boolean()?),
            "required" => self.required = Some(boolean()?),
            "size" => self.size_bytes = Some(values::size_bytes(value).ok_or_else(invalid)?),
            "sharing" => self.sharing = Some(sharing(value)?),
            "mode" => self.mode = Some(values::unsigned(value, 8).ok_or_else(invalid)?),
            "uid" => self.uid = Some(values::unsigned(value, 10).ok_or_else(invalid)?),
            "gid" => self.gid = Some(values::unsigned(value, 10).ok_or_else(invalid)?),
            _ => return Err(format!("unknown mount option `{key}`")),
        }
        Ok(())
    }

    fn has(&self, key: &str) -> bool {
        self.keys.iter().any(|known| known == key)
    }

    fn finish(self, text: &str, span: Span) -> Result<Mount, String> {
        let kind = self.kind.unwrap_or("bind");
        if !self.kind_deferred {
            self.check(kind)?;
        }
        let Draft { id, env, mode, uid, gid, mut source, .. } = self;
        let required = self.required.unwrap_or(false);
        let kind = match kind {
            "cache" => MountKind::Cache { id, sharing: self.sharing.unwrap_or(Sharing::Shared), mode, uid, gid },
            "tmpfs" => MountKind::Tmpfs { size_bytes: self.size_bytes },
            "secret" => MountKind::Secret { id: source.take().or(id), env, required, mode, uid, gid },
            "ssh" => MountKind::Ssh { id, required, mode, uid, gid },
            _ => MountKind::Bind,
        };
        let Draft { from, target, read_only, .. } = self;
        Ok(Mount { span, text: text.to_owned(), kind, from, source, target, read_only })
    }

    /// What BuildKit refuses (`instructions/commands_runmount.go`, `dockerfile2llb/convert_runmount.go`). Other keys without
    /// meaning for a type are let through, as there.
    fn check(&self, kind: &str) -> Result<(), String> {
        let only_for = [
            ("size", &["tmpfs"][..]),
            ("sharing", &["cache"]),
            ("required", &["secret", "ssh"]),
            ("mode", &["cache", "secret", "ssh"]),
            ("uid", &["cache", "secret", "ssh"]),
            ("gid", &["cache", "secret", "ssh"]),
        ];
        for (key, kinds) in only_for {
            if self.has(key) && !kinds.contains(&kind) {
                return Err(format!("mount option `{key}` is not for mounts of type `{kind}`"));
            }
        }
        match kind {
            "secret" => self.check_secret(),
            "ssh" if self.source.is_some() => Err("an ssh mount takes no `source`".to_owned()),
            "ssh" => Ok(()),
            _ => self.check_target(kind),
        }
    }

    fn check_secret(&self) -> Result<(), String> {
        let empty = |word: &Option<Word>| word.as_ref().is_none_or(|word| word.text.is_empty());
        if !empty(&self.from) {
            return Err("a secret mount takes no `from`".to_owned());
        }
        if empty(&self.source) && empty(&self.target) && empty(&self.id) {
            return Err("a secret mount needs an `id` or a `target`".to_owned());
        }
        if !empty(&self.source) && !empty(&self.id) {
            return Err("a secret mount takes `source` or `id`, not both: they mean the same".to_owned());
        }
        Ok(())
    }

    fn check_target(&self, kind: &str) -> Result<(), String> {
        let Some(target) = self.target.as_ref().filter(|target| !target.text.is_empty()) else {
            return Err(format!("a {kind} mount needs a `target`"));
        };
        let is_root =
            target.text.starts_with('/') && target.text.split('/').all(|part| matches!(part, "" | "." | ".."));
        if is_root { Err("the `target` of a mount cannot be `/`".to_owned()) } else { Ok(()) }
    }
}

fn keyword(value: &str, known: &[&'static str]) -> Option<&'static str> {
    let value = value.to_lowercase();
    known.iter().copied().find(|known| *known == value)
}

fn sharing(value: &str) -> Result<Sharing, String> {
    match keyword(value, &SHARINGS) {
        Some("shared") => Ok(Sharing::Shared),
        Some("private") => Ok(Sharing::Private),
        Some("locked") => Ok(Sharing::Locked),
        _ => Err(format!("unknown `sharing` of a mount `{value}`")),
    }
}
