//! Manifests, indexes and configs as they are found: parsed, and written back with the same values.

use serde_json::{Value, json};
use zuwai_oci::media_type::{DOCKER_CONFIG, DOCKER_LAYER_GZIP, DOCKER_MANIFEST, OCI_LAYER, layer_compression};
use zuwai_oci::{Compression, Flavor, ImageConfig, Index, Manifest};

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Parses, writes and parses again: the value stays, and the second writing gives the same bytes.
fn round_trip<T>(text: &str) -> Value
where
    T: serde::de::DeserializeOwned + serde::Serialize + PartialEq + std::fmt::Debug,
{
    let value: T = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let written = serde_json::to_string(&value).unwrap();
    let again: T = serde_json::from_str(&written).unwrap();
    assert_eq!(again, value);
    assert_eq!(serde_json::to_string(&again).unwrap(), written);
    serde_json::from_str(&written).unwrap()
}

/// A config of an image that an old Docker built: nulls, fields of the daemon, `container_config`.
const DOCKER_IMAGE: &str = r#"{
  "architecture": "amd64",
  "config": {
    "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": false, "AttachStderr": false,
    "ExposedPorts": {"80/tcp": {}, "443/tcp": {}},
    "Tty": false, "OpenStdin": false, "StdinOnce": false,
    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "NGINX_VERSION=1.17.6", "X=a=b <&> \u00e9\u2028"],
    "Cmd": ["nginx", "-g", "daemon off;"],
    "Healthcheck": {"Test": ["CMD-SHELL", "curl -f http://localhost/ || exit 1"], "Interval": 30000000000, "Retries": 3},
    "ArgsEscaped": true,
    "Image": "sha256:a2a51bac57bbafbb9b1d1a8a2d9f36b7bcd2cb8fa3a5e3f4bcd5b3f7c4b6ab9c",
    "Volumes": null, "WorkingDir": "", "Entrypoint": null, "OnBuild": ["RUN echo hello"],
    "Labels": {"maintainer": "NGINX Docker Maintainers <docker-maint@nginx.com>"},
    "StopSignal": "SIGTERM", "StopTimeout": 10, "Shell": ["/bin/bash", "-c"]
  },
  "container": "0a1b", "container_config": {"Hostname": "0a1b", "Cmd": null},
  "created": "2019-12-28T04:37:09.106464823Z",
  "docker_version": "18.06.1-ce",
  "history": [
    {"created": "2019-12-28T04:20:26.010389318Z", "created_by": "/bin/sh -c #(nop) ADD file:04caaf3 in / "},
    {"created": "2019-12-28T04:20:26.186529216Z", "created_by": "/bin/sh -c #(nop)  CMD [\"bash\"]", "empty_layer": true, "x-more": 1}
  ],
  "os": "linux",
  "rootfs": {"type": "layers", "diff_ids": ["sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]},
  "x-number": 18446744073709551615, "x-float": 0.1, "x-deep": [{"a": [null, true]}]
}"#;

#[test]
fn a_docker_config_keeps_its_values() {
    let mut expected: Value = serde_json::from_str(DOCKER_IMAGE).unwrap();
    // What is null is absent: Go reads both alike.
    let config = expected["config"].as_object_mut().unwrap();
    config.retain(|_, value| !value.is_null());
    assert_eq!(round_trip::<ImageConfig>(DOCKER_IMAGE), expected);
}

#[test]
fn null_is_absent_everywhere() {
    #[rustfmt::skip]
    let nulls = json!({
        "architecture": null, "os": null, "created": null, "author": null, "variant": null, "os.version": null, "os.features": null,
        "history": null, "rootfs": null, "config": {
            "User": null, "ExposedPorts": null, "Env": null, "Entrypoint": null, "Cmd": null, "Healthcheck": null, "ArgsEscaped": null,
            "Volumes": null, "WorkingDir": null, "OnBuild": null, "Labels": null, "StopSignal": null, "Shell": null,
        },
    });
    let parsed: ImageConfig = serde_json::from_value(nulls).unwrap();
    assert_eq!(parsed, ImageConfig::default());
    for text in [r#"{"config": null}"#, "{}", r#"{"rootfs": {"diff_ids": null}}"#] {
        assert_eq!(serde_json::from_str::<ImageConfig>(text).unwrap(), ImageConfig::default(), "{text}");
    }
    let inner = json!({"config": {
        "Healthcheck": {"Test": null, "Interval": null}, "Labels": {"a": null}, "Volumes": {"/data": null, "/more": {"x": 1}},
    }, "history": [{"created": null, "empty_layer": null}]});
    let written = round_trip::<ImageConfig>(&inner.to_string());
    assert_eq!(
        written["config"],
        json!({"Healthcheck": {}, "Labels": {"a": ""}, "Volumes": {"/data": {}, "/more": {}}})
    );
}

/// `CMD []` and no CMD are different things.
#[test]
fn empty_is_not_absent() {
    let text = json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": [], "Entrypoint": [""], "Labels": {}, "WorkingDir": ""},
        "rootfs": {"type": "layers", "diff_ids": []}});
    assert_eq!(round_trip::<ImageConfig>(&text.to_string()), text);
}

#[test]
fn what_is_no_config_is_refused() {
    for text in [
        "",
        "null",
        "[]",
        "1",
        "{",
        r#"{"config": []}"#,
        r#"{"config": {"Env": "A=b"}}"#,
        r#"{"config": {"Cmd": "sh"}}"#,
        r#"{"rootfs": {"diff_ids": ["sha256:12"]}}"#,
        r#"{"config": {"Env": [1]}}"#,
        r#"{"os": 1}"#,
        "{\"os\": \"\\ud800\"}",
    ] {
        assert!(serde_json::from_str::<ImageConfig>(text).is_err(), "{text}");
    }
    let deep = format!(r#"{{"x": {}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert!(serde_json::from_str::<ImageConfig>(&deep).is_err());
}

#[test]
fn manifests_keep_their_values() {
    let cases = [
        json!({"schemaVersion": 2, "mediaType": DOCKER_MANIFEST,
            "config": {"mediaType": DOCKER_CONFIG, "size": 7023, "digest": DIGEST},
            "layers": [{"mediaType": DOCKER_LAYER_GZIP, "size": 32654, "digest": DIGEST, "urls": ["https://example.com/x"]}]}),
        json!({"schemaVersion": 2, "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "size": 2, "digest": DIGEST},
            "layers": [], "annotations": {"org.opencontainers.image.title": "x", "a": ""},
            "subject": {"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 1, "digest": DIGEST}}),
        json!({"schemaVersion": 2, "artifactType": "application/vnd.example+type",
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "size": 2, "digest": DIGEST, "data": "e30="},
            "layers": [{"mediaType": "text/plain", "size": u64::MAX, "digest": DIGEST, "annotations": {"k": "v"}, "artifactType": "a/b"}]}),
    ];
    for manifest in cases {
        assert_eq!(round_trip::<Manifest>(&manifest.to_string()), manifest);
    }
}

#[test]
fn indexes_keep_their_values() {
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": DIGEST, "size": 1,
                "platform": {"architecture": "arm", "os": "linux", "variant": "v7", "os.version": "1", "os.features": ["a"]}},
            {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": DIGEST, "size": 1,
                "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
                "platform": {"architecture": "unknown", "os": "unknown"}},
        ],
        "annotations": {"a": "b"}, "subject": {"x": [1, 2]}});
    assert_eq!(round_trip::<Index>(&index.to_string()), index);
    // Go's encoder for a list that was never filled.
    let empty: Index =
        serde_json::from_value(json!({"schemaVersion": 2, "manifests": null, "annotations": null})).unwrap();
    assert!(empty.manifests.is_empty() && empty.annotations.is_none());
}

#[test]
fn media_types_name_compressions() {
    for flavor in [Flavor::Oci, Flavor::Docker] {
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let name = flavor.layer(compression);
            assert_eq!(name.is_none(), (flavor, compression) == (Flavor::Docker, Compression::Zstd));
            assert!(name.is_none_or(|name| layer_compression(name) == Some(compression)));
        }
    }
    for other in ["", "application/octet-stream", DOCKER_CONFIG, &format!("{OCI_LAYER}+gzip+encrypted")] {
        assert_eq!(layer_compression(other), None, "{other}");
    }
}
