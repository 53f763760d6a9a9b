//! Flags that say what is shown, where two of them meet; and outputs that stay as they were.

use crate::harness::Place;

/// Finds a warning and a step in what a build says.
#[test]
fn how_much_is_said() {
    let place = Place::new("from scratch\nCOPY Dockerfile /\n");
    let table: [(&[&str], bool, bool); 7] = [
        (&[], true, true),
        (&["--progress=tty"], true, true),
        (&["--log-format=json"], true, true),
        (&["--log-format=json", "--verbosity=warn"], true, false),
        (&["--verbosity=warn"], true, false),
        (&["--log-format=json", "--quiet"], false, false),
        (&["--progress=rawjson", "--verbosity=error"], false, false),
    ];
    for (flags, warning, step) in table {
        let ran = place.build(&[&["--no-push"], flags].concat());
        ran.digest();
        let said = |text: &str| ran.stderr.contains(text);
        assert_eq!(
            (said("ConsistentInstructionCasing"), said("COPY Dockerfile /\n") || said("COPY Dockerfile /\"")),
            (warning, step),
            "{flags:?}: {}",
            ran.stderr
        );
    }
}

/// A build that fails, or is only planned, leaves the files of the last one alone.
#[test]
fn outputs_of_the_last_build_stay() {
    for dockerfile in ["FROM scratch\nCOPY missing /\n", "FROM scratch\nCOPY Dockerfile /\n"] {
        let place = Place::new(dockerfile).file("out.tar", "old");
        for kind in ["tar", "oci", "docker"] {
            let output = format!("type={kind},dest=out.tar");
            let ran = place.build(&["--dry-run", "-o", &output]);
            assert_eq!(ran.code(), 0, "{}", ran.stderr);
            assert_eq!(place.read("out.tar"), "old", "{kind}");
            if dockerfile.contains("missing") {
                place.build(&["-o", &output]).failed(3, &["missing"]);
                assert_eq!(place.read("out.tar"), "old", "{kind}");
            }
        }
    }
}

/// Refused before anything is asked or written.
#[test]
fn outputs_that_cannot_be() {
    let place = Place::new("FROM scratch\nCOPY Dockerfile /\n");
    let table: [(&[&str], &str); 6] = [
        (&["--no-push", "--output=type=registry"], "no `name`"),
        (&["--output=type=oci,dest="], "no `dest`"),
        (&["--output="], "the image would go nowhere"),
        (&["--no-push", "--compression-level=10"], "gzip has levels 0 to 9"),
        (&["--no-push", "--compression=zstd", "--compression-level=23"], "zstd has levels 0 to 22"),
        (&["--no-push", "--azure-container-registry-config=f"], "not supported yet"),
    ];
    for (flags, part) in table {
        place.build(flags).failed(2, &[part]);
    }
}

#[test]
fn files_go_to_one_place() {
    let place = Place::new("FROM scratch\nCOPY Dockerfile /\n");
    place.build(&["-o", "one", "-o", "type=tar,dest=two.tar"]).failed(2, &["several outputs of files"]);
    assert!(!place.path("one").exists() && !place.path("two.tar").exists());
}

/// `--insecure` counts for a registry that only an output names.
#[test]
fn an_output_is_a_destination() {
    let Some(registry) = crate::harness::registry() else { return };
    let place = Place::new("FROM scratch\nCOPY Dockerfile /\n");
    let output = format!("--output=type=registry,\"name={0}/app:1,{0}/app:2\"", registry.host());
    place.build(&["--insecure", &output]).digest();
    assert_eq!(registry.count("PUT", "/manifests/"), 2);
}
