//! Against Debian's `docker-registry`: what others rely on works with a registry that is not ours.

use crate::common::{bytes_layer, image_of, reference, registry, registry_with};
use oci::{Flavor, Platform};
use store::{Exporter as _, ImageSource as _};
use testkit::DockerRegistry;
use testkit::docker_registry::{PASSWORD, USER};
use zuwai_registry::Credentials;

/// The registry, or nothing and the reason aloud.
macro_rules! started {
    ($start:expr) => {
        match $start {
            Ok(server) => server,
            Err(reason) => {
                eprintln!("SKIPPED: {reason}");
                return;
            }
        }
    };
}

#[test]
fn push_and_pull_back() {
    let server = started!(DockerRegistry::start());
    for flavor in [Flavor::Oci, Flavor::Docker] {
        let image = image_of(
            flavor,
            vec![bytes_layer(b"one", flavor), bytes_layer(b"two", flavor), bytes_layer(b"one", flavor)],
        );
        let to = reference(&server.host(), "deep/er/app:1");
        let digest = registry(&server.host()).exporter(to.clone()).export(&image).unwrap();
        let found = registry(&server.host()).image(&to, &Platform::host()).unwrap();
        assert_eq!(found.digest.as_ref(), Some(&digest));
        assert_eq!(found.flavor, flavor);
        assert_eq!(found.config, image.config);
        let contents: Vec<Vec<u8>> = found.layers.iter().map(crate::common::content).collect();
        assert_eq!(contents, [b"one", b"two", b"one"]);
    }
}

#[test]
fn push_with_a_password() {
    let server = started!(DockerRegistry::start_with_login());
    let mut credentials = Credentials::anonymous();
    let auth = testkit::fake_registry::base64(format!("{USER}:{PASSWORD}").as_bytes());
    let text = format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, server.host());
    credentials.add_config(&text, "config.json").unwrap();
    let image = image_of(Flavor::Oci, vec![bytes_layer(b"one", Flavor::Oci)]);
    let to = reference(&server.host(), "app:1");
    let ours = registry_with(&[&server.host()], credentials);
    ours.check_push_permission(&to).unwrap();
    ours.exporter(to.clone()).export(&image).unwrap();
    assert_eq!(crate::common::content(&ours.image(&to, &Platform::host()).unwrap().layers[0]), b"one");

    let refused = registry(&server.host()).check_push_permission(&to).unwrap_err();
    assert!(refused.to_string().contains("401 UNAUTHORIZED"), "{refused}");
}

#[test]
fn what_is_there_is_not_uploaded_again() {
    let server = started!(DockerRegistry::start());
    let image = image_of(Flavor::Oci, vec![bytes_layer(b"one", Flavor::Oci), bytes_layer(b"two", Flavor::Oci)]);
    let to = reference(&server.host(), "app:1");
    registry(&server.host()).exporter(to.clone()).export(&image).unwrap();
    let before = server.count("PATCH", "/v2/app/");
    assert_eq!(before, 3, "two layers and a config");
    registry(&server.host()).exporter(to).export(&image).unwrap();
    assert_eq!(server.count("PATCH", "/v2/app/"), before);
}

#[test]
fn layers_are_mounted_from_their_origin() {
    let server = started!(DockerRegistry::start());
    let ours = registry(&server.host());
    let image = image_of(Flavor::Oci, vec![bytes_layer(b"base", Flavor::Oci)]);
    ours.exporter(reference(&server.host(), "base:1")).export(&image).unwrap();
    let base = registry(&server.host()).image(&reference(&server.host(), "base:1"), &Platform::host()).unwrap();
    registry(&server.host()).exporter(reference(&server.host(), "app:1")).export(&base).unwrap();
    assert_eq!(server.count("POST", "/v2/app/blobs/uploads/?mount="), 1);
    assert_eq!(server.count("PATCH", "/v2/app/"), 1, "only the config went up");
    assert_eq!(server.count("GET", &base.layers[0].descriptor.digest.to_string()), 0, "and nothing came down");
}
