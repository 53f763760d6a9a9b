//! Tables for file name patterns. The facts are those of Go's `path/filepath/match_test.go` and of moby's
//! `patternmatcher_test.go` and `ignorefile_test.go`.

use zuwai_dockerfile::glob::{self, BadPattern};
use zuwai_dockerfile::ignore::Patterns;

#[rustfmt::skip]
const GLOBS: &[(&str, &str, Result<bool, BadPattern>)] = &[
    ("", "", Ok(true)),
    ("", "a", Ok(false)),
    ("abc", "abc", Ok(true)),
    ("*", "", Ok(true)),
    ("*", "abc", Ok(true)),
    ("*c", "abc", Ok(true)),
    ("a*", "a", Ok(true)),
    ("a*", "abc", Ok(true)),
    ("a*", "ab/c", Ok(false)),
    ("a*/b", "abc/b", Ok(true)),
    ("a*/b", "a/c/b", Ok(false)),
    ("**", "a/b", Ok(false)),
    ("a**b", "axb", Ok(true)),
    ("a*b*c*d*e*/f", "axbxcxdxe/f", Ok(true)),
    ("a*b*c*d*e*/f", "axbxcxdxexxx/f", Ok(true)),
    ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", Ok(false)),
    ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", Ok(false)),
    ("a*b?c*x", "abxbbxdbxebxczzx", Ok(true)),
    ("a*b?c*x", "abxbbxdbxebxczzy", Ok(false)),
    ("ab[c]", "abc", Ok(true)),
    ("ab[b-d]", "abc", Ok(true)),
    ("ab[e-g]", "abc", Ok(false)),
    ("ab[^c]", "abc", Ok(false)),
    ("ab[^b-d]", "abc", Ok(false)),
    ("ab[^e-g]", "abc", Ok(true)),
    ("a\\*b", "a*b", Ok(true)),
    ("a\\*b", "ab", Ok(false)),
    ("a?b", "a☺b", Ok(true)),
    ("a[^a]b", "a☺b", Ok(true)),
    ("a???b", "a☺b", Ok(false)),
    ("a[^a][^a][^a]b", "a☺b", Ok(false)),
    ("[a-ζ]*", "α", Ok(true)),
    ("*[a-ζ]", "A", Ok(false)),
    ("a?b", "a/b", Ok(false)),
    ("a*b", "a/b", Ok(false)),
    ("a[/]b", "a/b", Ok(true)),
    ("[\\]a]", "]", Ok(true)),
    ("[\\-]", "-", Ok(true)),
    ("[x\\-]", "x", Ok(true)),
    ("[x\\-]", "-", Ok(true)),
    ("[x\\-]", "z", Ok(false)),
    ("[\\-x]", "a", Ok(false)),
    ("[*?]", "?", Ok(true)),
    ("a]", "a]", Ok(true)),
    ("*x", "xxx", Ok(true)),
    ("*.tar.*", "a.tar.gz", Ok(true)),
    ("[]a]", "]", Err(BadPattern)),
    ("[-]", "-", Err(BadPattern)),
    ("[x-]", "x", Err(BadPattern)),
    ("[-x]", "x", Err(BadPattern)),
    ("\\", "a", Err(BadPattern)),
    ("[a-b-c]", "a", Err(BadPattern)),
    ("[", "a", Err(BadPattern)),
    ("[^", "a", Err(BadPattern)),
    ("[^bc", "a", Err(BadPattern)),
    ("a[", "a", Err(BadPattern)),
    ("a[", "x", Err(BadPattern)),
    ("a*[", "x", Err(BadPattern)),
    ("[a", "", Err(BadPattern)),
    ("[a\\", "a", Err(BadPattern)),
];

#[test]
fn globs() {
    for (pattern, name, expected) in GLOBS {
        assert_eq!(glob::matches(pattern.as_bytes(), name.as_bytes()), *expected, "{pattern} {name}");
    }
}

#[test]
fn globs_of_bytes() {
    assert_eq!(glob::matches(b"a?b", b"a\xffb"), Ok(true), "a byte that is not UTF-8 is one character");
    assert_eq!(glob::matches(b"\xe9*", b"\xe9t\xe9"), Ok(true));
    assert_eq!(glob::matches(b"[\xff]", b"\xff"), Err(BadPattern));
    assert_eq!(glob::matches(b"??", "é".as_bytes()), Ok(false));
}

#[test]
fn wildcards() {
    for (text, expected) in
        [("a", false), ("a*", true), ("?", true), ("[a]", true), ("a\\*b", false), ("\\\\*", true), ("a\\", false)]
    {
        assert_eq!(glob::has_wildcard(text.as_bytes()), expected, "{text}");
    }
}

/// (patterns, path, whether it is excluded)
#[rustfmt::skip]
const IGNORES: &[(&[&str], &str, bool)] = &[
    (&["**"], "file", true),
    (&["**/"], "file", true),
    (&["**"], "dir/file", true),
    (&["**/**"], "dir/file/", true),
    (&["*"], "dir/file", true),
    (&["*"], ".", false),
    (&["."], "a", false),
    (&["dir/**"], "dir", false),
    (&["dir/**"], "dir/file", true),
    (&["dir/**"], "dir/dir2/file", true),
    (&["dir/**"], "dirs/file", false),
    (&["dir**"], "dirs/file", true),
    (&["**/dir"], "dir", true),
    (&["**/dir"], "a/dir/file", true),
    (&["**/dir"], "xdir", false),
    (&["**/dir2/*"], "dir/dir2/file", true),
    (&["**/dir2/**"], "dir/dir2/dir3/file", true),
    (&["**file"], "file", true),
    (&["**file"], "dir/xfile", true),
    (&["**file*"], "dir/xfile", false),
    (&["**file*"], "dir/files", true),
    (&["**/file*txt"], "dir/dir/file.txt", true),
    (&["**/file*.txt*"], "dir/dir/file.txt", true),
    (&["**/**/*.txt"], "dir/dir/file.txt", true),
    (&["**/**/*.txt2"], "dir/dir/file.txt", false),
    (&["**/*.txt"], "file.txt", true),
    (&["a**/*.txt"], "a/dir/dir/file.txt", true),
    (&["a**/*.txt"], "ab/file.txt", true),
    (&["a/*.txt"], "a/dir/file.txt", false),
    (&["a/*.txt"], "a/file.txt", true),
    (&["a/*.txt**"], "a/file.txt", true),
    (&["a[b-d]e"], "ae", false),
    (&["a[b-d]e"], "ace", true),
    (&["a[^b-d]e"], "aze", true),
    (&["a[*?]e"], "a*e", true),
    (&[".*"], ".foo", true),
    (&[".*"], "foo", false),
    (&["abc.def"], "abcZdef", false),
    (&["abc?def"], "abcZdef", true),
    (&["abc?def"], "abc/def", false),
    (&["a\\\\"], "a\\", true),
    (&["a\\*b"], "a*b", true),
    (&["a\\*b"], "axb", false),
    (&["**/foo/bar"], "dir/dir2/foo/bar", true),
    (&["abc/**"], "abc/def/ghi", true),
    (&["**/.foo"], "bar.foo", false),
    (&["a(b)c/def"], "a(b)c/def", true),
    (&["a.|)$(}+{bc"], "a.|)$(}+{bc", true),
    (&["dist/*.whl"], "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl", true),
    (&["größe/*"], "größe/x", true),
    (&["gr??e"], "größe", true),
    // parents
    (&["docs"], "docs/a/b", true),
    (&["docs/"], "docs/a", true),
    (&["*/a"], "x/a/b/c", true),
    (&["a/?"], "a/b/c/d", true),
    (&["docs"], "docsx", false),
    (&["a/b"], "a", false),
    // exceptions
    (&["!a.go", "*.go"], "a.go", true),
    (&["*.go", "!a.go"], "a.go", false),
    (&["docs", "!docs/README.md"], "docs/README.md", false),
    (&["docs/*", "!docs/README.md"], "docs/x", true),
    (&["**", "!util/docker/web"], "util/docker/web/foo", false),
    (&["**", "!util/docker/web", "util/docker/web/foo"], "util/docker/web/foo", true),
    (&["**", "!dist/*.whl"], "dist/a.whl", false),
    (&["a", "!a", "a"], "a/b", true),
    (&["a", "!a/b"], "a/b", false),
    (&["a", "!a/b"], "a/c", true),
    // an exception for a directory that was never excluded lets in nothing below it (moby `MatchesUsingParentResults`)
    (&["**/.env", "!config"], "config/.env", true),
    (&["**/.env", "!config"], "config/c", false),
    (&["c/*", "!c"], "c/x", true),
    (&["c/*", "!c"], "c", false),
    (&["c/**", "!c/"], "c/d/x", true),
    (&["*.log", "a/*.log", "!a"], "a/x.log", true),
    (&["*.log", "a/*.log", "!a"], "x.log", true),
    (&["**/*.md", "!docs"], "docs/a/x.md", true),
    (&["**/*.md", "!docs/**"], "docs/a/x.md", false),
    (&["a/b/*", "!a"], "a/b/x", true),
    (&["a/b", "!a", "!a/b/x"], "a/b/x", false),
    (&["a/b", "!a", "!a/b/x"], "a/b/y", true),
    (&["*", "!a", "a/*.log", "!a/b"], "a/b/x", false),
    (&["*", "!a", "a/*.log", "!a/b"], "a/x.log", true),
    (&["*", "!a", "**/x.log", "!a"], "a/b/x.log", true),
    (&["*", "!c"], "c/x", false),
    (&["**", "!c"], "c/d/x", false),
    (&["c", "!c/d", "c"], "c/d/e", false),
    (&["*", "!**/*.md"], "a/b/c.md", false),
    // cleaning
    (&["./a"], "a", true),
    (&["a//b/./c/../d"], "a/b/d", true),
    (&["a/.."], "a", false),
    (&["../a"], "a", false),
    (&["../a"], "../a", true),
    (&["  a\t"], "a", true),
    (&["!  a"], "a", false),
    (&["", "  "], "a", false),
];

#[test]
fn ignore_patterns() {
    for (patterns, path, expected) in IGNORES {
        let list: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        let patterns = Patterns::new(&list).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(patterns.excludes(path.as_bytes()), *expected, "{list:?} {path}");
        assert_eq!(patterns.excluded_by(path.as_bytes()).is_some(), *expected, "{list:?} {path}");
    }
}

#[test]
fn bad_ignore_patterns() {
    for pattern in ["!", "! ", "[", "a[", "[]a]", "[x-]", "\\", "a/[^"] {
        let error = Patterns::new(&["fine".to_owned(), pattern.to_owned()]).expect_err(pattern);
        assert_eq!((error.line, error.pattern.as_str()), (2, pattern.trim()));
    }
}

#[test]
fn ignore_files() {
    let text =
        b"\xef\xbb\xbf/test1\r\n# comment\r\n #not/a/comment\n\n  /a/file//here/ \nlast \n! /a/file/here/kept\n/";
    let patterns = Patterns::parse(text).unwrap();
    let excluded = ["test1", "#not/a/comment", "a/file/here", "a/file/here/x", "last"];
    for path in excluded {
        assert!(patterns.excludes(path.as_bytes()), "{path}");
    }
    for path in ["# comment", "comment", "a/file", "a/file/here/kept", "x", "last "] {
        assert!(!patterns.excludes(path.as_bytes()), "{path}");
    }
    assert_eq!(patterns.excluded_by(b"last/x"), Some((6, "last")));
    assert_eq!(patterns.excluded_by(b"a/file/here/x"), Some((5, "/a/file//here/")));
    assert_eq!(patterns.excluded_by(b"a/file/here/kept"), None);

    let error = Patterns::parse(b"a\n\n!\n").expect_err("a lone `!`");
    assert_eq!(error.to_string(), "line 3: invalid pattern `!`");
    assert!(Patterns::parse(b"\n# only\n").unwrap().is_empty());
    assert!(Patterns::parse(b"\xff").unwrap().excludes("\u{fffd}".as_bytes()));
}

/// BuildKit sends `c/d/e` as an empty file: to walk and to open go by different rules there.
#[test]
fn a_pattern_repeated_after_an_exception_counts_again_in_files() {
    let patterns = Patterns::parse(b"c\n!c/d\nc").unwrap();
    assert_eq!(patterns.excluded_by(b"c/d/e"), Some((3, "c")));
    assert_eq!(patterns.excluded_by(b"c/d"), Some((3, "c")));
    assert!(!Patterns::parse(b"c\n!c/d").unwrap().excludes(b"c/d/e"));
}

#[test]
fn a_leading_slash_means_the_root_only_in_files() {
    assert!(Patterns::parse(b"/a").unwrap().excludes(b"a"));
    assert!(!Patterns::new(&["/a".to_owned()]).unwrap().excludes(b"a"));
}

/// (patterns, excluded directory, whether something below it may be included)
const BELOW: &[(&[&str], &str, bool)] = &[
    (&["*"], "a", false),
    (&["*", "!a"], "b", false),
    (&["*", "!a"], "a", false),
    (&["*", "!a/b/c"], "a", true),
    (&["*", "!a/b/c"], "a/b", true),
    (&["*", "!a/b/c"], "a/b/c", false),
    (&["*", "!a/b/c"], "a/x", false),
    (&["*", "!a/b/c"], "ab", false),
    (&["*", "!*/keep"], "a", true),
    (&["*", "!*/keep"], "a/b", false),
    (&["*", "!a*/keep"], "b", false),
    (&["*", "!**/*.md"], "a/b/c", true),
    (&["*", "!**/keep"], "a/b/c", true),
    (&["*", "!a/**"], "a", true),
    (&["*", "!a/**"], "a/b", true),
    (&["*", "!a/**"], "b", false),
    (&["*", "!a/**/x"], "a/b/c", true),
    (&["*", "!a/**/x"], "b", false),
];

#[test]
fn directories_that_must_be_walked() {
    for (patterns, directory, expected) in BELOW {
        let list: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        let patterns = Patterns::new(&list).unwrap();
        assert_eq!(patterns.may_include_below(directory.as_bytes()), *expected, "{list:?} {directory}");
    }
}
