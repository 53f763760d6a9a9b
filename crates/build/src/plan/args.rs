//! Build arguments: the global scope, the predefined ones, proxies.

use std::collections::BTreeMap;

use dockerfile::{Dockerfile, Kind};
use oci::Platform;

use crate::BuildError;
use crate::env::Env;

/// Names that reach RUN without being declared and leave no trace (Docker's predefined ARGs).
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// The values visible in FROM lines: platforms, then every ARG before the first FROM, build arguments winning.
pub fn global_scope(
    dockerfile: &Dockerfile,
    build_args: &BTreeMap<String, String>,
    target_platform: &Platform,
    target_stage: &str,
) -> Result<Env, BuildError> {
    let mut scope = Env::default();
    for (prefix, platform) in [("BUILD", &Platform::host()), ("TARGET", target_platform)] {
        let parts = [
            ("PLATFORM", platform.to_string()),
            ("OS", platform.os.clone()),
            ("OSVERSION", platform.os_version.clone().unwrap_or_default()),
            ("ARCH", platform.architecture.clone()),
            ("VARIANT", platform.variant.clone().unwrap_or_default()),
        ];
        for (name, value) in parts {
            scope.set(&format!("{prefix}{name}"), &value);
        }
    }
    scope.set("TARGETSTAGE", if target_stage.is_empty() { "default" } else { target_stage });
    let predefined: Vec<String> = scope.names().map(str::to_owned).collect();
    for name in predefined {
        if let Some(value) = build_args.get(&name) {
            scope.set(&name, value);
        }
    }
    for instruction in &dockerfile.global_args {
        let Kind::Arg(args) = &instruction.kind else { continue };
        for arg in args {
            let value = match (build_args.get(&arg.name.text), &arg.default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => {
                    let lookup = |name: &str| scope.get(name).map(str::to_owned);
                    let expanded = dockerfile::expand::word(&default.text, dockerfile.escape, &lookup)
                        .map_err(|e| BuildError::dockerfile(&default.span, e.to_string()))?;
                    Some(expanded.text)
                }
                (None, None) => None,
            };
            if let Some(value) = value {
                scope.set(&arg.name.text, &value);
            }
        }
    }
    Ok(scope)
}

/// `SOURCE_DATE_EPOCH` as an ARG before the first FROM sets it, in seconds (BuildKit `getBuildArgValue`).
pub fn epoch(dockerfile: &Dockerfile, scope: &Env) -> Result<Option<i64>, BuildError> {
    let Some(text) = scope.get(EPOCH).filter(|text| !text.is_empty()) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| {
        let names = |kind: &Kind| matches!(kind, Kind::Arg(args) if args.iter().any(|arg| arg.name.text == EPOCH));
        let declared = dockerfile.global_args.iter().rfind(|instruction| names(&instruction.kind));
        let span = declared.map_or(0..0, |instruction| instruction.span.clone());
        BuildError::dockerfile(&span, format!("SOURCE_DATE_EPOCH `{text}` is not a number of seconds"))
    })
}

/// Whether a build argument is for the builder alone and reaches no environment (BuildKit `nonEnvArgs`).
pub fn is_for_builder(name: &str) -> bool {
    matches!(name, "BUILDKIT_SBOM_SCAN_CONTEXT" | "BUILDKIT_SBOM_SCAN_STAGE")
}

/// Proxy variables for RUN out of the build arguments, in both letter cases. Of several spellings the last in the order of
/// bytes counts, lower case after upper case (BuildKit `proxyEnvFromBuildArgs`).
pub fn proxies(build_args: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for name in PROXIES {
        let given = build_args.iter().rfind(|(key, _)| key.eq_ignore_ascii_case(name));
        if let Some((_, value)) = given.filter(|(_, value)| !value.is_empty()) {
            found.push((name.to_owned(), value.clone()));
            found.push((name.to_ascii_lowercase(), value.clone()));
        }
    }
    found
}
