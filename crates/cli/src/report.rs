//! Errors as people read them: what, where, why, and what to do.

use std::io::Write as _;

use annotate_snippets::{AnnotationKind, Level, Message, Renderer, Snippet, Title};
use build::BuildError;
use dockerfile::lint::Rule;
use dockerfile::{Diagnostic, ParseError, Span};

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

/// Prints a failure to standard error.
pub fn print(failure: &Failure) {
    let text = match failure {
        Failure::Usage { message, hint } => plain(message, &[], hint.as_deref()),
        Failure::Dockerfile { error, name } => {
            let fault = &error.diagnostic;
            let title = Level::ERROR.primary_title(&fault.message);
            placed(title, below(&[], fault.hint.as_deref()), &fault.span, &error.source_text, name)
        }
        Failure::Build { error, source, name, output_is_shown, notes } => {
            let (causes, hint) = causes(error);
            let message = error.to_string();
            let text = match error.place() {
                Some(place) => {
                    let title = Level::ERROR.primary_title(&message);
                    placed(title, below(&causes, hint.as_deref()), &place.span, source, name)
                }
                None => plain(&message, &causes, hint.as_deref()),
            };
            let end = if *output_is_shown { String::new() } else { last_lines(error) };
            notes.iter().fold(text + &end, |text, note| text + "\nnote: " + note)
        }
        Failure::Findings => return,
        Failure::Interrupted => plain("interrupted", &[], None),
        Failure::Other { error, hint, .. } => {
            let causes: Vec<String> = error.chain().skip(1).map(ToString::to_string).collect();
            let shortage = spawn::NoneLeft::is_cause_of(error.as_ref()).then_some(spawn::NoneLeft::HINT);
            plain(&error.to_string(), &causes, shortage.or(hint.as_deref()))
        }
    };
    // A closed standard error leaves nobody to tell.
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// What follows a panic.
pub fn print_fault() {
    let text = plain("zuwai has a fault: please report it, with what stands above", &[], None);
    // A closed standard error leaves nobody to tell.
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// The chain below an error, each said once, and a hint from wherever in the chain there is one.
fn causes(error: &BuildError) -> (Vec<String>, Option<String>) {
    let mut causes = Vec::new();
    if let BuildError::Run { step, .. } = error {
        causes.push(format!("in step {step}"));
    }
    let mut hint = match error {
        BuildError::Dockerfile { hint, .. } | BuildError::Request { hint, .. } => hint.clone(),
        _ => None,
    };
    let mut last = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        if let Some(store::StoreError::Remote { hint: Some(found), .. }) = cause.downcast_ref() {
            hint.get_or_insert_with(|| found.clone());
        }
        if let Some(error) = cause.downcast_ref::<context::ContextError>() {
            hint = hint.or_else(|| error.hint());
        }
        if let Some(sandbox::SandboxError::NoBackend { .. }) = cause.downcast_ref() {
            hint.get_or_insert_with(|| {
                "`zuwai doctor` shows what each one needs; a Dockerfile without RUN needs none".to_owned()
            });
        }
        if spawn::NoneLeft::is_cause_of(cause) {
            hint.get_or_insert_with(|| spawn::NoneLeft::HINT.to_owned());
        }
        let text = cause.to_string();
        if !last.contains(&text) {
            causes.push(text.clone());
            last = text;
        }
        next = cause.source();
    }
    (causes, hint)
}

fn plain(message: &str, causes: &[String], hint: Option<&str>) -> String {
    let mut text = format!("error: {message}");
    for cause in causes {
        text = text + "\n  " + &cause.replace('\n', "\n  ");
    }
    if let Some(hint) = hint {
        text = text + "\nhint: " + hint;
    }
    text
}

/// What a RUN said last.
fn last_lines(error: &BuildError) -> String {
    let BuildError::Run { output, .. } = error else { return String::new() };
    match output.trim().is_empty() {
        true => "\nit printed nothing".to_owned(),
        false => format!("\nthe last lines of its output:{}", harmless(output)),
    }
}

/// Lines of output, each below the other, without what a terminal would take for an order.
pub fn harmless(output: &str) -> String {
    let mut text = String::new();
    for line in output.lines() {
        let line = progress::shown_line(line.as_bytes());
        let line = anstream::adapter::strip_str(&line).to_string();
        text = text + "\n  " + &line.chars().filter(|c| *c == '\t' || !c.is_control()).collect::<String>();
    }
    text
}

/// Causes and hint as lines below a snippet.
fn below<'a>(causes: &'a [String], hint: Option<&'a str>) -> Vec<Message<'a>> {
    let causes = causes.iter().map(|cause| Level::NOTE.no_name().message(cause.as_str()));
    causes.chain(hint.map(|hint| Level::HELP.with_name("hint").message(hint))).collect()
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
    let title = Level::WARNING.primary_title(&finding.message).id(finding.rule.unwrap_or_default());
    placed(title, messages, &finding.span, source, file)
}

/// Something worth knowing about a place.
pub fn note(message: &str, causes: &[String], span: &Span, source: &str, file: &str) -> String {
    placed(Level::NOTE.primary_title(message), below(causes, None), span, source, file)
}

fn placed(title: Title<'_>, messages: Vec<Message<'_>>, span: &Span, source: &str, name: &str) -> String {
    let (shown, span, line) = window(source, span);
    let snippet = Snippet::source(shown).path(name).line_start(line).annotation(AnnotationKind::Primary.span(span));
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
    fn a_message_without_a_place_has_its_causes_and_hint() {
        let text = plain("could not push", &["403 DENIED".to_owned()], Some("log in"));
        assert_eq!(text, "error: could not push\n  403 DENIED\nhint: log in");
    }
}
