//! This node for a monitoring system, at an address of its own: its newest sample under the names
//! that the scheduler gives it, and the agent's version. The scheduler need not be there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gantry_metrics::node::{GpuName, NodeReading, add};
use gantry_metrics::{MetricsError, Page, Source, Unit, bind, labels, serve};
use gantry_model::At;
use gantry_telemetry::Sample;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::ingest::Counters;
use crate::ingest::refusals::Reason;
use crate::probe::GpuList;

/// What pages are made of.
pub(crate) struct NodePages {
    pub(crate) node: String,
    pub(crate) samples: watch::Receiver<Sample>,
    pub(crate) gpus: watch::Receiver<GpuList>,
    /// Of the receiver, where there is one.
    pub(crate) ingest: Option<Arc<Counters>>,
}

/// Offers the endpoint where the settings name an address. It ends with what is returned.
pub(crate) async fn start(
    address: Option<SocketAddr>,
    pages: NodePages,
) -> Result<JoinSet<()>, MetricsError> {
    let mut endpoint = JoinSet::new();
    if let Some(address) = address {
        let listener = bind(address).await?;
        tracing::info!(%address, "metrics can be read");
        endpoint.spawn(async move { match serve(listener, pages).await {} });
    }
    Ok(endpoint)
}

impl Source for NodePages {
    async fn page(&self) -> Result<Page, String> {
        let mut page = Page::default();
        page.build("agent", env!("CARGO_PKG_VERSION"));
        if let Some(counters) = &self.ingest {
            let help = "DICOM callers that were turned away since the agent started, by the reason";
            let family = page.counter("gantry_dicom_callers_refused", Unit::None, help);
            for reason in Reason::ALL {
                let labels = labels([("node", &self.node), ("reason", reason.word())]);
                family.add(&labels, counters.refusals.of(reason));
            }
        }
        let sample = self.samples.borrow().clone();
        // None has been taken yet.
        if sample.at == At(0) {
            return Ok(page);
        }
        let gpus: Vec<GpuName> = match &*self.gpus.borrow() {
            Ok(gpus) => gpus
                .iter()
                .map(|gpu| GpuName { uuid: gpu.uuid.clone(), memory_mib: gpu.memory.0 })
                .collect(),
            Err(_) => Vec::new(),
        };
        let age = Duration::from_millis(wall().since(sample.at).0);
        add(&mut page, &NodeReading { node: &self.node, gpus: &gpus, sample: &sample, age });
        Ok(page)
    }
}

/// The clock by which samples are stamped.
fn wall() -> At {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    At(since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use gantry_model::Gpu;
    use gantry_telemetry::GpuSample;

    use super::*;

    #[tokio::test]
    async fn a_page_has_the_newest_sample_of_the_node_and_its_gpus() {
        let (newest, samples) = watch::channel(Sample::default());
        let (found, gpus) = watch::channel(Err("no driver".to_owned()));
        let ingest = Some(Arc::new(Counters::default()));
        let pages = NodePages { node: "n1".into(), samples, gpus, ingest };
        let text = pages.page().await.unwrap().text();
        assert!(text.contains("gantry_build_info{daemon=\"agent\","), "{text}");
        assert!(!text.contains("gantry_node"), "{text}");
        let gpu = Gpu { uuid: "GPU-a".into(), ..Gpu::default() };
        drop(found.send_replace(Ok(vec![gpu])));
        let sample = |ago: u64| Sample {
            at: At(wall().0 - ago),
            cpu_permille: 500,
            gpus: vec![GpuSample { busy_permille: Some(250), ..GpuSample::default() }],
            ..Sample::default()
        };
        newest.send_replace(sample(1000));
        let text = pages.page().await.unwrap().text();
        for line in [
            "gantry_dicom_callers_refused_total{node=\"n1\",reason=\"no-tls\"} 0",
            "gantry_node_cpu_ratio{node=\"n1\"} 0.5",
            "gantry_gpu_busy_ratio{node=\"n1\",gpu=\"0\",uuid=\"GPU-a\"} 0.25",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
        newest.send_replace(sample(300_000));
        let text = pages.page().await.unwrap().text();
        assert!(!text.contains("gantry_node_cpu") && text.contains("sample_age"), "{text}");
    }
}
