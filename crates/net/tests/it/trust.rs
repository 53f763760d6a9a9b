//! Certificates of every kind that `openssl` makes, at its own server: who is trusted is what Go's clients trust, and skopeo,
//! which is one, is asked beside us.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use zuwai_net::{Kind, NetError, Settings, SystemCertificates};

use crate::{net, settings};

/// Certificate and key of each kind, `NAME.pem` and `NAME.key`.
const MAKE: &str = r#"
set -e
ec='-newkey ec -pkeyopt ec_paramgen_curve:'
san='-addext subjectAltName=DNS:localhost,IP:127.0.0.1'
self() { name=$1; shift; openssl req -x509 -nodes -keyout $name.key -out $name.pem -days 30 -subj /CN=$name $@; }
signed() { # NAME CA ARGUMENT...: with what is in the file NAME.ext, or of version 1
  name=$1 ca=$2; shift 2
  [ -e $name.csr ] || openssl req -nodes ${ec}prime256v1 -keyout $name.key -out $name.csr -subj /CN=$name
  [ ! -e $name.ext ] || set -- -extfile $name.ext "$@"
  openssl x509 -req -in $name.csr -CA $ca.pem -CAkey $ca.key -CAcreateserial -days 30 -out $name.pem "$@"
}
names='subjectAltName=DNS:localhost,IP:127.0.0.1'
self self ${ec}prime256v1 $san
self self-rsa -newkey rsa:2048 $san
self self-leaf ${ec}prime256v1 $san -addext basicConstraints=critical,CA:FALSE
self self-p384 ${ec}secp384r1 $san
self self-p521 ${ec}secp521r1 $san
self self-ed25519 -newkey ed25519 $san
self self-pss -newkey rsa:2048 $san -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32 -sha256
self self-client ${ec}prime256v1 $san -addext extendedKeyUsage=clientAuth
self cn-only ${ec}prime256v1
self other-name ${ec}prime256v1 -addext subjectAltName=DNS:other.example,IP:192.0.2.1
self ca ${ec}prime256v1
self ca521 ${ec}secp521r1
self ca-constrained ${ec}prime256v1 -addext 'nameConstraints=critical,permitted;DNS:other.example'
echo $names > server.ext; signed server ca
printf '%s\nbasicConstraints=critical,CA:TRUE\n' $names > server-ca.ext; signed server-ca ca
echo $names > server521.ext; signed server521 ca521 -sha512
echo $names > server512.ext; signed server512 ca -sha512
echo $names > constrained.ext; signed constrained ca-constrained
printf '%s\nbasicConstraints=critical,CA:TRUE\n' $names > constrained-ca.ext; signed constrained-ca ca-constrained
signed version1 ca
echo $names > below-leaf.ext; signed below-leaf self-leaf
printf '%s\n1.2.3.4=critical,ASN1:NULL\n' $names > critical.ext; signed critical ca
printf 'basicConstraints=critical,CA:TRUE\n' > middle.ext; signed middle ca
printf '%s\nbasicConstraints=critical,CA:TRUE\n' $names > below-middle.ext; signed below-middle middle
echo 01 > serial; : > index.txt
printf '[ca]\ndefault_ca=own\n[own]\ndatabase=index.txt\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\npolicy=any\nx509_extensions=names\n[any]\ncommonName=supplied\n[names]\n%s\n' $names > ca.cnf
openssl req -nodes ${ec}prime256v1 -keyout expired.key -out expired.csr -subj /CN=expired
openssl ca -batch -config ca.cnf -cert ca.pem -keyfile ca.key -in expired.csr -out expired.pem -notext -startdate 20200101000000Z -enddate 20210101000000Z
mv expired.pem expired.text; openssl x509 -in expired.text -out expired.pem
"#;

/// The directory with all of them; none, aloud, where there is no `openssl`.
#[expect(clippy::print_stderr, reason = "a skipped check is said aloud")]
fn made() -> Option<tempfile::TempDir> {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new("bash").arg("-c").arg(MAKE).current_dir(&dir).output().ok()?;
    if String::from_utf8_lossy(&output.stderr).contains("openssl: command not found") {
        eprintln!("SKIPPED: there is no `openssl` to make certificates");
        return None;
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(dir)
}

/// `openssl s_server`, until it is dropped.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(dir: &Path, name: &str, more: &[&str]) -> Server {
        let port = testkit::docker_registry::free_port();
        let address = format!("127.0.0.1:{port}");
        let mut command = Command::new("openssl");
        command.args(["s_server", "-accept", &address, "-www", "-quiet"]).args(more).current_dir(dir);
        command.args(["-cert", &format!("{name}.pem"), "-key", &format!("{name}.key")]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let since = Instant::now();
        while std::net::TcpStream::connect(&address).is_err() {
            assert!(since.elapsed() < Duration::from_secs(30), "{name}: the server does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Server { child, port }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ask(settings: Settings, host: &str, port: u16) -> Result<u16, NetError> {
    net(settings).get(&format!("https://{host}:{port}/"), &[]).map(|response| response.status)
}

/// What the system trusts: this file and nothing else.
fn trusting(dir: &Path, name: Option<&str>) -> Settings {
    let mut settings = settings();
    settings.retries = 0;
    let file = name.map_or_else(|| PathBuf::from("/dev/null"), |name| dir.join(format!("{name}.pem")));
    settings.system_certificates = SystemCertificates { file: Some(file), dirs: Some(Vec::new()) };
    settings
}

/// Whether skopeo takes the certificate: then what it complains of is the registry that `openssl` is not. None without skopeo.
fn skopeo_accepts(dir: &Path, trusted: Option<&str>, host: &str, port: u16) -> Option<bool> {
    let file = trusted.map_or_else(|| PathBuf::from("/dev/null"), |name| dir.join(format!("{name}.pem")));
    let mut command = Command::new("skopeo");
    command.args(["inspect", "--no-creds", &format!("docker://{host}:{port}/image:1")]);
    command.env("SSL_CERT_FILE", file).env("SSL_CERT_DIR", dir.join("none")).env("NO_PROXY", "*");
    let output = command.output().ok()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Some(!said.contains("x509:") && !said.contains("tls:"))
}

/// Server, what else it sends, what is trusted, host, whether it is accepted, and words of the error.
type Case = (&'static str, Option<&'static str>, Option<&'static str>, &'static str, bool, &'static str);

const CASES: [Case; 33] = [
    // Its own root: what `openssl req -x509` makes is an authority.
    ("self", None, Some("self"), "localhost", true, ""),
    ("self", None, Some("self"), "127.0.0.1", true, ""),
    ("self-rsa", None, Some("self-rsa"), "localhost", true, ""),
    ("self-leaf", None, Some("self-leaf"), "localhost", true, ""),
    ("self-p384", None, Some("self-p384"), "localhost", true, ""),
    ("self-p521", None, Some("self-p521"), "localhost", true, ""),
    ("self-ed25519", None, Some("self-ed25519"), "localhost", true, ""),
    ("self-pss", None, Some("self-pss"), "localhost", true, ""),
    ("self", None, None, "localhost", false, "`CN=self` is self-signed"),
    ("self", None, Some("self-leaf"), "localhost", false, "`CN=self` is self-signed"),
    ("self-client", None, Some("self-client"), "localhost", false, "not for servers"),
    // Names.
    ("cn-only", None, Some("cn-only"), "localhost", false, "`CN=cn-only` has no subjectAltName"),
    (
        "other-name",
        None,
        Some("other-name"),
        "localhost",
        false,
        "it is for `other.example`, `192.0.2.1`, not for `localhost`",
    ),
    ("other-name", None, Some("other-name"), "127.0.0.1", false, "not for `127.0.0.1`"),
    // A server's certificate itself, whoever signed it.
    ("server", None, Some("server"), "localhost", true, ""),
    ("server-ca", None, Some("server-ca"), "localhost", true, ""),
    ("expired", None, Some("expired"), "localhost", false, "`CN=expired` has expired"),
    // Signed by an authority.
    ("server", None, Some("ca"), "localhost", true, ""),
    ("server", None, None, "localhost", false, "`CN=server` is signed by `CN=ca`, which is not trusted"),
    ("server", None, Some("ca521"), "localhost", false, "signed by `CN=ca`"),
    ("server-ca", None, Some("ca"), "localhost", true, ""),
    ("server-ca", None, Some("ca521"), "localhost", false, "signed by `CN=ca`"),
    ("server521", None, Some("ca521"), "localhost", true, ""),
    ("server512", None, Some("ca"), "localhost", true, ""),
    ("expired", None, Some("ca"), "localhost", false, "`CN=expired` has expired"),
    ("version1", None, Some("ca"), "localhost", false, "`CN=version1` has no subjectAltName"),
    ("critical", None, Some("ca"), "localhost", false, "`CN=critical`"),
    // Who may not sign: a server's own certificate, and an authority for other names.
    ("below-leaf", None, Some("self-leaf"), "localhost", false, "signed by `CN=self-leaf`"),
    ("constrained", None, Some("ca-constrained"), "localhost", false, ""),
    ("constrained-ca", None, Some("ca-constrained"), "localhost", false, ""),
    // One in the middle, sent or not.
    ("below-middle", Some("middle"), Some("ca"), "localhost", true, ""),
    ("below-middle", None, Some("ca"), "localhost", false, "and the server sends no other certificate"),
    ("below-middle", None, Some("middle"), "localhost", true, ""),
];

#[test]
fn whom_gos_clients_trust() {
    let Some(made) = made() else { return };
    let dir = made.path();
    for (name, chain, trusted, host, accepted, words) in CASES {
        let chain_file = chain.map(|chain| format!("{chain}.pem"));
        let more: Vec<&str> = chain_file.iter().flat_map(|file| ["-cert_chain", file]).collect();
        let server = Server::start(dir, name, &more);
        let got = ask(trusting(dir, trusted), host, server.port);
        let case = format!("{name} with {trusted:?} as {host}");
        match &got {
            Ok(status) => assert_eq!((*status, accepted), (200, true), "{case}"),
            Err(error) => {
                assert!(!accepted, "{case}: {error:?}");
                assert_eq!(error.kind(), Some(Kind::Certificate), "{case}: {error:?}");
                let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
                assert!(cause.contains(words), "{case}: {cause}");
            }
        }
        match skopeo_accepts(dir, trusted, host, server.port) {
            Some(theirs) => assert_eq!(theirs, accepted, "skopeo: {case}"),
            None => eprintln!("SKIPPED: there is no skopeo to ask"),
        }
    }
}

/// With `--skip-tls-verify` nothing is asserted.
#[test]
fn without_verification_any_certificate_will_do() {
    let Some(made) = made() else { return };
    for name in
        ["self", "self-p521", "self-ed25519", "cn-only", "other-name", "expired", "version1", "critical", "constrained"]
    {
        for tls in ["-tls1_2", "-tls1_3"] {
            // In TLS 1.2 a key on P-521 needs a key exchange on it, which we do not have.
            if (name, tls) == ("self-p521", "-tls1_2") {
                continue;
            }
            let server = Server::start(made.path(), name, &[tls]);
            let mut settings = trusting(made.path(), None);
            settings.skip_verify_all = true;
            assert_eq!(ask(settings, "localhost", server.port).unwrap(), 200, "{name} {tls}");
        }
    }
}

/// `--registry-certificate`, `SSL_CERT_FILE`, and every file of each directory in `SSL_CERT_DIR`, whatever its name.
#[test]
fn where_certificates_are_read_from() {
    let Some(made) = made() else { return };
    let dir = made.path();
    let server = Server::start(dir, "server", &[]);
    let pool = dir.join("pool");
    std::fs::create_dir(&pool).unwrap();
    std::fs::write(pool.join("broken.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    std::fs::copy(dir.join("ca.pem"), pool.join("any name")).unwrap();
    std::fs::write(
        dir.join("bundle.pem"),
        [std::fs::read(dir.join("ca521.pem")).unwrap(), std::fs::read(dir.join("ca.pem")).unwrap()].concat(),
    )
    .unwrap();
    let with = |file: &Path, dirs: &[&Path]| {
        let mut settings = trusting(dir, None);
        let dirs = dirs.iter().map(|dir| dir.to_path_buf()).collect();
        settings.system_certificates = SystemCertificates { file: Some(file.to_owned()), dirs: Some(dirs) };
        ask(settings, "localhost", server.port)
    };
    let none = Path::new("/nonexistent");
    assert_eq!(with(&dir.join("bundle.pem"), &[]).unwrap(), 200);
    assert_eq!(with(none, &[none, &pool]).unwrap(), 200);
    let error = with(none, &[none]).unwrap_err();
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(cause.contains("`SSL_CERT_FILE` names `/nonexistent`, which cannot be read"), "{cause}");

    let mut told = trusting(dir, None);
    told.certificates = vec![("localhost".to_owned(), dir.join("bundle.pem"))];
    assert_eq!(ask(told, "localhost", server.port).unwrap(), 200);
}

/// Keys as `openssl` writes them, and certificates of version 1, which servers accept.
#[test]
fn client_certificates_of_every_kind() {
    let Some(made) = made() else { return };
    let dir = made.path();
    let keys = "set -e
        openssl genrsa -out rsa8.key 2048; openssl rsa -in rsa8.key -traditional -out rsa1.key
        openssl ecparam -genkey -name prime256v1 -out sec1.key; openssl pkcs8 -topk8 -nocrypt -in sec1.key -out ec8.key
        openssl ecparam -genkey -name secp384r1 -out ec384.key; openssl genpkey -algorithm ed25519 -out ed.key
        openssl ecparam -genkey -name secp521r1 -out ec521.key
        for key in rsa8 rsa1 sec1 ec8 ec384 ed ec521; do
          openssl req -new -key $key.key -subj /CN=client -out client.csr
          openssl x509 -req -in client.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -out $key.pem
        done
        openssl pkey -in ec8.key -aes128 -passout pass:x -out locked.key; cp ec8.pem locked.pem; cp ec8.pem wrong.pem; cp ec384.key wrong.key
        cat sec1.key >> sec1.pem";
    assert!(Command::new("bash").args(["-c", keys]).current_dir(dir).output().unwrap().status.success());
    let server = Server::start(dir, "server", &["-Verify", "1", "-verify_return_error", "-CAfile", "ca.pem"]);
    let with = |name: &str| {
        let mut settings = trusting(dir, Some("ca"));
        let file = |extension: &str| dir.join(format!("{name}.{extension}"));
        settings.client_certificates = vec![("localhost".to_owned(), file("pem"), file("key"))];
        settings
    };
    for name in ["rsa8", "rsa1", "sec1", "ec8", "ec384", "ed"] {
        assert_eq!(ask(with(name), "localhost", server.port).unwrap(), 200, "{name}");
    }
    assert!(ask(trusting(dir, Some("ca")), "localhost", server.port).is_err());
    for (name, words) in [("locked", "encrypted"), ("wrong", "not the key of the certificate"), ("ec521", "P-384")] {
        let error = zuwai_net::Net::new(with(name)).unwrap_err();
        let text = format!("{error}: {}", std::error::Error::source(&error).unwrap());
        assert!(text.contains(words) && text.contains(&format!("{name}.key")), "{text}");
    }
}
