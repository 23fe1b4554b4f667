//! The fields of a sample, each named once: the one description of both directions.
//!
//! A new field of a sample is one line here, and a forgotten one does not compile. The order is
//! that of the numbers, so agents and schedulers of one protocol version must agree on it: a change
//! here is a change of the wire. What stands under `lists` changes its length all the time and is
//! kept out of the layout.

use crate::field::{Field, Group, Sink, Source};
use crate::flat::Malformed;
use crate::sample::{
    DiskSample, GpuProcess, GpuSample, IngestCounts, LibraryCounts, NetworkSample, Pressure,
    Sample, StorageSample, TaskSample,
};

macro_rules! fields {
    ($group:ident { $($field:ident),* } lists { $($list:ident),* }) => {
        impl Field for $group {
            fn put(&self, sink: &mut Sink<'_>) {
                let Self { $($field,)* $($list,)* } = self;
                $($field.put(sink);)*
                $(sink.list($list);)*
            }

            fn restore(&mut self, source: &mut Source<'_>) -> Result<(), Malformed> {
                let Self { $($field,)* $($list,)* } = self;
                $($field.restore(source)?;)*
                $(source.list($list)?;)*
                Ok(())
            }
        }

        impl Group for $group {}
    };
    ($group:ident { $($field:ident),* }) => {
        fields!($group { $($field),* } lists {});
    };
}

fields!(Sample {
    at,
    cpu_permille,
    cores_permille,
    load_centi,
    memory_used_mib,
    memory_total_mib,
    swap_used_mib,
    pressure,
    disk_free_mib,
    disk_total_mib,
    disks,
    network_received_kib,
    network_sent_kib,
    networks,
    storage,
    tasks,
    driver_silent_s,
    gpus,
    library,
    ingest
} lists { running });

fields!(Pressure { cpu_permille, memory_permille, io_permille });

fields!(DiskSample { name, total_mib, free_mib, read_kib, written_kib });

fields!(NetworkSample { name, received_kib, sent_kib, errors });

fields!(StorageSample { answer_ms, free_mib });

fields!(TaskSample {
    task,
    processes,
    cpu_permille,
    memory_mib,
    read_kib,
    written_kib,
    gpu_memory_mib
});

fields!(GpuSample {
    lost,
    busy_permille,
    memory_busy_permille,
    memory_used_mib,
    temperature_c,
    power_mw,
    power_limit_mw,
    clock_mhz,
    memory_clock_mhz,
    throttle,
    ecc_corrected,
    ecc_uncorrected,
    rows_remapped,
    remap_pending,
    remap_failed,
    pcie_sent_kib,
    pcie_received_kib,
    pcie_replays,
    nvlink_errors,
    encoder_permille,
    decoder_permille
} lists { processes });

fields!(GpuProcess { pid, task, memory_mib });

fields!(LibraryCounts { series, instances, quarantined, samples, models, predictions });

fields!(IngestCounts {
    associations,
    associations_total,
    received,
    quarantined,
    conflicts,
    refused
});
