//! Whole files to syntax trees: `golden/NAME/Dockerfile` beside what it must become, `expected.txt`.
//!
//! With `BLESS=1` the expected texts are written instead of compared; read what changed before it is committed.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use zuwai_dockerfile::error::line_of;
use zuwai_dockerfile::{
    Arg, Command, Copy, CopySource, Dockerfile, From, Healthcheck, Heredoc, Instruction, Kind, Mount, Run, Span, Word,
    parse,
};

#[test]
fn files_become_the_expected_trees() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut cases: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 20, "only {} cases were found", cases.len());
    for case in cases {
        let text = fs::read(case.join("Dockerfile")).unwrap();
        let file = parse(&text).unwrap_or_else(|error| panic!("{}: line {}: {error}", case.display(), error.line()));
        let actual = dump(&file);
        let expected = case.join("expected.txt");
        if std::env::var_os("BLESS").is_some() {
            fs::write(expected, actual).unwrap();
        } else {
            assert_eq!(fs::read_to_string(expected).unwrap(), actual, "{}", case.display());
        }
    }
}

/// A tree as text: one line per instruction with its first and last line, its parts indented below.
fn dump(file: &Dockerfile) -> String {
    let mut out = Dump { source: &file.source, text: String::new() };
    out.line(0, format_args!("escape {:?}", file.escape));
    out.optional(0, "syntax", file.syntax.as_ref());
    out.optional(0, "check", file.check.as_ref());
    file.global_args.iter().for_each(|instruction| out.instruction(0, instruction));
    for stage in &file.stages {
        out.from(&stage.from);
        stage.instructions.iter().for_each(|instruction| out.instruction(2, instruction));
    }
    for warning in &file.warnings {
        let line = line_of(&file.source, warning.span.start);
        out.line(0, format_args!("warning {} in line {line}: {}", warning.rule.unwrap(), warning.message));
    }
    out.text
}

struct Dump<'a> {
    source: &'a str,
    text: String,
}

impl Dump<'_> {
    fn line(&mut self, indent: usize, text: std::fmt::Arguments<'_>) {
        writeln!(self.text, "{:indent$}{text}", "").unwrap();
    }

    fn lines(&self, span: &Span) -> String {
        let first = line_of(self.source, span.start);
        let last = line_of(self.source, span.end.max(span.start + 1) - 1);
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    }

    /// A word, and what stands at its place where that differs.
    fn word(&self, word: &Word) -> String {
        let there = &self.source[word.span.clone()];
        if there == word.text { format!("{:?}", word.text) } else { format!("{:?} (from {there:?})", word.text) }
    }

    fn words(&mut self, indent: usize, name: &str, words: &[Word]) {
        for word in words {
            let word = self.word(word);
            self.line(indent, format_args!("{name} {word}"));
        }
    }

    fn optional(&mut self, indent: usize, name: &str, word: Option<&Word>) {
        self.words(indent, name, &word.cloned().into_iter().collect::<Vec<_>>());
    }

    fn flag(&mut self, indent: usize, name: &str, is_set: bool) {
        if is_set {
            self.line(indent, format_args!("{name}"));
        }
    }

    fn from(&mut self, from: &From) {
        let lines = self.lines(&from.span);
        self.line(0, format_args!("{lines}: {}", from.original));
        self.optional(2, "comment", None);
        if let Some(comment) = &from.comment {
            self.line(2, format_args!("comment {comment:?}"));
        }
        self.optional(2, "image", Some(&from.image));
        self.optional(2, "platform", from.platform.as_ref());
        self.optional(2, "name", from.name.as_ref());
    }

    fn instruction(&mut self, indent: usize, instruction: &Instruction) {
        let lines = self.lines(&instruction.span);
        self.line(indent, format_args!("{lines}: {}", instruction.original));
        let indent = indent + 2;
        if let Some(comment) = &instruction.comment {
            self.line(indent, format_args!("comment {comment:?}"));
        }
        match &instruction.kind {
            Kind::Add(copy) | Kind::Copy(copy) => self.copy(indent, copy),
            Kind::Arg(args) => args.iter().for_each(|arg| self.arg(indent, arg)),
            Kind::Cmd(command) | Kind::Entrypoint(command) => self.command(indent, command),
            Kind::Env { pairs, legacy } | Kind::Label { pairs, legacy } => {
                self.flag(indent, "legacy", *legacy);
                for (name, value) in pairs {
                    let (name, value) = (self.word(name), self.word(value));
                    self.line(indent, format_args!("{name} = {value}"));
                }
            }
            Kind::Expose(words) | Kind::Volume(words) => self.words(indent, "-", words),
            Kind::Healthcheck(check) => self.healthcheck(indent, check),
            Kind::Maintainer(text) => self.line(indent, format_args!("{text:?}")),
            Kind::Onbuild(onbuild) => self.line(indent, format_args!("trigger {:?}", onbuild.text)),
            Kind::Run(run) => self.run(indent, run),
            Kind::Shell(arguments) => self.line(indent, format_args!("{arguments:?}")),
            Kind::Stopsignal(word) | Kind::User(word) | Kind::Workdir(word) => self.optional(indent, "-", Some(word)),
        }
    }

    fn arg(&mut self, indent: usize, arg: &Arg) {
        let name = self.word(&arg.name);
        match &arg.default {
            Some(default) => {
                let default = self.word(default);
                self.line(indent, format_args!("{name} = {default}"));
            }
            None => self.line(indent, format_args!("{name}")),
        }
    }

    fn command(&mut self, indent: usize, command: &Command) {
        match command {
            Command::Shell(text) => self.line(indent, format_args!("shell {text:?}")),
            Command::Exec(arguments) => self.line(indent, format_args!("exec {arguments:?}")),
        }
    }

    fn copy(&mut self, indent: usize, copy: &Copy) {
        for source in &copy.sources {
            match source {
                CopySource::Path(path) => self.optional(indent, "source", Some(path)),
                CopySource::Heredoc(heredoc) => self.heredoc(indent, heredoc),
            }
        }
        self.optional(indent, "destination", Some(&copy.destination));
        self.optional(indent, "from", copy.from.as_ref());
        self.optional(indent, "chown", copy.chown.as_ref());
        self.optional(indent, "chmod", copy.chmod.as_ref());
        self.optional(indent, "checksum", copy.checksum.as_ref());
        self.words(indent, "exclude", &copy.exclude);
        self.flag(indent, "link", copy.link);
        self.flag(indent, "parents", copy.parents);
        if let Some(keep) = copy.keep_git_dir {
            self.line(indent, format_args!("keep git dir {keep}"));
        }
        if let Some(unpack) = copy.unpack {
            self.line(indent, format_args!("unpack {unpack}"));
        }
    }

    fn heredoc(&mut self, indent: usize, heredoc: &Heredoc) {
        let Heredoc { name, content, expand, chomp, span, .. } = heredoc;
        assert_eq!(heredoc.raw(), &self.source[span.clone()]);
        let marks = format!("{}{}", if *chomp { "-" } else { "" }, if *expand { "" } else { " literal" });
        self.line(indent, format_args!("here-document {name:?}{marks} {content:?}"));
    }

    fn healthcheck(&mut self, indent: usize, check: &Healthcheck) {
        match &check.command {
            Some(command) => self.command(indent, command),
            None => self.line(indent, format_args!("none")),
        }
        let Healthcheck { interval, timeout, start_period, start_interval, retries, .. } = check;
        self.line(
            indent,
            format_args!(
                "interval {interval} timeout {timeout} start {start_period} {start_interval} retries {retries}"
            ),
        );
    }

    fn run(&mut self, indent: usize, run: &Run) {
        self.command(indent, &run.command);
        run.heredocs.iter().for_each(|heredoc| self.heredoc(indent, heredoc));
        if !run.heredocs.is_empty() {
            self.line(indent, format_args!("program {:?}", run.program()));
        }
        run.mounts.iter().for_each(|mount| self.mount(indent, mount));
        self.words(indent, "device", &run.devices);
        self.line(indent, format_args!("network {:?} security {:?}", run.network, run.security));
    }

    fn mount(&mut self, indent: usize, mount: &Mount) {
        self.line(indent, format_args!("mount {:?}", mount.text));
        let indent = indent + 2;
        self.optional(indent, "from", mount.from.as_ref());
        self.optional(indent, "source", mount.source.as_ref());
        self.optional(indent, "target", mount.target.as_ref());
        if let Some(read_only) = mount.read_only {
            self.line(indent, format_args!("read only {read_only}"));
        }
        let kind = format!("{:?}", mount.kind);
        // Spans within the kind are those of words that other cases show.
        let kind = kind.split(", span: ").collect::<Vec<_>>();
        let kind: Vec<&str> = kind
            .iter()
            .enumerate()
            .map(|(n, part)| if n == 0 { *part } else { &part[part.find(' ').unwrap()..] })
            .collect();
        self.line(indent, format_args!("{}", kind.concat()));
    }
}
