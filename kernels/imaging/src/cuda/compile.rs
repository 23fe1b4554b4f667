//! The machine code of the kernels: compiled by NVRTC when it is first wanted, and kept.
//!
//! NVRTC is CUDA's compiler as a library. It is loaded at run time from where the system finds it
//! (`libnvrtc.so.13`), or from the path in `GANTRY_NVRTC`; the Python package `nvidia-cuda-nvrtc` has one.
//! It compiles for a GPU that need not be there.
//!
//! Code is kept in the user's cache folder under the hash of all that it was made from: the sources,
//! the options and the architecture. A file that is damaged is made anew; a folder that cannot be
//! written costs a second at each start and nothing else.

#![expect(unsafe_code, reason = "NVRTC is a C library")]

use std::ffi::{CStr, CString};
use std::fmt::{self, Write as _};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cudarc::nvrtc::{result, sys};
use sha2::{Digest, Sha256};

use super::source;
use crate::error::ImagingError;

/// Where a GPU's results would differ from the processor's: fused products, flushed small numbers,
/// rough quotients and roots. None of it.
const OPTIONS: &[&str] =
    &["--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true"];

/// The generation of a GPU: its compute capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Architecture {
    pub(super) major: u32,
    pub(super) minor: u32,
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sm_{}{}", self.major, self.minor)
    }
}

/// Returns the kernels' machine code: what was kept, or what is compiled now and kept from now on.
pub(super) fn machine_code(architecture: Architecture) -> Result<Vec<u8>, ImagingError> {
    let text = source::text();
    let kept = cache_folder().map(|folder| folder.join(key(&text, architecture)));
    if let Some(code) = kept.as_deref().and_then(load) {
        return Ok(code);
    }
    let path = std::env::var_os("GANTRY_NVRTC").map(PathBuf::from);
    let code = Compiler::load(path.as_deref())?.compile(&text, architecture)?;
    if let Some(path) = kept {
        // Only a cache: without it the next start compiles again.
        let _ = store(&path, &code);
    }
    Ok(code)
}

/// NVRTC, loaded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Compiler(());

impl Compiler {
    /// Loads NVRTC from a path, or from where the system finds it.
    pub(super) fn load(path: Option<&Path>) -> Result<Self, ImagingError> {
        if let Some(path) = path {
            preload(path).map_err(|error| {
                device(format!("the CUDA compiler that GANTRY_NVRTC names does not load: {error}"))
            })?;
        }
        // SAFETY: loading the system's NVRTC runs no code but the initialisers of that library.
        if unsafe { sys::is_culib_present() } {
            return Ok(Self(()));
        }
        let problem = "there is no CUDA compiler (libnvrtc.so.13); install CUDA 13, or the Python \
                       package nvidia-cuda-nvrtc and set GANTRY_NVRTC to its libnvrtc.so.13";
        Err(device(problem.to_owned()))
    }

    /// Compiles a text to machine code for one architecture.
    pub(super) fn compile(
        self,
        text: &str,
        architecture: Architecture,
    ) -> Result<Vec<u8>, ImagingError> {
        let text = CString::new(text).map_err(|error| device(format!("the sources: {error}")))?;
        let program = Program::new(self, &text)?;
        let mut options = vec![format!("--gpu-architecture={architecture}")];
        options.extend(OPTIONS.iter().map(|&option| option.to_owned()));
        // SAFETY: the program was created and lives to the end of this function.
        if let Err(error) = unsafe { result::compile_program(program.0, &options) } {
            let told = program.log().and_then(|log| first_error(&log));
            let told = told.unwrap_or_else(|| error.to_string());
            return Err(device(format!("compiling for {architecture} failed: {told}")));
        }
        program.code().map_err(|error| {
            device(format!("the CUDA compiler gave no code for {architecture}: {error}"))
        })
    }
}

/// Loads a library and what it looks for beside itself, for as long as the process lives: whoever
/// asks the system for a library of that name afterwards gets this one.
fn preload(path: &Path) -> Result<(), libloading::Error> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let beside = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let builtins = beside.filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("libnvrtc-builtins.so")
    });
    for path in builtins.chain([path.to_owned()]) {
        // SAFETY: whoever set the path vouches for the library, as for any on the loader's own path.
        std::mem::forget(unsafe { libloading::Library::new(path) }?);
    }
    Ok(())
}

/// A program in the compiler's memory.
struct Program(sys::nvrtcProgram);

impl Program {
    fn new(_: Compiler, text: &CStr) -> Result<Self, ImagingError> {
        result::create_program(text, Some(c"gantry.cu"))
            .map(Self)
            .map_err(|error| device(format!("the CUDA compiler took no program: {error}")))
    }

    /// What the compiler said.
    fn log(&self) -> Option<String> {
        // SAFETY: the program lives as long as this value.
        let bytes = unsafe { result::get_program_log(self.0) }.ok()?;
        let bytes: &[u8] = bytemuck::cast_slice(&bytes);
        Some(CStr::from_bytes_until_nul(bytes).ok()?.to_string_lossy().into_owned())
    }

    /// The machine code.
    fn code(&self) -> Result<Vec<u8>, result::NvrtcError> {
        let mut length = 0;
        // SAFETY: the program lives as long as this value, and the length is written before return.
        unsafe { sys::nvrtcGetCUBINSize(self.0, &raw mut length) }.result()?;
        let mut code = vec![0u8; length];
        // SAFETY: as many bytes are written as the call before has said.
        unsafe { sys::nvrtcGetCUBIN(self.0, code.as_mut_ptr().cast()) }.result()?;
        Ok(code)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the program is not used again. What is left of one that cannot be destroyed is a
        // few kilobytes.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

/// Returns the first error of a compiler's log as `file:line:column: what is wrong`. The log has the
/// line of the source below the error, indented by two more, and below that a caret at the column.
fn first_error(log: &str) -> Option<String> {
    let mut lines = log.lines().skip_while(|line| !line.contains("error:"));
    let error = lines.next()?;
    let Some((place, what)) = error.split_once("): error: ") else {
        return Some(error.trim().to_owned());
    };
    let (file, line) = place.rsplit_once('(')?;
    let caret = lines.nth(1).filter(|line| line.trim() == "^").and_then(|line| line.find('^'));
    let column = caret.map(|at| format!(":{}", at.saturating_sub(2) + 1)).unwrap_or_default();
    Some(format!("{file}:{line}{column}: {what}"))
}

/// The user's cache folder, where there is one.
fn cache_folder() -> Option<PathBuf> {
    let named = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let base = named("XDG_CACHE_HOME").or_else(|| Some(named("HOME")?.join(".cache")))?;
    Some(base.join("gantry/cuda"))
}

/// The name of the file that holds the code of these sources for an architecture.
fn key(text: &str, architecture: Architecture) -> String {
    let mut hash = Sha256::new();
    for part in OPTIONS.iter().chain([&text]) {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    let mut name = String::new();
    // Writing to a string cannot fail.
    for byte in &digest[..16] {
        let _ = write!(name, "{byte:02x}");
    }
    let _ = write!(name, "-{architecture}.cubin");
    name
}

/// Returns the code in a file, where it is whole: its SHA-256 comes first.
fn load(path: &Path) -> Option<Vec<u8>> {
    let bytes = fs::read(path).ok()?;
    let (digest, code) = bytes.split_at_checked(32)?;
    (Sha256::digest(code).as_slice() == digest).then(|| code.to_vec())
}

/// Writes code to a file that is whole from the moment it has its name.
fn store(path: &Path, code: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let unfinished = path.with_extension(format!("{}.tmp", std::process::id()));
    fs::write(&unfinished, [Sha256::digest(code).as_slice(), code].concat())?;
    fs::rename(&unfinished, path).inspect_err(|_| {
        let _ = fs::remove_file(&unfinished);
    })
}

pub(super) fn device(problem: String) -> ImagingError {
    ImagingError::Device { problem }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const GENERATIONS: [Architecture; 3] = [
        Architecture { major: 8, minor: 0 },
        Architecture { major: 9, minor: 0 },
        Architecture { major: 10, minor: 0 },
    ];

    /// Returns the compiler of this machine or of the Python package, or says why there is none.
    fn compiler() -> Option<Compiler> {
        let named = std::env::var_os("GANTRY_NVRTC").map(PathBuf::from);
        let Some(path) = named.or_else(of_python) else {
            eprintln!(
                "skipped: neither GANTRY_NVRTC names a libnvrtc.so.13, nor GANTRY_PYTHON a Python \
                 with nvidia-cuda-nvrtc"
            );
            return None;
        };
        Some(Compiler::load(Some(&path)).unwrap())
    }

    fn of_python() -> Option<PathBuf> {
        let python = std::env::var_os("GANTRY_PYTHON")?;
        let script = "import nvidia.cu13; print(list(nvidia.cu13.__path__)[0])";
        let output = Command::new(python).args(["-c", script]).output().unwrap();
        let folder = String::from_utf8(output.stdout).unwrap();
        output.status.success().then(|| Path::new(folder.trim()).join("lib/libnvrtc.so.13"))
    }

    #[test]
    fn every_kernel_becomes_machine_code() {
        let Some(compiler) = compiler() else { return };
        for architecture in GENERATIONS {
            let code = compiler.compile(&source::text(), architecture).unwrap();
            assert!(code.starts_with(b"\x7fELF"), "{architecture}");
            for name in source::SIGNATURES.keys() {
                let symbol = format!(".text.{name}\0");
                let found = code.windows(symbol.len()).any(|part| part == symbol.as_bytes());
                assert!(found, "{name} is not in the code for {architecture}");
            }
        }
    }

    #[test]
    fn a_broken_source_is_told_with_its_line_and_column() {
        let Some(compiler) = compiler() else { return };
        let broken = source::text().replace(
            "    float sum = input[index] * half_kernel[0];",
            "    float sum = inputs[index] * half_kernel[0];",
        );
        let error = compiler.compile(&broken, GENERATIONS[0]).unwrap_err().to_string();
        assert_eq!(
            error,
            "the GPU could not be used: compiling for sm_80 failed: gaussian.cu:15:17: identifier \
             \"inputs\" is undefined"
        );
        let unknown = Architecture { major: 1, minor: 1 };
        let error = compiler.compile("", unknown).unwrap_err().to_string();
        assert!(error.contains("sm_11") && error.contains("architecture"), "{error}");
    }

    #[test]
    fn the_first_error_of_a_log_has_its_place() {
        for (log, told) in [
            (
                "a.cu(3): warning: w\n  x\n  ^\n\na.cu(7): error: no\n      x = y;\n          ^\n",
                Some("a.cu:7:9: no"),
            ),
            ("a.cu(7): error: no\nsomething else\n", Some("a.cu:7: no")),
            ("nvrtc: error: invalid value\n", Some("nvrtc: error: invalid value")),
            ("all is well\n", None),
        ] {
            assert_eq!(first_error(log).as_deref(), told, "{log}");
        }
    }

    #[test]
    fn kept_code_is_found_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er").join(key("text", GENERATIONS[0]));
        assert_eq!(load(&path), None);
        store(&path, b"code").unwrap();
        assert_eq!(load(&path).as_deref(), Some(&b"code"[..]));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        let mut bytes = fs::read(&path).unwrap();
        bytes[33] ^= 1;
        for damaged in [&bytes[..], &bytes[..20], &[]] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(load(&path), None);
        }
        let keys =
            [key("text", GENERATIONS[0]), key("text", GENERATIONS[1]), key("t", GENERATIONS[0])];
        assert!(keys[0] != keys[1] && keys[0] != keys[2]);
    }

    #[test]
    fn a_compiler_that_is_none_is_refused_with_what_to_do() {
        let error = Compiler::load(Some(Path::new("/nowhere/libnvrtc.so.13"))).unwrap_err();
        assert!(error.to_string().contains("GANTRY_NVRTC"), "{error}");
    }
}
