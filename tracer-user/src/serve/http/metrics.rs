//! Metrics (OpenMetrics): of each service, and of the tracer.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::{Refusal, Shared};
use crate::model::Finding;
use crate::serve::look::{Cost, Looked};
use crate::serve::status::{Host, Summary, Tracer};
use crate::serve::store::Store;

/// What the text is.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(&'static str, String)>;
type Gauges = Family<Labels, Gauge<i64, AtomicI64>>;
type Seconds = Family<Labels, Gauge<f64, AtomicU64>>;

/// Metrics of each service, and of the tracer.
#[utoipa::path(get, path = "/metrics", responses(
    (status = 200, description = "OpenMetrics", content_type = "application/openmetrics-text")))]
pub async fn metrics(State(answers): Shared) -> Result<Response, Refusal> {
    let host = answers.status.now();
    let text = text_of(&host, &answers.store)?;
    Ok(([(CONTENT_TYPE, OPEN_METRICS)], text).into_response())
}

fn text_of(host: &Host, store: &Store) -> anyhow::Result<String> {
    let mut registry = Registry::with_prefix("unfreed");
    let summaries: Vec<_> = host.services.iter().map(|it| &it.summary).collect();
    of_services(&mut registry, &summaries);
    of_findings(&mut registry, host);
    of_looks(&mut registry, host);
    of_tracer(&mut registry, &host.tracer);
    of_destinations(&mut registry, store)?;
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// A label's value as the text has it: the library writes it as it is, and a process chooses
/// its name.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// What a finding says, as a label's value.
fn verdict(finding: &Finding) -> String {
    finding.kind.text().to_lowercase().replace([' ', '-'], "_")
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn of_services(registry: &mut Registry, services: &[&Summary]) {
    let mut add = |name, help, unit: Option<Unit>, value: &dyn Fn(&Summary) -> i64| {
        let family = Gauges::default();
        for service in services {
            let labels = vec![("service", escaped(&service.name))];
            family.get_or_create(&labels).set(value(service));
        }
        match unit {
            Some(unit) => registry.register_with_unit(name, help, unit, family),
            None => registry.register(name, help, family),
        }
    };
    let bytes = || Some(Unit::Bytes);
    add(
        "service_processes",
        "Processes of the service that run",
        None,
        &|it| whole(it.series.iter().filter(|it| it.ended.is_none()).count() as u64),
    );
    add(
        "service_resident",
        "What the service has in memory",
        bytes(),
        &|it| whole(it.resident_bytes),
    );
    add(
        "service_growth",
        "By how much that has grown since its processes are watched",
        bytes(),
        &|it| it.growth_bytes,
    );
    add(
        "service_live",
        "Memory that was first touched since then on known call paths, and is there",
        bytes(),
        &|it| whole(it.live_bytes),
    );
    add(
        "service_not_followed",
        "Memory that came in since then while page faults were not followed, to keep the budget: of no known call path",
        bytes(),
        &|it| whole(it.not_followed_bytes),
    );
    add(
        "service_untold",
        "Memory that came in since then without a page fault that was told of: of no known call path",
        bytes(),
        &|it| whole(it.untold_bytes),
    );
    add(
        "service_new",
        "By how much what is live on known call paths has grown in the last window",
        bytes(),
        &|it| it.new_bytes,
    );
}

fn of_findings(registry: &mut Registry, host: &Host) {
    let family = Gauges::default();
    for service in &host.services {
        for finding in &service.findings {
            let labels = vec![
                ("service", escaped(&service.summary.name)),
                ("verdict", verdict(finding)),
            ];
            family.get_or_create(&labels).inc();
        }
    }
    let help = "Findings of the service since its processes are watched";
    registry.register("service_findings", help, family);
}

/// Closer looks: of each service the last one.
fn of_looks(registry: &mut Registry, host: &Host) {
    let (goes_on, findings) = (Gauges::default(), Gauges::default());
    let (left_out, losses) = (Gauges::default(), Gauges::default());
    let age = Seconds::default();
    for looked in host.looks.values() {
        let labels = vec![service(looked)];
        let look = &looked.look;
        let is_on = i64::from(look.ended.is_none());
        goes_on.get_or_create(&labels).set(is_on);
        left_out.get_or_create(&labels).set(whole(look.left_out));
        for loss in &look.losses {
            let labels = vec![service(looked), ("cause", loss.cause.clone())];
            losses.get_or_create(&labels).set(whole(loss.count));
        }
        let Some(seen) = &looked.seen else {
            continue;
        };
        age.get_or_create(&labels).set(seen.age().as_secs_f64());
        for finding in &seen.findings {
            let labels = vec![service(looked), ("verdict", verdict(finding))];
            findings.get_or_create(&labels).inc();
        }
    }
    registry.register("look", "1 while the service is looked at closer", goes_on);
    registry.register(
        "look_left_out_processes",
        "Processes of the service that the last closer look does not see",
        left_out,
    );
    registry.register(
        "look_lost_events",
        "What the last closer look has lost, by cause",
        losses,
    );
    registry.register_with_unit(
        "look_age",
        "How old that is which the last closer look has seen",
        Unit::Seconds,
        age,
    );
    registry.register(
        "look_findings",
        "What the last closer look has found",
        findings,
    );
    costs_of_looks(registry, host);
}

fn service(looked: &Looked) -> (&'static str, String) {
    ("service", escaped(&looked.look.service))
}

fn costs_of_looks(registry: &mut Registry, host: &Host) {
    let mut add = |name, help, seconds: &dyn Fn(&Cost) -> f64| {
        let family = Seconds::default();
        for looked in host.looks.values() {
            let labels = vec![service(looked)];
            let cost = seconds(&looked.look.cost);
            family.get_or_create(&labels).set(cost);
        }
        registry.register_with_unit(name, help, Unit::Seconds, family);
    };
    add(
        "look_cost",
        "What the last closer look took, of its processes' time (an estimate) and the tracer's, without its start",
        &|cost| cost.tracer_seconds + cost.target_seconds,
    );
    add(
        "look_budget",
        "What the last closer look was allowed to take",
        &|cost| cost.allowed_seconds,
    );
    add(
        "look_search",
        "What searching for who holds what leaks took of the tracer's time in the last closer look",
        &|cost| cost.search_seconds,
    );
}

fn of_tracer(registry: &mut Registry, tracer: &Tracer) {
    for (name, help, value) in [
        (
            "windows_kept",
            "Windows that were kept",
            tracer.windows_kept,
        ),
        (
            "windows_lost",
            "Windows that could not be kept",
            tracer.windows_lost,
        ),
        (
            "windows_postponed",
            "Windows that were longer than asked, since the one before was not kept yet",
            tracer.windows_postponed,
        ),
        ("looks", "Closer looks that were begun", tracer.looks),
        (
            "reloads",
            "Times that a configuration was read again",
            tracer.reloads,
        ),
        (
            "refused_reloads",
            "Configurations that were refused",
            tracer.refused_reloads,
        ),
        (
            "faults_followed",
            "Page faults that were followed",
            tracer.faults_followed,
        ),
        (
            "faults_not_followed",
            "Page faults that were not, to keep the budget",
            tracer.faults_not_followed,
        ),
    ] {
        let counter: Counter = Counter::default();
        counter.inc_by(value);
        registry.register(name, help, counter);
    }
    for (name, help, value) in [
        ("tracer_cpu", "Processor time of the tracer", tracer.seconds),
        (
            "overhead",
            "What tracing took of the services' processor time: an estimate",
            tracer.target_seconds,
        ),
        (
            "budget",
            "What both together were allowed to take",
            tracer.allowed_seconds,
        ),
    ] {
        let counter = Counter::<f64, AtomicU64>::default();
        counter.inc_by(value.max(0.0));
        registry.register_with_unit(name, help, Unit::Seconds, counter);
    }
    for (name, help, value) in [
        (
            "watched_processes",
            "Processes that are watched",
            tracer.watched,
        ),
        (
            "left_out_processes",
            "Processes of services that there is no room for",
            tracer.left_out,
        ),
    ] {
        let gauge: Gauge = Gauge::default();
        gauge.set(whole(value));
        registry.register(name, help, gauge);
    }
    let kernel: Gauge = Gauge::default();
    kernel.set(whole(tracer.kernel_bytes));
    registry.register_with_unit("kernel", "Memory of the kernel's maps", Unit::Bytes, kernel);
    let losses = Family::<Labels, Counter>::default();
    for loss in &tracer.losses {
        let labels = vec![("cause", loss.cause.clone())];
        losses.get_or_create(&labels).inc_by(loss.count);
    }
    registry.register("lost_events", "What was lost, by cause", losses);
}

/// What becomes of what goes to others.
fn of_destinations(registry: &mut Registry, store: &Store) -> anyhow::Result<()> {
    type Counters = Family<Labels, Counter>;
    let (sent, failed, dropped) = (
        Counters::default(),
        Counters::default(),
        Counters::default(),
    );
    let waiting = Gauges::default();
    for queue in store.queues().iter() {
        let label = ("destination", escaped(&queue.name));
        let labels = vec![label.clone()];
        let counts = &queue.counts;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        sent.get_or_create(&labels).inc_by(read(&counts.sent));
        failed.get_or_create(&labels).inc_by(read(&counts.failed));
        for (cause, counter) in [
            ("full", &counts.full),
            ("expired", &counts.expired),
            ("refused", &counts.refused),
        ] {
            let labels = vec![label.clone(), ("cause", cause.to_owned())];
            dropped.get_or_create(&labels).inc_by(read(counter));
        }
        let waits = whole(store.waiting(queue)?);
        waiting.get_or_create(&labels).set(waits);
    }
    registry.register("pushed", "Windows and alerts that arrived", sent);
    registry.register("push_failures", "Attempts that failed", failed);
    let help = "Windows and alerts that will not arrive: there were too many (full), the window was not kept any more (expired), or the destination will not have it (refused)";
    registry.register("push_dropped", help, dropped);
    registry.register("push_waiting", "Windows and alerts that wait", waiting);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::report::sample;
    use crate::serve::status::{Lost, Service};
    use crate::serve::store::outbox::Queue;

    #[test]
    fn names_of_services_cannot_break_the_text() {
        let name = "a\"} 1\n# EOF\n\\".to_owned();
        let service = Service::of(name, &sample::report(), 1000, 2000).unwrap();
        let host = Host {
            ended: 2000,
            services: vec![Arc::new(service)],
            looks: BTreeMap::new(),
            tracer: Tracer {
                losses: vec![Lost {
                    cause: "sites_full".to_owned(),
                    count: 3,
                }],
                ..Tracer::default()
            },
        };
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path(), 0).unwrap();
        let name = "pyroscope http://a/\"".to_owned();
        store
            .set_queues(vec![Queue::after(&[], name, 1, true)])
            .unwrap();
        let text = text_of(&host, &store).unwrap();
        assert!(text.ends_with("# EOF\n"));
        assert_eq!(text.lines().filter(|line| *line == "# EOF").count(), 1);
        assert!(
            text.contains("unfreed_service_resident_bytes{service=\"a\\\"} 1\\n# EOF\\n\\\\\"}"),
            "{text}"
        );
        assert!(text.contains(
            "unfreed_push_dropped_total{destination=\"pyroscope http://a/\\\"\",cause=\"full\"} 0"
        ));
        assert!(text.contains("unfreed_lost_events_total{cause=\"sites_full\"} 3"));
    }
}
