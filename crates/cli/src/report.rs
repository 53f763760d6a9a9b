//! Errors as people read them: what, where, why, and what to do.

use std::borrow::Cow;
use std::io::Write as _;

use annotate_snippets::{AnnotationKind, Level, Message, Renderer, Snippet, Title};
use build::BuildError;
use dockerfile::lint::Rule;
use dockerfile::{Diagnostic, ParseError, Span};
use serde_json::{Value, json};

use crate::args::{Display, Verbosity};
use crate::progress;

/// What ended the command.
#[derive(Debug)]
pub enum Failure {
    /// What was typed makes no sense.
    Usage {
        message: String,
        hint: Option<String>,
    },
    Dockerfile {
        error: Box<ParseError>,
        name: String,
    },
    Build {
        error: Box<BuildError>,
        source: String,
        name: String,
        /// What the failed step printed is on the screen already.
        output_is_shown: bool,
        /// What was done about it.
        notes: Vec<String>,
    },
    /// A lint found something, and has said what.
    Findings,
    /// A signal asked for the end.
    Interrupted,
    /// Anything else, with its exit code.
    Other {
        error: anyhow::Error,
        code: u8,
        hint: Option<String>,
    },
}

impl Failure {
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::Usage { message: message.into(), hint: None }
    }

    pub fn other(code: u8) -> impl FnOnce(anyhow::Error) -> Failure {
        move |error| Failure::Other { error, code, hint: None }
    }
}

/// How messages beside the progress of a build are written to standard error.
#[derive(Clone, Copy, Debug, Default)]
pub struct Voice {
    json: bool,
    quiet: bool,
}

impl Voice {
    pub fn of(display: &Display) -> Voice {
        let quiet = progress::is_quiet(display) || display.verbosity >= Verbosity::Warn;
        Voice { json: progress::is_json(display), quiet }
    }

    /// What ended the command, with `status`.
    pub fn failure(self, failure: &Failure, status: u8) {
        let Some(told) = Told::of(failure) else { return };
        if self.json { progress::emit_json(told.json(status)) } else { print(&told.text()) }
    }

    /// Something worth knowing, unless nobody wants to know.
    pub fn note(self, text: &str) {
        if !self.quiet {
            self.say("note", text, || format!("note: {}", visible(text)));
        }
    }

    pub fn warning(self, text: &str) {
        self.say("warning", text, || format!("warning: {}", visible(text)));
    }

    /// `text` for people, or an event of this name with the message for programs.
    pub fn say(self, event: &str, message: &str, text: impl FnOnce() -> String) {
        if self.json {
            progress::emit_json(json!({ "event": event, "message": message }));
        } else {
            print(&text());
        }
    }

    /// Has a panic told in this voice.
    pub fn tell_panics(self) {
        if self.json {
            std::panic::set_hook(Box::new(|panic| {
                progress::emit_json(json!({ "event": "panic", "message": panic.to_string() }));
            }));
        }
    }

    /// What follows a panic.
    pub fn fault(self) {
        let message = "zuwai has a fault: please report it, with what stands above";
        self.say("error", message, || plain(message, &[], None));
    }
}

fn print(text: &str) {
    // A closed standard error leaves nobody to tell.
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// A failure in its parts.
struct Told<'a> {
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
    /// Where in which text.
    place: Option<(&'a Span, &'a str, &'a str)>,
    /// The step and the last lines of its output.
    run: Option<(&'a str, &'a str)>,
    output_is_shown: bool,
    notes: &'a [String],
}

impl<'a> Told<'a> {
    fn new(message: impl Into<String>, hint: Option<&String>) -> Told<'a> {
        Told {
            message: message.into(),
            causes: Vec::new(),
            hint: hint.cloned(),
            place: None,
            run: None,
            output_is_shown: false,
            notes: &[],
        }
    }

    /// None: what there is to say has been said.
    fn of(failure: &'a Failure) -> Option<Told<'a>> {
        Some(match failure {
            Failure::Findings => return None,
            Failure::Interrupted => Told::new("interrupted", None),
            Failure::Usage { message, hint } => Told::new(message, hint.as_ref()),
            Failure::Dockerfile { error, name } => {
                let fault = &error.diagnostic;
                let place = Some((&fault.span, error.source_text.as_str(), name.as_str()));
                Told { place, ..Told::new(&fault.message, fault.hint.as_ref()) }
            }
            Failure::Build { error, source, name, output_is_shown, notes } => {
                let mut causes = causes(error);
                let place = error.place().map(|place| (&place.span, source.as_str(), name.as_str()));
                let run = match error.as_ref() {
                    BuildError::Run { step, output, .. } => Some((step.as_str(), output.as_str())),
                    _ => None,
                };
                causes.splice(0..0, run.map(|(step, _)| format!("in step {step}")));
                let told = Told::new(error.to_string(), error.hint().as_ref());
                Told { causes, place, run, output_is_shown: *output_is_shown, notes, ..told }
            }
            Failure::Other { error, hint, .. } => {
                let causes = error.chain().skip(1).map(ToString::to_string).collect();
                let shortage = spawn::NoneLeft::is_cause_of(error.as_ref()).then(|| spawn::NoneLeft::HINT.to_owned());
                Told { causes, ..Told::new(error.to_string(), shortage.or(hint.clone()).as_ref()) }
            }
        })
    }

    fn text(&self) -> String {
        let text = match self.place {
            Some((span, source, name)) => {
                let title = Level::ERROR.primary_title(visible(&self.message));
                placed(title, below(&self.causes, self.hint.as_deref()), span, source, name)
            }
            None => plain(&self.message, &self.causes, self.hint.as_deref()),
        };
        let end = match self.run {
            Some((_, output)) if !self.output_is_shown => last_lines(output),
            _ => String::new(),
        };
        self.notes.iter().fold(text + &end, |text, note| text + "\nnote: " + &visible(note))
    }

    fn json(&self, status: u8) -> Value {
        let mut json = json!({ "event": "error", "message": self.message, "status": status });
        if !self.causes.is_empty() {
            json["causes"] = self.causes.clone().into();
        }
        if let Some(hint) = &self.hint {
            json["hint"] = hint.as_str().into();
        }
        if let Some((span, source, name)) = self.place {
            json["file"] = name.into();
            json["line"] = dockerfile::error::line_of(source, span.start.min(source.len())).into();
        }
        if let Some((step, output)) = self.run {
            json["step"] = step.into();
            json["output"] = output.into();
        }
        if !self.notes.is_empty() {
            json["notes"] = self.notes.into();
        }
        json
    }
}

/// Somebody else's text (a registry's, a file's name, an instruction) as it can be shown: without anything that a terminal takes
/// for an order, or that lets text seem to stand elsewhere. Lines after the first are indented, so that none seems to be ours.
pub fn visible(text: &str) -> Cow<'_, str> {
    let is_order = |c: char| {
        c != '\t' && c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(is_order) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::new();
    for c in text.chars() {
        match c {
            '\n' => shown += "\n  ",
            c if is_order(c) => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// The chain below an error, each said once.
fn causes(error: &BuildError) -> Vec<String> {
    let mut causes = Vec::new();
    let mut last = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        let text = cause.to_string();
        if !last.contains(&text) {
            causes.push(text.clone());
            last = text;
        }
        next = cause.source();
    }
    causes
}

fn plain(message: &str, causes: &[String], hint: Option<&str>) -> String {
    let mut text = format!("error: {}", visible(message));
    for cause in causes {
        text = text + "\n  " + &visible(cause);
    }
    if let Some(hint) = hint {
        text = text + "\nhint: " + &visible(hint);
    }
    text
}

/// What a RUN said last.
fn last_lines(output: &str) -> String {
    match output.trim().is_empty() {
        true => "\nit printed nothing".to_owned(),
        false => format!("\nthe last lines of its output:{}", indented(output)),
    }
}

/// Lines of output, each below the other.
pub fn indented(output: &str) -> String {
    output.lines().map(|line| format!("\n  {}", visible(line))).collect()
}

/// Causes and hint as lines below a snippet.
fn below<'a>(causes: &'a [String], hint: Option<&'a str>) -> Vec<Message<'a>> {
    let causes = causes.iter().map(|cause| Level::NOTE.no_name().message(visible(cause)));
    causes.chain(hint.map(|hint| Level::HELP.with_name("hint").message(visible(hint)))).collect()
}

/// A violated build check with its line.
pub fn finding(finding: &Diagnostic, source: &str, file: &str) -> String {
    finding_with(finding, source, file, below(&[], finding.hint.as_deref()))
}

/// As [`finding`], with what is to be done about it and where more stands.
pub fn finding_at_length(finding: &Diagnostic, source: &str, file: &str) -> String {
    let rule = finding.rule.and_then(Rule::named);
    let url = rule.and_then(Rule::url);
    let mut messages = below(&[], finding.hint.as_deref().or(rule.map(|rule| rule.hint)));
    messages.extend(url.as_deref().map(|url| Level::NOTE.with_name("see").message(url)));
    finding_with(finding, source, file, messages)
}

fn finding_with(finding: &Diagnostic, source: &str, file: &str, messages: Vec<Message<'_>>) -> String {
    let title = Level::WARNING.primary_title(visible(&finding.message)).id(finding.rule.unwrap_or_default());
    placed(title, messages, &finding.span, source, file)
}

/// Something worth knowing about a place.
pub fn note(message: &str, causes: &[String], span: &Span, source: &str, file: &str) -> String {
    placed(Level::NOTE.primary_title(visible(message)), below(causes, None), span, source, file)
}

fn placed(title: Title<'_>, messages: Vec<Message<'_>>, span: &Span, source: &str, name: &str) -> String {
    let (shown, span, line) = window(source, span);
    let name = visible(name);
    // The renderer shows control characters as pictures, but for these; the dot is as long, so that spans stay right.
    let shown = shown.replace(|c| matches!(c, '\u{80}'..='\u{9f}'), "·");
    let snippet =
        Snippet::source(shown).path(name.as_ref()).line_start(line).annotation(AnnotationKind::Primary.span(span));
    let group = title.element(snippet).elements(messages);
    Renderer::styled().render(&[group])
}

/// The lines of `source` around `span`, the span within them, and the first line's number: a renderer that never sees
/// megabytes of Dockerfile, nor a span that splits a character.
fn window<'a>(source: &'a str, span: &Span) -> (&'a str, Span, usize) {
    let clamp = |mut at: usize| {
        at = at.min(source.len());
        while !source.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let (start, end) = (clamp(span.start), clamp(span.end.max(span.start)));
    let first = source[..start].rfind('\n').map_or(0, |at| at + 1);
    let line_end = |from: usize| source[from..].find('\n').map_or(source.len(), |at| from + at);
    let one_line = line_end(start);
    // An instruction over many lines is shown by its first one.
    let (end, last) = if end > one_line { (one_line, one_line) } else { (end, line_end(end)) };
    let last = clamp(last.min(first + 2000));
    let end = end.min(last).max(start.min(last));
    let line = dockerfile::error::line_of(source, first);
    (&source[first..last], (start - first).min(last - first)..end - first, line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_the_line_of_the_span() {
        let source = "FROM a\nRUN é x\\\n y\nCMD z\n";
        let run = source.find("RUN").expect("there");
        let (shown, span, line) = window(source, &(run..source.find("CMD").expect("there")));
        assert_eq!((shown, line), ("RUN é x\\", 2));
        assert_eq!(&shown[span], "RUN é x\\");
        let (shown, span, line) = window(source, &(source.len()..source.len() + 9));
        assert_eq!((shown, span, line), ("", 0..0, 5));
    }

    #[test]
    fn text_of_others_gives_no_orders() {
        for (text, want) in [
            ("plain é\t漢", "plain é\t漢"),
            ("a\x1b[2Jb\u{9b}31mc", "a\\u{1b}[2Jb\\u{9b}31mc"),
            ("a\r\x08b\x7f", "a\\r\\u{8}b\\u{7f}"),
            ("a\nerror: b", "a\n  error: b"),
            ("a\u{202e}b", "a\\u{202e}b"),
        ] {
            assert_eq!(visible(text), want);
            let text = plain(text, &[text.to_owned()], Some(text));
            assert!(!text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t')), "{text:?}");
        }
        // With a place, where colours of our own are between.
        let source = "FROM a\nRUN \x1b[2J\u{9b}2J\n";
        let hostile = "x\x1b]0;t\x07\u{9b}31m\r".to_owned();
        let title = Level::ERROR.primary_title(visible(&hostile));
        let text = placed(title, below(std::slice::from_ref(&hostile), Some(&hostile)), &(7..12), source, &hostile);
        let ours = anstream::adapter::strip_str(&text).to_string();
        assert!(!ours.chars().any(|c| c.is_control() && c != '\n'), "{ours:?}");
        for part in ["\x1b]", "\x1b[2J", "\x07", "\r", "\u{9b}"] {
            assert!(!text.contains(part), "{part:?} is in {text:?}");
        }
    }

    #[test]
    fn a_message_without_a_place_has_its_causes_and_hint() {
        let text = plain("could not push", &["403 DENIED".to_owned()], Some("log in"));
        assert_eq!(text, "error: could not push\n  403 DENIED\nhint: log in");
    }
}
