//! What a list of sources promises to whoever writes a source, and to whoever has secrets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use zuwai_auth::{AuthError, Credential, CredentialSource, Credentials, Found, Login, LookUp, Secret};

type Answer = Result<Option<Credential>, AuthError>;

/// A source that counts how often it is asked. Its password is that number.
struct Counting<F> {
    asked: AtomicUsize,
    answer: F,
}

impl<F: Fn(Login) -> Answer + Send + Sync + 'static> Counting<F> {
    fn listed(answer: F) -> (Arc<Counting<F>>, Credentials) {
        let source = Arc::new(Counting { asked: AtomicUsize::new(0), answer });
        let mut credentials = Credentials::anonymous();
        credentials.add_source(source.clone());
        (source, credentials)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl<F: Fn(Login) -> Answer + Send + Sync> CredentialSource for Counting<F> {
    fn name(&self) -> &str {
        "a cloud"
    }

    fn login(&self, registry: &str, _repository: &str) -> Answer {
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        match registry {
            "elsewhere.example" => Ok(None),
            _ => (self.answer)(basic("cloud", &number.to_string())),
        }
    }
}

fn basic(user: &str, password: &str) -> Login {
    Login::Basic { username: user.to_owned(), password: Secret::new(password) }
}

fn lasting(life: Duration) -> impl Fn(Login) -> Answer {
    move |login| Ok(Some(Credential::new(login).expires_at(Instant::now() + life)))
}

fn found(look_up: LookUp) -> Login {
    look_up.found.expect("a login").login
}

#[test]
fn an_expired_credential_is_asked_for_again() {
    let (source, credentials) = Counting::listed(lasting(Duration::from_millis(40)));
    assert_eq!(found(credentials.look_up("r.example", "app")), basic("cloud", "1"));
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(found(credentials.look_up("r.example", "app")), basic("cloud", "2"));
    assert_eq!(source.asked(), 2);
}

#[test]
fn a_credential_that_holds_is_not_asked_for_again() {
    let (source, credentials) = Counting::listed(lasting(Duration::from_secs(3600)));
    for credentials in [credentials.clone(), credentials.clone()] {
        assert_eq!(found(credentials.look_up("r.example", "app")), basic("cloud", "1"));
    }
    assert_eq!(found(credentials.look_up("r.example", "other")), basic("cloud", "2"), "a question of its own");
    let (endless, listed) = Counting::listed(|login| Ok(Some(Credential::new(login))));
    listed.look_up("r.example", "app");
    listed.look_up("r.example", "app");
    assert_eq!(endless.asked(), 1);
    // The registry refused it.
    credentials.forget_answers();
    assert_eq!(found(credentials.look_up("r.example", "app")), basic("cloud", "3"));
    assert_eq!(source.asked(), 3);
}

#[test]
fn a_source_that_fails_is_named_and_hides_no_other() {
    let (source, mut credentials) = Counting::listed(|_| Err(AuthError::of("a cloud", "no route\nto host")));
    let problem = "a cloud gave no credentials: no route to host";
    let look_up = credentials.look_up("r.example", "app");
    assert_eq!((look_up.found, look_up.problems), (None, vec![problem.to_owned()]));
    credentials.add_login("r.example", basic("u", "p"), "`config.json`");
    let look_up = credentials.look_up("r.example", "app");
    assert_eq!(look_up.problems, [problem]);
    assert_eq!(look_up.found.expect("a login").entry, "`config.json`, entry `r.example`");
    assert_eq!(source.asked(), 1, "a failure is an answer, too");
    assert_eq!(credentials.look_up("elsewhere.example", "app").problems, [""; 0]);
    assert_eq!(credentials.labels(), ["a cloud", "`config.json`"]);
}

#[test]
fn the_first_source_that_has_a_login_is_the_one() {
    let (source, mut credentials) = Counting::listed(lasting(Duration::from_secs(3600)));
    credentials.add_login("r.example", basic("u", "p"), "`config.json`");
    credentials.add_login("elsewhere.example", basic("u", "p"), "`config.json`");
    let first = credentials.look_up("r.example", "app").found;
    assert_eq!(first, Some(Found { login: basic("cloud", "1"), entry: "a cloud".to_owned() }));
    assert_eq!(found(credentials.look_up("elsewhere.example", "app")), basic("u", "p"));
    assert_eq!(source.asked(), 2);
}

#[test]
fn every_error_names_what_failed() {
    let text = r#"{"auths":{"r.example":{"auth":"?"}},"credHelpers":{"s.example":"absent","t.example":"a/b"}}"#;
    let mut credentials = Credentials::anonymous();
    credentials.add_config(text, "`config.json`").unwrap();
    for (registry, named) in
        [("r.example", "`config.json`"), ("s.example", "`docker-credential-absent`"), ("t.example", "`a/b`")]
    {
        let problems = credentials.look_up(registry, "app").problems;
        assert!(problems.len() == 1 && problems[0].contains(named), "{problems:?}");
    }
    let error = credentials.add_config("[", "`auth.json`").unwrap_err().to_string();
    assert!(error.contains("`auth.json`"), "{error}");
}

#[test]
fn nothing_that_holds_a_secret_shows_it() {
    let login = |secret: &str| match secret.len() % 3 {
        0 => Login::Identity { token: Secret::new(secret) },
        1 => Login::Registry { token: Secret::new(secret) },
        _ => basic("u", secret),
    };
    for secret in ["hunter2", "hunter22", "hunter222"] {
        let bytes: Secret<Vec<u8>> = Secret::new(secret);
        let credential = Credential::new(login(secret)).expires_at(Instant::now()).from_entry("entry");
        let (_, mut credentials) = Counting::listed({
            let credential = credential.clone();
            move |_| Ok(Some(credential.clone()))
        });
        let config = format!(r#"{{"auths":{{"s.example":{{"username":"u","password":"{secret}"}}}}}}"#);
        credentials.add_config(&config, "`config.json`").unwrap();
        credentials.add_login("t.example", login(secret), "given");
        let variables = [("KANIKO_V_EXAMPLE_USER", "u"), ("KANIKO_V_EXAMPLE_PASSWORD", secret)];
        credentials.add_variables("KANIKO", variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let look_up = credentials.look_up("r.example", "app");
        assert!(look_up.found.is_some());
        for shown in [
            format!("{bytes:?} {bytes:#?}"),
            format!("{:?} {credential:?} {credential:#?}", login(secret)),
            format!("{look_up:?} {look_up:#?}"),
            format!("{credentials:?} {credentials:#?}"),
        ] {
            assert!(!shown.contains("hunter2"), "{shown}");
            // Nor as numbers.
            assert!(!shown.contains("104, 117"), "{shown}");
        }
        let broken = format!(r#"{{"auths":{{"s.example":{{"auth":["{secret}"]}}}}}}"#);
        let error = credentials.add_config(&broken, "`config.json`").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
}
