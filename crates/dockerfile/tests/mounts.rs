//! Mounts whose values are only known when the variables are.

use zuwai_dockerfile::{Kind, Mount, MountKind, Sharing, Word, expand, parse};

fn mount(text: &str) -> Mount {
    let file =
        parse(format!("FROM a\nRUN --mount={text} x").as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
    match &file.stages[0].instructions[0].kind {
        Kind::Run(run) => run.mounts[0].clone(),
        other => panic!("{}", other.name()),
    }
}

fn expanded(text: &str) -> Result<Mount, String> {
    let value = |name: &str| match name {
        "ID" => Some("1000".to_owned()),
        "DIR" => Some("/d".to_owned()),
        "ROOT" => Some("/".to_owned()),
        "TYPE" => Some("cache".to_owned()),
        "SHARING" => Some("Private".to_owned()),
        "NO" => Some("false".to_owned()),
        _ => None,
    };
    let mut expand = |text: &str| expand::word(text, '\\', &value).map(|expanded| expanded.text);
    mount(text).expand(&mut expand).map_err(|error| error.message)
}

fn text(word: &Option<Word>) -> &str {
    word.as_ref().map_or("", |word| word.text.as_str())
}

#[test]
fn values_come_from_variables() {
    let mount = expanded("type=$TYPE,id=x$ID,target=$DIR/c,uid=$ID,mode=0${U:-7}50,sharing=$SHARING,ro=$NO").unwrap();
    assert_eq!((text(&mount.target), mount.read_only), ("/d/c", Some(false)));
    let MountKind::Cache { id, sharing, mode, uid, gid } = &mount.kind else { panic!("{:?}", mount.kind) };
    assert_eq!((text(id), *sharing, *mode, *uid, *gid), ("x1000", Sharing::Private, Some(0o750), Some(1000), None));

    let mount = expanded("type=tmpfs,target=/t,size=${ID}k").unwrap();
    assert!(matches!(mount.kind, MountKind::Tmpfs { size_bytes: Some(1_024_000) }), "{:?}", mount.kind);

    let mount = expanded("source=$DIR/a\\ b,target=/t").unwrap();
    assert_eq!(text(&mount.source), "/d/a b");
}

#[test]
fn values_are_checked_when_they_are_known() {
    let cases = [
        ("type=cache,target=/a,uid=$DIR", "invalid value `/d` of mount option `uid`"),
        ("type=cache,target=/a,uid=$U", "invalid value `` of mount option `uid`"),
        ("type=$DIR,target=/a", "unknown mount type `/d`"),
        ("type=cache,target=/a,sharing=$DIR", "unknown `sharing` of a mount `/d`"),
        ("target=$ROOT", "the `target` of a mount cannot be `/`"),
        ("target=$U", "a bind mount needs a `target`"),
        ("type=$TYPE,target=/a,size=1", "mount option `size` is not for mounts of type `cache`"),
        ("target=${U:?no-U}", "could not expand `${U:?no-U}`: U: no-U"),
    ];
    for (text, message) in cases {
        assert_eq!(expanded(text).expect_err(text), message);
    }
}

#[test]
fn places_of_values_are_exact() {
    let source = "FROM a\nRUN \\\n  --mount=type=bind,from=b,source=s,target=/t x";
    let file = parse(source.as_bytes()).unwrap();
    let Kind::Run(run) = &file.stages[0].instructions[0].kind else { panic!("no RUN") };
    let mount = &run.mounts[0];
    let there = |word: &Option<Word>| source[word.clone().unwrap().span].to_owned();
    assert_eq!([there(&mount.from), there(&mount.source), there(&mount.target)], ["b", "s", "/t"]);
    assert_eq!(&source[mount.span.clone()], "type=bind,from=b,source=s,target=/t");
}
