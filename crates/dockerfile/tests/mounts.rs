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
        ("type=$TYPE,target=/a,size=1", "mount option `size` is not for mounts of type `cache`"),
        ("target=${U:?no-U}", "could not expand `${U:?no-U}`: U: no-U"),
    ];
    for (text, message) in cases {
        assert_eq!(expanded(text).expect_err(text), message);
    }
}

/// (options, message, hint)
#[rustfmt::skip]
const FAULTS: &[(&str, &str, &str)] = &[
    ("type=binds,target=/a", "unknown mount type `binds`", "did you mean bind?"),
    ("type=bind,taget=/a", "unknown mount option `taget`", "did you mean target?"),
    ("target", "mount option `target` needs a value: `target=value`", ""),
    ("type=cache,target=/", "the `target` of a mount cannot be `/`", ""),
    ("target=/./../", "the `target` of a mount cannot be `/`", ""),
    ("target=/a,rw=perhaps", "invalid value `perhaps` of mount option `readwrite`", ""),
    ("type=cache,target=/a,mode=9", "invalid value `9` of mount option `mode`", ""),
    ("type=cache,target=/a,uid=-1", "invalid value `-1` of mount option `uid`", ""),
    ("type=cache,target=/a,gid=+1", "invalid value `+1` of mount option `gid`", ""),
    ("target=/a,mode=7", "mount option `mode` is not for mounts of type `bind`", ""),
    ("type=cache,target=/a,sharing=exclusive", "unknown `sharing` of a mount `exclusive`", ""),
    ("type=cache,target=/a,sharing=lock", "unknown `sharing` of a mount `lock`", "did you mean locked?"),
    ("target=/a,sharing=locked", "mount option `sharing` is not for mounts of type `bind`", ""),
    ("type=cache,target=/a,size=1", "mount option `size` is not for mounts of type `cache`", ""),
    ("type=tmpfs,target=/a,source=/b", "a tmpfs mount takes no `source`: there is nothing in it", ""),
    ("type=tmpfs,target=/a,size=big", "invalid value `big` of mount option `size`", ""),
    ("type=cache,target=/a,required", "mount option `required` is not for mounts of type `cache`", ""),
    ("type=secret", "a secret mount needs an `id` or a `target`", ""),
    ("type=secret,id=a,from=b", "a secret mount takes no `from`", ""),
    ("type=secret,id=a,source=b", "a secret mount takes `source` or `id`, not both: they mean the same", ""),
    ("type=ssh,source=b", "an ssh mount takes no `source`", ""),
];

/// BuildKit looks at the options of a mount when its stage is dispatched (`setMountState`), not while it parses.
#[test]
fn faults_of_options_are_told_when_the_stage_is_needed() {
    for (text, message, hint) in FAULTS {
        let fault = mount(text).expand(&mut |text| Ok(text.to_owned())).expect_err(text);
        assert_eq!((fault.message.as_str(), fault.hint.as_deref().unwrap_or_default()), (*message, *hint), "{text}");
    }
}

/// It is the working directory then.
#[test]
fn a_target_may_be_left_out_or_empty() {
    for text in
        ["type=bind", "type=cache", "type=tmpfs", "target=", "type=cache,target=$U", "type=tmpfs,dst=", "target=."]
    {
        let mount = expanded(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert!(matches!(mount.target.map(|word| word.text).as_deref(), None | Some("" | ".")), "{text}");
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
