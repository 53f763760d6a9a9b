//! The parser.

use crate::instruction::{Built, Statement, joined};
use crate::lint::{Checks, Finding, Linter, Written};
use crate::source::{Line, Lines, Source};
use crate::{
    Diagnostic, Dockerfile, Heredoc, Instruction, Kind, MAX_SOURCE_BYTES, ParseError, Stage, directives, heredoc,
};

/// Parses a Dockerfile. `text` may have a BOM, CRLF lines and bytes that are not UTF-8 where BuildKit allows them.
///
/// # Errors
/// The first fault of the file in the order of its lines, with its place. Longer input than [`MAX_SOURCE_BYTES`] is refused.
pub fn parse(text: &[u8]) -> Result<Dockerfile, ParseError> {
    parse_with_checks(text, None)
}

/// As [`parse`]; `checks` replace those of the `# check=` directive, as the build argument `BUILDKIT_DOCKERFILE_CHECK` does.
/// A directive that is replaced is not looked at.
pub fn parse_with_checks(text: &[u8], checks: Option<Checks>) -> Result<Dockerfile, ParseError> {
    let source = Source::decode(text);
    if text.len() > MAX_SOURCE_BYTES {
        let message = format!("the Dockerfile is too long: it may have {} MiB", MAX_SOURCE_BYTES >> 20);
        let diagnostic = Diagnostic::error(message, 0..0);
        return Err(ParseError { diagnostic, source_text: String::new(), warnings: Box::default() });
    }
    let mut warnings = Vec::new();
    let parsed = parse_source(&source, checks, &mut warnings);
    parsed.map_err(|diagnostic| ParseError {
        diagnostic,
        source_text: source.text,
        warnings: warnings.into_boxed_slice(),
    })
}

/// Parses one ONBUILD trigger out of an image config.
///
/// # Errors
/// When `text` is not exactly one instruction that can stand in a stage.
pub fn parse_onbuild(text: &str) -> Result<Instruction, ParseError> {
    let source = Source::decode(text.as_bytes());
    parse_trigger(&source).map_err(|diagnostic| ParseError {
        diagnostic,
        source_text: source.text,
        warnings: Box::default(),
    })
}

/// `found` gets what the build checks have found when there is an error.
fn parse_source(
    source: &Source,
    checks: Option<Checks>,
    found: &mut Vec<Diagnostic>,
) -> Result<Dockerfile, Diagnostic> {
    let header = directives::read(&source.text)?;
    let checks = match (checks, &header.check) {
        (Some(checks), _) => checks,
        (None, Some(check)) => {
            Checks::parse(&check.text).map_err(|message| Diagnostic::error(message, check.span.clone()))?
        }
        (None, None) => Checks::default(),
    };
    let mut linter = Linter { checks: &checks, findings: Vec::new() };
    let mut reader =
        Reader { source, lines: Lines::new(&source.text, header.escape, header.end), escape: header.escape };
    let mut file = Dockerfile {
        source: String::new(),
        escape: header.escape,
        syntax: header.syntax,
        check: header.check,
        global_args: Vec::new(),
        stages: Vec::new(),
        checks: Checks::default(),
        warnings: Vec::new(),
    };
    let written = match read_all(&mut reader, &mut linter, &mut file) {
        Ok(written) => written,
        Err(error) => {
            *found = linter.findings;
            return Err(error);
        }
    };
    linter.check(&file, &written);
    file.warnings = linter.findings;
    file.warnings.sort_by_key(|warning| warning.span.start);
    file.source.clone_from(&source.text);
    file.checks = checks;
    Ok(file)
}

/// Reads and files every instruction; how their names were written.
fn read_all(
    reader: &mut Reader<'_>,
    linter: &mut Linter<'_>,
    file: &mut Dockerfile,
) -> Result<Vec<Written>, Diagnostic> {
    let mut written = Vec::new();
    let mut is_empty = true;
    while let Some(item) = reader.next_item(linter)? {
        is_empty = false;
        add(file, item, &mut written)?;
    }
    if file.stages.is_empty() { Err(no_stage(reader.source, is_empty)) } else { Ok(written) }
}

fn parse_trigger(source: &Source) -> Result<Instruction, Diagnostic> {
    let checks = Checks { skip_all: true, ..Checks::default() };
    let mut linter = Linter { checks: &checks, findings: Vec::new() };
    let header = directives::read(&source.text)?;
    let mut reader =
        Reader { source, lines: Lines::new(&source.text, header.escape, header.end), escape: header.escape };
    let Some(item) = reader.next_item(&mut linter)? else {
        return Err(Diagnostic::error("an ONBUILD trigger is empty", 0..0));
    };
    if reader.next_item(&mut linter)?.is_some() {
        return Err(Diagnostic::error("an ONBUILD trigger has more than one instruction", item.written.span));
    }
    match item.built {
        Built::Instruction(kind) => Ok(instruction(kind, item.original, &item.written)),
        Built::From(from) => Err(Diagnostic::error("FROM is not allowed as an ONBUILD trigger", from.span)),
    }
}

/// One instruction with what is needed to file it.
struct Item {
    built: Built,
    original: String,
    written: Written,
}

struct Reader<'s> {
    source: &'s Source,
    lines: Lines<'s>,
    escape: char,
}

impl Reader<'_> {
    fn next_item(&mut self, linter: &mut Linter<'_>) -> Result<Option<Item>, Diagnostic> {
        let Some(mut line) = self.lines.next_line()? else { return Ok(None) };
        if let Some(span) = &line.empty_continuation {
            linter.report(Finding::NoEmptyContinuation, span);
        }
        let statement = Statement::read(&line, self.escape)?;
        let markers = statement.heredocs();
        let heredocs = read_heredocs(&mut self.lines, self.source, &line, markers)?;
        let written = Written {
            name: statement.written.clone(),
            span: line.span.start..if heredocs.is_empty() { line.span.end } else { self.lines.end_of_last() },
            comment: joined(&line.comments),
        };
        let built = statement.build(heredocs, self.source, linter)?;
        let original = std::mem::take(&mut line.text).trim().to_owned();
        Ok(Some(Item { built, original, written }))
    }
}

fn read_heredocs(
    lines: &mut Lines<'_>,
    source: &Source,
    line: &Line,
    markers: Vec<heredoc::Marker>,
) -> Result<Vec<Heredoc>, Diagnostic> {
    let mut heredocs = Vec::new();
    for heredoc::Marker { name, chomp, expand } in markers {
        let Some(span) = lines.heredoc_body(&name, chomp)? else {
            let message = format!("unterminated here-document: there is no line `{name}` after it");
            return Err(Diagnostic::error(message, line.span.clone()));
        };
        let body = source.text[span.clone()].to_owned();
        let content = if chomp { heredoc::chomped(&body) } else { body.clone() };
        let raw = (content != body).then_some(body);
        heredocs.push(Heredoc { name, content, expand, chomp, span, raw });
    }
    Ok(heredocs)
}

fn instruction(kind: Kind, original: String, written: &Written) -> Instruction {
    Instruction { kind, span: written.span.clone(), original, comment: written.comment.clone() }
}

/// Files an instruction: ARGs before the first FROM are the file's, all others belong to a stage.
fn add(file: &mut Dockerfile, item: Item, written: &mut Vec<Written>) -> Result<(), Diagnostic> {
    match item.built {
        Built::From(from) => file.stages.push(Stage { from, instructions: Vec::new() }),
        Built::Instruction(kind) => {
            let instruction = instruction(kind, item.original, &item.written);
            match (file.stages.last_mut(), &instruction.kind) {
                (Some(stage), _) => stage.instructions.push(instruction),
                (None, Kind::Arg(_)) => {
                    file.global_args.push(instruction);
                    return Ok(());
                }
                (None, kind) => {
                    let message = format!("no build stage: {} comes before the first FROM", kind.name());
                    return Err(Diagnostic::error(message, instruction.span));
                }
            }
        }
    }
    written.push(item.written);
    Ok(())
}

fn no_stage(source: &Source, is_empty: bool) -> Diagnostic {
    let message = match (source.text.is_empty(), is_empty) {
        (true, _) => "the Dockerfile is empty",
        (false, true) => "the Dockerfile has no instructions",
        (false, false) => "the Dockerfile has no build stage: there is no FROM",
    };
    Diagnostic::error(message, 0..0)
}
