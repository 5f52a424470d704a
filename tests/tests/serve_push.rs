//! `unfreed serve` and what is around it: whom it pushes to, who scrapes it, and how it is
//! installed. The target's source is `targets/c/paced.c`.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::tempdir;
use unfreed_tests::pprof::Profile;
use unfreed_tests::receiver::Receiver;
use unfreed_tests::service::{Service, ask};
use unfreed_tests::{Target, unfreed, unpacked, wait_until};

/// Pages that the target touches a second.
const GROWS: &str = "grow 500";
/// A configuration's begin: windows of a second, and room for all faults.
const HEAD: &str = "budget = \"500ms/s\"\nwindow = \"1s\"\n";

/// What is installed beside the binary.
fn deployed(file: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    folder.join("../tracer-user/deploy").join(file)
}

/// A program's output; it has to succeed.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {text}{error}");
    Ok(text)
}

fn watch(state: &Path, pid: u32, more: &str) -> Result<Service> {
    let path = state.join("serve.toml");
    let rule = format!("[[service]]\nname = \"shop\"\npids = [{pid}]\n");
    fs::write(&path, format!("{HEAD}{rule}{more}"))?;
    Service::start(state, &["--config", &path.display().to_string()])
}

/// A number in metrics of which the name begins so, labels included.
fn metric(service: &Service, name: &str) -> Result<Option<f64>> {
    let answer = service.ask("/metrics")?;
    ensure!(answer.status == 200, "{}", answer.text());
    let text = answer.text();
    let line = text.lines().find(|line| line.starts_with(name));
    let number = line.and_then(|line| line.rsplit(' ').next());
    Ok(number.map(str::parse).transpose()?)
}

fn wait_metric(service: &Service, name: &str, is_it: impl Fn(f64) -> bool) -> Result<f64> {
    wait_until(name, || Ok(metric(service, name)?.filter(|it| is_it(*it))))
}

/// What was in use in a window that is kept, bytes.
fn kept(service: &Service, ended: u64) -> Result<u64> {
    let path = format!("/debug/pprof/growth?service=shop&window={ended}");
    let answer = service.ask(&path)?;
    ensure!(answer.status == 200, "{}", answer.text());
    let profile = Profile::parse(&unpacked(answer.body.as_slice())?)?;
    Ok(profile.sum("inuse_space"))
}

fn of_space<'a>(via: &'a str) -> impl Fn(&Value) -> bool + 'a {
    let grows = |it: &Value| {
        it["functions"]
            .as_array()
            .is_some_and(|all| all.iter().any(|name| name == "grows"))
    };
    move |it| it["via"] == via && it["type"] == "inuse_space" && grows(it)
}

/// The push thread holds nothing.
fn holds_nothing(service: &Service) -> Result<()> {
    let threads = service.threads()?;
    let push = threads.iter().find(|(name, _)| name == "push");
    let (_, status) = push.with_context(|| format!("{threads:?}"))?;
    for set in ["CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb"] {
        let nothing = format!("{set}:\t0000000000000000");
        ensure!(status.contains(&nothing), "{status}");
    }
    ensure!(status.contains("NoNewPrivs:\t1"), "{status}");
    Ok(())
}

#[test]
fn windows_arrive_by_opentelemetry_over_tls_and_http() -> Result<()> {
    let state = tempdir()?;
    let mut target = Target::start("paced")?;
    let mut receiver = Receiver::start(state.path(), 0)?;
    fs::write(state.path().join("bearer"), "0123456789abcdef0123")?;
    let folder = state.path().display();
    let (rpc, http) = (receiver.port("rpc"), receiver.port("http"));
    let push = format!(
        "[[push]]\nto = \"otlp-grpc\"\nurl = \"https://localhost:{rpc}\"\nca_file = \"{}\"\ntoken_file = \"{folder}/bearer\"\n\
         [[push]]\nto = \"otlp-http\"\nurl = \"http://127.0.0.1:{http}\"\nheaders = {{ X-Scope-OrgID = \"us\" }}\n",
        receiver.certificate.display()
    );
    let service = watch(state.path(), target.pid, &push)?;
    holds_nothing(&service)?;
    target.tell(GROWS)?;
    for (via, header, value) in [
        ("otlp-grpc", "authorization", "Bearer 0123456789abcdef0123"),
        ("otlp-http", "x-scope-orgid", "us"),
    ] {
        let it = receiver.wait(of_space(via))?;
        ensure!(it["headers"][header] == value, "{it}");
        ensure!(it["attributes"]["service.name"] == "shop", "{it}");
        ensure!(it["attributes"]["host.name"].is_string(), "{it}");
        ensure!(it["unit"] == "bytes", "{it}");
        let ids = it["build_ids"].as_array().context("no build ids")?;
        ensure!(
            ids.iter()
                .any(|id| id.as_str().is_some_and(|id| id.len() >= 16)),
            "{it}"
        );
        let ended = it["ended"].as_u64().context("no end")?;
        ensure!(it["sum"] == kept(&service, ended)?, "{it}");
    }
    wait_metric(
        &service,
        "unfreed_pushed_total{destination=\"otlp-grpc",
        |it| it >= 1.0,
    )?;
    service.stop()
}

#[test]
fn windows_arrive_at_pyroscope_as_pprof() -> Result<()> {
    let state = tempdir()?;
    let mut target = Target::start("paced")?;
    let mut receiver = Receiver::start(state.path(), 0)?;
    let http = receiver.port("http");
    let push = format!("[[push]]\nto = \"pyroscope\"\nurl = \"http://127.0.0.1:{http}/\"\n");
    let service = watch(state.path(), target.pid, &push)?;
    target.tell(GROWS)?;
    let mut found = Profile::default();
    let it = receiver.wait(|it| it["via"] == "pyroscope");
    let mut it = it?;
    while found.sum("inuse_space") < 1 << 20 {
        it = receiver.wait(|it| it["via"] == "pyroscope")?;
        let hex = it["profile"].as_str().context("no profile")?;
        let bytes: Result<Vec<u8>, _> = (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16))
            .collect();
        found = Profile::parse(&unpacked(bytes?.as_slice())?)?;
    }
    ensure!(
        found.sample_types == ["inuse_objects", "inuse_space"],
        "{found:?}"
    );
    ensure!(
        found.strings.iter().any(|name| name == "grows"),
        "{found:?}"
    );
    let labels = &it["labels"];
    ensure!(
        labels["service_name"] == "shop" && labels["__name__"] == "memory",
        "{labels}"
    );
    ensure!(it["id"].as_str().is_some_and(|id| id.len() == 36), "{it}");
    service.stop()
}

/// The list that holds what leaks.
const REGISTRY: &str = "registry (paced)";

/// Whether a finding of what leaks says who holds it.
fn is_held(finding: &Value) -> bool {
    let path = finding["path"].as_array().into_iter().flatten();
    let said = finding["evidence"].as_array().into_iter().flatten();
    let first = &finding["holders"]["chains"][0]["links"][0];
    path.into_iter().any(|name| name == "leak")
        && said.into_iter().any(|it| {
            it.as_str()
                .is_some_and(|it| it.starts_with("held by registry"))
        })
        && first["kind"] == "global"
        && first["name"] == REGISTRY
}

/// When a closer look is sure of a leak, the process's memory is searched for who holds it: once,
/// while tracing goes on, and all are told.
#[test]
fn who_holds_a_leak_is_told() -> Result<()> {
    let state = tempdir()?;
    let mut target = Target::start("paced")?;
    let mut receiver = Receiver::start(state.path(), 0)?;
    let http = receiver.port("http");
    let config = state.path().join("serve.toml");
    fs::write(
        &config,
        format!(
            "budget = \"600ms/s\"\nwindow = \"1s\"\nlook = \"5m\"\n\
             [[service]]\nname = \"shop\"\npids = [{}]\nbudget = \"300ms/s\"\n\
             [[alert]]\nurl = \"http://127.0.0.1:{http}/hook\"\nconfidence = 0.6\n",
            target.pid
        ),
    )?;
    let mut service = Service::start(state.path(), &["--config", &config.display().to_string()])?;
    target.tell("leaks 2")?;
    target.tell("load 300")?;
    target.tell(GROWS)?;
    service.hear("looking closer at shop")?;
    service.hear("who holds what leaks at shop was searched for")?;
    let alert = receiver.wait(|it| {
        let body = &it["body"];
        it["via"] == "alert" && body["reason"] == "held" && is_held(&body["finding"])
    });
    let it = match alert {
        Ok(it) => it,
        Err(error) => {
            let looked = service.ask("/api/services/shop/look")?.json()?;
            return Err(error.context(looked.to_string()));
        }
    };
    let body = &it["body"];
    ensure!(
        body["service"] == "shop" && body["pid"] == target.pid,
        "{body}"
    );
    let is_found = |looked: &Value| {
        let findings = looked["found"]["findings"].as_array();
        findings.is_some_and(|all| all.iter().any(is_held))
    };
    let looked = service.wait_for("/api/services/shop/look", is_found)?;
    let took = looked["look"]["cost"]["search_seconds"].as_f64();
    ensure!(took > Some(0.0), "{looked}");
    // What it took is known with the metrics, too, and no window was lost.
    let cost = "unfreed_look_search_seconds{service=\"shop\"}";
    ensure!(metric(&service, cost)? == took, "{took:?}");
    let tracer = &service.ask("/api/services")?.json()?["tracer"];
    ensure!(tracer["windows_lost"] == 0, "{tracer}");
    let url = format!("http://{}", service.address());
    let token = state.path().join("token").display().to_string();
    let report = state.path().join("look.json").display().to_string();
    let attach = ["attach", "--service", "shop", "--look", "--url", &url];
    let out = ["--token-file", &token, "-o", &report];
    let attached = unfreed(&[&attach[..], &out[..]].concat())?;
    ensure!(attached.status.success(), "{}", attached.stderr);
    let report: Value = serde_json::from_slice(&fs::read(&report)?)?;
    let findings = report["findings"].as_array().into_iter().flatten();
    let mut first = findings.map(|it| &it["holders"]["chains"][0]["links"][0]);
    ensure!(
        first.any(|it| it["name"] == REGISTRY),
        "{}",
        report["findings"]
    );
    ensure!(report["searched"]["at"].is_f64(), "{}", report["searched"]);
    service.stop()
}

#[test]
fn a_finding_is_told_once() -> Result<()> {
    let state = tempdir()?;
    let mut target = Target::start("paced")?;
    let mut receiver = Receiver::start(state.path(), 0)?;
    let https = receiver.port("https");
    let alert = format!(
        "[[alert]]\nurl = \"https://localhost:{https}/hook\"\nca_file = \"{}\"\nconfidence = 0.5\n",
        receiver.certificate.display()
    );
    let service = watch(state.path(), target.pid, &alert)?;
    target.tell(GROWS)?;
    let it = receiver.wait(|it| {
        it["via"] == "alert" && it["body"]["finding"]["path"].to_string().contains("grows")
    })?;
    let body = &it["body"];
    ensure!(it["path"] == "/hook", "{it}");
    ensure!(it["headers"]["content-type"] == "application/json", "{it}");
    ensure!(body["version"] == 1 && body["service"] == "shop", "{body}");
    ensure!(
        body["pid"] == target.pid && body["reason"] == "found",
        "{body}"
    );
    ensure!(
        body["finding"]["confidence"].as_f64() >= Some(0.5),
        "{body}"
    );
    // Five windows later nothing was said of it again.
    let ended = |service: &Service| {
        Ok::<_, anyhow::Error>(
            service.ask("/api/services")?.json()?["ended"]
                .as_u64()
                .unwrap_or(0),
        )
    };
    let sent = wait_metric(&service, "unfreed_pushed_total{", |it| it >= 1.0)?;
    let then = ended(&service)?;
    wait_until("five windows", || {
        Ok((ended(&service)? >= then + 5000).then_some(()))
    })?;
    let again = metric(&service, "unfreed_pushed_total{")?;
    ensure!(again == Some(sent), "{sent} and {again:?}");
    service.stop()
}

#[test]
fn what_cannot_be_sent_waits_on_disk_within_bounds() -> Result<()> {
    let state = tempdir()?;
    let mut target = Target::start("paced")?;
    // A port at which nobody listens.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let push =
        format!("[[push]]\nto = \"otlp-http\"\nurl = \"http://127.0.0.1:{port}\"\nqueue = 3\n");
    let service = watch(state.path(), target.pid, &push)?;
    target.tell(GROWS)?;
    let full = "unfreed_push_dropped_total{destination=\"otlp-http http://127.0.0.1";
    wait_until("a full queue", || {
        let text = service.ask("/metrics")?.text();
        let is_full = |line: &str| {
            line.starts_with(full) && line.contains("\"full\"") && !line.ends_with(" 0")
        };
        Ok(text.lines().any(is_full).then_some(()))
    })?;
    ensure!(
        metric(&service, "unfreed_push_waiting{")? == Some(3.0),
        "three wait"
    );
    ensure!(
        metric(&service, "unfreed_push_failures_total{")? >= Some(1.0),
        "attempts failed"
    );
    let last = service.ask("/api/services")?.json()?["ended"]
        .as_u64()
        .context("no end")?;
    service.kill()?;
    // What was kept before the kill arrives after it.
    let mut receiver = Receiver::start(state.path(), port)?;
    let service = watch(state.path(), target.pid, &push)?;
    let first = receiver.wait(|it| it["via"] == "otlp-http" && it["type"] == "inuse_space")?;
    let ended = first["ended"].as_u64().context("no end")?;
    ensure!(
        ended <= last && ended > last - 4000,
        "{ended} and {last}: {first}"
    );
    ensure!(first["sum"] == kept(&service, ended)?, "{first}");
    service.stop()
}

#[test]
fn a_slow_a_busy_and_a_lying_endpoint_do_no_harm() -> Result<()> {
    let state = tempdir()?;
    let mut target = Target::start("paced")?;
    let mut receiver = Receiver::start(state.path(), 0)?;
    let http = receiver.port("http");
    let push = format!(
        "[[push]]\nto = \"otlp-http\"\nurl = \"http://127.0.0.1:{http}\"\ntimeout = \"500ms\"\n"
    );
    receiver.behave("slow")?;
    let mut service = watch(state.path(), target.pid, &push)?;
    target.tell(GROWS)?;
    receiver.wait(|it| it["via"] == "slow")?;
    service.hear("no answer within 500ms")?;
    receiver.behave("lie")?;
    receiver.wait(|it| it["via"] == "lie")?;
    receiver.behave("busy")?;
    receiver.wait(|it| it["via"] == "busy")?;
    let failures = wait_metric(&service, "unfreed_push_failures_total{", |it| it >= 3.0)?;
    ensure!(
        metric(&service, "unfreed_pushed_total{")? == Some(0.0),
        "nothing arrived"
    );
    // It is watched and answered on meanwhile.
    service.wait_service("shop", |it| it["live_bytes"].as_i64() > Some(4 << 20))?;
    receiver.behave("reject")?;
    receiver.wait(|it| it["via"] == "reject")?;
    service.hear("not today")?;
    receiver.behave("ok")?;
    let it = receiver.wait(of_space("otlp-http"))?;
    let ended = it["ended"].as_u64().context("no end")?;
    ensure!(it["sum"] == kept(&service, ended)?, "{it}");
    wait_metric(&service, "unfreed_pushed_total{", |it| it >= 1.0)?;
    ensure!(
        metric(&service, "unfreed_push_failures_total{")? >= Some(failures),
        "they are counted"
    );
    service.stop()
}

#[test]
fn a_certificate_that_nobody_vouches_for_gets_nothing() -> Result<()> {
    let state = tempdir()?;
    let target = Target::start("paced")?;
    let receiver = Receiver::start(state.path(), 0)?;
    let rpc = receiver.port("rpc");
    let push = format!("[[push]]\nto = \"otlp-grpc\"\nurl = \"https://localhost:{rpc}\"\n");
    let mut service = watch(state.path(), target.pid, &push)?;
    let said = service.hear("is tried again")?;
    ensure!(said.contains("certificate"), "{said}");
    ensure!(
        metric(&service, "unfreed_pushed_total{")? == Some(0.0),
        "{said}"
    );
    service.stop()
}

#[test]
fn a_configuration_says_whom_it_pushes_to() -> Result<()> {
    let folder = tempdir()?;
    let path = folder.path().join("serve.toml");
    let check = |text: &str| {
        fs::write(&path, text)?;
        unfreed(&["serve", "--check", "--config", &path.display().to_string()])
    };
    let rule = "[[service]]\npod = \"web-*\"\n";
    let said = check(&format!(
        "{rule}[[push]]\nto = \"otlp-grpc\"\nurl = \"http://collector:4317\"\n[[alert]]\nurl = \"http://a/b\"\n"
    ))?;
    ensure!(
        said.stdout
            .contains("pushes windows to otlp-grpc http://collector:4317"),
        "{}",
        said.stdout
    );
    ensure!(
        said.stdout.contains("90 % sure to http://a/b"),
        "{}",
        said.stdout
    );
    check(&format!(
        "{rule}[[push]]\nto = \"pigeon\"\nurl = \"http://a\"\n"
    ))?
    .fails_saying(&["line", "pigeon"])?;
    let missing = format!(
        "{rule}[[push]]\nto = \"otlp-grpc\"\nurl = \"https://a\"\nca_file = \"/nowhere\"\n"
    );
    check(&missing)?.fails_saying(&["/nowhere"])?;
    // The file that is installed is right.
    let installed = deployed("unfreed.toml").display().to_string();
    let said = unfreed(&["serve", "--check", "--config", &installed])?;
    ensure!(
        said.stdout.contains("whatever grows by 64"),
        "{}",
        said.stdout
    );
    Ok(())
}

/// A real Prometheus. It is killed with this value.
struct Prometheus {
    child: Child,
    address: String,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ended_before = self.child.kill();
        let _reaped_before = self.child.wait();
    }
}

impl Prometheus {
    /// Starts it in a folder with the configuration and the rules that we hand out, but for
    /// where the service is, and how often it is asked.
    fn start(folder: &Path, service: &Service) -> Result<Self> {
        for file in ["prometheus.yml", "unfreed.rules.yml"] {
            let text = fs::read_to_string(deployed("prometheus").join(file))?;
            let text = text.replace("127.0.0.1:7411", service.address());
            fs::write(
                folder.join(file),
                text.replace("scrape_interval: 60s", "scrape_interval: 1s"),
            )?;
        }
        fs::copy(folder.join("token"), folder.join("unfreed.token"))?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        let child = Command::new("prometheus")
            .arg(format!("--web.listen-address={address}"))
            .arg("--config.file=prometheus.yml")
            .arg("--storage.tsdb.path=data")
            .current_dir(folder)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("no prometheus: run `cargo xtask setup test`")?;
        Ok(Self { child, address })
    }

    /// The first number that a query gives.
    fn query(&self, query: &str) -> Option<f64> {
        let answer = ask(&self.address, &format!("/api/v1/query?query={query}"), None).ok()?;
        let value = answer.json().ok()?;
        value["data"]["result"][0]["value"][1]
            .as_str()?
            .parse()
            .ok()
    }
}

#[test]
fn prometheus_has_the_numbers_of_metrics() -> Result<()> {
    let state = tempdir()?;
    let mut target = Target::start("paced")?;
    let service = watch(state.path(), target.pid, "")?;
    target.tell(GROWS)?;
    service.wait_service("shop", |it| it["live_bytes"].as_i64() > Some(1 << 20))?;
    target.tell("grow 0")?;
    let prometheus = Prometheus::start(state.path(), &service)?;
    let (ours, theirs) = wait_until("the same number", || {
        let query = "unfreed_service_live_bytes{service=\"shop\"}";
        let ours = metric(&service, query)?;
        let theirs = prometheus.query("unfreed_service_live_bytes%7Bservice%3D%22shop%22%7D");
        Ok(ours.zip(theirs).filter(|(ours, theirs)| ours == theirs))
    })?;
    ensure!(ours > 1e6, "{ours} and {theirs}");
    ensure!(
        prometheus.query("up%7Bjob%3D%22unfreed%22%7D") == Some(1.0),
        "it is up"
    );
    // A recording rule has been evaluated.
    wait_until("the recorded sum", || {
        let recorded = prometheus.query("instance_service%3Aunfreed_resident_bytes%3Asum");
        Ok(recorded.filter(|bytes| *bytes > 1e6))
    })?;
    service.stop()
}

#[test]
fn rules_and_the_manifest_are_what_their_readers_take() -> Result<()> {
    let folder = deployed("prometheus");
    let rules = output(
        Command::new("promtool")
            .args(["check", "rules", "unfreed.rules.yml"])
            .current_dir(&folder),
    )?;
    ensure!(rules.contains("10 rules found"), "{rules}");
    output(
        Command::new("promtool")
            .args(["test", "rules", "unfreed.rules.test.yml"])
            .current_dir(&folder),
    )?;
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let schemas = "../target/python/kubernetes-validate/kubernetes_validate/kubernetes-json-schema/v1.37.0-local-strict";
    let kinds = output(
        Command::new("/usr/bin/python3")
            .args(["-W", "ignore"])
            .arg(tests.join("src/manifest.py"))
            .arg(deployed("kubernetes/unfreed.yaml"))
            .arg(tests.join(schemas)),
    )?;
    ensure!(
        kinds.contains("DaemonSet") && kinds.contains("ConfigMap"),
        "{kinds}"
    );
    Ok(())
}

#[test]
fn the_unit_is_right_and_little_exposed() -> Result<()> {
    let folder = tempdir()?;
    let unit = folder.path().join("unfreed.service");
    let binary = std::env::var("UNFREED_BIN").context("UNFREED_BIN is not set")?;
    let text = fs::read_to_string(deployed("systemd/unfreed.service"))?;
    // Neither is installed here.
    let text = text.replace("/usr/bin/unfreed", &binary);
    fs::write(
        &unit,
        text.replace("Documentation=man:unfreed-serve(1)\n", ""),
    )?;
    let verify = Command::new("systemd-analyze")
        .arg("verify")
        .arg(&unit)
        .output()?;
    let said = String::from_utf8_lossy(&verify.stderr).into_owned();
    ensure!(
        verify.status.success() && !said.contains("unfreed.service"),
        "{said}"
    );
    // Below 3.
    output(
        Command::new("systemd-analyze")
            .args(["security", "--offline=yes", "--threshold=29"])
            .arg(&unit),
    )?;
    Ok(())
}

/// The target's program lies where the service cannot see it but through the process.
#[test]
fn the_service_works_under_the_units_restrictions() -> Result<()> {
    let folder = tempdir()?;
    let (state, script) = (
        folder.path().join("state"),
        folder.path().join("confined.py"),
    );
    fs::create_dir(&state)?;
    fs::write(&script, include_str!("../src/confined.py"))?;
    let mut target = Target::start("paced")?;
    let pid = target.pid.to_string();
    let service = Service::start_by(
        Command::new("/usr/bin/python3")
            .arg(&script)
            .arg(deployed("systemd/unfreed.service"))
            .arg(&state),
        Path::new("/tmp/state"),
        &state,
        &["-p", &pid, "--window", "1s", "--overhead", "500ms/s"],
    )?;
    target.tell(GROWS)?;
    service.wait_for("/api/services/paced/findings", |all| {
        let title = |it: &Value| {
            it["title"]
                .as_str()
                .is_some_and(|title| title.starts_with("grows "))
        };
        all.as_array().is_some_and(|all| all.iter().any(title))
    })?;
    let threads = service.threads()?;
    for (_, status) in &threads {
        ensure!(status.contains("Seccomp:\t2"), "{status}");
    }
    service.stop()
}
