//! The device sources, built into the program, and what their kernels take.
//!
//! All files are one translation unit; a `#line` before each lets the compiler name the file it
//! complains about. A kernel's parameters are read from its declaration, so that a launch can be held
//! against the source it starts and not against a second list.

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// The files in the order in which they build on each other.
const FILES: &[(&str, &str)] = &[
    ("grid.cu", include_str!("../../cuda/grid.cu")),
    ("gaussian.cu", include_str!("../../cuda/gaussian.cu")),
    ("gradient.cu", include_str!("../../cuda/gradient.cu")),
    ("surfaces.cu", include_str!("../../cuda/surfaces.cu")),
    ("edges.cu", include_str!("../../cuda/edges.cu")),
    ("resample.cu", include_str!("../../cuda/resample.cu")),
    ("connected.cu", include_str!("../../cuda/connected.cu")),
    ("numbering.cu", include_str!("../../cuda/numbering.cu")),
    ("components.cu", include_str!("../../cuda/components.cu")),
    ("regions.cu", include_str!("../../cuda/regions.cu")),
    ("morphology.cu", include_str!("../../cuda/morphology.cu")),
];

/// A parameter of a kernel, as it is declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Parameter {
    /// An array of this type.
    Array { of: String, written: bool },
    /// A value of this type.
    Value(String),
}

/// A kernel as it is declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signature {
    pub(super) parameters: Vec<Parameter>,
    /// Whether the threads of a block wait for each other, here or elsewhere in its file.
    pub(super) meeting: bool,
}

/// Returns the text of all sources.
pub(super) fn text() -> String {
    FILES.iter().flat_map(|&(name, text)| ["#line 1 \"", name, "\"\n", text]).collect()
}

/// The kernels by their names.
pub(super) static SIGNATURES: LazyLock<BTreeMap<String, Signature>> =
    LazyLock::new(|| FILES.iter().flat_map(|(_, text)| kernels_of(text)).collect());

fn kernels_of(text: &str) -> Vec<(String, Signature)> {
    let declared = text.split("extern \"C\" __global__ void ").skip(1);
    let meeting = text.contains("__syncthreads");
    let read = |declared: &str| {
        let (name, rest) = declared.split_once('(')?;
        let parameters = rest.split_once(')')?.0.split(',').map(parameter).collect();
        Some((name.to_owned(), Signature { parameters, meeting }))
    };
    declared.filter_map(read).collect()
}

fn parameter(text: &str) -> Parameter {
    let written = !text.contains("const ");
    let words = text.replace("const ", "");
    match words.split_once('*') {
        Some((of, _)) => Parameter::Array { of: of.trim().to_owned(), written },
        None => Parameter::Value(words.split_whitespace().next().unwrap_or_default().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernels_parameters_are_read_from_its_declaration() {
        let text = "extern \"C\" __global__ void one(const float *a, u8 *b,\n    u32 c, Grid d) {\n}\n\
                    extern \"C\" __global__ void two(u32 *a) {}";
        let array = |of: &str, written| Parameter::Array { of: of.to_owned(), written };
        let value = |of: &str| Parameter::Value(of.to_owned());
        let one = vec![array("float", false), array("u8", true), value("u32"), value("Grid")];
        assert_eq!(
            kernels_of(text),
            [
                ("one".to_owned(), Signature { parameters: one, meeting: false }),
                (
                    "two".to_owned(),
                    Signature { parameters: vec![array("u32", true)], meeting: false }
                ),
            ]
        );
        assert!(SIGNATURES["number_roots"].meeting && !SIGNATURES["flatten"].meeting);
    }
}
