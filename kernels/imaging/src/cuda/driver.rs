//! A GPU through CUDA's driver, which is loaded at run time: the one [`Device`] that is real.
//!
//! The process uses the first GPU that it may see; an agent shows each try the GPUs of its lease alone
//! (`CUDA_VISIBLE_DEVICES`). Where a try has a share of a GPU, `GANTRY_GPU_MEMORY_MIB` says how much of
//! its memory it may take.

#![expect(unsafe_code, reason = "the driver is a C library, and kernels are what they are")]

use std::ffi::c_void;
use std::sync::{Arc, LazyLock};

use cudarc::driver::{
    CudaContext, CudaModule, CudaSlice, CudaStream, DevicePtr, DevicePtrMut, DriverError, result,
    sys,
};
use cudarc::nvrtc::Ptx;

use super::compile::{self, Architecture, device};
use super::device::{Argument, BLOCK, Device};
use crate::error::ImagingError;

/// Memory of a GPU that is left to the driver: kernels' code and stacks, other small things.
const SPARE_BYTES: u64 = 64 << 20;

/// The GPU of this process with its kernels loaded.
pub(crate) struct Cuda {
    stream: Arc<CudaStream>,
    module: Arc<CudaModule>,
    /// What this process may take of its memory, if not all.
    limit_bytes: Option<u64>,
}

/// Returns the GPU of this process, which is opened when it is first wanted, or why there is none.
pub(crate) fn gpu() -> Result<&'static Cuda, &'static str> {
    static GPU: LazyLock<Result<Cuda, String>> = LazyLock::new(|| {
        Cuda::open().map_err(|error| match error {
            ImagingError::Device { problem } => problem,
            other => other.to_string(),
        })
    });
    GPU.as_ref().map_err(String::as_str)
}

impl Cuda {
    fn open() -> Result<Self, ImagingError> {
        // SAFETY: loading the system's driver runs no code but the initialisers of that library.
        if !unsafe { sys::is_culib_present() } {
            return Err(device("there is no NVIDIA driver (libcuda.so.1)".to_owned()));
        }
        let none = "there is no GPU that this process may see (CUDA_VISIBLE_DEVICES)";
        match result::init() {
            Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => {
                return Err(device(none.to_owned()));
            }
            other => other.map_err(|error| told("starting the driver", error))?,
        }
        if CudaContext::device_count().map_err(|error| told("counting GPUs", error))? == 0 {
            return Err(device(none.to_owned()));
        }
        let context = CudaContext::new(0).map_err(|error| told("opening the GPU", error))?;
        let (major, minor) =
            context.compute_capability().map_err(|error| told("asking the GPU", error))?;
        let architecture = Architecture { major: major as u32, minor: minor as u32 };
        let code = Ptx::from_binary(compile::machine_code(architecture)?);
        let module =
            context.load_module(code).map_err(|error| told("loading the kernels", error))?;
        let limit = std::env::var("GANTRY_GPU_MEMORY_MIB").ok();
        let limit_mib: Option<u64> = limit.and_then(|mib| mib.parse().ok());
        let limit_bytes = limit_mib.map(|mib| mib.saturating_mul(1 << 20));
        Ok(Self { stream: context.default_stream(), module, limit_bytes })
    }
}

/// Returns what failed with what the driver says of it.
fn told(what: &str, error: DriverError) -> ImagingError {
    let why = match error.error_string() {
        Ok(text) => text.to_string_lossy().into_owned(),
        Err(_) => format!("error {}", error.0 as u32),
    };
    device(format!("{what} failed: {why}"))
}

/// Returns an error unless what is wanted is free, with what is to spare.
fn check_room(wanted: u64, free: u64, limit: Option<u64>) -> Result<(), ImagingError> {
    let usable = free.min(limit.unwrap_or(u64::MAX)).saturating_sub(SPARE_BYTES);
    if wanted <= usable {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    Err(device(format!(
        "it takes {} MiB of the GPU's memory, of which {} MiB can be used",
        mib(wanted),
        usable >> 20
    )))
}

impl Device for Cuda {
    type Memory = CudaSlice<u8>;

    fn require(&self, bytes: u64) -> Result<(), ImagingError> {
        // What was given back counts as free once the GPU has got there.
        self.stream.synchronize().map_err(|error| told("waiting for the GPU", error))?;
        let (free, _) = self
            .stream
            .context()
            .mem_get_info()
            .map_err(|error| told("asking for the GPU's free memory", error))?;
        check_room(bytes, free as u64, self.limit_bytes)
    }

    fn allocate(&self, bytes: usize) -> Result<Self::Memory, ImagingError> {
        // SAFETY: memory is bytes, of which any is one; the driver gives no empty pieces.
        let memory = unsafe { self.stream.alloc::<u8>(bytes.max(1)) };
        memory.map_err(|error| {
            told(&format!("taking {} MiB of the GPU's memory", bytes.div_ceil(1 << 20)), error)
        })
    }

    fn write(&self, to: &mut Self::Memory, bytes: &[u8]) -> Result<(), ImagingError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.stream.memcpy_htod(bytes, to).map_err(|error| told("copying to the GPU", error))
    }

    fn read(&self, from: &Self::Memory, bytes: &mut [u8]) -> Result<(), ImagingError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.stream
            .memcpy_dtoh(&from.slice(..bytes.len()), bytes)
            .and_then(|()| self.stream.synchronize())
            .map_err(|error| told("computing on the GPU", error))
    }

    fn start(
        &self,
        kernel: &'static str,
        blocks: u32,
        arguments: &mut [Argument<'_, Self::Memory>],
    ) -> Result<(), ImagingError> {
        let function = self.module.load_function(kernel).map_err(|error| told(kernel, error))?;
        let mut arrays: Vec<sys::CUdeviceptr> = arguments
            .iter_mut()
            .map(|argument| match argument {
                Argument::Input(memory, _) => memory.device_ptr(&self.stream).0,
                Argument::Output(memory, _) => memory.device_ptr_mut(&self.stream).0,
                Argument::Value(..) => 0,
            })
            .collect();
        let mut pointers: Vec<*mut c_void> = arguments
            .iter_mut()
            .zip(&mut arrays)
            .map(|(argument, array)| match argument {
                Argument::Value(value, _) => value.as_mut_ptr().cast(),
                _ => std::ptr::from_mut(array).cast(),
            })
            .collect();
        self.stream.context().bind_to_thread().map_err(|error| told(kernel, error))?;
        // SAFETY: the arguments are of the types that the kernel declares (`Device::launch` compares
        // them), and its threads write no array but those that are borrowed for it alone. All work
        // is on one stream in the order of these calls, so that memory outlives what uses it. That
        // the kernels keep within their arrays is what the tests on the processor look for.
        let started = unsafe {
            result::launch_kernel(
                function.cu_function(),
                (blocks, 1, 1),
                (BLOCK, 1, 1),
                0,
                self.stream.cu_stream(),
                &mut pointers,
            )
        };
        started.map_err(|error| told(kernel, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_must_be_free_and_allowed() {
        const GIB: u64 = 1 << 30;
        for (wanted, free, limit, fits) in [
            (GIB, 2 * GIB, None, true),
            (2 * GIB, 2 * GIB, None, false),
            (GIB, 8 * GIB, Some(GIB), false),
            (GIB, 8 * GIB, Some(2 * GIB), true),
            (0, 0, None, true),
        ] {
            assert_eq!(check_room(wanted, free, limit).is_ok(), fits, "{wanted} of {free}");
        }
        let error = check_room(3 * GIB, 2 * GIB, None).unwrap_err().to_string();
        assert_eq!(
            error,
            "the GPU could not be used: it takes 3072 MiB of the GPU's memory, of which 1984 MiB \
             can be used"
        );
    }
}
