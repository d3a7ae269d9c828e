//! An agent's state as metrics. Names are kube-proxy's where it has them.

use super::page::{Page, Sort};
use super::{Measures, process};
use crate::agent::advice::{self, Advice};
use crate::agent::status::{Dns, Engine, Sources, Status};

/// Tables without a limit of ours count as large as the kernel can number.
const NO_LIMIT: u64 = u32::MAX as u64;

/// Upper end in microseconds, answers of the node, of upstream servers.
type Bucket = (u32, u64, u64);

pub(super) fn write(sources: &Sources) -> String {
    let mut page = Page::default();
    let status = sources.status(None, None);
    node(&mut page, &status);
    programming(&mut page, sources.measures(), sources.updated_seconds());
    engine(&mut page, &status.datapath);
    dns(&mut page, &status.dns);
    process::write(&mut page);
    page.text()
}

fn node(page: &mut Page, status: &Status) {
    page.family(
        "ripstop_build_info",
        Sort::Gauge,
        "Version and engine of this agent.",
    )
    .sample(
        &[
            ("version", &status.version),
            ("engine", &status.datapath.mode),
        ],
        1,
    );
    page.gauge(
        "ripstop_uptime_seconds",
        "Seconds since this agent has started.",
        status.uptime_seconds,
    );
    page.gauge(
        "ripstop_api_up",
        "Whether the API server can be followed.",
        u8::from(status.api == "up"),
    );
    let mut failing = page.family(
        "ripstop_api_watch_failing",
        Sort::Gauge,
        "Kinds of objects that cannot be followed.",
    );
    for kind in status.api_errors.keys() {
        failing.sample(&[("kind", kind)], 1);
    }
    page.gauge(
        "ripstop_synced",
        "Whether every object has been seen once.",
        u8::from(status.synced),
    );
    page.gauge(
        "ripstop_degraded",
        "Whether part of the plan is not in the kernel.",
        u8::from(status.problem.is_some()),
    );
    degraded(page, &status.degraded);
    page.gauge("ripstop_pods", "Pods attached to this node.", status.pods);
    page.gauge("ripstop_services", "Services with a name.", status.names);
    let mut addresses = page.family(
        "ripstop_ipam_addresses",
        Sort::Gauge,
        "Addresses of this node's pod ranges.",
    );
    for range in &status.pod_ranges {
        let free = range.available.saturating_sub(range.used);
        for (state, count) in [("used", range.used), ("free", free)] {
            addresses.sample(&[("range", &range.range), ("state", state)], count);
        }
    }
    page.counter(
        "ripstop_audits_total",
        "Comparisons of the kernel with the plan.",
        status.audits.runs,
    );
    page.counter(
        "ripstop_audit_repairs_total",
        "What comparisons found different, and repaired.",
        status.audits.repaired,
    );
    let mut ignored = page.family(
        "ripstop_ignored_total",
        Sort::Counter,
        "Parts of objects that were ignored, by reason.",
    );
    for (reason, count) in &status.ignored_total {
        ignored.sample(&[("reason", reason)], count);
    }
}

/// Each reason that there can be, so that one that is over is a 0.
fn degraded(page: &mut Page, degraded: &[Advice]) {
    let mut reasons = page.family(
        "ripstop_degraded_reason",
        Sort::Gauge,
        "Whether `ripstop status` says, for this reason, that the node is degraded; those of \
         counters hold for ten minutes.",
    );
    for id in advice::ids().filter(|id| *id != advice::NODES_SILENT) {
        let said = degraded.iter().any(|advice| advice.id == id);
        reasons.sample(&[("reason", id)], u8::from(said));
    }
}

fn programming(page: &mut Page, measures: &Measures, updated: f64) {
    for (name, help, durations) in [
        (
            "kubeproxy_sync_proxy_rules_duration_seconds",
            "Time that one change took to be written to the kernel.",
            &measures.syncs,
        ),
        (
            "kubeproxy_network_programming_duration_seconds",
            "Time from a change of pods to its being in the kernel.",
            &measures.programming,
        ),
    ] {
        page.family(name, Sort::Histogram, help).histogram(
            &[],
            durations.buckets(),
            durations.beyond(),
            durations.sum(),
        );
    }
    page.gauge(
        "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
        "When the kernel was last found, or made, as planned.",
        updated,
    );
}

fn engine(page: &mut Page, engine: &Engine) {
    let mut rows = page.family(
        "ripstop_table_rows",
        Sort::Gauge,
        "Rows of a table in the kernel.",
    );
    for table in &engine.tables {
        rows.sample(&[("table", &table.name)], table.rows);
    }
    let mut limits = page.family(
        "ripstop_table_limit_rows",
        Sort::Gauge,
        "Rows that a table can have; tables without a limit are left out.",
    );
    for table in engine.tables.iter().filter(|table| table.limit < NO_LIMIT) {
        limits.sample(&[("table", &table.name)], table.limit);
    }
    let mut drops = page.family(
        "ripstop_drops_total",
        Sort::Counter,
        "Packets and connections that were dropped, by reason.",
    );
    for (reason, count) in &engine.drops {
        drops.sample(&[("reason", reason)], count);
    }
}

fn dns(page: &mut Page, dns: &Dns) {
    let mut questions = page.family(
        "ripstop_dns_questions_total",
        Sort::Counter,
        "Questions by zone, type and response code.",
    );
    for sort in &dns.counts.by_sort {
        let labels = [
            ("zone", sort.zone.as_str()),
            ("type", &sort.kind),
            ("rcode", &sort.rcode),
        ];
        questions.sample(&labels, sort.questions);
    }
    let mut sources = page.family(
        "ripstop_dns_answers_total",
        Sort::Counter,
        "Answers by where they came from.",
    );
    for (source, count) in &dns.counts.by_source {
        sources.sample(&[("source", &format!("{source:?}").to_lowercase())], count);
    }
    let mut times = page.family(
        "ripstop_dns_answer_duration_seconds",
        Sort::Histogram,
        "Time until an answer was sent, of the node itself and of upstream servers.",
    );
    let latencies = &dns.counts.latencies;
    let (by_node, by_servers) = dns.counts.latency_micros;
    // The last, of what took longer than all ends, has 0 for its end.
    let (beyond, buckets): (Vec<&Bucket>, Vec<&Bucket>) =
        latencies.iter().partition(|bucket| bucket.0 == 0);
    let mut side = |by, micros: u64, count: fn(&Bucket) -> u64| {
        let ends = buckets.iter().map(|b| (f64::from(b.0) / 1e6, count(b)));
        let beyond = beyond.iter().map(|b| count(b)).sum();
        times.histogram(&[("by", by)], ends, beyond, micros as f64 / 1e6);
    };
    side("node", by_node, |bucket| bucket.1);
    side("upstream", by_servers, |bucket| bucket.2);
    let mut clients = page.family(
        "ripstop_dns_client_questions_total",
        Sort::Counter,
        "Questions by pod, or address of who is no pod of this node.",
    );
    for (client, questions) in &dns.clients {
        clients.sample(&[("client", client)], questions);
    }
    let mut limited = page.family(
        "ripstop_dns_client_limited_total",
        Sort::Counter,
        "Questions thrown away because the client asked more than its part.",
    );
    for (client, questions) in &dns.limited {
        limited.sample(&[("client", client)], questions);
    }
    let mut servers = page.family(
        "ripstop_dns_upstream_up",
        Sort::Gauge,
        "Whether an upstream server answers.",
    );
    for server in &dns.upstream {
        servers.sample(&[("server", &server.server)], u8::from(server.healthy));
    }
    page.gauge("ripstop_dns_cached", "Answers that are kept.", dns.cached);
}
