//! `RUN --mount=`: keys, values and which of them go together.

use std::ops::Range;

use crate::suggest::did_you_mean;
use crate::{Diagnostic, Mount, MountKind, Sharing, Span, Word, expand, values};

const TYPES: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];
const SHARINGS: [(&str, Sharing); 3] =
    [("shared", Sharing::Shared), ("private", Sharing::Private), ("locked", Sharing::Locked)];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Key {
    Type,
    From,
    Source,
    Target,
    ReadOnly,
    ReadWrite,
    Required,
    Size,
    Id,
    Sharing,
    Mode,
    Uid,
    Gid,
    Env,
}

/// The keys with all their spellings; the one that messages use comes first.
const KEYS: [(&str, Key); 19] = [
    ("type", Key::Type),
    ("from", Key::From),
    ("source", Key::Source),
    ("src", Key::Source),
    ("target", Key::Target),
    ("dst", Key::Target),
    ("destination", Key::Target),
    ("readonly", Key::ReadOnly),
    ("ro", Key::ReadOnly),
    ("readwrite", Key::ReadWrite),
    ("rw", Key::ReadWrite),
    ("required", Key::Required),
    ("size", Key::Size),
    ("id", Key::Id),
    ("sharing", Key::Sharing),
    ("mode", Key::Mode),
    ("uid", Key::Uid),
    ("gid", Key::Gid),
    ("env", Key::Env),
];

impl Key {
    fn parse(text: &str) -> Result<Key, Fault> {
        let text = text.to_lowercase();
        let unknown = || Fault {
            message: format!("unknown mount option `{text}`"),
            hint: did_you_mean(&text, KEYS.iter().map(|(known, _)| *known)),
        };
        KEYS.iter().find(|(known, _)| *known == text).map(|(_, key)| *key).ok_or_else(unknown)
    }

    fn text(self) -> &'static str {
        KEYS.iter().find(|(_, key)| *key == self).map_or("", |(text, _)| text)
    }

    /// Whether the value stays a word in the syntax tree.
    fn is_word(self) -> bool {
        matches!(self, Key::From | Key::Source | Key::Target | Key::Id | Key::Env)
    }
}

/// What is wrong, without the place.
struct Fault {
    message: String,
    hint: Option<String>,
}

impl From<String> for Fault {
    fn from(message: String) -> Fault {
        Fault { message, hint: None }
    }
}

impl Fault {
    fn at(self, span: &Span) -> Diagnostic {
        Diagnostic { hint: self.hint, ..Diagnostic::error(self.message, span.clone()) }
    }
}

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
        let fields = csv_fields(&self.text).map_err(Fault::from);
        let mut options = fields.and_then(options_of).map_err(|fault| fault.at(&self.span))?;
        for value in options.iter_mut().filter_map(|option| option.value.as_mut()) {
            *value = expand(value).map_err(|error| Diagnostic::error(error.message, self.span.clone()))?;
        }
        Draft::read(&options, |_| self.span.clone())
            .and_then(|draft| draft.finish(&self.text, self.span.clone()))
            .map_err(|fault| fault.at(&self.span))
    }
}

/// Reads a mount as written. `place` gives the place of a range of `text`.
///
/// Only what BuildKit refuses while it parses is an error: a broken list, and variables in `from`. Whatever else is wrong with the
/// options matters where the stage is built, and [`Mount::expand`] says it.
pub(crate) fn parse(
    text: &str,
    escape: char,
    span: Span,
    place: impl Fn(Range<usize>) -> Span,
) -> Result<Mount, Diagnostic> {
    let fields = csv_fields(text).map_err(|message| Fault::from(message).at(&span))?;
    if fields.iter().any(|(field, _)| has_variable_source(field)) {
        let hint = Some("give the image a name with `FROM $X AS name` and mount from that".to_owned());
        return Err(Fault { message: "`from` of a mount takes no variables".to_owned(), hint }.at(&span));
    }
    let mount = options_of(fields).and_then(|mut options| {
        options.iter_mut().try_for_each(|option| option.evaluate_literal(escape))?;
        Draft::read(&options, place)?.finish(text, span.clone())
    });
    let faulty = |_| Mount {
        span,
        text: text.to_owned(),
        kind: MountKind::Bind,
        from: None,
        source: None,
        target: None,
        read_only: None,
    };
    Ok(mount.unwrap_or_else(faulty))
}

fn has_variable_source(field: &str) -> bool {
    field.split_once('=').is_some_and(|(key, value)| {
        key.eq_ignore_ascii_case("from") && value.find('$').is_some_and(|at| at + 1 < value.len())
    })
}

struct MountOption {
    key: Key,
    /// `None`: there was no `=`.
    value: Option<String>,
    /// Where the value is in the mount's text.
    at: Range<usize>,
    /// The value is not known yet.
    deferred: bool,
}

impl MountOption {
    /// Removes the quotes of a value without variables; other values have to wait.
    fn evaluate_literal(&mut self, escape: char) -> Result<(), Fault> {
        let Some(value) = self.value.as_mut() else { return Ok(()) };
        if !value.contains('$') {
            if !self.key.is_word() {
                *value = expand::word(value, escape, &|_: &str| None).map_err(|error| error.message)?.text;
            }
            return Ok(());
        }
        self.deferred = !self.key.is_word();
        Ok(())
    }
}

fn options_of(fields: Vec<(String, Range<usize>)>) -> Result<Vec<MountOption>, Fault> {
    let option = |(field, at): (String, Range<usize>)| {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (field.as_str(), None),
        };
        let value_length = value.as_ref().map_or(0, String::len).min(at.len());
        Ok(MountOption { key: Key::parse(key)?, value, at: at.end - value_length..at.end, deferred: false })
    };
    fields.into_iter().map(option).collect()
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
    keys: Vec<Key>,
    /// The type is not known yet: nothing can be said about what goes together.
    kind_deferred: bool,
}

impl Draft {
    fn read(options: &[MountOption], place: impl Fn(Range<usize>) -> Span) -> Result<Draft, Fault> {
        let mut draft = Draft::default();
        for option in options {
            draft.keys.push(option.key);
            match &option.value {
                _ if option.deferred => draft.kind_deferred |= option.key == Key::Type,
                Some(value) => draft.set(option.key, value, place(option.at.clone()))?,
                None => draft.set_bare(option.key)?,
            }
        }
        Ok(draft)
    }

    fn set_bare(&mut self, key: Key) -> Result<(), Fault> {
        match key {
            Key::ReadOnly => self.read_only = Some(true),
            Key::ReadWrite => self.read_only = Some(false),
            Key::Required => self.required = Some(true),
            Key::Type
            | Key::From
            | Key::Source
            | Key::Target
            | Key::Size
            | Key::Id
            | Key::Sharing
            | Key::Mode
            | Key::Uid
            | Key::Gid
            | Key::Env => return Err(format!("mount option `{0}` needs a value: `{0}=value`", key.text()).into()),
        }
        Ok(())
    }

    fn set(&mut self, key: Key, value: &str, span: Span) -> Result<(), Fault> {
        let word = || Some(Word { text: value.to_owned(), span });
        let invalid = || format!("invalid value `{value}` of mount option `{}`", key.text());
        let boolean = || values::boolean(value).ok_or_else(invalid);
        let number = |radix| values::unsigned(value, radix).ok_or_else(invalid);
        match key {
            Key::Type => self.kind = Some(keyword("mount type", value, &TYPES.map(|kind| (kind, kind)))?),
            Key::From => self.from = word(),
            Key::Source => self.source = word(),
            Key::Target => self.target = word(),
            Key::Id => self.id = word(),
            Key::Env => self.env = word(),
            Key::ReadOnly => self.read_only = Some(boolean()?),
            Key::ReadWrite => self.read_only = Some(!boolean()?),
            Key::Required => self.required = Some(boolean()?),
            Key::Size => self.size_bytes = Some(values::size_bytes(value).ok_or_else(invalid)?),
            Key::Sharing => self.sharing = Some(keyword("`sharing` of a mount", value, &SHARINGS)?),
            Key::Mode => self.mode = Some(number(8)?),
            Key::Uid => self.uid = Some(number(10)?),
            Key::Gid => self.gid = Some(number(10)?),
        }
        Ok(())
    }

    fn finish(self, text: &str, span: Span) -> Result<Mount, Fault> {
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
            (Key::Size, &["tmpfs"][..]),
            (Key::Sharing, &["cache"]),
            (Key::Required, &["secret", "ssh"]),
            (Key::Mode, &["cache", "secret", "ssh"]),
            (Key::Uid, &["cache", "secret", "ssh"]),
            (Key::Gid, &["cache", "secret", "ssh"]),
        ];
        for (key, kinds) in only_for {
            if self.keys.contains(&key) && !kinds.contains(&kind) {
                return Err(format!("mount option `{}` is not for mounts of type `{kind}`", key.text()));
            }
        }
        match kind {
            "secret" => self.check_secret(),
            "ssh" if self.source.is_some() => Err("an ssh mount takes no `source`".to_owned()),
            "ssh" => Ok(()),
            "tmpfs" if self.source.as_ref().is_some_and(|source| !is_root(&source.text)) => {
                Err("a tmpfs mount takes no `source`: there is nothing in it".to_owned())
            }
            _ => self.check_target(),
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

    /// Without a target, or with an empty one, the mount is at the working directory.
    fn check_target(&self) -> Result<(), String> {
        match &self.target {
            Some(target) if target.text.starts_with('/') && is_root(&target.text) => {
                Err("the `target` of a mount cannot be `/`".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// Whether a path names nothing below where it starts.
fn is_root(path: &str) -> bool {
    path.split('/').all(|part| matches!(part, "" | "." | ".."))
}

/// The value that a keyword means, in any case.
fn keyword<T: Copy>(what: &str, value: &str, known: &[(&'static str, T)]) -> Result<T, Fault> {
    let lower = value.to_lowercase();
    let unknown = || Fault {
        message: format!("unknown {what} `{value}`"),
        hint: did_you_mean(value, known.iter().map(|(known, _)| *known)),
    };
    known.iter().find(|(known, _)| *known == lower).map(|(_, meaning)| *meaning).ok_or_else(unknown)
}
