//! Findings of the build checks for people and for programs.

use std::io::Write as _;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use build::{Linted, Request, Unread};
use dockerfile::error::line_of;
use dockerfile::lint::Rule;
use dockerfile::{Diagnostic, Dockerfile, ParseError, Span};
use serde_json::{Value, json};

use crate::args::{AnswerFormat, Asking};
use crate::report::{self, Failure, Voice};

/// What cannot be checked without a base image.
const OF_THE_BASE: [&str; 2] = ["InvalidBaseImagePlatform", "UndefinedVar"];

/// Prints what a lint found to standard output, and to standard error what it could not look at.
pub fn print(request: &Request, linted: &Linted, asking: Asking, voice: Voice) -> Result<(), Failure> {
    let file = &request.spec.dockerfile;
    let name = &request.spec.dockerfile_name;
    for message in build::doubts(request) {
        voice.warning(&message);
    }
    for unread in &linted.unread {
        let message = format!("base image `{}` could not be read: {}", unread.image, chain(&unread.why));
        voice.say("note", &message, || not_checked(unread, &file.source, name));
    }
    match asking.format {
        AnswerFormat::Text => {
            let mut text = String::new();
            for finding in &linted.findings {
                text += &report::finding_at_length(finding, &file.source, name);
                text += "\n\n";
            }
            answer(&(text + &count(linted.findings.len())))
        }
        AnswerFormat::Json => {
            let warnings = linted.findings.iter().map(|finding| warning(finding, file.lines_of(finding)));
            let mut json = json!({ "warnings": warnings.collect::<Vec<_>>(), "sources": [source(&file.source, name)] });
            if let Some(error) = &linted.error {
                let lines = error.place().map(|place| lines_of_place(file, &place.span));
                json["buildError"] = build_error(&error.to_string(), lines);
            }
            if !linted.unread.is_empty() {
                json["notChecked"] = linted.unread.iter().map(|unread| unread_json(unread, file)).collect();
            }
            answer_json(&json)
        }
    }
}

/// As [`print()`] for a Dockerfile that cannot be parsed: what was found up to there. The error itself is for whoever calls.
pub fn unreadable(error: &ParseError, name: &str, asking: Asking) -> Result<(), Failure> {
    let text = &error.source_text;
    match asking.format {
        AnswerFormat::Text => {
            let all = error.warnings.iter().map(|finding| report::finding_at_length(finding, text, name) + "\n\n");
            answer(&all.collect::<String>())
        }
        AnswerFormat::Json => {
            let lines = |span: &Span| (line_of(text, span.start), line_of(text, span.end.max(span.start + 1) - 1));
            let warnings = error.warnings.iter().map(|finding| warning(finding, lines(&finding.span)));
            answer_json(&json!({
                "warnings": warnings.collect::<Vec<_>>(),
                "sources": [source(text, name)],
                "buildError": build_error(&error.to_string(), Some(lines(&error.diagnostic.span))),
            }))
        }
    }
}

fn count(findings: usize) -> String {
    match findings {
        0 => "no findings\n".to_owned(),
        1 => "1 finding\n".to_owned(),
        more => format!("{more} findings\n"),
    }
}

fn not_checked(unread: &Unread, source: &str, name: &str) -> String {
    let causes = [
        chain(&unread.why),
        format!("not checked for it and the stages on it: {}", OF_THE_BASE.join(", ")),
        "taken for an image without SHELL (JSONArgsRecommended) and without ONBUILD triggers".to_owned(),
    ];
    let message = format!("base image `{}` could not be read", unread.image);
    report::note(&message, &causes, &unread.span, source, name)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = text + ": " + &cause_text;
        }
        next = cause.source();
    }
    text
}

fn lines_of_place(file: &Dockerfile, span: &Span) -> (usize, usize) {
    let whole = file.instruction_at(span.start);
    (line_of(&file.source, whole.start), line_of(&file.source, whole.end.max(whole.start + 1) - 1))
}

/// BuildKit's `lint.Warning` (`frontend/subrequests/lint`).
fn warning(finding: &Diagnostic, lines: (usize, usize)) -> Value {
    let rule = finding.rule.and_then(Rule::named);
    let mut json = json!({
        "ruleName": finding.rule,
        "description": rule.map(|rule| rule.description),
        "detail": finding.message,
        "location": location(lines),
    });
    if let Some(url) = rule.and_then(Rule::url) {
        json["url"] = url.into();
    }
    json
}

/// BuildKit's `pb.Location`: a range for each line, columns unsaid.
pub fn location((first, last): (usize, usize)) -> Value {
    let ranges = (first..=last.max(first)).map(|line| json!({ "start": { "line": line }, "end": { "line": line } }));
    json!({ "ranges": ranges.collect::<Vec<_>>() })
}

/// BuildKit's `pb.SourceInfo`.
fn source(text: &str, name: &str) -> Value {
    json!({ "filename": name, "data": STANDARD.encode(text), "language": "Dockerfile" })
}

fn build_error(message: &str, lines: Option<(usize, usize)>) -> Value {
    json!({ "message": message, "location": lines.map_or_else(|| json!({}), location) })
}

/// BuildKit has nothing like it: it ends where a base image cannot be read.
fn unread_json(unread: &Unread, file: &Dockerfile) -> Value {
    json!({
        "image": unread.image,
        "reason": chain(&unread.why),
        "rules": OF_THE_BASE,
        "location": location(lines_of_place(file, &unread.span)),
    })
}

/// To standard output, with colours only where it is a terminal.
pub fn answer(text: &str) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.context("could not write to standard output").map_err(Failure::other(6))
}

pub fn answer_json(json: &Value) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(json).context("could not write the answer").map_err(Failure::other(1))?;
    answer(&(text + "\n"))
}
