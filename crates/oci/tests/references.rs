//! References as distribution/reference parses them.

use proptest::prelude::*;
use zuwai_oci::Reference;

const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[test]
fn good_references() {
    let digest = format!("sha256:{HEX}");
    let long = "a".repeat(247);
    let tag = "t".repeat(128);
    #[rustfmt::skip]
    let cases: &[(&str, &str, &str, Option<&str>)] = &[
        // text, registry, repository, tag
        ("busybox", "docker.io", "library/busybox", None),
        ("busybox:1.36", "docker.io", "library/busybox", Some("1.36")),
        ("acme/app", "docker.io", "acme/app", None),
        ("acme/app/deep:x", "docker.io", "acme/app/deep", Some("x")),
        ("docker.io/busybox", "docker.io", "library/busybox", None),
        ("index.docker.io/acme/app", "docker.io", "acme/app", None),
        ("registry-1.docker.io/busybox", "docker.io", "library/busybox", None),
        ("localhost/app", "localhost", "app", None),
        ("localhost:5000/app:1", "localhost:5000", "app", Some("1")),
        ("localhost:5000", "docker.io", "library/localhost", Some("5000")),
        ("registry.example/acme/app:1.4", "registry.example", "acme/app", Some("1.4")),
        ("registry:80/app", "registry:80", "app", None),
        ("REGISTRY/app", "REGISTRY", "app", None),
        ("Registry.Example/app", "Registry.Example", "app", None),
        ("127.0.0.1:5000/app", "127.0.0.1:5000", "app", None),
        ("[::1]:5000/acme/app", "[::1]:5000", "acme/app", None),
        ("[2001:db8::1]/app", "[2001:db8::1]", "app", None),
        ("a_b/c__d/e-f/g---h/i.j", "docker.io", "a_b/c__d/e-f/g---h/i.j", None),
        ("0/1:_2", "docker.io", "0/1", Some("_2")),
        ("app:UPPER.Case-1_2", "docker.io", "library/app", Some("UPPER.Case-1_2")),
        (&format!("app:{tag}"), "docker.io", "library/app", Some(&tag)),
        (&long, "docker.io", &format!("library/{long}"), None),
        (&format!("{HEX}/app"), "docker.io", &format!("{HEX}/app"), None),
        (&format!("{}.example/{}", "h".repeat(60), "a".repeat(255)), &format!("{}.example", "h".repeat(60)), &"a".repeat(255), None),
    ];
    for (text, registry, repository, tag) in cases {
        for digest in [None, Some(&digest)] {
            let text = digest.map_or((*text).to_owned(), |digest| format!("{text}@{digest}"));
            let parsed = Reference::parse(&text).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!((parsed.registry.as_str(), parsed.repository.as_str()), (*registry, *repository), "{text}");
            assert_eq!(parsed.tag.as_deref(), *tag, "{text}");
            assert_eq!(parsed.digest.as_ref().map(|digest| digest.as_str()), digest.map(String::as_str), "{text}");
        }
    }
}

#[test]
fn bad_references_and_why() {
    #[rustfmt::skip]
    let cases = [
        ("", "empty"),
        (" ", "repository name"),
        ("app ", "repository name"),
        ("App", "lower case"),
        ("acme/App", "lower case"),
        (":tag", "repository name"),
        ("app:", "invalid tag"),
        ("app:-x", "invalid tag"),
        ("app:.x", "invalid tag"),
        ("app:a b", "invalid tag"),
        ("app:1:2", "invalid tag"),
        ("acme/app:1/2", "invalid tag"),
        ("app@", "digest"),
        ("app@sha256:12", "digest"),
        ("app@md5:0123456789abcdef0123456789abcdef", "digest"),
        ("@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", "repository name"),
        ("/app", "repository name"),
        ("app/", "repository name"),
        ("acme//app", "repository name"),
        ("../app", "host"),
        ("acme/../app", "repository name"),
        ("acme/.app", "repository name"),
        ("acme/app-", "repository name"),
        ("acme/a___b", "repository name"),
        ("acme/a..b", "repository name"),
        ("acme/a._b", "repository name"),
        ("acme/a%2fb", "repository name"),
        ("acme/a?b=c", "repository name"),
        ("acme/a#b", "repository name"),
        ("acme/\u{e4}pp", "repository name"),
        ("acme/app\0", "repository name"),
        ("acme/app\n", "repository name"),
        ("acme/app:a\n", "invalid tag"),
        ("https://registry.example/app", "host"),
        ("user:password@registry.example/app", "digest"),
        ("registry.example:/app", "host"),
        ("registry.example:99999/app", "host"),
        ("registry.example:5x/app", "host"),
        ("registry..example/app", "host"),
        ("-registry.example/app", "host"),
        ("registry_x.example/app", "host"),
        ("registry.example./app", "host"),
        ("[::1/app", "host"),
        ("[]/app:1", "repository name"),
        ("[::g]/app", "host"),
        ("[::1]x/app", "host"),
        ("registry.example/", "repository name"),
        (HEX, "image ID"),
    ];
    for (text, reason) in cases {
        let error = Reference::parse(text).expect_err(text).to_string();
        assert!(error.contains(reason), "{text:?}: {error}");
    }
    for (text, reason) in [
        ("a".repeat(256), "255"),
        (format!("registry.example/{}", "a/".repeat(128) + "a"), "255"),
        (format!("app:{}", "t".repeat(129)), "tag"),
        ("x".repeat(1 << 20) + "!", "repository name"),
    ] {
        let error = Reference::parse(&text).unwrap_err().to_string();
        assert!(error.contains(reason) && error.len() < 500, "{error}");
    }
}

#[test]
fn forms_to_show() {
    #[rustfmt::skip]
    let cases = [
        // text, in full, as people write it
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("acme/app:1", "docker.io/acme/app:1", "acme/app:1"),
        ("registry.example/library/app:1", "registry.example/library/app:1", "registry.example/library/app:1"),
        ("localhost/docker.io/library/app", "localhost/docker.io/library/app:latest", "localhost/docker.io/library/app:latest"),
        // Shortened it would be read as a host.
        ("docker.io/library/localhost/app", "docker.io/library/localhost/app:latest", "library/localhost/app:latest"),
        ("docker.io/localhost/app", "docker.io/localhost/app:latest", "docker.io/localhost/app:latest"),
        // Found by fuzzing: what is left of these begins with Docker Hub's own name.
        ("docker.io/docker.io/a/b", "docker.io/docker.io/a/b:latest", "docker.io/docker.io/a/b:latest"),
        ("docker.io/index.docker.io/a", "docker.io/index.docker.io/a:latest", "docker.io/index.docker.io/a:latest"),
    ];
    for (text, full, familiar) in cases {
        let parsed = Reference::parse(text).unwrap();
        assert_eq!((parsed.to_string(), parsed.familiar()), (full.to_owned(), familiar.to_owned()), "{text}");
        assert_eq!(Reference::parse(familiar).unwrap().to_string(), full, "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(text in any::<String>()) {
        let _ = Reference::parse(&text);
    }

    #[test]
    fn what_is_shown_parses_to_the_same(
        text in r"(([a-zA-Z0-9.\-]{1,12}|\[[0-9a-f:]{1,8}\])(:[0-9]{1,5})?/)?[a-z0-9]{1,4}([._/\-]{1,2}[a-z0-9]{1,4}){0,3}(:[a-zA-Z0-9_.\-]{1,8})?(@sha256:[0-9a-f]{64})?"
    ) {
        if let Ok(parsed) = Reference::parse(&text) {
            for shown in [parsed.to_string(), parsed.familiar()] {
                let again = Reference::parse(&shown).unwrap();
                prop_assert_eq!(again.to_string(), parsed.to_string());
                prop_assert_eq!(again.tag_or_latest(), parsed.tag_or_latest());
                prop_assert_eq!((again.registry, again.repository, again.digest), (parsed.registry.clone(), parsed.repository.clone(), parsed.digest.clone()));
            }
        }
    }
}
