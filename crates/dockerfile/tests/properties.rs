//! What holds for every input: nothing panics, all places are in range, and work stays in proportion to the input.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use zuwai_dockerfile::{Command, CopySource, Dockerfile, Kind, Span, Word, expand, glob, ignore, parse};

/// Text made of what Dockerfiles are made of, so that it gets past the first check now and then.
fn dockerfile() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "FROM a",
        "FROM",
        "RUN",
        "COPY",
        "ADD",
        "ENV",
        "ARG",
        "LABEL",
        "CMD",
        "ONBUILD",
        "HEALTHCHECK",
        "VOLUME",
        "EXPOSE",
        "SHELL",
        "USER",
        "WORKDIR",
        "\n",
        "\n",
        "\n",
        "\r\n",
        " ",
        " ",
        "\t",
        "\\",
        "\\\n",
        "`",
        "#",
        "# escape=`\n",
        "# check=skip=all\n",
        "<<",
        "<<EOF",
        "<<-EOF",
        "\nEOF\n",
        "EOF",
        "'",
        "\"",
        "[",
        "]",
        "[\"a\"]",
        "{",
        "}",
        "$",
        "${",
        "${a:-",
        ":",
        "/",
        "=",
        "A=b",
        "--",
        "--mount=",
        "type=cache",
        ",target=/x",
        "--from=x",
        "--link",
        "--interval=5s",
        "CMD x",
        "AS x",
        "a",
        "é",
        "\u{feff}",
        "\u{2028}",
        "🦀",
        "\0",
        "*",
        "?",
        "%",
        "**",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

fn spans(file: &Dockerfile) -> Vec<Span> {
    let mut spans: Vec<Span> = file.warnings.iter().map(|warning| warning.span.clone()).collect();
    spans.extend(file.syntax.iter().chain(&file.check).map(|word| word.span.clone()));
    for stage in &file.stages {
        let words = [Some(&stage.from.image), stage.from.platform.as_ref(), stage.from.name.as_ref()];
        spans.extend(words.into_iter().flatten().map(|word| word.span.clone()));
        spans.push(stage.from.span.clone());
    }
    let in_stages = file.stages.iter().flat_map(|stage| &stage.instructions);
    for instruction in file.global_args.iter().chain(in_stages) {
        spans.push(instruction.span.clone());
        spans.extend(kind_spans(&instruction.kind));
    }
    spans
}

fn kind_spans(kind: &Kind) -> Vec<Span> {
    let all = |words: &[Word]| words.iter().map(|word| word.span.clone()).collect();
    match kind {
        Kind::Add(copy) | Kind::Copy(copy) => {
            let source = |source: &CopySource| match source {
                CopySource::Path(path) => path.span.clone(),
                CopySource::Heredoc(heredoc) => heredoc.span.clone(),
            };
            copy.sources.iter().map(source).chain([copy.destination.span.clone()]).collect()
        }
        Kind::Arg(args) => args.iter().map(|arg| arg.name.span.clone()).collect(),
        Kind::Env { pairs, .. } | Kind::Label { pairs, .. } => {
            pairs.iter().flat_map(|(name, value)| [name.span.clone(), value.span.clone()]).collect()
        }
        Kind::Expose(words) | Kind::Volume(words) => all(words),
        Kind::Run(run) => {
            let mounts = run.mounts.iter().flat_map(|mount| {
                let words = [mount.from.as_ref(), mount.source.as_ref(), mount.target.as_ref()];
                words.into_iter().flatten().map(|word| word.span.clone()).chain([mount.span.clone()])
            });
            mounts.chain(run.heredocs.iter().map(|heredoc| heredoc.span.clone())).collect()
        }
        Kind::Stopsignal(word) | Kind::User(word) | Kind::Workdir(word) => vec![word.span.clone()],
        Kind::Cmd(_)
        | Kind::Entrypoint(_)
        | Kind::Healthcheck(_)
        | Kind::Maintainer(_)
        | Kind::Onbuild(_)
        | Kind::Shell(_) => Vec::new(),
    }
}

fn check(bytes: &[u8]) {
    match parse(bytes) {
        Ok(file) => {
            for span in spans(&file) {
                assert!(file.source.get(span.clone()).is_some(), "{span:?} is no place in {:?}", file.source);
            }
        }
        Err(error) => {
            let span = error.diagnostic.span.clone();
            assert!(error.source_text.get(span.clone()).is_some(), "{span:?} is no place in {:?}", error.source_text);
            assert!(!error.to_string().ends_with('.'), "{error}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_parse_or_fail_at_a_place(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&bytes);
    }

    #[test]
    fn any_dockerfile_parses_or_fails_at_a_place(text in dockerfile()) {
        check(text.as_bytes());
        check(format!("FROM a\n{text}").as_bytes());
    }

    #[test]
    fn any_text_expands_or_fails(text in dockerfile(), escape in prop::sample::select(vec!['\\', '`'])) {
        let value = |name: &str| (name.len() == 1).then(|| "a b/c".to_owned());
        let _ = expand::word(&text, escape, &value);
        let _ = expand::words(&text, escape, &value);
        let _ = expand::heredoc(&text, escape, &value);
        let _ = expand::for_display(&text, escape, &value);
    }

    #[test]
    fn text_without_special_characters_stays(text in "[a-zA-Z0-9_/.:@ é-]*") {
        prop_assert_eq!(expand::word(&text, '\\', &|_: &str| None).unwrap().text, text.clone());
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        prop_assert_eq!(expand::words(&text, '\\', &|_: &str| None).unwrap(), words);
    }

    #[test]
    fn an_escaped_name_matches_itself_alone(name in "[a-c*?\\[\\]\\\\^é-]{1,8}", other in "[a-c*?]{1,8}") {
        let escaped: String = name.chars().flat_map(|c| ['\\', c]).collect();
        prop_assert_eq!(glob::matches(escaped.as_bytes(), name.as_bytes()), Ok(true));
        prop_assert_eq!(glob::matches(escaped.as_bytes(), other.as_bytes()), Ok(name == other));
    }

    /// What is included below an excluded directory must be found by walking it.
    #[test]
    fn inclusions_below_are_announced(
        patterns in prop::collection::vec("!?[ab*?/]{1,6}", 1..5),
        path in "[ab]{1,2}(/[ab]{1,2}){1,3}",
    ) {
        if let Ok(patterns) = ignore::Patterns::new(&patterns)
            && !patterns.excludes(path.as_bytes())
        {
            let parents = path.match_indices('/').map(|(at, _)| &path[..at]);
            for parent in parents.filter(|parent| patterns.excludes(parent.as_bytes())) {
                prop_assert!(patterns.may_include_below(parent.as_bytes()), "{} in {}", path, parent);
            }
        }
    }
}

#[test]
fn large_inputs_take_time_in_proportion() {
    let mib = 1 << 20;
    let inputs: Vec<(&str, Vec<u8>)> = vec![
        ("instructions", b"FROM a\n".iter().copied().chain(b"RUN a && b\n".repeat(mib / 11)).collect()),
        ("stages", (0..mib / 20).flat_map(|n| format!("FROM a AS b{n}\nRUN x\n").into_bytes()).collect()),
        ("one line", [b"FROM a\nENV ".as_slice(), &b"A=b \\\n".repeat(mib / 6), b" C=d"].concat()),
        ("one heredoc", [b"FROM a\nCOPY <<E /x\n".as_slice(), &b"x\n".repeat(mib / 2), b"E"].concat()),
        ("empty lines", [b"FROM a\nRUN x \\\n".as_slice(), &b"\n".repeat(mib), b" y"].concat()),
        ("comments", [b"# x\n".repeat(mib / 4).as_slice(), b"FROM a"].concat()),
        ("ports", [b"FROM a\nEXPOSE ".as_slice(), &b"80 \\\n".repeat(mib / 5)].concat()),
        ("quotes", [b"FROM a\nLABEL a=".as_slice(), &b"'\"$\\\n".repeat(mib / 5)].concat()),
        (
            "heredocs",
            [b"FROM a\nCOPY ".as_slice(), &b"<<E \\\n".repeat(mib / 14), b"/x\n", &b"E\n".repeat(mib / 14)].concat(),
        ),
        ("mounts", [b"FROM a\nRUN ".as_slice(), &b"--mount=target=/a \\\n".repeat(mib / 20)].concat()),
        ("brackets", [b"FROM a\nRUN ".as_slice(), &b"[[[[[[[[\\\n".repeat(mib / 10)].concat()),
        ("nothing", vec![0; mib]),
        ("noise", (0..mib).map(|n| (n * 7919 % 251) as u8).collect()),
    ];
    for (name, input) in inputs {
        let start = Instant::now();
        let _ = parse(&input);
        // Far above what is needed without optimisation, far below what quadratic work takes.
        assert!(start.elapsed() < Duration::from_secs(20), "{name}: {:?}", start.elapsed());
        eprintln!("{name}: {:?}", start.elapsed());
    }
}

#[test]
fn large_texts_expand_in_time_in_proportion() {
    let names: String = (0..200_000).map(|n| format!("$v{n} ")).collect();
    let quotes = "\"'\"".repeat(300_000);
    let dollars = "$".repeat(1 << 20);
    for text in [names, quotes, dollars] {
        let start = Instant::now();
        let _ = expand::word(&text, '\\', &|_: &str| None);
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    }
}

#[test]
fn the_forms_of_commands_are_told_apart() {
    let file = parse(b"FROM a\nRUN [\"a\"]\nRUN [a]").unwrap();
    let commands: Vec<&Command> = file.stages[0]
        .instructions
        .iter()
        .map(|instruction| match &instruction.kind {
            Kind::Run(run) => &run.command,
            other => panic!("{}", other.name()),
        })
        .collect();
    assert_eq!(commands, [&Command::Exec(vec!["a".to_owned()]), &Command::Shell("[a]".to_owned())]);
}
