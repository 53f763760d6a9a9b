//! Tables for expansion. The facts are those of BuildKit's `shell/lex_test.go` and of running it.

use zuwai_dockerfile::expand::{self, Expanded};

fn variable(name: &str) -> Option<String> {
    let value = match name {
        "PWD" => "/home",
        "EMPTY" => "",
        "MANY" => " a  b ",
        "NAME" => "größe",
        "漢字" => "はい",
        "FILE" => "/a/b/c.tar.gz",
        "X" => "xxyy",
        "STARS" => "a***yy*",
        "ODD" => "()[]{}^$.*?|\\x",
        "LINES" => "one\ntwo",
        "PATTERN" => "?/*",
        "BACK" => "a\\b",
        _ => return None,
    };
    Some(value.to_owned())
}

/// (text, its expansion; `Err` with a part of the message)
type Row = (&'static str, Result<&'static str, &'static str>);

#[rustfmt::skip]
const WORDS: &[Row] = &[
    // quotes and escapes
    ("", Ok("")),
    ("a  b", Ok("a  b")),
    ("a'b'c", Ok("abc")),
    ("a'b", Err("matching single quote")),
    ("a\"b", Err("matching double quote")),
    ("\"a\\\"", Err("matching double quote")),
    ("a\\'b", Ok("a'b")),
    ("a\\\\b", Ok("a\\b")),
    ("a\\", Ok("a")),
    ("a\\\\", Ok("a\\")),
    ("a\\tb", Ok("atb")),
    ("\"a\\tb\"", Ok("a\\tb")),
    ("\"a\\\\tb\"", Ok("a\\tb")),
    ("'a\\tb'", Ok("a\\tb")),
    ("'a\\'", Ok("a\\")),
    ("\"it's\"", Ok("it's")),
    ("'\"a\"'", Ok("\"a\"")),
    ("\u{feff}a", Ok("a")),
    ("a<b<<c", Ok("a<b<<c")),
    // names
    ("$PWD", Ok("/home")),
    ("a$PWD.b", Ok("a/home.b")),
    ("a${PWD}b", Ok("a/homeb")),
    ("\"$PWD\"", Ok("/home")),
    ("'$PWD'", Ok("$PWD")),
    ("\\$PWD", Ok("$PWD")),
    ("\"\\$PWD\"", Ok("$PWD")),
    ("\\\\$PWD", Ok("\\/home")),
    ("\\${}", Ok("${}")),
    ("$NAME-$漢字", Ok("größe-はい")),
    ("$PWDX|", Ok("|")),
    ("$", Ok("$")),
    ("$.", Ok("$.")),
    ("$$PWD", Ok("PWD")),
    ("$1x$23y", Ok("xy")),
    ("${1}${@}$@$*$#$?$-$!$0", Ok("")),
    ("${1:-a}${@:-b}${0:+c}", Ok("ab")),
    // malformed
    ("${}", Err("bad substitution")),
    ("${{X}}", Err("bad substitution")),
    ("${:}", Err("bad substitution")),
    ("${:-a}", Err("bad substitution")),
    ("${", Err("missing `}`")),
    ("${PWD", Err("missing `}`")),
    ("${PWD:", Err("missing `}`")),
    ("${PWD:-a", Err("missing `}`")),
    ("${PWD#a", Err("missing `}`")),
    ("${PWD/a", Err("missing `/`")),
    ("${PWD/a/b", Err("missing `}`")),
    ("${.}", Err("unsupported modifier (`.`)")),
    ("${PWD@Q}", Err("unsupported modifier (`@`)")),
    ("${PWD=a}", Err("unsupported modifier (`=`)")),
    ("${PWD:=a}", Err("unsupported modifier (`:=`)")),
    ("${PWD:0}", Err("unsupported modifier (`:0`)")),
    ("${PWD:#a}", Err("unsupported modifier (`:#`)")),
    ("${X}}", Ok("xxyy}")),
    // defaults
    ("${U-a}${EMPTY-a}${PWD-a}", Ok("a/home")),
    ("${U:-a}${EMPTY:-a}${PWD:-a}", Ok("aa/home")),
    ("${U+a}${EMPTY+b}${PWD+c}", Ok("bc")),
    ("${U:+a}${EMPTY:+b}${PWD:+c}", Ok("c")),
    ("${U:-}", Ok("")),
    ("${U:-${V:-$PWD}}", Ok("/home")),
    ("${U:-a b}", Ok("a b")),
    ("${U:-'a }'\"b }\"\\}}", Ok("a }b }}")),
    ("${U:-\\$PWD:}", Ok("$PWD:")),
    ("${U:-a {b}", Ok("a {b")),
    ("${U:-${V}", Err("missing `}`")),
    // required
    ("${PWD?}${PWD:?}${EMPTY?}", Ok("/home/home")),
    ("${U?}", Err("U: is not allowed to be unset")),
    ("${U:?}", Err("U: is not allowed to be unset")),
    ("${EMPTY:?}", Err("EMPTY: is not allowed to be empty")),
    ("${U:?give $PWD}", Err("U: give /home")),
    ("${U:-${V:?no V}}", Err("V: no V")),
    // prefixes and suffixes
    ("${FILE##*/}", Ok("c.tar.gz")),
    ("${FILE#*/}", Ok("a/b/c.tar.gz")),
    ("${FILE%.*}", Ok("/a/b/c.tar")),
    ("${FILE%%.*}", Ok("/a/b/c")),
    ("${FILE%/*}", Ok("/a/b")),
    ("${FILE#nothing}", Ok("/a/b/c.tar.gz")),
    ("${FILE#}${FILE##}${EMPTY#a}${U#a}", Ok("/a/b/c.tar.gz/a/b/c.tar.gz")),
    ("${X#x}${X##x}${X#??}", Ok("xyyxyyyy")),
    ("${X#*x*y}", Ok("y")),
    ("${X##*x}", Ok("yy")),
    ("${X%%y*}", Ok("xx")),
    ("${X%?}", Ok("xxy")),
    ("${STARS%%\\**\\*}", Ok("a")),
    ("${STARS#a\\*}", Ok("**yy*")),
    ("${ODD#()[]{\\}^$.\\*\\?|\\\\}", Ok("x")),
    ("${BACK#a\\\\}", Ok("b")),
    ("${X#\\x}", Err("invalid escape `\\x`")),
    ("${NAME#?}${NAME%?}", Ok("rößegröß")),
    ("${LINES#*}|${LINES##*}|${LINES%%t*}", Ok("one\ntwo|\ntwo|one\n")),
    ("${LINES#one?}", Ok("one\ntwo")),
    ("${X#$U}${X#${X}}", Ok("xxyy")),
    ("${FILE#$PATTERN}", Ok("/a/b/c.tar.gz")),
    // replacement
    ("${X/x/z}|${X//x/z}|${X//y/}", Ok("zxyy|zzyy|xx")),
    ("${FILE//\\//-}", Ok("-a-b-c.tar.gz")),
    ("${FILE/b\\/c/d}", Ok("/a/d.tar.gz")),
    ("${FILE//\\//\\/}", Ok("\\/a\\/b\\/c.tar.gz")),
    ("${FILE/.*/}|${FILE//./ }", Ok("/a/b/c|/a/b/c tar gz")),
    ("${X/*/z}|${X//*/z}|${X//?/z}", Ok("z|z|zzzz")),
    ("${X/$U/z}", Ok("zxxyy")),
    ("${X//$U/z}", Ok("zxzxzyzyz")),
    ("${X///}", Ok("xxyy")),
    ("${U//a/b}${EMPTY/a/b}", Ok("")),
    ("${U/*/a}${EMPTY//*/b}${U//?/c}", Ok("ab")),
    ("${X//ww}", Err("missing `/`")),
    ("${X//y/$PWD}", Ok("xx/home/home")),
    ("${X//yy/$NAME$NAME}", Ok("xxgrößegröße")),
];

#[test]
fn words() {
    check(WORDS, |text| expand::word(text, '\\', &variable).map(|expanded| expanded.text));
}

#[test]
fn words_with_the_other_escape() {
    let rows: &[Row] = &[
        ("a\\b", Ok("a\\b")),
        ("a`$PWD", Ok("a$PWD")),
        ("\"a`\"b\"", Ok("a\"b")),
        ("c:\\$PWD", Ok("c:\\/home")),
        ("a``b`", Ok("a`b")),
    ];
    check(rows, |text| expand::word(text, '`', &variable).map(|expanded| expanded.text));
}

#[test]
fn split_words() {
    let rows: &[Row] = &[
        ("", Ok("")),
        ("  a  b ", Ok("a|b")),
        ("a$MANY", Ok("a|a|b")),
        ("a${MANY}c", Ok("a|a|b|c")),
        ("\"$MANY\" c", Ok(" a  b |c")),
        ("a\\ b", Ok("a b")),
        ("a' 'b c", Ok("a b|c")),
        ("$U $EMPTY \"\" a", Ok("a")),
        ("80${U:-81}82", Ok("808182")),
        ("${U:-a b}c", Ok("a|bc")),
        ("<< EOF  x", Ok("<< EOF|x")),
        ("'a", Err("single quote")),
    ];
    check(rows, |text| expand::words(text, '\\', &variable).map(|words| words.join("|")));
}

#[test]
fn here_documents() {
    let rows: &[Row] = &[
        ("it's \"$PWD\" '$PWD'\n", Ok("it's \"/home\" '/home'\n")),
        ("\\$PWD \\\\ \\n `x` $(y) $$ $1", Ok("$PWD \\ n `x` $(y)  ")),
        ("${FILE##*/} ${U:-d}", Ok("c.tar.gz d")),
        ("${U?}", Err("U: is not allowed to be unset")),
    ];
    check(rows, |text| expand::heredoc(text, '`', &variable));
}

fn check(rows: &[Row], expand: impl Fn(&str) -> Result<String, expand::ExpandError>) {
    for (text, expected) in rows {
        match (expand(text), expected) {
            (Ok(actual), Ok(expected)) => assert_eq!(actual, *expected, "{text}"),
            (Err(error), Err(part)) => {
                let message = error.to_string();
                assert!(message.starts_with(&format!("could not expand `{text}`: ")), "{message}");
                assert!(message.contains(part), "{text}: {message}");
            }
            (actual, expected) => panic!("{text}: {actual:?} instead of {expected:?}"),
        }
    }
}

#[test]
fn names_are_reported_once_and_in_order() {
    let expanded = expand::word("$B ${A:-$C} $B ${PWD} $PWD ${X+y}", '\\', &variable).unwrap();
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    // The word of a default is read before the variable is looked up.
    let expected =
        Expanded { text: "   /home /home y".to_owned(), unset: names(&["B", "C", "A"]), set: names(&["PWD", "X"]) };
    assert_eq!(expanded, expected);
}

#[test]
fn display_keeps_what_it_does_not_know() {
    let rows = [
        ("RUN echo \"$PWD\" '$PWD' $U ${U:-x} ${U}", "RUN echo \"/home\" '$PWD' $U ${U:-x} ${U}"),
        ("${U#a}${U/a/b}${U+c}", "${U#a}${U/a/b}${U+c}"),
        ("it's $PWD", "it's $PWD"),
    ];
    for (text, expected) in rows {
        assert_eq!(expand::for_display(text, '\\', &variable), expected);
    }
}

#[test]
fn hostile_texts_end_soon() {
    let nested = "${U:-".repeat(10_000) + &"}".repeat(10_000);
    let error = expand::word(&nested, '\\', &variable).expect_err("nesting");
    assert!(error.message.len() < 1000, "the text is quoted in full");

    let doubled = "${V//a/aaaaaaaa}".repeat(8);
    let large = |_: &str| Some("a".repeat(1 << 20));
    let error = expand::word(&doubled, '\\', &large).expect_err("64 MiB");
    assert!(error.message.ends_with("the result is longer than 16 MiB"), "{error}");

    let slow = |_: &str| Some("a".repeat(100_000));
    let error = expand::word("${V//*a*a*a*a*b/c}", '\\', &slow).expect_err("backtracking");
    assert!(error.message.ends_with("the pattern takes too long on this value"), "{error}");
}
