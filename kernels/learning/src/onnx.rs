//! A model as ONNX (opset 17), for programs that run such files.
//!
//! One input, `image`: patches of one channel, intensities on the model's scale, which
//! `gantry.normalisation` in the file's properties tells; `gantry.mirroring` says from which sides gantry
//! looks. Two outputs: `logits`, with a class on the
//! second axis, and `features`. Group normalisation has no operation of its own before opset 18, so it
//! is written as others do it: one instance for each group, and a scale and a shift for each channel.
//!
//! The file is a message of Protocol Buffers; the few fields that are needed are written here by their
//! numbers in `onnx.proto`.

use gantry_library::ModelRecord;

use crate::error::LearningError;
use crate::metadata::ModelMetadata;
use crate::network::graph::{Graph, Op};
use crate::weights::Weights;

const OPSET: u64 = 17;
const IR_VERSION: u64 = 8;
const FLOAT: u64 = 1;
const INT64: u64 = 7;

/// The bytes of a model as an ONNX file.
pub(crate) fn onnx(
    record: &ModelRecord,
    metadata: &ModelMetadata,
    weights: &Weights,
) -> Result<Vec<u8>, LearningError> {
    let normalisation = serde_json::to_string(&metadata.normalisation)
        .map_err(|error| LearningError::Damaged(format!("the model's metadata: {error}")))?;
    let properties = [
        ("gantry.model", record.id.to_string()),
        ("gantry.task", metadata.task.clone()),
        ("gantry.labels", metadata.labels.join(",")),
        ("gantry.normalisation", normalisation),
        ("gantry.mirroring", metadata.mirroring.word().to_owned()),
        ("gantry.intended_use", metadata.intended_use.clone()),
    ];
    Ok(file(metadata, weights, &properties))
}

fn file(metadata: &ModelMetadata, weights: &Weights, properties: &[(&str, String)]) -> Vec<u8> {
    let graph = metadata.network.graph();
    let mut opset = Message::default();
    opset.text(1, "");
    opset.number(2, OPSET);
    let mut model = Message::default();
    model.number(1, IR_VERSION);
    model.text(2, "gantry");
    model.text(3, env!("CARGO_PKG_VERSION"));
    model.message(7, &drawing(&graph, metadata, weights));
    model.message(8, &opset);
    for (key, value) in properties {
        let mut property = Message::default();
        property.text(1, key);
        property.text(2, value);
        model.message(14, &property);
    }
    model.0
}

/// The graph with its weights.
fn drawing(graph: &Graph, metadata: &ModelMetadata, weights: &Weights) -> Message {
    let mut drawn =
        Drawn { axes: graph.axes, epsilon: graph.epsilon as f32, graph: Message::default() };
    for (number, op) in graph.ops.iter().enumerate() {
        let to = match number {
            _ if number == graph.logits => "logits".to_owned(),
            _ if number == graph.features => "features".to_owned(),
            _ => result(graph, number),
        };
        drawn.op(op, &to, |of| result(graph, of));
    }
    let mut message = drawn.graph;
    message.text(2, "gantry");
    for (name, parameter) in &weights.0 {
        message.message(5, &floats(name, &parameter.shape, &parameter.values));
    }
    let patch = metadata.patch().shape(graph.axes, 1);
    message.message(11, &value("image", &patch[1..]));
    let classes = metadata.network.classes;
    let logits = match graph.ops[graph.logits] {
        Op::Linear { .. } => vec![classes],
        _ => [&[classes], &patch[2..]].concat(),
    };
    message.message(12, &value("logits", &logits));
    message.message(12, &value("features", &[metadata.network.features()]));
    message
}

/// The name of an operation's result.
fn result(graph: &Graph, number: usize) -> String {
    match &graph.ops[number] {
        Op::Input => "image".to_owned(),
        _ if number == graph.features => "features".to_owned(),
        _ => format!("x{number}"),
    }
}

/// A graph that is being drawn.
struct Drawn {
    axes: usize,
    epsilon: f32,
    graph: Message,
}

impl Drawn {
    fn op(&mut self, op: &Op, to: &str, from: impl Fn(usize) -> String) {
        match op {
            Op::Input => {}
            Op::Conv { of, name, size, stride, shift, .. } => {
                let mut inputs = vec![from(*of), format!("{name}.kernel")];
                if *shift {
                    inputs.push(format!("{name}.shift"));
                }
                let every = |value: usize, count: usize| vec![value as i64; count];
                let attributes = [
                    integers("kernel_shape", &every(*size, self.axes)),
                    integers("pads", &every(size / 2, 2 * self.axes)),
                    integers("strides", &every(*stride, self.axes)),
                ];
                self.node("Conv", &inputs, to, &attributes);
            }
            Op::Norm { of, name, channels, groups } => {
                self.norm(&from(*of), name, (*channels, *groups), to);
            }
            Op::Relu { of } => self.node("Relu", &[from(*of)], to, &[]),
            Op::Add { of, and } => self.node("Add", &[from(*of), from(*and)], to, &[]),
            Op::Concat { of, and } => {
                self.node("Concat", &[from(*of), from(*and)], to, &[integer("axis", 1)]);
            }
            Op::Twice { of } => {
                let scales = format!("{to}.scales");
                let twice = [vec![1.0, 1.0], vec![2.0; self.axes]].concat();
                self.graph.message(5, &floats(&scales, &[twice.len()], &twice));
                let attributes = [
                    string("mode", "nearest"),
                    string("coordinate_transformation_mode", "asymmetric"),
                    string("nearest_mode", "floor"),
                ];
                self.node("Resize", &[from(*of), String::new(), scales], to, &attributes);
            }
            Op::MaxPool { of } => {
                let attributes = [
                    integers("kernel_shape", &[3, 3]),
                    integers("pads", &[1; 4]),
                    integers("strides", &[2, 2]),
                ];
                self.node("MaxPool", &[from(*of)], to, &attributes);
            }
            Op::MeanPool { of } => {
                let attributes = [integers("kernel_shape", &[2, 2]), integers("strides", &[2, 2])];
                self.node("AveragePool", &[from(*of)], to, &attributes);
            }
            Op::Mean { of } => {
                let mean = format!("{to}.mean");
                self.node("GlobalAveragePool", &[from(*of)], &mean, &[]);
                self.node("Flatten", &[mean], to, &[integer("axis", 1)]);
            }
            Op::Linear { of, name, .. } => {
                let inputs = [from(*of), format!("{name}.kernel"), format!("{name}.shift")];
                self.node("Gemm", &inputs, to, &[integer("transB", 1)]);
            }
        }
    }

    fn norm(&mut self, of: &str, name: &str, (channels, groups): (usize, usize), to: &str) {
        let part = |part: &str| format!("{to}.{part}");
        self.graph.message(5, &whole_numbers(&part("grouped"), &[0, groups as i64, -1]));
        self.graph.message(5, &floats(&part("ones"), &[groups], &vec![1.0; groups]));
        self.graph.message(5, &floats(&part("zeros"), &[groups], &vec![0.0; groups]));
        let mut wide = vec![1; self.axes + 1];
        wide[0] = channels as i64;
        self.graph.message(5, &whole_numbers(&part("wide"), &wide));
        self.node("Shape", &[of.to_owned()], &part("shape"), &[]);
        self.node("Reshape", &[of.to_owned(), part("grouped")], &part("groups"), &[]);
        let instance = [part("groups"), part("ones"), part("zeros")];
        let epsilon = [float("epsilon", self.epsilon)];
        self.node("InstanceNormalization", &instance, &part("normal"), &epsilon);
        self.node("Reshape", &[part("normal"), part("shape")], &part("back"), &[]);
        for vector in ["scale", "shift"] {
            self.node("Reshape", &[format!("{name}.{vector}"), part("wide")], &part(vector), &[]);
        }
        self.node("Mul", &[part("back"), part("scale")], &part("scaled"), &[]);
        self.node("Add", &[part("scaled"), part("shift")], to, &[]);
    }

    fn node(&mut self, kind: &str, inputs: &[String], to: &str, attributes: &[Message]) {
        let mut node = Message::default();
        for input in inputs {
            node.text(1, input);
        }
        node.text(2, to);
        node.text(3, to);
        node.text(4, kind);
        for attribute in attributes {
            node.message(5, attribute);
        }
        self.graph.message(1, &node);
    }
}

fn attribute(name: &str, kind: u64, fill: impl FnOnce(&mut Message)) -> Message {
    let mut message = Message::default();
    message.text(1, name);
    fill(&mut message);
    message.number(20, kind);
    message
}

fn float(name: &str, value: f32) -> Message {
    attribute(name, 1, |message| message.fixed(2, value))
}

fn integer(name: &str, value: u64) -> Message {
    attribute(name, 2, |message| message.number(3, value))
}

fn string(name: &str, value: &str) -> Message {
    attribute(name, 3, |message| message.text(4, value))
}

fn integers(name: &str, values: &[i64]) -> Message {
    let fill = |message: &mut Message| values.iter().for_each(|&one| message.number(8, one as u64));
    attribute(name, 7, fill)
}

fn tensor(name: &str, kind: u64, shape: &[usize], bytes: &[u8]) -> Message {
    let mut message = Message::default();
    for &side in shape {
        message.number(1, side as u64);
    }
    message.number(2, kind);
    message.text(8, name);
    message.bytes(9, bytes);
    message
}

fn floats(name: &str, shape: &[usize], values: &[f32]) -> Message {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    tensor(name, FLOAT, shape, &bytes)
}

fn whole_numbers(name: &str, values: &[i64]) -> Message {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    tensor(name, INT64, &[values.len()], &bytes)
}

/// What goes in or comes out: any number of patches, and these axes behind.
fn value(name: &str, axes: &[usize]) -> Message {
    let mut shape = Message::default();
    let mut patches = Message::default();
    patches.text(2, "patches");
    shape.message(1, &patches);
    for &side in axes {
        let mut axis = Message::default();
        axis.number(1, side as u64);
        shape.message(1, &axis);
    }
    let mut tensor = Message::default();
    tensor.number(1, FLOAT);
    tensor.message(2, &shape);
    let mut kind = Message::default();
    kind.message(1, &tensor);
    let mut value = Message::default();
    value.text(1, name);
    value.message(2, &kind);
    value
}

/// A message of Protocol Buffers, field by field.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn fixed(&mut self, field: u64, value: f32) {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
    }

    fn text(&mut self, field: u64, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    fn message(&mut self, field: u64, value: &Self) {
        self.bytes(field, &value.0);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::data::Normalisation;
    use crate::metadata::FeatureScale;
    use crate::mirror::Mirroring;
    use crate::network::{LoadedNetwork, Mode, Network, NetworkKind, Supervision, values};
    use crate::random::Random;

    /// The Python with `onnx` and `onnxruntime`, or nothing, which is said.
    fn python() -> Option<String> {
        let python = std::env::var("GANTRY_PYTHON").unwrap_or_else(|_| "python3".into());
        let there = Command::new(&python)
            .args(["-c", "import onnx, onnxruntime"])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if !there {
            eprintln!(
                "SKIPPED: ONNX files need a Python with onnx and onnxruntime (GANTRY_PYTHON)"
            );
        }
        there.then_some(python)
    }

    #[test]
    fn onnxruntime_says_what_the_embedded_engine_says() {
        let Some(python) = python() else { return };
        let folder = tempfile::tempdir().unwrap();
        for kind in NetworkKind::ALL {
            let slice = kind.side_multiple() == 32;
            let (base_channels, side) = if slice { (8, 64) } else { (4, 16) };
            let supervision = Supervision::Top;
            let network = Network { kind, base_channels, classes: 2, supervision };
            let depth = if kind.axes() == 3 { 8 } else { 1 };
            let metadata = ModelMetadata {
                version: 1,
                task: kind.task().word().to_owned(),
                network,
                input_size: side,
                input_depth: depth,
                slice_mm: None,
                normalisation: Normalisation::PerImage,
                mirroring: Mirroring::None,
                features: FeatureScale::default(),
                labels: vec!["background".into(), "lungs".into()],
                modalities: Vec::new(),
                library_hash: String::new(),
                samples: 0,
                epochs: 0,
                seed: 1,
                fold: None,
                intended_use: "research use only".into(),
                program: String::new(),
            };
            let weights = network.initial(3);
            let properties = [("gantry.labels", "background,lungs".to_owned())];
            let path = |name: &str| folder.path().join(format!("{}.{name}", kind.word()));
            std::fs::write(path("onnx"), file(&metadata, &weights, &properties)).unwrap();
            let patch = metadata.patch();
            let mut random = Random::new(1, "picture", 0, 0);
            let images: Vec<f32> =
                (0..3 * patch.voxels()).map(|_| random.normal() as f32).collect();
            let raw = |values: &[f32]| {
                values.iter().flat_map(|one| one.to_le_bytes()).collect::<Vec<_>>()
            };
            std::fs::write(path("image"), raw(&images)).unwrap();
            let loaded = LoadedNetwork::new(network, &weights, Mode::Use);
            let output = loaded.forward(images, patch);
            std::fs::write(path("logits"), raw(&values(output.logits))).unwrap();
            std::fs::write(path("features"), raw(&values(output.features))).unwrap();
            let script =
                Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/peers/onnx_file.py");
            let done = Command::new(&python).arg(script).arg(path("onnx")).output().unwrap();
            assert!(done.status.success(), "{}: {done:?}", kind.word());
        }
    }

    #[test]
    fn numbers_are_written_seven_bits_at_a_time() {
        // The examples of the encoding's own document.
        let mut message = Message::default();
        message.number(1, 150);
        message.text(2, "testing");
        let expected = [&[0x08, 0x96, 0x01, 0x12, 0x07][..], b"testing"].concat();
        assert_eq!(message.0, expected);
        let mut message = Message::default();
        message.number(1, -1_i64 as u64);
        assert_eq!(message.0.len(), 11);
    }
}
