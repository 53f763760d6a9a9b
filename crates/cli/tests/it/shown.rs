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

#[test]
fn files_go_to_one_place() {
    let place = Place::new("FROM scratch\nCOPY Dockerfile /\n");
    place.build(&["-o", "one", "-o", "type=tar,dest=two.tar"]).failed(2, &["several outputs of files"]);
    assert!(!place.path("one").exists() && !place.path("two.tar").exists());
}
