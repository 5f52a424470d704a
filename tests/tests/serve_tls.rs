//! `unfreed serve` beyond loopback: with TLS, and not without. The target's source is
//! `targets/c/paced.c`.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::{TempDir, tempdir};
use unfreed_tests::receiver::make_certificate;
use unfreed_tests::service::Service;
use unfreed_tests::{Finished, Target, unfreed, wait_until};

/// Connections that `serve` answers at once.
const PLACES: usize = 64;
/// Who says nothing loses its place after 5 s; other connections have 60 s.
const SOON: Duration = Duration::from_secs(40);

/// Asks with the TLS of others (OpenSSL's), and prints the answer.
const ASK: &str = "\
import ssl, sys, urllib.request
url, ca, token = sys.argv[1:]
request = urllib.request.Request(url, headers={'Authorization': 'Bearer ' + token})
context = ssl.create_default_context(cafile=ca)
print(urllib.request.urlopen(request, context=context, timeout=60).read().decode())
";

/// A service that has a certificate, at all addresses of the host.
struct Encrypted {
    service: Service,
    _target: Target,
    folder: TempDir,
}

impl Encrypted {
    fn start() -> Result<Self> {
        let target = Target::start("paced")?;
        let folder = tempdir()?;
        let path = |name: &str| folder.path().join(name);
        make_certificate(&path("certificate.pem"), &path("key.pem"))?;
        let config = format!(
            "window = \"1s\"\ntls_cert = \"{}\"\ntls_key = \"{}\"\n[[service]]\nname = \"shop\"\npids = [{}]\n",
            path("certificate.pem").display(),
            path("key.pem").display(),
            target.pid
        );
        fs::write(path("serve.toml"), config)?;
        let config = path("serve.toml").display().to_string();
        let service = Service::start_at("0.0.0.0:0", folder.path(), &["--config", &config])?;
        Ok(Self {
            service,
            _target: target,
            folder,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn port(&self) -> Result<&str> {
        let port = self.service.address().rsplit(':').next();
        port.context("no port")
    }

    fn token(&self) -> Result<String> {
        Ok(fs::read_to_string(self.path("token"))?.trim().to_owned())
    }

    /// What is answered to a client of other people's code.
    fn ask(&self, certificate: &Path, path: &str) -> Result<Output> {
        let url = format!("https://localhost:{}{path}", self.port()?);
        let mut python = Command::new("/usr/bin/python3");
        python.args(["-c", ASK, &url]).arg(certificate);
        Ok(python.arg(self.token()?).output()?)
    }

    /// What `attach` makes of it, as somebody who believes this certificate.
    fn attach(&self, certificate: &Path) -> Result<Finished> {
        let url = format!("https://127.0.0.1:{}", self.port()?);
        let (token, ca) = (self.path("token"), certificate.display().to_string());
        let token = token.display().to_string();
        unfreed(&[
            "attach",
            "--service",
            "shop",
            "--url",
            &url,
            "--token-file",
            &token,
            "--tls-ca",
            &ca,
        ])
    }

    /// Waits until others' code is told of the service.
    fn service_has_ended_a_window(&self, certificate: &Path) -> Result<()> {
        wait_until("the service", || {
            let answered = self.ask(certificate, "/api/services")?;
            ensure!(answered.status.success(), "{answered:?}");
            let text = String::from_utf8_lossy(&answered.stdout).into_owned();
            Ok(text.contains("\"shop\"").then_some(()))
        })
    }

    fn reload(&mut self, part: &str) -> Result<()> {
        self.service.signal(libc::SIGHUP)?;
        self.service.hear(part).map(|_| ())
    }
}

#[test]
fn nobody_listens_beyond_loopback_without_tls() -> Result<()> {
    let refused = unfreed(&["serve", "--check", "-p", "1", "--listen", "0.0.0.0:0"])?;
    refused.fails_saying(&["not a loopback address", "--tls-cert"])?;
    let half = unfreed(&["serve", "--check", "-p", "1", "--tls-cert", "/a"])?;
    half.fails_saying(&["--tls-key"])?;
    let folder = tempdir()?;
    let [certificate, key, other] =
        ["a.pem", "a.key", "b.key"].map(|name| folder.path().join(name).display().to_string());
    make_certificate(Path::new(&certificate), Path::new(&key))?;
    make_certificate(&folder.path().join("b.pem"), Path::new(&other))?;
    for (key, part) in [
        (&other, "is not one for the first certificate"),
        (&certificate, "cannot read a private key"),
    ] {
        let wrong = unfreed(&[
            "serve",
            "--check",
            "-p",
            "1",
            "--tls-cert",
            &certificate,
            "--tls-key",
            key,
        ])?;
        wrong.fails_saying(&[part])?;
    }
    Ok(())
}

#[test]
fn who_asks_from_elsewhere_asks_with_tls() -> Result<()> {
    let mut encrypted = Encrypted::start()?;
    let certificate = encrypted.path("certificate.pem");
    encrypted.service_has_ended_a_window(&certificate)?;
    // Nothing is said without TLS.
    let plain = encrypted.service.ask("/healthz");
    ensure!(plain.is_err(), "{plain:?}");
    let attached = encrypted.attach(&certificate)?;
    ensure!(attached.status.success(), "{}", attached.stderr);
    ensure!(attached.stdout.contains("paced"), "{}", attached.stdout);
    // Another certificate, as it is renewed: it is read again, and is the only one that is told.
    let (old, new) = (encrypted.path("old.pem"), encrypted.path("certificate.pem"));
    fs::copy(&new, &old)?;
    make_certificate(&new, &encrypted.path("key.pem"))?;
    encrypted.reload("the configuration was read again")?;
    let doubted = encrypted.attach(&old)?;
    doubted.fails_saying(&["there is no TLS with https://127.0.0.1:", "--tls-ca"])?;
    let believed = encrypted.attach(&new)?;
    ensure!(believed.status.success(), "{}", believed.stderr);
    // One that is none is refused, and the last one stays.
    fs::copy(&new, &old)?;
    fs::write(&new, "no certificate")?;
    encrypted.reload("the configuration is refused")?;
    let answered = encrypted.ask(&old, "/healthz")?;
    ensure!(answered.status.success(), "{answered:?}");
    encrypted.service.stop()
}

#[test]
fn who_says_nothing_keeps_nobody_out() -> Result<()> {
    let encrypted = Encrypted::start()?;
    let address = format!("127.0.0.1:{}", encrypted.port()?);
    let silent: Result<Vec<TcpStream>, _> =
        (0..PLACES).map(|_| TcpStream::connect(&address)).collect();
    let silent = silent?;
    let begin = Instant::now();
    let answered = encrypted.ask(&encrypted.path("certificate.pem"), "/healthz")?;
    ensure!(answered.status.success(), "{answered:?}");
    ensure!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    drop(silent);
    encrypted.service.stop()
}
