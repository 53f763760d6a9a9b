//! Platforms as containerd's `platforms` package parses and compares them.

use proptest::prelude::*;
use zuwai_oci::Platform;

fn platform(text: &str) -> Platform {
    Platform::parse(text).unwrap()
}

#[test]
fn platforms_are_normalised() {
    let host = Platform::host();
    #[rustfmt::skip]
    let cases = [
        ("linux/amd64", "linux/amd64"),
        ("Linux/AMD64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/x86-64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("linux/i386", "linux/386"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm64/v8.0", "linux/arm64"),
        ("linux/arm64/v9.0", "linux/arm64/v9"),
        ("linux/arm64/v8.2", "linux/arm64/v8.2"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/7", "linux/arm/v7"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("armhf", "linux/arm/v7"),
        ("arm64", "linux/arm64"),
        ("s390x", "linux/s390x"),
        ("linux", &host.to_string()),
        ("macos/arm64", "darwin/arm64"),
        ("plan9/strange/x1", "plan9/strange/x1"),
    ];
    for (text, expected) in cases {
        assert_eq!(platform(text).to_string(), expected, "{text}");
    }
    for text in [
        "",
        "/",
        "linux/",
        "/amd64",
        "linux//v7",
        "linux/amd64/v1/x",
        "z80",
        "linux/am d64",
        "linux/amd64\n",
        "l\u{ed}nux/amd64",
        "linux/(1)",
    ] {
        assert!(Platform::parse(text).is_err(), "{text:?}");
    }
}

/// Each image's rank for what is wanted.
#[test]
fn an_image_serves_what_can_run_it() {
    #[rustfmt::skip]
    let cases = [
        ("linux/amd64", vec![("linux/amd64", Some(0)), ("linux/386", Some(1)), ("linux/amd64/v2", None), ("linux/arm64", None), ("windows/amd64", None)]),
        ("linux/amd64/v3", vec![("linux/amd64/v3", Some(0)), ("linux/amd64/v2", Some(1)), ("linux/amd64", Some(2)), ("linux/386", Some(3)), ("linux/amd64/v4", None)]),
        ("linux/386", vec![("linux/386", Some(0)), ("linux/amd64", None)]),
        ("linux/arm/v7", vec![("linux/arm/v7", Some(0)), ("linux/arm", Some(0)), ("linux/arm/v6", Some(1)), ("linux/arm/v5", Some(2)), ("linux/arm/v8", None), ("linux/arm64", None)]),
        ("linux/arm/v5", vec![("linux/arm/v5", Some(0)), ("linux/arm/v6", None)]),
        ("linux/arm64", vec![("linux/arm64", Some(0)), ("linux/arm64/v8", Some(0)), ("linux/arm64/v8.1", None), ("linux/arm64/v9", None), ("linux/arm/v8", Some(1)), ("linux/arm/v7", Some(2)), ("linux/arm/v5", Some(4))]),
        ("linux/arm64/v8.2", vec![("linux/arm64/v8.2", Some(0)), ("linux/arm64/v8.1", Some(1)), ("linux/arm64", Some(2)), ("linux/arm/v8", Some(3)), ("linux/arm64/v8.3", None)]),
        ("linux/arm64/v9.1", vec![("linux/arm64/v9.1", Some(0)), ("linux/arm64/v9", Some(1)), ("linux/arm64/v8.6", Some(2)), ("linux/arm64", Some(8)), ("linux/arm64/v8.7", None)]),
        ("linux/riscv64", vec![("linux/riscv64", Some(0)), ("linux/ppc64le", None)]),
        ("plan9/strange/x1", vec![("plan9/strange/x1", Some(0)), ("plan9/strange", None)]),
    ];
    for (wanted, images) in cases {
        for (image, rank) in images {
            assert_eq!(platform(image).rank_for(&platform(wanted)), rank, "{image} for {wanted}");
        }
    }
}

#[test]
fn what_an_index_says_is_compared_without_case_and_defaults() {
    for json in [
        r#"{"os": "linux", "architecture": "arm64", "variant": "v8"}"#,
        r#"{"os": "Linux", "architecture": "ARM64", "variant": ""}"#,
        r#"{"os": "linux", "architecture": "aarch64", "variant": null, "features": ["sse4"], "os.features": null}"#,
    ] {
        let image: Platform = serde_json::from_str(json).unwrap();
        assert_eq!(image.rank_for(&platform("linux/arm64")), Some(0), "{json}");
    }
    let nothing: Platform = serde_json::from_str("{}").unwrap();
    assert_eq!(nothing.rank_for(&platform("linux/amd64")), None);
    let unknown: Platform = serde_json::from_str(r#"{"os": "unknown", "architecture": "unknown"}"#).unwrap();
    assert_eq!(unknown.rank_for(&platform("linux/amd64")), None);
}

#[test]
fn operating_system_versions_differ_only_where_both_are_known() {
    let version = |text: &str| Platform { os_version: Some(text.to_owned()), ..platform("windows/amd64") };
    assert_eq!(version("10.0.1").rank_for(&version("10.0.1")), Some(0));
    assert_eq!(version("10.0.1").rank_for(&version("10.0.2")), None);
    assert_eq!(version("10.0.1").rank_for(&platform("windows/amd64")), Some(0));
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(text in any::<String>()) {
        let _ = Platform::parse(&text);
    }

    #[test]
    fn what_is_shown_parses_to_the_same(text in "(linux|windows|[a-z]{1,4})(/(amd64|arm|arm64|x86_64|[a-zA-Z0-9_.-]{1,6})(/(v?[0-9](\\.[0-9])?|[a-z0-9]{1,4}))?)?") {
        if let Ok(parsed) = Platform::parse(&text) {
            prop_assert_eq!(Platform::parse(&parsed.to_string()).unwrap(), parsed.clone());
            prop_assert_eq!(parsed.rank_for(&parsed), Some(0));
        }
    }

    #[test]
    fn any_platforms_compare(texts in proptest::array::uniform2("[a-z]{0,5}/?(amd64|arm|arm64)/v?[0-9]{0,12}(\\.[0-9]{0,12})?")) {
        let [image, wanted] = texts.map(|text| {
            let mut parts = text.splitn(3, '/').map(str::to_owned);
            let mut next = || parts.next().unwrap_or_default();
            Platform { os: next(), architecture: next(), variant: Some(next()), os_version: None, os_features: None }
        });
        let _ = image.rank_for(&wanted);
    }
}
