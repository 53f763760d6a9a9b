//! BuildKit's build checks: their names, their texts, and those that can be made from the text alone.
//!
//! Rules that need values (undefined variables, base images, the ignore file) are reported by the planner; it takes names and
//! texts from [`Finding`], so that all of them live here.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::{Command, Diagnostic, Dockerfile, From, Instruction, Kind, Span, Word, expand};

/// The options of a `# check=` directive or of the build argument `BUILDKIT_DOCKERFILE_CHECK`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Checks {
    pub skip_all: bool,
    pub skip: Vec<String>,
    pub experimental_all: bool,
    pub experimental: Vec<String>,
    /// A finding fails the build.
    pub error: bool,
}

impl Checks {
    /// Parses `skip=A,B;error=true;experimental=all`. The parts may come in any order; an empty text has none.
    ///
    /// # Errors
    /// A message that names the unknown option or the value that is no boolean.
    pub fn parse(text: &str) -> Result<Checks, String> {
        let mut checks = Checks::default();
        if text.trim().is_empty() {
            return Ok(checks);
        }
        for part in text.trim().splitn(3, ';') {
            let (key, value) = part.split_once('=').ok_or_else(|| format!("invalid check option `{part}`"))?;
            let value = value.trim();
            let rules = || value.split(',').map(|rule| rule.trim().to_owned()).collect();
            match key.trim() {
                "skip" if value == "all" => checks.skip_all = true,
                "skip" => checks.skip = rules(),
                "experimental" if value == "all" => checks.experimental_all = true,
                "experimental" => checks.experimental = rules(),
                "error" => {
                    let message = || format!("invalid check option `{part}`: `error` is `true` or `false`");
                    checks.error = crate::values::boolean(value).ok_or_else(message)?;
                }
                other => {
                    let near = crate::suggest::did_you_mean(other, ["skip", "experimental", "error"]);
                    let near = near.map(|near| format!(" ({near})")).unwrap_or_default();
                    return Err(format!("invalid check option `{other}`{near}"));
                }
            }
        }
        Ok(checks)
    }

    /// These options and those of a `check=` line in the comment above an instruction, for that instruction.
    pub fn with_comment(&self, comment: Option<&str>) -> Checks {
        let mut merged = self.clone();
        let option = |line: &str| {
            let (name, value) = line.split_once('=')?;
            let value = value.trim().split(' ').next()?.to_owned();
            name.trim_end().eq_ignore_ascii_case("check").then_some(value)
        };
        let Some(text) = comment.and_then(|comment| comment.lines().find_map(option)) else { return merged };
        let Ok(own) = Checks::parse(&text) else { return merged };
        merged.skip_all |= own.skip_all;
        merged.skip.extend(own.skip);
        merged.experimental_all |= own.experimental_all;
        merged.experimental.extend(own.experimental);
        merged
    }

    /// Names that are no rule's, each with the rule that was perhaps meant.
    pub fn unknown(&self) -> Vec<(&str, Option<&'static str>)> {
        let names = self.skip.iter().chain(&self.experimental).filter(|name| !name.is_empty());
        let unknown = names.filter(|name| Rule::named(name).is_none());
        unknown.map(|name| (name.as_str(), nearest_name(name, RULES.iter().map(|rule| rule.name)))).collect()
    }

    /// Whether findings of a rule are wanted.
    pub fn reports(&self, rule: &str) -> bool {
        if rule == "InvalidDefinitionDescription" {
            self.experimental_all || self.experimental.iter().any(|wanted| wanted == rule)
        } else {
            !self.skip_all && !self.skip.iter().any(|skipped| skipped == rule)
        }
    }
}

/// Whether BuildKit looks for violations of a rule only in stages that are built.
pub fn only_in_built_stages(rule: &str) -> bool {
    matches!(
        rule,
        "JSONArgsRecommended"
            | "MultipleInstructionsDisallowed"
            | "LegacyKeyValueFormat"
            | "ExposeProtoCasing"
            | "ExposeInvalidFormat"
            | "WorkdirRelativePath"
            | "SecretsUsedInArgOrEnv"
    )
}

/// What is said of a rule wherever it is violated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rule {
    /// BuildKit's name.
    pub name: &'static str,
    /// One sentence.
    pub description: &'static str,
    /// What to do about a violation.
    pub hint: &'static str,
    /// The last part of the address of Docker's page about it; there is none for one of them.
    page: Option<&'static str>,
}

impl Rule {
    /// The page that explains the rule at length.
    pub fn url(&self) -> Option<String> {
        self.page.map(|page| format!("https://docs.docker.com/go/dockerfile/rule/{page}/"))
    }

    /// The rule of this name.
    pub fn named(name: &str) -> Option<&'static Rule> {
        RULES.iter().find(|rule| rule.name == name)
    }
}

const fn rule(name: &'static str, page: &'static str, description: &'static str, hint: &'static str) -> Rule {
    Rule { name, description, hint, page: Some(page) }
}

/// All rules of BuildKit's frontend 1.26 (`linter/ruleset.go`), in its order. Names and pages are BuildKit's, the rest is ours.
pub const RULES: [Rule; 22] = [
    rule(
        "StageNameCasing",
        "stage-name-casing",
        "A stage's name is written in lower case",
        "write the name in lower case: it is compared without regard to case",
    ),
    rule(
        "FromAsCasing",
        "from-as-casing",
        "FROM and AS of one line are written in the same case",
        "write both in upper or both in lower case",
    ),
    rule(
        "NoEmptyContinuation",
        "no-empty-continuation",
        "A continued line is not followed by an empty one",
        "remove the empty line, or make it a comment (`#`)",
    ),
    rule(
        "ConsistentInstructionCasing",
        "consistent-instruction-casing",
        "All instructions of a file are written in the same case",
        "write all instructions in upper or all in lower case",
    ),
    rule(
        "DuplicateStageName",
        "duplicate-stage-name",
        "No two stages have the same name",
        "rename one of them: the name means the later one from here on",
    ),
    rule(
        "ReservedStageName",
        "reserved-stage-name",
        "`scratch` and `context` are no names for stages",
        "give the stage another name",
    ),
    rule(
        "JSONArgsRecommended",
        "json-args-recommended",
        "CMD and ENTRYPOINT are JSON arrays, so that the program gets signals itself and not its shell",
        "write it as a JSON array (`[\"program\", \"argument\"]`), or set a SHELL if the shell is meant",
    ),
    rule(
        "MaintainerDeprecated",
        "maintainer-deprecated",
        "Who made an image is said by a label, MAINTAINER is obsolete",
        "write `LABEL org.opencontainers.image.authors=…` instead",
    ),
    rule(
        "UndefinedArgInFrom",
        "undefined-arg-in-from",
        "FROM uses only ARGs that are declared before the first FROM",
        "declare it with ARG before the first FROM",
    ),
    rule(
        "WorkdirRelativePath",
        "workdir-relative-path",
        "The first WORKDIR of a stage is absolute, since a relative one depends on the base image's",
        "write an absolute path",
    ),
    rule(
        "UndefinedVar",
        "undefined-var",
        "A variable is declared (ARG) or set (ENV) before it is used",
        "declare it with ARG or set it with ENV above; in single quotes or after `\\` a `$` means itself",
    ),
    rule(
        "MultipleInstructionsDisallowed",
        "multiple-instructions-disallowed",
        "CMD, ENTRYPOINT and HEALTHCHECK stand once in a stage: only the last one counts",
        "remove this one, a later one of the stage replaces it",
    ),
    rule(
        "LegacyKeyValueFormat",
        "legacy-key-value-format",
        "ENV and LABEL are written with `=` between name and value",
        "write `name=value`, with quotes around a value that has blanks",
    ),
    Rule {
        name: "InvalidBaseImagePlatform",
        description: "A base image is for the platform that is built for",
        hint: "choose a base image that exists for the platform, or build for another one with --platform",
        page: None,
    },
    rule(
        "RedundantTargetPlatform",
        "redundant-target-platform",
        "`FROM --platform=$TARGETPLATFORM` says what is done anyway",
        "remove the flag",
    ),
    rule(
        "SecretsUsedInArgOrEnv",
        "secrets-used-in-arg-or-env",
        "Secrets are not in ARG or ENV: both stay readable in the image",
        "hand it to the RUN that needs it with `RUN --mount=type=secret`",
    ),
    rule(
        "InvalidDefaultArgInFrom",
        "invalid-default-arg-in-from",
        "A base image's name is valid without any build argument",
        "give the ARG a default that makes a valid name",
    ),
    rule(
        "FromPlatformFlagConstDisallowed",
        "from-platform-flag-const-disallowed",
        "FROM has no constant platform, unless the stage's name says so",
        "remove the flag, use $BUILDPLATFORM, or put the platform into the stage's name",
    ),
    rule(
        "CopyIgnoredFile",
        "copy-ignored-file",
        "COPY and ADD take no file that the ignore file hides",
        "change the ignore file, or take the source out",
    ),
    rule(
        "InvalidDefinitionDescription",
        "invalid-definition-description",
        "The comment right above an ARG or a named FROM begins with its name and describes it",
        "begin the comment with the name, or put an empty line or an empty comment below it",
    ),
    rule(
        "ExposeProtoCasing",
        "expose-proto-casing",
        "Protocols in EXPOSE are written in lower case",
        "write the protocol in lower case",
    ),
    rule(
        "ExposeInvalidFormat",
        "expose-invalid-format",
        "EXPOSE has ports of the container only, without an address or a port of the host",
        "leave the container's port alone; `docker run --publish` maps it",
    ),
];

/// A violated rule with what its text names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finding<'a> {
    StageNameCasing {
        name: &'a str,
    },
    FromAsCasing {
        from: &'a str,
        as_word: &'a str,
    },
    NoEmptyContinuation,
    ConsistentInstructionCasing {
        instruction: &'a str,
        majority: &'a str,
    },
    DuplicateStageName {
        name: &'a str,
    },
    ReservedStageName {
        name: &'a str,
    },
    JsonArgsRecommended {
        instruction: &'a str,
    },
    MaintainerDeprecated,
    UndefinedArgInFrom {
        name: &'a str,
        nearest: Option<&'a str>,
    },
    WorkdirRelativePath {
        path: &'a str,
    },
    UndefinedVar {
        name: &'a str,
        nearest: Option<&'a str>,
    },
    MultipleInstructionsDisallowed {
        instruction: &'a str,
    },
    LegacyKeyValueFormat {
        instruction: &'a str,
    },
    InvalidBaseImagePlatform {
        image: &'a str,
        expected: &'a str,
        actual: &'a str,
    },
    RedundantTargetPlatform {
        written: &'a str,
    },
    SecretsUsedInArgOrEnv {
        instruction: &'a str,
        name: &'a str,
    },
    InvalidDefaultArgInFrom {
        image: &'a str,
    },
    FromPlatformFlagConstDisallowed {
        platform: &'a str,
    },
    /// `instruction`: `Copy` or `Add`.
    CopyIgnoredFile {
        instruction: &'a str,
        path: &'a str,
    },
    InvalidDefinitionDescription {
        instruction: &'a str,
        name: &'a str,
    },
    ExposeProtoCasing {
        port: &'a str,
    },
    ExposeInvalidFormat {
        port: &'a str,
    },
}

impl Finding<'_> {
    /// BuildKit's name of the rule.
    pub fn rule(&self) -> &'static str {
        match self {
            Finding::StageNameCasing { .. } => "StageNameCasing",
            Finding::FromAsCasing { .. } => "FromAsCasing",
            Finding::NoEmptyContinuation => "NoEmptyContinuation",
            Finding::ConsistentInstructionCasing { .. } => "ConsistentInstructionCasing",
            Finding::DuplicateStageName { .. } => "DuplicateStageName",
            Finding::ReservedStageName { .. } => "ReservedStageName",
            Finding::JsonArgsRecommended { .. } => "JSONArgsRecommended",
            Finding::MaintainerDeprecated => "MaintainerDeprecated",
            Finding::UndefinedArgInFrom { .. } => "UndefinedArgInFrom",
            Finding::WorkdirRelativePath { .. } => "WorkdirRelativePath",
            Finding::UndefinedVar { .. } => "UndefinedVar",
            Finding::MultipleInstructionsDisallowed { .. } => "MultipleInstructionsDisallowed",
            Finding::LegacyKeyValueFormat { .. } => "LegacyKeyValueFormat",
            Finding::InvalidBaseImagePlatform { .. } => "InvalidBaseImagePlatform",
            Finding::RedundantTargetPlatform { .. } => "RedundantTargetPlatform",
            Finding::SecretsUsedInArgOrEnv { .. } => "SecretsUsedInArgOrEnv",
            Finding::InvalidDefaultArgInFrom { .. } => "InvalidDefaultArgInFrom",
            Finding::FromPlatformFlagConstDisallowed { .. } => "FromPlatformFlagConstDisallowed",
            Finding::CopyIgnoredFile { .. } => "CopyIgnoredFile",
            Finding::InvalidDefinitionDescription { .. } => "InvalidDefinitionDescription",
            Finding::ExposeProtoCasing { .. } => "ExposeProtoCasing",
            Finding::ExposeInvalidFormat { .. } => "ExposeInvalidFormat",
        }
    }

    /// BuildKit's text, word for word: tools look for it.
    pub fn message(&self) -> String {
        let suggestion = |nearest: &Option<&str>, dollar: &str| match nearest {
            Some(nearest) => format!(" (did you mean {dollar}{nearest}?)"),
            None => String::new(),
        };
        match self {
            Finding::StageNameCasing { name } => format!("Stage name '{name}' should be lowercase"),
            Finding::FromAsCasing { from, as_word } => {
                format!("'{as_word}' and '{from}' keywords' casing do not match")
            }
            Finding::NoEmptyContinuation => "Empty continuation line".to_owned(),
            Finding::ConsistentInstructionCasing { instruction, majority } => {
                format!("Command '{instruction}' should match the case of the command majority ({majority})")
            }
            Finding::DuplicateStageName { name } => {
                format!("Duplicate stage name \"{name}\", stage names should be unique")
            }
            Finding::ReservedStageName { name } => {
                format!("Stage name should not use the same name as reserved stage \"{name}\"")
            }
            Finding::JsonArgsRecommended { instruction } => format!(
                "JSON arguments recommended for {instruction} to prevent unintended behavior related to OS signals"
            ),
            Finding::MaintainerDeprecated => "Maintainer instruction is deprecated in favor of using label".to_owned(),
            Finding::UndefinedArgInFrom { name, nearest } => {
                format!("FROM argument '{name}' is not declared{}", suggestion(nearest, ""))
            }
            Finding::WorkdirRelativePath { path } => {
                format!("Relative workdir \"{path}\" can have unexpected results if the base image changes")
            }
            Finding::UndefinedVar { name, nearest } => {
                format!("Usage of undefined variable '${name}'{}", suggestion(nearest, "$"))
            }
            Finding::MultipleInstructionsDisallowed { instruction } => format!(
                "Multiple {instruction} instructions should not be used in the same stage because only the last one will be used"
            ),
            Finding::LegacyKeyValueFormat { instruction } => format!(
                "\"{instruction} key=value\" should be used instead of legacy \"{instruction} key value\" format"
            ),
            Finding::InvalidBaseImagePlatform { image, expected, actual } => format!(
                "Base image {image} was pulled with platform \"{actual}\", expected \"{expected}\" for current build"
            ),
            Finding::RedundantTargetPlatform { written } => {
                format!("Setting platform to predefined {written} in FROM is redundant as this is the default behavior")
            }
            Finding::SecretsUsedInArgOrEnv { instruction, name } => {
                format!("Do not use ARG or ENV instructions for sensitive data ({instruction} \"{name}\")")
            }
            Finding::InvalidDefaultArgInFrom { image } => {
                format!("Default value for ARG {image} results in empty or invalid base image name")
            }
            Finding::FromPlatformFlagConstDisallowed { platform } => {
                format!("FROM --platform flag should not use constant value \"{platform}\"")
            }
            Finding::CopyIgnoredFile { instruction, path } => {
                format!("Attempting to {instruction} file \"{path}\" that is excluded by .dockerignore")
            }
            Finding::InvalidDefinitionDescription { instruction, name } => {
                format!("Comment for {instruction} should follow the format: `# {name} <description>`")
            }
            Finding::ExposeProtoCasing { port } => {
                format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase")
            }
            Finding::ExposeInvalidFormat { port } => {
                format!("EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'")
            }
        }
    }

    /// The finding at a place.
    pub fn at(&self, span: Span) -> Diagnostic {
        Diagnostic { rule: Some(self.rule()), message: self.message(), span, hint: None }
    }
}

/// The name among `known` that is nearest to an undefined `name`, for [`Finding::UndefinedVar`] and
/// [`Finding::UndefinedArgInFrom`].
pub fn nearest_name<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    crate::suggest::nearest(name, known)
}

/// How names were written, which the syntax tree does not tell.
pub(crate) struct Written {
    pub name: String,
    pub span: Span,
    pub comment: Option<String>,
}

/// Collects findings of one file.
pub(crate) struct Linter<'c> {
    pub checks: &'c Checks,
    pub findings: Vec<Diagnostic>,
}

impl Linter<'_> {
    pub fn report(&mut self, finding: Finding<'_>, span: &Span) {
        if self.checks.reports(finding.rule()) {
            self.findings.push(finding.at(span.clone()));
        }
    }

    pub fn report_with_comment(&mut self, finding: Finding<'_>, span: &Span, comment: Option<&str>) {
        if self.checks.with_comment(comment).reports(finding.rule()) {
            self.findings.push(finding.at(span.clone()));
        }
    }

    /// The rules that look at the file as a whole.
    pub fn check(&mut self, file: &Dockerfile, written: &[Written]) {
        self.check_stage_names(file);
        self.check_casing(written);
        let known = names_for_from(file);
        file.global_args.iter().for_each(|instruction| self.check_description(instruction));
        let mut states: Vec<StageState> = Vec::new();
        let mut names = HashMap::new();
        for (index, stage) in file.stages.iter().enumerate() {
            self.check_from(&stage.from, &known, file.escape);
            let parent = names.get(&stage.from.image.text.to_lowercase()).map(|parent: &usize| &states[*parent]);
            let mut state = parent.map(StageState::of_child).unwrap_or_default();
            for instruction in &stage.instructions {
                self.check_instruction(instruction, &mut state, file.escape);
            }
            states.push(state);
            if let Some(name) = &stage.from.name {
                names.insert(name.text.clone(), index);
            }
        }
    }

    fn check_stage_names(&mut self, file: &Dockerfile) {
        let mut seen = HashSet::new();
        for from in file.stages.iter().map(|stage| &stage.from) {
            let Some(name) = &from.name else { continue };
            if name.text == "scratch" || name.text == "context" {
                self.report(Finding::ReservedStageName { name: &name.text }, &from.span);
            }
            if !seen.insert(&name.text) {
                self.report(Finding::DuplicateStageName { name: &name.text }, &from.span);
            }
        }
    }

    fn check_casing(&mut self, written: &[Written]) {
        let lower = written.iter().filter(|written| is_lower(&written.name)).count();
        let upper = written.iter().filter(|written| is_upper(&written.name)).count();
        let majority = if lower > upper { "lowercase" } else { "uppercase" };
        for Written { name, span, .. } in written {
            let fits = if lower > upper { is_lower(name) } else { is_upper(name) };
            if !fits {
                self.report(Finding::ConsistentInstructionCasing { instruction: name, majority }, span);
            }
        }
    }

    fn check_from(&mut self, from: &From, known: &BTreeSet<&str>, escape: char) {
        let comment = from.comment.as_deref();
        for word in [Some(&from.image), from.platform.as_ref()].into_iter().flatten() {
            let value = |name: &str| known.contains(name).then(|| "x".to_owned());
            for name in expand::word(&word.text, escape, &value).unwrap_or_default().unset {
                let nearest = nearest_name(&name, known.iter().copied());
                self.report_with_comment(Finding::UndefinedArgInFrom { name: &name, nearest }, &from.span, comment);
            }
        }
        if let Some(platform) = from.platform.as_ref().filter(|platform| is_target_platform(platform, escape)) {
            let finding = Finding::RedundantTargetPlatform { written: &platform.text };
            self.report_with_comment(finding, &from.span, comment);
        }
        if let Some(name) = &from.name {
            self.check_comment("FROM", &[&name.text], &from.span, comment);
        }
        self.check_constant_platform(from, escape);
    }

    fn check_description(&mut self, instruction: &Instruction) {
        if let Kind::Arg(args) = &instruction.kind {
            let names: Vec<&str> = args.iter().map(|arg| arg.name.text.as_str()).collect();
            self.check_comment("ARG", &names, &instruction.span, instruction.comment.as_deref());
        }
    }

    /// The last comment line above a definition is meant to begin with one of the names that it defines.
    fn check_comment(&mut self, instruction: &str, names: &[&str], span: &Span, comment: Option<&str>) {
        let Some(last) = comment.and_then(|comment| comment.lines().last()) else { return };
        if last.split(' ').next().is_some_and(|first| names.contains(&first)) {
            return;
        }
        let name = if let [name] = names { name } else { "<arg_key>" };
        self.report_with_comment(Finding::InvalidDefinitionDescription { instruction, name }, span, comment);
    }

    fn check_constant_platform(&mut self, from: &From, escape: char) {
        let Some(platform) = from.platform.as_ref().and_then(|platform| literal(&platform.text, escape)) else {
            return;
        };
        let Some((os, architecture)) = platform_parts(&platform) else { return };
        let name = from.name.as_ref().map_or("", |name| name.text.as_str());
        if !name.contains(&os) && !name.contains(&architecture) {
            let finding = Finding::FromPlatformFlagConstDisallowed { platform: &platform };
            self.report_with_comment(finding, &from.span, from.comment.as_deref());
        }
    }

    fn check_instruction(&mut self, instruction: &Instruction, state: &mut StageState, escape: char) {
        let name = instruction.written_name();
        match &instruction.kind {
            Kind::Cmd(command) => {
                self.check_used_once(name, instruction, &mut state.cmd);
                self.check_json(name, command, instruction, state);
            }
            Kind::Entrypoint(command) => {
                self.check_used_once(name, instruction, &mut state.entrypoint);
                self.check_json(name, command, instruction, state);
            }
            Kind::Healthcheck(_) => self.check_used_once(name, instruction, &mut state.healthcheck),
            Kind::Shell(_) => state.has_shell = true,
            Kind::Arg(args) => {
                self.check_description(instruction);
                args.iter().for_each(|arg| self.check_secret("ARG", &arg.name, instruction, escape));
            }
            Kind::Env { pairs, legacy } => {
                self.check_legacy(*legacy, instruction);
                pairs.iter().for_each(|(key, _)| self.check_secret("ENV", key, instruction, escape));
            }
            Kind::Label { legacy, .. } => self.check_legacy(*legacy, instruction),
            Kind::Workdir(path) => self.check_workdir(path, instruction, state, escape),
            Kind::Expose(ports) => {
                let comment = instruction.comment.as_deref();
                ports.iter().for_each(|port| self.check_port(port, comment, escape));
            }
            Kind::Add(_)
            | Kind::Copy(_)
            | Kind::Maintainer(_)
            | Kind::Onbuild(_)
            | Kind::Run(_)
            | Kind::Stopsignal(_)
            | Kind::User(_)
            | Kind::Volume(_) => {}
        }
    }

    fn check_legacy(&mut self, is_legacy: bool, instruction: &Instruction) {
        if is_legacy {
            let finding = Finding::LegacyKeyValueFormat { instruction: instruction.written_name() };
            self.report_with_comment(finding, &instruction.span, instruction.comment.as_deref());
        }
    }

    fn check_secret(&mut self, name: &str, key: &Word, instruction: &Instruction, escape: char) {
        let Some(key) = literal(&key.text, escape).filter(|key| is_secret_name(key)) else { return };
        let finding = Finding::SecretsUsedInArgOrEnv { instruction: name, name: &key };
        self.report_with_comment(finding, &instruction.span, instruction.comment.as_deref());
    }

    /// The earlier instruction is reported, because it is the one without effect.
    fn check_used_once(&mut self, name: &str, instruction: &Instruction, earlier: &mut Option<Span>) {
        if let Some(earlier) = earlier.replace(instruction.span.clone()) {
            let finding = Finding::MultipleInstructionsDisallowed { instruction: name };
            self.report_with_comment(finding, &earlier, instruction.comment.as_deref());
        }
    }

    fn check_json(&mut self, name: &str, command: &Command, instruction: &Instruction, state: &StageState) {
        if matches!(command, Command::Shell(_)) && !state.has_shell {
            let finding = Finding::JsonArgsRecommended { instruction: name };
            self.report_with_comment(finding, &instruction.span, instruction.comment.as_deref());
        }
    }

    /// Only the first WORKDIR is looked at: with it absolute, all are.
    fn check_workdir(&mut self, path: &Word, instruction: &Instruction, state: &mut StageState, escape: char) {
        if std::mem::replace(&mut state.has_workdir, true) {
            return;
        }
        let Some(path) = literal(&path.text, escape).filter(|path| !path.starts_with('/')) else { return };
        let finding = Finding::WorkdirRelativePath { path: &path };
        self.report_with_comment(finding, &instruction.span, instruction.comment.as_deref());
    }

    fn check_port(&mut self, port: &Word, comment: Option<&str>, escape: char) {
        let Some(text) = literal(&port.text, escape) else { return };
        for finding in port_findings(&text) {
            self.report_with_comment(finding, &port.span, comment);
        }
    }
}

/// What is wrong with one port of EXPOSE, its variables expanded.
pub fn port_findings(port: &str) -> Vec<Finding<'_>> {
    let mut findings = Vec::new();
    let container_part = port.rsplit(':').next().unwrap_or_default();
    let protocol = container_part.split_once('/').map_or("", |(_, protocol)| protocol);
    if protocol != protocol.to_lowercase() {
        findings.push(Finding::ExposeProtoCasing { port });
    }
    if port.split_once(':').is_some_and(|(host, _)| !host.is_empty()) {
        findings.push(Finding::ExposeInvalidFormat { port });
    }
    findings
}

/// What the rules remember of a stage.
#[derive(Default)]
struct StageState {
    has_shell: bool,
    has_workdir: bool,
    cmd: Option<Span>,
    entrypoint: Option<Span>,
    healthcheck: Option<Span>,
}

impl StageState {
    /// What a stage inherits from the stage that it is built from.
    fn of_child(&self) -> StageState {
        StageState { has_shell: self.has_shell, has_workdir: self.has_workdir, ..StageState::default() }
    }
}

/// The names that FROM may use: ARGs before the first FROM and those that every build has (`dockerfile2llb/platform.go`,
/// `defaultArgs`).
fn names_for_from(file: &Dockerfile) -> BTreeSet<&str> {
    let given = [
        "BUILDPLATFORM",
        "BUILDOS",
        "BUILDOSVERSION",
        "BUILDARCH",
        "BUILDVARIANT",
        "TARGETPLATFORM",
        "TARGETOS",
        "TARGETOSVERSION",
        "TARGETARCH",
        "TARGETVARIANT",
        "TARGETSTAGE",
    ];
    let declared = file.global_args.iter().filter_map(|instruction| match &instruction.kind {
        Kind::Arg(args) => Some(args.iter().map(|arg| arg.name.text.as_str())),
        _ => None,
    });
    given.into_iter().chain(declared.flatten()).collect()
}

/// Whether a platform is `$TARGETPLATFORM` and nothing else.
fn is_target_platform(platform: &Word, escape: char) -> bool {
    // A value that no text has, so that only the variable gives it.
    let value = |name: &str| (name == "TARGETPLATFORM").then(|| "\u{1}".to_owned());
    let expanded = expand::word(&platform.text, escape, &value).unwrap_or_default();
    expanded.text == "\u{1}" && expanded.unset.is_empty() && expanded.set == ["TARGETPLATFORM"]
}

/// Whether a word of the name (between `_`) is one of those that secrets are called by, and none says that it is not.
pub fn is_secret_name(name: &str) -> bool {
    let name = name.to_lowercase();
    let has = |words: &[&str]| name.split('_').any(|word| words.contains(&word));
    let secret =
        ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
    has(&secret) && !has(&["public", "file", "version"])
}

/// The text of a word without variables; its value is not known otherwise, and the planner has to look at it.
pub fn literal(text: &str, escape: char) -> Option<String> {
    let expanded = expand::word(text, escape, &|_: &str| None).ok()?;
    expanded.unset.is_empty().then_some(expanded.text)
}

pub(crate) fn is_lower(name: &str) -> bool {
    name == name.to_lowercase()
}

pub(crate) fn is_upper(name: &str) -> bool {
    name == name.to_uppercase()
}

/// Operating system and architecture of a platform specifier; `None` when it is malformed. What it does not name is this
/// machine's (containerd `platforms.Parse`).
fn platform_parts(platform: &str) -> Option<(String, String)> {
    const KNOWN_OS: [&str; 14] = [
        "linux",
        "windows",
        "darwin",
        "freebsd",
        "wasip1",
        "android",
        "aix",
        "dragonfly",
        "illumos",
        "ios",
        "js",
        "netbsd",
        "openbsd",
        "solaris",
    ];
    const KNOWN_ARCHITECTURES: [&str; 17] = [
        "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le",
        "riscv64", "s390x", "wasm", "s390", "riscv", "sparc64",
    ];
    let parts: Vec<String> = platform.split('/').map(str::to_lowercase).collect();
    let is_valid = |part: &String| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
    };
    if parts.len() > 3 || !parts.iter().all(is_valid) {
        return None;
    }
    match &parts[..] {
        [one] if KNOWN_OS.contains(&one.as_str()) => Some((one.clone(), architecture(std::env::consts::ARCH))),
        [one] => {
            let name = architecture(one);
            KNOWN_ARCHITECTURES.contains(&name.as_str()).then(|| ("linux".to_owned(), name))
        }
        [os, name, ..] => Some((if os == "macos" { "darwin" } else { os }.to_owned(), architecture(name))),
        [] => None,
    }
}

/// containerd/platforms `normalizeArch`.
fn architecture(name: &str) -> String {
    match name {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "armhf" | "armel" => "arm",
        "i386" => "386",
        other => other,
    }
    .to_owned()
}
