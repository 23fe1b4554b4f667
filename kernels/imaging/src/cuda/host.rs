//! A device for tests: the device sources built by the C++ compiler of the machine and run on the
//! processor (`kernels/imaging/cuda/host.h` says how).
//!
//! Its memory has an end: each piece stands between canaries that are looked at after every launch,
//! holds garbage when it is new, and counts against a limit.

#![expect(unsafe_code, reason = "kernels are called through the table of a library built here")]

use std::cell::Cell;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::fmt::Write;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::OnceLock;

use super::device::{Argument, BLOCK, Device};
use super::source;
use crate::error::ImagingError;

type Start = unsafe extern "C" fn(*const c_char, c_uint, c_uint, *mut *mut c_void) -> c_int;

/// The words of 16 bytes on both sides of a piece of memory.
const CANARY: usize = 4;
const GARBAGE: u128 = u128::from_ne_bytes([0xa5; 16]);

/// The processor as a device.
pub(super) struct Host {
    start: Start,
    used: Rc<Cell<u64>>,
    pub(super) peak: Cell<u64>,
    pub(super) limit: u64,
    /// What was last asked for.
    pub(super) required: Cell<u64>,
}

impl Host {
    /// Returns the device, or says why there is none.
    pub(super) fn new() -> Option<Self> {
        static LIBRARY: OnceLock<Option<libloading::Library>> = OnceLock::new();
        let library = LIBRARY.get_or_init(build).as_ref()?;
        // SAFETY: the library was built from the text below, which defines this function so.
        let start = unsafe { library.get::<Start>(b"gantry_start\0") }.unwrap();
        let zero = Cell::new(0);
        Some(Self {
            start: *start,
            used: Rc::default(),
            peak: zero.clone(),
            limit: 1 << 30,
            required: zero,
        })
    }
}

/// Builds the sources; a machine without a C++ compiler is the only reason not to.
fn build() -> Option<libloading::Library> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libdevice.so");
    let child = Command::new(&compiler)
        .args(["-std=c++17", "-O2", "-ffp-contract=off", "-Wall", "-shared", "-fPIC", "-pthread"])
        // Coroutines jump between stacks, which a checked longjmp takes for a mistake.
        .arg("-U_FORTIFY_SOURCE")
        .args(["-x", "c++", "-", "-o"])
        .arg(&path)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        eprintln!(
            "skipped: there is no C++ compiler {compiler:?} to build the device sources with"
        );
        return None;
    };
    child.stdin.take().unwrap().write_all(program().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{compiler} said: {said}");
    // SAFETY: the library has no initialisers that do anything.
    Some(unsafe { libloading::Library::new(&path) }.unwrap())
}

/// Returns the sources with the table of their kernels and the function that starts one.
fn program() -> String {
    let mut table = String::new();
    for (name, signature) in &*source::SIGNATURES {
        let meeting = signature.meeting;
        let _ = writeln!(table, "host::kernel(\"{name}\", {meeting}, {name}),");
    }
    let (shim, device) = (include_str!("../../cuda/host.h"), source::text());
    format!(
        "#line 1 \"host.h\"\n{shim}\n{device}\n\
         extern \"C\" int gantry_start(const char *name, unsigned int blocks, \
         unsigned int threads, void **arguments) {{\n\
         static const host::Kernel kernels[] = {{\n{table}}};\n\
         for (const host::Kernel &kernel : kernels)\n\
         if (std::strcmp(kernel.name, name) == 0)\n\
         return host::launch(kernel, blocks, threads, arguments) ? 0 : 1;\n\
         return 2;\n}}\n"
    )
}

/// A piece of memory between canaries.
pub(super) struct Memory {
    words: Vec<u128>,
    bytes: usize,
    used: Rc<Cell<u64>>,
}

impl Memory {
    fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words[CANARY..])[..self.bytes]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words[CANARY..])[..self.bytes]
    }

    fn is_whole(&self) -> bool {
        let beyond = &bytemuck::cast_slice::<_, u8>(&self.words[CANARY..])[self.bytes..];
        let before = &self.words[..CANARY];
        before.iter().all(|&word| word == GARBAGE) && beyond.iter().all(|&byte| byte == 0xa5)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.used.set(self.used.get() - self.bytes as u64);
    }
}

impl Device for Host {
    type Memory = Memory;

    fn require(&self, bytes: u64) -> Result<(), ImagingError> {
        self.required.set(bytes);
        if bytes <= self.limit {
            return Ok(());
        }
        let problem = format!("{bytes} bytes are needed and {} are free", self.limit);
        Err(ImagingError::Device { problem })
    }

    fn allocate(&self, bytes: usize) -> Result<Memory, ImagingError> {
        self.used.set(self.used.get() + bytes as u64);
        self.peak.set(self.peak.get().max(self.used.get()));
        let words = vec![GARBAGE; bytes.div_ceil(16) + 2 * CANARY];
        Ok(Memory { words, bytes, used: self.used.clone() })
    }

    fn write(&self, to: &mut Memory, bytes: &[u8]) -> Result<(), ImagingError> {
        to.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn read(&self, from: &Memory, bytes: &mut [u8]) -> Result<(), ImagingError> {
        bytes.copy_from_slice(&from.bytes()[..bytes.len()]);
        Ok(())
    }

    fn start(
        &self,
        kernel: &'static str,
        blocks: u32,
        arguments: &mut [Argument<'_, Memory>],
    ) -> Result<(), ImagingError> {
        let mut arrays: Vec<*mut u8> = arguments
            .iter_mut()
            .map(|argument| match argument {
                Argument::Input(memory, _) => memory.bytes().as_ptr().cast_mut(),
                Argument::Output(memory, _) => memory.bytes_mut().as_mut_ptr(),
                Argument::Value(..) => std::ptr::null_mut(),
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
        let name = CString::new(kernel).unwrap();
        // SAFETY: the arguments are of the types that the kernel declares (`Device::launch` compares
        // them), and its threads write no array but those that are borrowed for it alone.
        let code = unsafe { (self.start)(name.as_ptr(), blocks, BLOCK, pointers.as_mut_ptr()) };
        assert_eq!(code, 0, "{kernel}: 1 = its threads did not meet, 2 = there is no such kernel");
        for argument in arguments {
            let whole = match argument {
                Argument::Input(memory, _) => memory.is_whole(),
                Argument::Output(memory, _) => memory.is_whole(),
                Argument::Value(..) => true,
            };
            assert!(whole, "{kernel} wrote beyond the end of an array");
        }
        Ok(())
    }
}
