//! What programs ask a prediction service, over HTTP.
//!
//! | request | answer |
//! |---|---|
//! | `POST /predictions` with `{"series": "ID"}` | 202 with its place among those that wait; 404 for no series of the library; 429 where too many wait; 503 where no model is served |
//! | `GET /predictions/ID` | what was found in that series; 404 before |
//! | `GET /healthz` | 200 where a model is served |
//! | `GET /metrics` | counts and times, as `OpenMetrics` |
//!
//! There is no password: the address belongs on the loopback or behind something that asks for one.

use std::net::SocketAddr;
use std::sync::Arc;

use gantry_library::{Library, SeriesId};
use gantry_metrics::{Answer, Call, Page, Source, Unit, bind, labels, serve};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::Shared;
use super::desk::NoPlace;

const JSON: &str = "application/json";
const PREDICTIONS: &str = "/predictions";

/// The endpoint; it ends when this is dropped.
pub(super) struct Endpoint {
    pub(super) address: SocketAddr,
    _runtime: Runtime,
}

/// Listens for programs.
pub(super) fn start(
    address: SocketAddr,
    library: &Library,
    shared: Arc<Shared>,
) -> Result<Endpoint, String> {
    let failed = |error: &dyn std::fmt::Display| format!("listening on {address} failed: {error}");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| failed(&error))?;
    let listener = runtime.block_on(bind(address)).map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| failed(&error))?;
    let door = Door { library: library.clone(), shared };
    runtime.spawn(async move { match serve(listener, door).await {} });
    Ok(Endpoint { address, _runtime: runtime })
}

struct Door {
    library: Library,
    shared: Arc<Shared>,
}

/// What is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    series: String,
}

impl Source for Door {
    async fn page(&self) -> Result<Page, String> {
        let (counts, waiting, model) = {
            let desk = self.shared.desk();
            (desk.counts, desk.waiting(), desk.model().cloned())
        };
        let Some(model) = model else {
            return Err("no model is served; approve one with gantry models NAME --approve".into());
        };
        let mut page = Page::default();
        page.build("serve", env!("CARGO_PKG_VERSION"));
        let model = labels([("model", model.as_str())]);
        let help = "The model that is served";
        page.gauge("gantry_serve_model", Unit::None, help).add(&model, 1_u64);
        let none = labels([]);
        for (name, help, count) in [
            ("gantry_serve_predicted", "Series that were predicted", counts.predicted),
            ("gantry_serve_failed", "Series that could not be predicted", counts.failed),
            ("gantry_serve_refused", "Requests that were refused", counts.refused),
            ("gantry_serve_sent", "Segmentations that the receiver has taken", counts.sent),
            ("gantry_serve_not_sent", "Tries to send that failed", counts.not_sent),
        ] {
            page.counter(name, Unit::None, help).add(&none, count);
        }
        let help = "Time that predictions took";
        page.counter("gantry_serve_prediction_time", Unit::Seconds, help)
            .add(&none, counts.seconds);
        let help = "Time that the last prediction took";
        page.gauge("gantry_serve_last_prediction_time", Unit::Seconds, help)
            .add(&none, counts.last_seconds);
        let waiting = [("asked", waiting.0), ("found", waiting.1)];
        let help = "Series that wait, asked for by a program or found in the library";
        for (from, count) in waiting {
            let labels = labels([("from", from)]);
            page.gauge("gantry_serve_waiting", Unit::None, help).add(&labels, count as u64);
        }
        Ok(page)
    }

    async fn answer(&self, call: Call) -> Option<Answer> {
        let rest = call.path.strip_prefix(PREDICTIONS)?;
        let library = self.library.clone();
        let shared = self.shared.clone();
        let rest = rest.to_owned();
        // The library is read on a thread that may wait.
        tokio::task::spawn_blocking(move || match (call.method.as_str(), rest.as_str()) {
            ("POST", "") => Some(ask(&library, &shared, &call.body)),
            (_, "") => Some(refusal(405, "ask with POST, and {\"series\": \"ID\"}")),
            ("GET", rest) => rest.strip_prefix('/').map(|series| found(&library, &shared, series)),
            _ => Some(refusal(405, "what was found is read with GET")),
        })
        .await
        .ok()
        .flatten()
    }
}

fn answer(status: u16, value: &Value) -> Answer {
    let body = format!("{value}\n").into_bytes();
    Answer { status, media_type: JSON, body, retry_after_s: None }
}

fn refusal(status: u16, sentence: &str) -> Answer {
    answer(status, &json!({ "error": sentence }))
}

/// The id of a series that the library has.
fn series_of(library: &Library, text: &str) -> Result<SeriesId, Answer> {
    let series: SeriesId = text
        .parse()
        .map_err(|_| refusal(400, "a series is named by its id, as gantry data series lists it"))?;
    match library.series_objects(&series) {
        Ok(_) => Ok(series),
        Err(error) => Err(refusal(404, &error.to_string())),
    }
}

fn ask(library: &Library, shared: &Shared, body: &[u8]) -> Answer {
    let Ok(Wanted { series }) = serde_json::from_slice(body) else {
        return refusal(400, "write {\"series\": \"ID\"}");
    };
    let series = match series_of(library, &series) {
        Ok(series) => series,
        Err(answer) => return answer,
    };
    let place = shared.desk().ask(series.clone());
    match place {
        Ok(place) => {
            shared.changed.notify_all();
            answer(202, &json!({ "series": series, "place": place }))
        }
        Err(NoPlace::Full) => {
            let sentence = "as many series wait as may; ask again later";
            Answer { retry_after_s: Some(5), ..refusal(429, sentence) }
        }
        Err(NoPlace::NoModel) => refusal(503, "no model is served; approve one first"),
    }
}

/// What the served model has found in a series; where it has not looked yet, what another has.
fn found(library: &Library, shared: &Shared, series: &str) -> Answer {
    let series = match series_of(library, series) {
        Ok(series) => series,
        Err(answer) => return answer,
    };
    let model = shared.desk().model().cloned();
    let own = model.map(|model| library.prediction_by(&series, &model)).transpose();
    let prediction = own.map(Option::flatten).and_then(|own| match own {
        Some(own) => Ok(own),
        None => library.prediction_of(&series),
    });
    match prediction {
        Ok(prediction) => answer(
            200,
            &json!({
                "series": prediction.series,
                "model": prediction.model,
                "findings": prediction.findings,
                "volume_ml": prediction.volume_ml,
                "confidence": prediction.confidence,
                "created_ms": prediction.created_ms,
            }),
        ),
        Err(error) => refusal(404, &error.to_string()),
    }
}
