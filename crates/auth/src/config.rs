//! Docker's `config.json` and containers' `auth.json`: the logins in them, and the helpers that they name.

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;

use crate::go_json::{self, Object};
use crate::key::{self, Key};
use crate::login::{Credential, Login};
use crate::secret::Secret;
use crate::source::{AuthError, CredentialSource};

/// As lenient as Go's decoders are together: with and without padding, and whatever the last bits are.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// What a file says. Of one registry the helpers go before the logins.
pub(crate) struct File {
    /// Helpers by what they are for (`credHelpers`).
    pub(crate) helpers: Vec<(Key, String)>,
    /// The helper for everything else (`credsStore`).
    pub(crate) store: Option<String>,
    /// `auths`; a login that cannot be read is a problem when it is needed.
    pub(crate) entries: Vec<Entry>,
}

pub(crate) struct Entry {
    pub(crate) key: Key,
    pub(crate) login: Result<Login, String>,
}

/// The logins of a file, or one that was given.
pub(crate) struct Entries {
    pub(crate) name: String,
    pub(crate) entries: Vec<Entry>,
}

impl CredentialSource for Entries {
    fn name(&self) -> &str {
        &self.name
    }

    /// The longest entry that is a prefix of `registry/repository`.
    fn login(&self, registry: &str, repository: &str) -> Result<Option<Credential>, AuthError> {
        let all = self.entries.iter().map(|entry| (&entry.key, entry));
        let Some(entry) = key::best(all, registry, repository) else { return Ok(None) };
        let text = &entry.key.text;
        match &entry.login {
            Ok(login) => Ok(Some(Credential::new(login.clone()).from_entry(format!("{}, entry `{text}`", self.name)))),
            Err(reason) => {
                Err(AuthError::Entry { name: self.name.clone(), entry: text.clone(), reason: reason.clone() })
            }
        }
    }
}

impl File {
    /// # Errors
    /// The text is not of that shape: a clause that quotes nothing of it.
    pub(crate) fn parse(text: &str) -> Result<File, String> {
        let json = go_json::object(text.as_bytes())?;
        let (mut helpers, mut entries) = (Vec::new(), Vec::new());
        for (key, entry) in go_json::members(&json, "auths")? {
            let login = match entry {
                Value::Null => None,
                Value::Object(entry) => login_of(entry)?,
                _ => return Err("an entry of `auths` is not an object".to_owned()),
            };
            entries.extend(login.map(|login| Entry { key: Key::parse(key), login }));
        }
        for (key, helper) in go_json::members(&json, "credHelpers")? {
            let name = match helper {
                Value::Null => "",
                helper => helper.as_str().ok_or("an entry of `credHelpers` is not text")?,
            };
            helpers.push((Key::parse(key), name.to_owned()));
        }
        Ok(File { helpers, store: go_json::text(&json, "credsStore")?, entries })
    }
}

/// The login in an entry of `auths`; none where there is no secret, as Docker leaves them where a helper has it.
///
/// A registry's token goes before one for the token server, as in go-containerregistry and BuildKit.
fn login_of(entry: &Object) -> Result<Option<Result<Login, String>>, String> {
    let text = |name| go_json::text(entry, name);
    let (auth, username, password) = (text("auth")?, text("username")?, text("password")?);
    let (identity, registry) = (text("identitytoken")?, text("registrytoken")?);
    if let Some(token) = registry {
        return Ok(Some(Ok(Login::Registry { token: Secret::new(token) })));
    }
    if let Some(token) = identity {
        return Ok(Some(Ok(Login::Identity { token: Secret::new(token) })));
    }
    if let Some(auth) = auth {
        let decoded = decode(&auth).ok_or_else(|| "`auth` is not the base64 form of `user:password`".to_owned());
        return Ok(Some(decoded));
    }
    let plain = username.zip(password);
    Ok(plain.map(|(username, password)| Ok(Login::Basic { username, password: Secret::new(password) })))
}

fn decode(auth: &str) -> Option<Login> {
    // `base64` of coreutils breaks its lines.
    let unbroken: Vec<u8> = auth.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let text = String::from_utf8(BASE64.decode(unbroken).ok()?).ok()?;
    let (username, password) = text.split_once(':')?;
    // Docker pads what it encodes (docker/cli `decodeAuth`).
    let password = password.trim_matches('\0');
    (!username.is_empty()).then(|| Login::Basic { username: username.to_owned(), password: Secret::new(password) })
}

#[cfg(test)]
mod tests {
    use crate::credentials::Credentials;
    use crate::testing::{config, word};

    #[test]
    fn forms_of_an_entry() {
        let cases = [
            (r#"{"auth":"dTpw"}"#, "u:p"),
            (r#"{"auth":"dTpwOnE="}"#, "u:p:q"),
            (r#"{"auth":"dTpwOnE"}"#, "u:p:q"),
            (r#"{"auth":"dTpwAAA="}"#, "u:p"),
            (r#"{"username":"u","password":"p"}"#, "u:p"),
            (r#"{"auth":"","username":"u","password":"p"}"#, "u:p"),
            (r#"{"auth":"dTo=","identitytoken":"t"}"#, "identity t"),
            (r#"{"auth":"dTpw","identitytoken":""}"#, "u:p"),
            (r#"{"registrytoken":"t"}"#, "registry t"),
            (r#"{"auth":"dTpw","email":"x@y","unknown":[1]}"#, "u:p"),
            (r#"{"registrytoken":"t","identitytoken":"i","auth":"dTpw"}"#, "registry t"),
            (r#"{"username":"u"}"#, "-"),
            (r#"{"AUTH":"dTpw"}"#, "u:p"),
            (r#"{"Auth":"eDp5","auth":"dTpw"}"#, "u:p"),
            (r#"{"UserName":"u","PASSWORD":"p"}"#, "u:p"),
            (r#"{"IdentityToken":"t"}"#, "identity t"),
            (r#"{"auth":null,"username":"u","password":"p"}"#, "u:p"),
            (r#"{"auth":"dTpw","identitytoken":null,"registrytoken":null}"#, "u:p"),
            (r#"{"auth":null,"username":null,"password":null}"#, "-"),
            ("{}", "-"),
            ("null", "-"),
            (r#"{"auth":"???"}"#, "-"),
            (r#"{"auth":"bm9jb2xvbg=="}"#, "-"),
        ];
        for (entry, expected) in cases {
            let credentials = config(&format!(r#"{{"auths":{{"r.example":{entry}}}}}"#));
            assert_eq!(word(&credentials.look_up("r.example", "app")), expected, "{entry}");
        }
    }

    #[test]
    fn base64_in_every_form_that_go_reads() {
        let cases = [
            ("dTpw", "u:p"),
            ("dTpw\\n", "u:p"),
            ("dT\\npw", "u:p"),
            ("dTp\\r\\nw\\r\\n", "u:p"),
            (" dTpw ", "u:p"),
            ("dXNlcjpwYXNz", "user:pass"),
            ("dXNlcjpwYQ==", "user:pa"),
            ("dXNlcjpwYQ", "user:pa"),
            ("dXNlcjpwYQ=\\n=", "user:pa"),
            // Bits behind the last byte that are not zero.
            ("dXNlcjpwYR==", "user:pa"),
            ("dXNlcjo=", "user:"),
            ("dTo6Og==", "u:::"),
            // `u` and the letter `ö`, in UTF-8.
            ("dTrDtg==", "u:ö"),
            ("OnA=", "-"),
            ("dTpw-_", "-"),
            ("d", "-"),
        ];
        for (auth, expected) in cases {
            let credentials = config(&format!(r#"{{"auths":{{"r.example":{{"auth":"{auth}"}}}}}}"#));
            assert_eq!(word(&credentials.look_up("r.example", "app")), expected, "{auth}");
        }
    }

    #[test]
    fn files_in_every_form_that_go_reads() {
        let cases = [
            (r#"{"auths":null}"#, "-"),
            (r#"{"auths":null,"credHelpers":null,"credsStore":null}"#, "-"),
            (r#"{"auths":{},"credHelpers":{},"credsStore":""}"#, "-"),
            (r#"{"auths":{"r.example":null}}"#, "-"),
            (r#"{"Auths":{"r.example":{"auth":"dTpw"}}}"#, "u:p"),
            (r#"{"AUTHS":{"s.example":{}},"auths":{"r.example":{"auth":"dTpw"}}}"#, "u:p"),
            (r#"{"Auths":{"r.example":{"auth":"dTpw"}},"auths":{"s.example":{}}}"#, "u:p"),
            (r#"{"auths":{"r.example":{"auth":"dTpw"}},"credHelpers":{"r.example":null}}"#, "u:p"),
            (r#"{"auths":{"r.example":{"auth":"dTpw"}},"detachKeys":5,"HttpHeaders":[],"plugins":"x"}"#, "u:p"),
            ("{\"auths\":{\"r.example\":{\"auth\":\"dTpw\"}}}\n# end\n", "u:p"),
            ("\u{feff}{\"auths\":{\"r.example\":{\"auth\":\"dTpw\"}}}", "u:p"),
            ("null", "-"),
        ];
        for (text, expected) in cases {
            let look_up = config(text).look_up("r.example", "app");
            assert_eq!(word(&look_up), expected, "{text}");
            assert_eq!(look_up.problems, [""; 0], "{text}");
        }
    }

    #[test]
    fn a_broken_entry_is_told_of_when_it_is_needed() {
        let look_up =
            config(r#"{"auths":{"r.example":{"auth":"???"},"s.example":{"auth":"dTpw"}}}"#).look_up("r.example", "a");
        assert_eq!(
            look_up.problems,
            ["entry `r.example` of `config.json` is unusable: `auth` is not the base64 form of `user:password`"]
        );
    }

    #[test]
    fn what_is_no_configuration_is_refused_without_quoting_it() {
        for text in [
            r#"{"auths":"hunter2"}"#,
            "hunter2",
            r#"{"auths":{"a":{"auth":{"x":"hunter2"}}}}"#,
            r#"{"auths":{"a":"hunter2"}}"#,
            r#"{"auths":[]}"#,
            r#"{"credHelpers":{"a":{"hunter2":1}}}"#,
            r#"{"credsStore":["hunter2"]}"#,
            r#"["hunter2"]"#,
            r#"{"auths":{"a":{"auth":"hunter2"}"#,
            "{",
        ] {
            let error = Credentials::anonymous().add_config(text, "`config.json`").unwrap_err().to_string();
            assert!(error.starts_with("could not read the credentials in `config.json`: "), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        Credentials::anonymous().add_config(" \n", "empty").unwrap();
    }
}
