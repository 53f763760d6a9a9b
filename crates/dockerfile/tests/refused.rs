//! Files that must be refused: the line, what the message says, and the hint.

use zuwai_dockerfile::{parse, parse_onbuild};

/// (Dockerfile, line, message, hint)
#[rustfmt::skip]
const CASES: &[(&str, usize, &str, &str)] = &[
    // the file as a whole
    ("", 1, "the Dockerfile is empty", ""),
    ("# nothing\n\n", 1, "the Dockerfile has no instructions", ""),
    ("ARG A\n", 1, "the Dockerfile has no build stage: there is no FROM", ""),
    ("ARG A\n\nRUN x\nFROM b", 3, "no build stage: RUN comes before the first FROM", ""),
    ("# escape=x\nFROM a", 1, "the `escape` directive takes a backslash or a backtick, not `x`", ""),
    ("# escape=`\n# Escape=\\\nFROM a", 2, "only one `escape` directive is allowed", ""),
    ("# syntax=a\n# syntax=b\nFROM a", 2, "only one `syntax` directive is allowed", ""),
    ("# check=errors=true\nFROM a", 1, "invalid check option `errors` (did you mean error?)", ""),
    ("# check=error=perhaps\nFROM a", 1, "invalid check option `error=perhaps`: `error` is `true` or `false`", ""),
    ("# check=skip\nFROM a", 1, "invalid check option `skip`", ""),
    // instructions
    ("FROM a\nRUNN x", 2, "unknown instruction `RUNN`", "did you mean RUN?"),
    ("FROM a\n\n  entrypiont x", 3, "unknown instruction `entrypiont`", "did you mean ENTRYPOINT?"),
    ("FROM a\nechoes x", 2, "unknown instruction `echoes`", ""),
    ("FROM a\nRUN <<E\nE\nE", 4, "unknown instruction `E`", ""),
    ("FROM", 1, "FROM needs one argument or three (`FROM image AS name`)", ""),
    ("FROM a b", 1, "FROM needs one argument or three (`FROM image AS name`)", ""),
    ("FROM a is b", 1, "FROM needs one argument or three (`FROM image AS name`)", ""),
    ("FROM a AS 1st", 1, "invalid name `1st` for a build stage", "a stage name begins with a letter and holds letters, digits, `-`, `_` and `.`"),
    ("FROM a \\\n  AS a+b", 2, "invalid name `a+b` for a build stage", "a stage name begins with a letter and holds letters, digits, `-`, `_` and `.`"),
    // flags
    ("FROM --platfrom=x a", 1, "unknown flag `--platfrom` of FROM", "did you mean platform?"),
    ("FROM a\nCOPY --chmodd=1 a b", 2, "unknown flag `--chmodd` of COPY", "did you mean chmod?"),
    ("FROM a\nCOPY --checksum=1 a b", 2, "unknown flag `--checksum` of COPY", ""),
    ("FROM a\nADD --from=a a b", 2, "unknown flag `--from` of ADD", ""),
    ("FROM a\nCOPY --chown=1 \\\n  --chown=2 a b", 3, "duplicate flag `--chown`", ""),
    ("FROM a\nCOPY --chown a b", 2, "flag `--chown` needs a value", ""),
    ("FROM a\nCOPY --link= a b", 2, "flag `--link` needs a value", ""),
    ("FROM a\nCOPY --link=yes a b", 2, "flag `--link` is `true` or `false`, not `yes`", ""),
    ("FROM a\nCMD --flag", 2, "unknown flag `--flag` of CMD", ""),
    ("FROM a\nARG --flag A", 2, "unknown flag `--flag` of ARG", ""),
    ("FROM a\nONBUILD --flag RUN x", 2, "unknown flag `--flag` of ONBUILD", ""),
    ("FROM a\nRUN --network=bridge x", 2, "unknown network mode `bridge`", "it is one of default, none, host"),
    ("FROM a\nRUN --security=sandbx x", 2, "unknown security mode `sandbx`", "did you mean sandbox?"),
    // arguments
    ("FROM a\nUSER", 2, "USER needs exactly one argument", ""),
    ("FROM a\nWORKDIR --", 2, "WORKDIR needs exactly one argument", ""),
    ("FROM a\nEXPOSE", 2, "EXPOSE needs at least one argument", ""),
    ("FROM a\nVOLUME []", 2, "VOLUME needs at least one argument", ""),
    ("FROM a\nVOLUME [\"a\", \" \"]", 2, "VOLUME has an empty path", ""),
    ("FROM a\nRUN [1]", 2, "RUN has a JSON array with other things than strings", ""),
    ("FROM a\nCOPY [[\"a\"], \"b\"]", 2, "COPY has a JSON array with other things than strings", ""),
    ("FROM a\nONBUILD CMD [null, {\"a\": [true, -1.5e3]}]", 2, "CMD has a JSON array with other things than strings", ""),
    ("FROM a\nRUN []", 2, "RUN needs a command, the array is empty", ""),
    ("FROM a\nSHELL bash -c", 2, "SHELL needs its arguments as a JSON array", "for example `SHELL [\"/bin/bash\", \"-c\"]`"),
    ("FROM a\nSHELL []", 2, "SHELL needs at least one argument", ""),
    ("FROM a\nENV", 2, "ENV needs at least one argument", ""),
    ("FROM a\nENV A", 2, "ENV needs two arguments, a name and a value", ""),
    ("FROM a\nENV A=1 \\\n  B", 3, "ENV has `B` without `=`: it must be `name=value`", ""),
    ("FROM a\nENV =1", 2, "ENV has a blank name", ""),
    ("FROM a\nLABEL A=1 =2", 2, "LABEL has a blank name", ""),
    ("FROM a\nONBUILD ENV A", 2, "ENV needs two arguments, a name and a value", ""),
    ("FROM a\nARG", 2, "ARG needs at least one argument", ""),
    ("FROM a\nARG =x", 2, "ARG has a blank name", ""),
    // COPY and ADD
    ("FROM a\nCOPY a", 2, "COPY needs at least two arguments: what to take and the destination", ""),
    ("FROM a\nADD", 2, "ADD needs at least two arguments: what to take and the destination", ""),
    ("FROM a\nCOPY a <<EOF\nEOF", 2, "COPY cannot take a here-document as its destination", ""),
    ("FROM a\nCOPY << EOF /x\nEOF", 2, "COPY has a here-document that is none of its sources", "write its name without blanks right after `<<`"),
    ("FROM a\nCOPY <<EOF /x\n", 2, "unterminated here-document: there is no line `EOF` after it", ""),
    ("FROM a\nCOPY --from=$X a b", 2, "`--from` takes no variables: its value is not expanded", "give the image a name with `FROM $X AS name`, where X is an ARG before the first FROM"),
    // HEALTHCHECK
    ("FROM a\nHEALTHCHECK", 2, "HEALTHCHECK needs at least one argument: `NONE`, or `CMD` and a command", ""),
    ("FROM a\nHEALTHCHECK TEST x", 2, "unknown type `TEST` of HEALTHCHECK: it is `CMD` or `NONE`", ""),
    ("FROM a\nHEALTHCHECK NONE x", 2, "HEALTHCHECK NONE takes no arguments", ""),
    ("FROM a\nHEALTHCHECK CMD", 2, "HEALTHCHECK CMD needs a command", ""),
    ("FROM a\nHEALTHCHECK CMD []", 2, "HEALTHCHECK CMD needs a command, the array is empty", ""),
    ("FROM a\nHEALTHCHECK --interval=5 CMD x", 2, "invalid duration `5` of `--interval`: the unit is missing (`s`, `m`, `h`, …)", ""),
    ("FROM a\nHEALTHCHECK --interval=5x CMD x", 2, "invalid duration `5x` of `--interval`: the unit is unknown (`s`, `m`, `h`, …)", ""),
    ("FROM a\nHEALTHCHECK --interval=s CMD x", 2, "invalid duration `s` of `--interval`: there is no number", ""),
    ("FROM a\nHEALTHCHECK --interval=9999999999h CMD x", 2, "invalid duration `9999999999h` of `--interval`: it is too large", ""),
    ("FROM a\nHEALTHCHECK --timeout=500us CMD x", 2, "`--timeout=500us` cannot be less than 1ms", ""),
    ("FROM a\nHEALTHCHECK --timeout=-1s CMD x", 2, "`--timeout=-1s` cannot be less than 1ms", ""),
    ("FROM a\nHEALTHCHECK --retries=-1 CMD x", 2, "`--retries=-1` cannot be negative", ""),
    ("FROM a\nHEALTHCHECK --retries=two CMD x", 2, "invalid number `two` of `--retries`", ""),
    // ONBUILD
    ("FROM a\nONBUILD", 2, "ONBUILD needs at least one argument", ""),
    ("FROM a\nONBUILD onbuild RUN x", 2, "ONBUILD cannot be a trigger of ONBUILD", ""),
    ("FROM a\nONBUILD FROM b", 2, "FROM is not allowed as an ONBUILD trigger", ""),
    ("FROM a\nONBUILD Maintainer b", 2, "MAINTAINER is not allowed as an ONBUILD trigger", ""),
    // mounts
    ("FROM a\nRUN --mount= x", 2, "`--mount` has no options", ""),
    ("FROM a\nRUN --mount=from=$X,target=/a x", 2, "`from` of a mount takes no variables", "give the image a name with `FROM $X AS name` and mount from that"),
    ("FROM a\nRUN --mount=nosuch,from=a$X$ x", 2, "`from` of a mount takes no variables", "give the image a name with `FROM $X AS name` and mount from that"),
    ("FROM a\nRUN true \\\n --mount=x && \\\n a\nRUN \\\n --mount= \\\n x", 6, "`--mount` has no options", ""),
    ("FROM a\nRUN --mount='target=/a,\"source=x' x", 2, "`--mount=target=/a,\"source=x` has an open quote", ""),
    ("FROM a\nRUN --mount='target=/a\"b' x", 2, "`--mount=target=/a\"b` has a quote inside of a field", ""),
    ("FROM a\nRUN --mount='\"target=/a\"b' x", 2, "`--mount=\"target=/a\"b` has text after a closing quote", ""),
];

#[test]
fn faults_have_their_line_message_and_hint() {
    for (text, line, message, hint) in CASES {
        let error = parse(text.as_bytes()).expect_err(text);
        let actual_hint = error.diagnostic.hint.as_deref().unwrap_or_default();
        assert_eq!((error.line(), error.to_string().as_str(), actual_hint), (*line, *message, *hint), "{text}");
    }
}

/// What cannot be written as text: (Dockerfile, line, message).
#[test]
fn bytes_that_no_command_can_have() {
    let cases: &[(&[u8], usize, &str)] = &[
        (b"FROM a\nRUN caf\xe9", 2, "RUN is not valid UTF-8"),
        (b"FROM a\nRUN <<E\n\xe9\nE", 2, "RUN is not valid UTF-8"),
        (b"FROM a\n\nCOPY caf\xe9 /", 3, "COPY is not valid UTF-8"),
        (b"FROM a\nRUN a\0b", 2, "RUN has an invalid NUL byte"),
        (b"FROM a\nRUN <<E\n\0\nE", 2, "RUN has an invalid NUL byte"),
    ];
    for (text, line, message) in cases {
        let error = parse(text).expect_err(message);
        assert_eq!((error.line(), error.to_string().as_str()), (*line, *message));
    }
}

#[test]
fn triggers_are_one_instruction_of_a_stage() {
    assert_eq!(parse_onbuild("copy <<E /x\nbody\nE").unwrap().kind.name(), "COPY");
    let cases = [
        ("", "an ONBUILD trigger is empty"),
        ("RUN a\nRUN b", "an ONBUILD trigger has more than one instruction"),
        ("FROM a", "FROM is not allowed as an ONBUILD trigger"),
        ("FUTURE", "unknown instruction `FUTURE`"),
    ];
    for (text, message) in cases {
        assert_eq!(parse_onbuild(text).expect_err(text).to_string(), message);
    }
}

#[test]
fn sizes_have_limits() {
    let with_line = |length: usize| format!("FROM a\nRUN {}\n", "x".repeat(length - 4));
    assert!(parse(with_line(65535).as_bytes()).is_ok());
    let error = parse(with_line(65536).as_bytes()).expect_err("a line of 64 KiB");
    assert_eq!((error.line(), error.to_string().as_str()), (2, "line is too long: 65536 bytes, and 65535 are allowed"));

    let joined = format!("FROM a\nRUN {} x", format!("{} \\\n", "y".repeat(60_000)).repeat(10));
    assert!(parse(joined.as_bytes()).is_ok(), "joined lines may be longer than one");

    let huge = vec![b'\n'; zuwai_dockerfile::MAX_SOURCE_BYTES + 1];
    assert_eq!(parse(&huge).expect_err("17 MiB").to_string(), "the Dockerfile is too long: it may have 16 MiB");
}
