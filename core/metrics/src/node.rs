//! What a sample of a node says, as families. The scheduler gives those of all nodes, an agent those
//! of its own, under the same names.
//!
//! What was not read is absent: no zero stands for a gap. A sample that is too old is not given at
//! all, but its age is: a monitoring system stamps what it reads with its own clock, and would
//! show old numbers as new ones.

use std::time::Duration;

use gantry_telemetry::{GpuSample, Sample};

use crate::page::{Labels, Page, Unit, labels};

/// A sample that is older says nothing of now.
pub const AGE_MAX: Duration = Duration::from_mins(1);

const MIB: u64 = 1 << 20;
const KIB: u64 = 1 << 10;
const MEGAHERTZ: u64 = 1_000_000;

/// A GPU as a node's facts have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuName {
    /// NVML's id of it.
    pub uuid: String,
    /// Its memory, in MiB.
    pub memory_mib: u64,
}

/// A node's newest sample and what it is a sample of.
#[derive(Clone, Copy, Debug)]
pub struct NodeReading<'a> {
    /// The node's name.
    pub node: &'a str,
    /// Its GPUs, by index.
    pub gpus: &'a [GpuName],
    /// The sample.
    pub sample: &'a Sample,
    /// How old it is.
    pub age: Duration,
}

/// The labels of a GPU.
#[must_use]
pub fn gpu_labels(node: &str, index: usize, uuid: &str) -> Labels {
    labels([("node", node), ("gpu", &index.to_string()), ("uuid", uuid)])
}

/// Adds a node to a page.
pub fn add(page: &mut Page, reading: &NodeReading<'_>) {
    let node = labels([("node", reading.node)]);
    let help = "How old the newest sample of a node is";
    page.gauge("gantry_node_sample_age", Unit::Seconds, help)
        .add(&node, reading.age.as_millis() as f64 / 1000.0);
    if reading.age > AGE_MAX {
        return;
    }
    machine(page, &node, reading.sample);
    flow(page, reading.node, &node, reading.sample);
    data(page, reading.node, &node, reading.sample);
    for (index, sample) in reading.sample.gpus.iter().enumerate() {
        let name = reading.gpus.get(index);
        let labels = gpu_labels(reading.node, index, name.map_or("", |name| name.uuid.as_str()));
        if let Some(name) = name.filter(|name| name.memory_mib > 0) {
            page.gauge("gantry_gpu_memory_size", Unit::Bytes, "Memory of a GPU")
                .add(&labels, name.memory_mib * MIB);
        }
        gpu_use(page, &labels, sample);
        gpu_health(page, &labels, sample);
    }
}

fn permille(value: u32) -> f64 {
    f64::from(value) / 1000.0
}

fn machine(page: &mut Page, node: &Labels, sample: &Sample) {
    page.gauge("gantry_node_cpu", Unit::Ratio, "Processor use of all cores together")
        .add(node, permille(sample.cpu_permille));
    page.gauge("gantry_node_load1", Unit::None, "Load average over one minute")
        .add(node, f64::from(sample.load_centi) / 100.0);
    page.gauge("gantry_node_memory_used", Unit::Bytes, "Memory in use")
        .add(node, sample.memory_used_mib * MIB);
    page.gauge("gantry_node_memory_size", Unit::Bytes, "Memory of a node")
        .add(node, sample.memory_total_mib * MIB);
    page.gauge("gantry_node_swap_used", Unit::Bytes, "Swap in use")
        .add(node, sample.swap_used_mib * MIB);
    if sample.disk_total_mib > 0 {
        let help = "Free space of the disk that holds the agent's folder";
        page.gauge("gantry_node_disk_free", Unit::Bytes, help)
            .add(node, sample.disk_free_mib * MIB);
        let help = "Size of the disk that holds the agent's folder";
        page.gauge("gantry_node_disk_size", Unit::Bytes, help)
            .add(node, sample.disk_total_mib * MIB);
    }
    page.gauge("gantry_node_tasks", Unit::None, "Tries with a live process or worker")
        .add(node, sample.tasks);
    let help = "Time since the GPU driver last answered";
    page.gauge("gantry_node_driver_silent", Unit::Seconds, help)
        .add_some(node, sample.driver_silent_s);
}

fn flow(page: &mut Page, name: &str, node: &Labels, sample: &Sample) {
    let per_second = Unit::BytesPerSecond;
    page.gauge("gantry_node_network_received", per_second, "Received on all networks")
        .add(node, sample.network_received_kib * KIB);
    page.gauge("gantry_node_network_sent", per_second, "Sent on all networks")
        .add(node, sample.network_sent_kib * KIB);
    if let Some(pressure) = sample.pressure {
        let help = "Share of the last ten seconds in which work waited for a thing";
        let family = page.gauge("gantry_node_pressure", Unit::Ratio, help);
        for (resource, value) in [
            ("cpu", pressure.cpu_permille),
            ("memory", pressure.memory_permille),
            ("io", pressure.io_permille),
        ] {
            family.add(&labels([("node", name), ("resource", resource)]), permille(value));
        }
    }
    if let Some(storage) = sample.storage {
        let help = "How long the shared storage took to answer; absent while it does not";
        let answer = storage.answer_ms.map(|took| f64::from(took) / 1000.0);
        page.gauge("gantry_node_storage_answer", Unit::Seconds, help).add_some(node, answer);
        page.gauge("gantry_node_storage_free", Unit::Bytes, "Free space of the shared storage")
            .add_some(node, storage.free_mib.map(|free| free * MIB));
    }
}

fn data(page: &mut Page, name: &str, node: &Labels, sample: &Sample) {
    if let Some(library) = sample.library {
        let help = "What the library holds, as a node sees it; nodes that share one say the same";
        let family = page.gauge("gantry_library_records", Unit::None, help);
        for (kind, count) in [
            ("series", library.series),
            ("instances", library.instances),
            ("quarantined", library.quarantined),
            ("samples", library.samples),
            ("models", library.models),
            ("predictions", library.predictions),
        ] {
            family.add(&labels([("node", name), ("kind", kind)]), count);
        }
    }
    if let Some(ingest) = sample.ingest {
        page.gauge("gantry_dicom_associations", Unit::None, "DICOM associations that are open")
            .add(node, ingest.associations);
        let help = "DICOM associations that were opened since the agent started";
        page.counter("gantry_dicom_associations_opened", Unit::None, help)
            .add(node, ingest.associations_total);
        let help = "DICOM instances that came since the agent started, by what became of them";
        let family = page.counter("gantry_dicom_instances", Unit::None, help);
        for (result, count) in [
            ("stored", ingest.received.saturating_sub(ingest.conflicts)),
            ("quarantined", ingest.quarantined),
            ("conflict", ingest.conflicts),
            ("refused", ingest.refused),
        ] {
            family.add(&labels([("node", name), ("result", result)]), count);
        }
    }
}

fn gpu_use(page: &mut Page, gpu: &Labels, sample: &GpuSample) {
    let mut ratio = |name, help, value: Option<u32>| {
        page.gauge(name, Unit::Ratio, help).add_some(gpu, value.map(permille));
    };
    ratio("gantry_gpu_busy", "Use of a GPU's multiprocessors", sample.busy_permille);
    let help = "Use of the bandwidth of a GPU's memory";
    ratio("gantry_gpu_memory_busy", help, sample.memory_busy_permille);
    ratio("gantry_gpu_encoder", "Use of a GPU's video encoder", sample.encoder_permille);
    ratio("gantry_gpu_decoder", "Use of a GPU's video decoder", sample.decoder_permille);
    page.gauge("gantry_gpu_memory_used", Unit::Bytes, "Memory of a GPU in use")
        .add_some(gpu, sample.memory_used_mib.map(|used| used * MIB));
    page.gauge("gantry_gpu_temperature", Unit::Celsius, "Temperature of a GPU")
        .add_some(gpu, sample.temperature_c);
    let watts = |milliwatts: u32| f64::from(milliwatts) / 1000.0;
    page.gauge("gantry_gpu_power", Unit::Watts, "Power that a GPU draws")
        .add_some(gpu, sample.power_mw.map(watts));
    page.gauge("gantry_gpu_power_limit", Unit::Watts, "Power that a GPU may draw")
        .add_some(gpu, sample.power_limit_mw.map(watts));
    let hertz = |clock: u32| u64::from(clock) * MEGAHERTZ;
    page.gauge("gantry_gpu_clock", Unit::Hertz, "Clock of a GPU's multiprocessors")
        .add_some(gpu, sample.clock_mhz.map(hertz));
    page.gauge("gantry_gpu_memory_clock", Unit::Hertz, "Clock of a GPU's memory")
        .add_some(gpu, sample.memory_clock_mhz.map(hertz));
    page.gauge("gantry_gpu_pcie_sent", Unit::BytesPerSecond, "Sent by a GPU over PCIe")
        .add_some(gpu, sample.pcie_sent_kib.map(|sent| sent * KIB));
    page.gauge("gantry_gpu_pcie_received", Unit::BytesPerSecond, "Received by a GPU over PCIe")
        .add_some(gpu, sample.pcie_received_kib.map(|received| received * KIB));
}

fn gpu_health(page: &mut Page, gpu: &Labels, sample: &GpuSample) {
    let mut yes_or_no = |name, help, value: Option<bool>| {
        page.gauge(name, Unit::None, help).add_some(gpu, value.map(u32::from));
    };
    yes_or_no("gantry_gpu_lost", "1 where the driver has lost a GPU", Some(sample.lost));
    let help = "1 where a row of a GPU's memory waits for a reset to be replaced";
    yes_or_no("gantry_gpu_remap_pending", help, sample.remap_pending);
    let help = "1 where a row of a GPU's memory could not be replaced";
    yes_or_no("gantry_gpu_remap_failed", help, sample.remap_failed);
    page.gauge("gantry_gpu_rows_remapped", Unit::None, "Rows of memory that were replaced")
        .add_some(gpu, sample.rows_remapped);
    let help = "Memory errors that were corrected since the driver was loaded";
    page.counter("gantry_gpu_ecc_corrected", Unit::None, help).add_some(gpu, sample.ecc_corrected);
    let help = "Memory errors that were not corrected since the driver was loaded";
    page.counter("gantry_gpu_ecc_uncorrected", Unit::None, help)
        .add_some(gpu, sample.ecc_uncorrected);
    let help = "PCIe packets that were sent again since the driver was loaded";
    page.counter("gantry_gpu_pcie_replays", Unit::None, help).add_some(gpu, sample.pcie_replays);
    let help = "Errors of all NVLink links since the driver was loaded";
    page.counter("gantry_gpu_nvlink_errors", Unit::None, help).add_some(gpu, sample.nvlink_errors);
}

#[cfg(test)]
mod tests {
    use gantry_telemetry::{IngestCounts, LibraryCounts, Pressure, StorageSample};

    use super::*;

    fn text(sample: &Sample, age: Duration) -> String {
        let mut page = Page::default();
        let gpus = [GpuName { uuid: "GPU-a".into(), memory_mib: 2 }];
        add(&mut page, &NodeReading { node: "n1", gpus: &gpus, sample, age });
        page.text()
    }

    #[test]
    fn a_sample_has_the_names_units_and_labels_of_the_format() {
        let gpu = GpuSample {
            busy_permille: Some(250),
            power_mw: Some(300_500),
            clock_mhz: Some(1410),
            temperature_c: Some(61),
            memory_used_mib: Some(1),
            ecc_uncorrected: Some(3),
            remap_failed: Some(true),
            ..GpuSample::default()
        };
        let sample = Sample {
            cpu_permille: 125,
            load_centi: 150,
            memory_used_mib: 3,
            pressure: Some(Pressure { io_permille: 20, ..Pressure::default() }),
            storage: Some(StorageSample { answer_ms: Some(2), free_mib: None }),
            library: Some(LibraryCounts { models: 4, ..LibraryCounts::default() }),
            ingest: Some(IngestCounts { refused: 9, ..IngestCounts::default() }),
            gpus: vec![gpu, GpuSample::default()],
            ..Sample::default()
        };
        let text = text(&sample, Duration::from_millis(1500));
        let first = "node=\"n1\",gpu=\"0\",uuid=\"GPU-a\"";
        for line in [
            "gantry_node_sample_age_seconds{node=\"n1\"} 1.5".to_owned(),
            "gantry_node_cpu_ratio{node=\"n1\"} 0.125".into(),
            "gantry_node_load1{node=\"n1\"} 1.5".into(),
            "gantry_node_memory_used_bytes{node=\"n1\"} 3145728".into(),
            "gantry_node_pressure_ratio{node=\"n1\",resource=\"io\"} 0.02".into(),
            "gantry_node_storage_answer_seconds{node=\"n1\"} 0.002".into(),
            "gantry_library_records{node=\"n1\",kind=\"models\"} 4".into(),
            "gantry_dicom_instances_total{node=\"n1\",result=\"refused\"} 9".into(),
            format!("gantry_gpu_busy_ratio{{{first}}} 0.25"),
            format!("gantry_gpu_power_watts{{{first}}} 300.5"),
            format!("gantry_gpu_clock_hertz{{{first}}} 1410000000"),
            format!("gantry_gpu_temperature_celsius{{{first}}} 61"),
            format!("gantry_gpu_memory_used_bytes{{{first}}} 1048576"),
            format!("gantry_gpu_memory_size_bytes{{{first}}} 2097152"),
            format!("gantry_gpu_ecc_uncorrected_total{{{first}}} 3"),
            format!("gantry_gpu_remap_failed{{{first}}} 1"),
            "gantry_gpu_lost{node=\"n1\",gpu=\"1\",uuid=\"\"} 0".into(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        // What was not read is not there.
        for absent in ["gpu_power_limit", "disk_free", "storage_free", "gpu_ecc_corrected"] {
            assert!(!text.contains(absent), "{absent}");
        }
    }

    #[test]
    fn of_an_old_sample_only_its_age_is_told() {
        let text = text(&Sample::default(), Duration::from_mins(2));
        let numbers = text.lines().filter(|line| !line.starts_with('#'));
        assert_eq!(
            numbers.collect::<Vec<_>>(),
            ["gantry_node_sample_age_seconds{node=\"n1\"} 120.0"]
        );
    }
}
