//! Build arguments: the global scope, the predefined ones, proxies.

use std::collections::BTreeMap;

use dockerfile::{Dockerfile, Kind};
use oci::Platform;

use crate::BuildError;
use crate::env::Env;

/// Names that reach RUN without being declared and leave no trace (Docker's predefined ARGs).
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

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

/// Proxy variables for RUN out of the build arguments, in both letter cases (BuildKit `proxyEnvFromBuildArgs`).
pub fn proxies(build_args: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for name in PROXIES {
        let given = build_args.iter().find(|(key, value)| key.eq_ignore_ascii_case(name) && !value.is_empty());
        if let Some((_, value)) = given {
            found.push((name.to_owned(), value.clone()));
            found.push((name.to_ascii_lowercase(), value.clone()));
        }
    }
    found
}
