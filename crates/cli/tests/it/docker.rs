//! Spellings of `docker build` and `docker buildx build`.

use crate::harness::{Place, cannot_run, registry, with_busybox};

const DOCKERFILE: &str = "FROM scratch\nCOPY Dockerfile /f\n";

/// What becomes of each flag.
enum Fate {
    /// It has its effect, or asks for what is done anyway.
    Taken,
    /// Nothing to do: the note says why.
    Noted(&'static str),
    /// Status 2, with the reason and what to do instead.
    Refused(&'static str, &'static str),
}

use Fate::{Noted, Refused, Taken};

/// Every flag of both commands, docker's long form first.
const FLAGS: &[(&[&str], Fate)] = &[
    (&["--add-host=a:1.2.3.4"], Taken),
    (&["--add-host=a:host-gateway"], Refused("no daemon", "network of zuwai itself")),
    (&["--allow=network.host"], Noted("steps may use the host's network")),
    (&["--allow=security.insecure"], Refused("without privilege", "RUN --security")),
    (&["--allow=device=x"], Refused("no devices", "RUN --device")),
    (&["--allow=colour"], Refused("no such entitlement", "network.host")),
    (&["--annotation=a=b"], Taken),
    (&["--attest=type=sbom"], Refused("attestations", "`false`")),
    (&["--attest=type=provenance,disabled=true"], Taken),
    (&["--build-arg=a=b"], Taken),
    (&["--build-context=a=context"], Taken),
    (&["--builder=default"], Noted("no builders to choose from")),
    (&["--cache-from=type=gha"], Refused("not supported yet", "leave it out")),
    (&["--cache-to=type=inline"], Refused("not supported yet", "leave it out")),
    (&["--call=build"], Taken),
    (&["--print=build"], Taken),
    (&["--cgroup-parent=/x"], Refused("cgroup", "start zuwai in that cgroup")),
    (&["--compress"], Noted("no context is sent")),
    (&["--cpu-period=1000"], Refused("no limits of their own", "limit the container")),
    (&["--cpu-quota", "1000"], Refused("no limits of their own", "limit the container")),
    (&["--cpu-shares=2"], Refused("no limits of their own", "limit the container")),
    (&["--cpu-shares=0"], Taken),
    (&["--cpuset-cpus=0-3"], Refused("no limits of their own", "limit the container")),
    (&["--cpuset-mems=0"], Taken),
    (&["--cpuset-mems=0,1"], Refused("no limits of their own", "limit the container")),
    (&["--debug"], Noted("without it")),
    (&["-D"], Noted("without it")),
    (&["--detach"], Refused("no daemon", "background")),
    (&["--disable-content-trust"], Noted("signatures of images are not checked")),
    (&["--disable-content-trust=false"], Refused("signatures", "digest")),
    (&["--file=context/Dockerfile"], Taken),
    (&["--force-rm"], Noted("no intermediate containers")),
    (&["--iidfile=iid"], Taken),
    (&["--invoke=sh"], Refused("no monitor", "--on-failure=shell")),
    (&["--isolation=default"], Taken),
    (&["--isolation=process"], Refused("Windows", "")),
    (&["--isolation=hyperv"], Refused("Windows", "")),
    (&["--label=a"], Taken),
    (&["--load"], Refused("no daemon to load into", "docker load")),
    (&["--load=false"], Taken),
    (&["--memory=1g"], Refused("no limits of their own", "limit the container")),
    (&["-m", "1g"], Refused("no limits of their own", "limit the container")),
    (&["--memory-swap=-1"], Refused("no limits of their own", "limit the container")),
    (&["--metadata-file=m"], Taken),
    (&["--network=default"], Taken),
    (&["--network=host"], Taken),
    (&["--network=none"], Taken),
    (&["--network=my-net"], Refused("no daemon that has networks", "default and host")),
    (&["--no-cache"], Taken),
    (&["--no-cache-filter=a"], Noted("no cache yet")),
    (&["--output=out"], Taken),
    (&["--platform=linux/amd64"], Taken),
    (&["--policy=x"], Refused("policies", "digest")),
    (&["--progress=none"], Taken),
    (&["--progress=rawjson"], Taken),
    (&["--provenance=false"], Taken),
    (&["--provenance=mode=max"], Refused("attestations", "`false`")),
    (&["--pull"], Taken),
    (&["--quiet"], Taken),
    (&["--quiet=true"], Taken),
    (&["--rm"], Noted("no intermediate containers")),
    (&["--rm=false"], Noted("no intermediate containers")),
    (&["--root=/x"], Refused("no build server", "leave it out")),
    (&["--sbom=false"], Taken),
    (&["--sbom=true"], Refused("attestations", "`false`")),
    (&["--security-opt=seccomp=unconfined"], Refused("no options", "--isolation")),
    (&["--server-config=x"], Refused("no build server", "leave it out")),
    (&["--shm-size=128m"], Taken),
    (&["--shm-size=much"], Refused("expected a size", "")),
    (&["--squash"], Refused("not squashed", "COPY --from=STAGE / /")),
    (&["--squash=false"], Taken),
    (&["--stream"], Noted("no context is sent")),
    (&["--tag=a:1"], Taken),
    (&["--target="], Taken),
    (&["--ulimit=nofile=1024"], Refused("limits of zuwai itself", "ulimit -n")),
];

#[test]
fn every_flag_of_docker_says_what_becomes_of_it() {
    for (flags, fate) in FLAGS {
        let place = Place::new(DOCKERFILE);
        let ran = place.build(&[&["--no-push"], *flags].concat());
        match fate {
            Taken if *flags == ["--target="] => {}
            Taken => {
                ran.digest();
                assert!(!ran.stderr.contains("has no effect"), "{flags:?}: {}", ran.stderr);
            }
            Noted(why) => {
                ran.digest();
                let note = ran.stderr.lines().find(|line| line.starts_with("note: `--")).unwrap_or_default();
                assert!(note.contains("has no effect: ") && note.contains(why), "{flags:?}: {}", ran.stderr);
                let quiet = place.build(&[&["--no-push", "--quiet"], *flags].concat());
                assert!(!quiet.stderr.contains("note"), "{flags:?}: {}", quiet.stderr);
            }
            Refused(why, instead) => {
                ran.failed(2, &["error: `--", why, instead]);
                assert!(instead.is_empty() || ran.stderr.contains("hint: "), "{flags:?}: {}", ran.stderr);
            }
        }
    }
}

#[test]
fn a_label_without_a_value() {
    let place = Place::new(DOCKERFILE);
    place.build(&["--oci-layout-path=out", "--label", "a", "--label=b=c=d", "--iidfile=iid"]).digest();
    let config = place.read(&format!("out/blobs/sha256/{}", &place.read("iid")["sha256:".len()..]));
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["config"]["Labels"], serde_json::json!({"a": "", "b": "c=d"}));
}

/// Outputs by what is written of the image, and what is said.
#[test]
fn outputs_in_dockers_words() {
    let place = Place::new(DOCKERFILE);
    place.build(&["-o", "type=cacheonly"]).digest();
    let kept = place.build(&["-t", "a:1", "-o", "type=image,push=false"]);
    kept.digest();
    assert!(kept.stderr.contains("there is no image store"), "{}", kept.stderr);
    place.build(&["-o", "type=docker"]).failed(2, &["no daemon to load the image into", "docker load"]);
    place.build(&["-o", "type=docker,dest=image.tar"]).digest();
    assert!(place.path("image.tar").exists());
    place.build(&["-o", "type=image,push=perhaps"]).failed(2, &["push is neither true nor false"]);
    place.build(&["-o", "type=image,push=true"]).failed(2, &["no `name`"]);
    let Some(registry) = registry() else { return };
    let host = registry.host();
    let insecure = format!("--insecure-registry={host}");
    let (one, two) = (format!("{host}/app:1"), format!("{host}/app:2"));
    for (number, flags) in [
        vec!["-o".to_owned(), format!("type=image,name={one},push=true")],
        vec!["-o".to_owned(), format!("type=image,\"name={one},{two}\",push=1")],
        vec!["-o".to_owned(), "type=image,push=true".to_owned(), "-t".to_owned(), one.clone()],
        vec!["-o".to_owned(), "type=registry".to_owned(), "-t".to_owned(), one.clone()],
        vec!["-o".to_owned(), format!("type=image,name={one}"), "--push".to_owned()],
        vec!["-o".to_owned(), "type=image".to_owned(), "--push".to_owned(), "-t".to_owned(), one.clone()],
    ]
    .iter()
    .enumerate()
    {
        let before = registry.count("PUT", "/manifests/");
        let flags: Vec<&str> = flags.iter().map(String::as_str).chain([insecure.as_str()]).collect();
        let digest = place.build(&[&flags[..], &["--build-arg=SOURCE_DATE_EPOCH=1"]].concat()).digest();
        let pushed = registry.count("PUT", "/manifests/") - before;
        assert_eq!(pushed, if number == 1 { 2 } else { 1 }, "{flags:?}");
        assert_eq!(crate::outputs::manifest_digest(&host, "app", "1"), digest, "{flags:?}");
    }
}

#[test]
fn networks_and_shared_memory_of_steps() {
    if cannot_run() {
        return;
    }
    let interfaces = "RUN tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' ' > /interfaces\n";
    let place = with_busybox(&format!(
        "RUN ln -s busybox /bin/tail; ln -s busybox /bin/cut; ln -s busybox /bin/tr\n{interfaces}"
    ));
    place.build(&["--network=none", "-o", "none"]).digest();
    place.build(&["--network=host", "-o", "host"]).digest();
    assert_eq!(place.read("none/interfaces").trim(), "lo");
    assert!(place.read("host/interfaces").contains("lo"));
    let fits = with_busybox("RUN busybox dd if=/dev/zero of=/dev/shm/x bs=1048576 count=80\n");
    fits.build(&["--no-push", "--shm-size=100m"]).digest();
}
