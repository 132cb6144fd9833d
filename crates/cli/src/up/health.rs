//! What monitors and probes are told: `/healthz` and `/readyz` for Kubernetes, `/metrics` for Prometheus. It leaves out
//! HTTP (`bastide::serve_pages`).

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use bastide::{Page, PageStatus};

use super::status::{Phase, Status, metrics};

/// What is to be told, as of now.
pub(super) type Statuses = Arc<RwLock<BTreeMap<String, Arc<Status>>>>;

const WORDS: &str = "text/plain; charset=utf-8";
/// The text format of Prometheus.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What stands at a path.
pub(super) fn page(path: &str, statuses: &Statuses) -> Page {
    let statuses = statuses.read().unwrap_or_else(PoisonError::into_inner);
    let words = |status, text: String| Page { status, kind: WORDS, text };
    match path {
        "/healthz" => words(PageStatus::OK, "ok\n".to_owned()),
        "/readyz" => {
            let is_broken = |status: &Status| matches!(status.phase(), Phase::Failed | Phase::Ended);
            let broken = statuses.iter().filter(|(_, status)| is_broken(status));
            let names: Vec<&str> = broken.map(|(name, _)| name.as_str()).collect();
            match names.as_slice() {
                [] => words(PageStatus::OK, "ok\n".to_owned()),
                names => words(
                    PageStatus::SERVICE_UNAVAILABLE,
                    format!("no way to the VM: {}\n", names.join(", ")),
                ),
            }
        }
        "/metrics" => Page { status: PageStatus::OK, kind: METRICS, text: metrics(&statuses) },
        _ => words(PageStatus::NOT_FOUND, "there are /healthz, /readyz and /metrics\n".to_owned()),
    }
}
