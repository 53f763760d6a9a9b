//! Where an image may be pulled from instead.

use crate::RegistrySettings;
use crate::client::Place;

/// The places to ask for `wanted`, in order.
pub(crate) fn places(settings: &RegistrySettings, wanted: &Place) -> Vec<Place> {
    let name = wanted.to_string();
    let mut places: Vec<Place> = Vec::new();
    for place in settings.maps.iter().filter_map(|(source, destination)| mapped(&name, source, destination)) {
        if !places.contains(&place) {
            places.push(place);
        }
    }
    let fallback = !settings.skip_fallback || places.is_empty();
    if fallback && !places.contains(wanted) {
        places.push(wanted.clone());
    }
    places
}

/// `name` with `destination` in place of `source`; none when `source` is no prefix of it.
fn mapped(name: &str, source: &str, destination: &str) -> Option<Place> {
    let rest = name.strip_prefix(normal(source).as_str())?;
    if !rest.starts_with('/') {
        return None;
    }
    let whole = format!("{}{rest}", normal(destination));
    let (registry, repository) = whole.split_once('/')?;
    Some(Place::new(registry, repository))
}

/// Without scheme and trailing slash; Docker Hub under its one name.
fn normal(prefix: &str) -> String {
    let prefix = prefix.trim().trim_end_matches('/');
    let prefix = prefix.strip_prefix("https://").or_else(|| prefix.strip_prefix("http://")).unwrap_or(prefix);
    let (registry, path) = prefix.split_once('/').unwrap_or((prefix, ""));
    let registry = match registry {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    };
    if path.is_empty() { registry.to_owned() } else { format!("{registry}/{path}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Maps = &'static [(&'static str, &'static str)];

    #[test]
    fn maps() {
        let cases: &[(Maps, bool, &[&str])] = &[
            (&[], false, &["docker.io/library/busybox"]),
            (&[], true, &["docker.io/library/busybox"]),
            (&[("docker.io", "m.example")], false, &["m.example/library/busybox", "docker.io/library/busybox"]),
            (&[("index.docker.io", "https://m.example/hub/")], true, &["m.example/hub/library/busybox"]),
            (
                &[("docker.io", "a:5000"), ("docker.io", "b/x"), ("quay.io", "c")],
                false,
                &["a:5000/library/busybox", "b/x/library/busybox", "docker.io/library/busybox"],
            ),
            (&[("docker.io/library", "m.example/official")], true, &["m.example/official/busybox"]),
            (&[("docker.io/lib", "m.example")], true, &["docker.io/library/busybox"]),
            (&[("docker", "m.example")], false, &["docker.io/library/busybox"]),
        ];
        for (maps, skip_fallback, expected) in cases {
            let maps = maps.iter().map(|(s, d)| (s.to_string(), d.to_string())).collect();
            let settings = RegistrySettings { maps, skip_fallback: *skip_fallback, ..RegistrySettings::new() };
            let found: Vec<String> =
                places(&settings, &Place::new("docker.io", "library/busybox")).iter().map(Place::to_string).collect();
            assert_eq!(&found, expected);
        }
    }
}
