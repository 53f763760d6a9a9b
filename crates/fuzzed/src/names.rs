//! Short texts: names of images and platforms, what registries and `config.json` say.

use auth::Credentials;
use oci::{Platform, Reference};
use registry::Challenge;

/// Any reference and any platform is refused, or is written as what reads as itself. The first line is the reference, the
/// rest the platform.
pub fn names(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (reference, platform) = text.split_once('\n').unwrap_or((text, ""));
    if let Ok(reference) = Reference::parse(reference) {
        let tagged = Reference { tag: reference.tag.clone().or_else(|| latest(&reference)), ..reference.clone() };
        assert_eq!(Reference::parse(&reference.to_string()).as_ref(), Ok(&tagged));
        assert_eq!(Reference::parse(&reference.familiar()).as_ref(), Ok(&tagged));
        assert!(!reference.repository.is_empty() && !reference.registry.is_empty());
        assert!(!reference.repository.split('/').any(|part| matches!(part, "" | "." | "..")));
    }
    if let Ok(platform) = Platform::parse(platform) {
        assert_eq!(Platform::parse(&platform.to_string()).as_ref(), Ok(&platform));
        let _ = platform.rank_for(&Platform::host());
        assert!(platform.rank_for(&platform).is_some());
    }
}

/// Written, a reference with neither tag nor digest says `latest`.
fn latest(reference: &Reference) -> Option<String> {
    reference.digest.is_none().then(|| "latest".to_owned())
}

/// Any `WWW-Authenticate` gives challenges or none, a token server being an address that is not empty; any `config.json` is
/// refused or looked up in for any name. The first line is the header and the name, the rest the file. Files that name a
/// credential helper are left out: it would be a program of this machine.
pub fn registry_texts(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (name, config) = text.split_once('\n').unwrap_or((text, ""));
    for challenge in Challenge::parse(name) {
        if let Challenge::Bearer { realm, .. } = challenge {
            assert!(!realm.is_empty());
        }
    }
    // Escapes could spell the word.
    if config.to_ascii_lowercase().contains("cred") || config.contains("\\u") {
        return;
    }
    let mut credentials = Credentials::anonymous();
    if credentials.add_config(config, "input").is_ok() {
        let (registry, repository) = name.split_once('/').unwrap_or((name, ""));
        let first = credentials.look_up(registry, repository);
        assert_eq!(first.found, credentials.look_up(registry, repository).found);
    }
}
