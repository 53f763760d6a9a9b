//! What a Dockerfile offers: the parameters of a target, and the targets.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use build::plan::{Argument, Needed};
use build::{Outline, Request};
use dockerfile::{Diagnostic, Span};
use serde_json::{Value, json};

use crate::args::{AnswerFormat, Asking};
use crate::command::shown_lines;
use crate::lint::{answer, answer_json, location};
use crate::report::Failure;
use crate::wire::Wired;

/// Arguments, secrets, SSH agents and caches of the target.
pub fn outline(wired: &Wired, asking: Asking) -> Result<(), Failure> {
    let request = &wired.request;
    let outline = build::outline(request).map_err(|error| wired.failure(error))?;
    match asking.format {
        AnswerFormat::Text => answer(&shown_lines(&outline_text(&outline))),
        AnswerFormat::Json => answer_json(&outline_json(&outline, request)),
    }
}

fn outline_text(outline: &Outline) -> String {
    let mut text = format!("target: {}\n", outline.name.as_deref().unwrap_or("(the last stage, without a name)"));
    if let Some(description) = &outline.description {
        text = text + "  " + description + "\n";
    }
    let argument = |arg: &Argument| {
        [arg.name.clone(), arg.value.clone().unwrap_or_default(), arg.description.clone().unwrap_or_default()]
    };
    text += &table(["BUILD ARG", "VALUE", "DESCRIPTION"], outline.args.iter().map(argument));
    let needed = |needed: &Needed| [needed.id.clone(), if needed.required { "yes" } else { "no" }.to_owned()];
    text += &table(["SECRET", "REQUIRED"], outline.secrets.iter().map(needed));
    text += &table(["SSH", "REQUIRED"], outline.ssh.iter().map(needed));
    text + &table(["CACHE"], outline.caches.iter().map(|cache| [cache.id.clone()]))
}

/// Columns as wide as they have to be, below an empty line; nothing without rows.
fn table<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = rows.collect();
    if rows.is_empty() {
        return String::new();
    }
    let all: Vec<[String; N]> = std::iter::once(head.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("   ").trim_end().to_owned() + "\n"
    };
    "\n".to_owned() + &all.iter().map(line).collect::<String>()
}

/// BuildKit's `outline.Outline` (`frontend/subrequests/outline`).
fn outline_json(outline: &Outline, request: &Request) -> Value {
    let at = |span: &Span| location(request.spec.dockerfile.lines_of(&at(span)));
    let argument = |arg: &Argument| {
        let mut json = json!({ "name": arg.name, "location": at(&arg.span) });
        set(&mut json, "value", arg.value.as_deref());
        set(&mut json, "description", arg.description.as_deref());
        json
    };
    let needed = |needed: &Needed| match needed.required {
        true => json!({ "name": needed.id, "required": true, "location": at(&needed.span) }),
        false => json!({ "name": needed.id, "location": at(&needed.span) }),
    };
    let cache = |cache: &Needed| json!({ "ID": cache.id, "location": at(&cache.span) });
    let mut json = json!({
        "args": outline.args.iter().map(argument).collect::<Vec<_>>(),
        "secrets": outline.secrets.iter().map(needed).collect::<Vec<_>>(),
        "ssh": outline.ssh.iter().map(needed).collect::<Vec<_>>(),
        "cache": outline.caches.iter().map(cache).collect::<Vec<_>>(),
        "sources": [STANDARD.encode(&request.spec.dockerfile.source)],
    });
    set(&mut json, "name", outline.name.as_deref());
    set(&mut json, "description", outline.description.as_deref());
    json
}

fn set(json: &mut Value, key: &str, value: Option<&str>) {
    if let Some(value) = value.filter(|value| !value.is_empty()) {
        json[key] = value.into();
    }
}

fn at(span: &Span) -> Diagnostic {
    Diagnostic { rule: None, message: String::new(), span: span.clone(), hint: None }
}

/// The stages, in the order of the Dockerfile.
pub fn targets(wired: &Wired, asking: Asking) -> Result<(), Failure> {
    let file = &wired.request.spec.dockerfile;
    let last = file.stages.len().saturating_sub(1);
    let name = |from: &dockerfile::From| from.name.as_ref().map(|name| name.text.clone());
    let description = |from: &dockerfile::From| {
        let name = name(from).unwrap_or_default();
        dockerfile::description(from.comment.as_deref(), &name).unwrap_or_default().to_owned()
    };
    let stages = || file.stages.iter().map(|stage| &stage.from).enumerate();
    if asking.format == AnswerFormat::Text {
        let row = |(index, from): (usize, &dockerfile::From)| {
            let name = name(from).unwrap_or_else(|| format!("stage-{index}"));
            let name = if index == last { name + " (default)" } else { name };
            [name, from.image.text.clone(), description(from)]
        };
        return answer(&shown_lines(table(["TARGET", "BASE", "DESCRIPTION"], stages().map(row)).trim_start()));
    }
    let target = |(index, from): (usize, &dockerfile::From)| {
        let mut json = json!({ "base": from.image.text, "location": location(file.lines_of(&at(&from.span))) });
        set(&mut json, "name", name(from).as_deref());
        set(&mut json, "description", Some(&description(from)));
        set(&mut json, "platform", from.platform.as_ref().map(|platform| platform.text.as_str()));
        if index == last {
            json["default"] = true.into();
        }
        json
    };
    // BuildKit's `targets.List` (`frontend/subrequests/targets`).
    answer_json(&json!({
        "targets": stages().map(target).collect::<Vec<_>>(),
        "sources": [STANDARD.encode(&file.source)],
    }))
}
