//! What the operations need of a GPU: memory, copies, launches.
//!
//! The operations are written over this trait, so that all of them but the few lines that call the
//! driver run in tests on any machine: there the device is the same sources built for the processor.
//!
//! A launch is held against the kernel's own declaration: as many arguments, of the same types, and
//! an array that is written is borrowed for it alone.

use std::marker::PhantomData;

use super::source::{Parameter, SIGNATURES};
use crate::error::ImagingError;
use crate::volume::Geometry;

/// The threads of a block. The sources lean on no number but that it is a power of two, at most 1024.
pub(crate) const BLOCK: u32 = 256;

/// The most voxels of a grid: the highest bit of an index is free to mark it.
pub(crate) const VOXELS_MAX: usize = (1 << 31) - 1;

/// Something that runs the kernels of [`super::source`].
pub(crate) trait Device {
    /// A piece of the device's memory.
    type Memory;

    /// Returns an error unless so much memory is free.
    fn require(&self, bytes: u64) -> Result<(), ImagingError>;

    /// Returns a piece of memory; what it holds is arbitrary.
    fn allocate(&self, bytes: usize) -> Result<Self::Memory, ImagingError>;

    /// Copies bytes into a piece of memory, from its beginning.
    fn write(&self, to: &mut Self::Memory, bytes: &[u8]) -> Result<(), ImagingError>;

    /// Copies a piece of memory, from its beginning, once all launches before have ended.
    fn read(&self, from: &Self::Memory, bytes: &mut [u8]) -> Result<(), ImagingError>;

    /// Runs blocks of [`BLOCK`] threads of a kernel, whose arguments have been checked.
    fn start(
        &self,
        kernel: &'static str,
        blocks: u32,
        arguments: &mut [Argument<'_, Self::Memory>],
    ) -> Result<(), ImagingError>;

    /// Runs a kernel with at least so many threads.
    ///
    /// # Panics
    /// Panics where the arguments are not what the kernel's declaration asks for.
    fn launch(
        &self,
        kernel: &'static str,
        threads: usize,
        mut arguments: Vec<Argument<'_, Self::Memory>>,
    ) -> Result<(), ImagingError> {
        let given: Vec<Parameter> = arguments.iter().map(Argument::parameter).collect();
        let declared = SIGNATURES.get(kernel).map(|signature| &signature.parameters);
        assert_eq!(Some(&given), declared, "arguments of the kernel {kernel}");
        let blocks = threads.div_ceil(BLOCK as usize) as u32;
        if blocks == 0 { Ok(()) } else { self.start(kernel, blocks, &mut arguments) }
    }

    /// Returns an array of arbitrary values.
    fn array<T: Element>(&self, length: usize) -> Result<Array<Self::Memory, T>, ImagingError> {
        let memory = self.allocate(length * size_of::<T>())?;
        Ok(Array { memory, length, element: PhantomData })
    }

    /// Returns an array of these values.
    fn upload<T: Element>(&self, values: &[T]) -> Result<Array<Self::Memory, T>, ImagingError> {
        let mut array = self.array(values.len())?;
        self.write(&mut array.memory, bytemuck::cast_slice(values))?;
        Ok(array)
    }

    /// Returns an array's values.
    fn download<T: Element>(&self, array: &Array<Self::Memory, T>) -> Result<Vec<T>, ImagingError> {
        let mut values = vec![T::zeroed(); array.length];
        self.read(&array.memory, bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }
}

/// A number that arrays hold.
pub(crate) trait Element: bytemuck::Pod {
    /// What the device sources call it.
    const NAME: &'static str;
}

macro_rules! elements {
    ($($number:ty: $name:literal),*) => {$(
        impl Element for $number {
            const NAME: &'static str = $name;
        }
        impl<M> From<$number> for Argument<'_, M> {
            fn from(value: $number) -> Self {
                Self::value($name, &[value])
            }
        }
    )*};
}
elements!(u8: "u8", u32: "u32", f32: "float", f64: "double");

/// Values in a device's memory.
pub(crate) struct Array<M, T> {
    memory: M,
    length: usize,
    element: PhantomData<T>,
}

/// What a kernel is started with.
pub(crate) enum Argument<'a, M> {
    /// An array that it reads.
    Input(&'a M, &'static str),
    /// An array that it writes.
    Output(&'a mut M, &'static str),
    /// A number or a structure of numbers, as it lies in memory, with room for the alignment of any.
    Value(Vec<u64>, &'static str),
}

impl<M> Argument<'_, M> {
    /// Returns numbers of one type as a value of the type that the sources call `name`.
    pub(crate) fn value(name: &'static str, numbers: &[impl bytemuck::Pod]) -> Self {
        let bytes: &[u8] = bytemuck::cast_slice(numbers);
        let mut value = vec![0u64; bytes.len().div_ceil(8)];
        bytemuck::cast_slice_mut(&mut value)[..bytes.len()].copy_from_slice(bytes);
        Self::Value(value, name)
    }

    fn parameter(&self) -> Parameter {
        match *self {
            Self::Input(_, of) => Parameter::Array { of: of.to_owned(), written: false },
            Self::Output(_, of) => Parameter::Array { of: of.to_owned(), written: true },
            Self::Value(_, name) => Parameter::Value(name.to_owned()),
        }
    }
}

impl<'a, M, T: Element> From<&'a Array<M, T>> for Argument<'a, M> {
    fn from(array: &'a Array<M, T>) -> Self {
        Self::Input(&array.memory, T::NAME)
    }
}

impl<'a, M, T: Element> From<&'a mut Array<M, T>> for Argument<'a, M> {
    fn from(array: &'a mut Array<M, T>) -> Self {
        Self::Output(&mut array.memory, T::NAME)
    }
}

/// The size of a grid, which kernels take by value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid([u32; 3]);

impl Grid {
    /// Returns the size of a grid, or an error where its voxels are too many to be counted.
    pub(crate) fn new(size: [usize; 3]) -> Result<Self, ImagingError> {
        let voxels = size.iter().fold(1usize, |product, &length| product.saturating_mul(length));
        if voxels > VOXELS_MAX {
            let problem = format!("{voxels} voxels are more than its limit of {VOXELS_MAX}");
            return Err(ImagingError::Device { problem });
        }
        Ok(Self(size.map(|length| length as u32)))
    }

    pub(crate) fn of(geometry: &Geometry) -> Result<Self, ImagingError> {
        Self::new(geometry.size)
    }

    pub(crate) fn voxels(self) -> usize {
        self.0.iter().map(|&length| length as usize).product()
    }

    /// The rows of voxels along x.
    pub(crate) fn rows(self) -> usize {
        self.0[1] as usize * self.0[2] as usize
    }
}

impl<M> From<Grid> for Argument<'_, M> {
    fn from(grid: Grid) -> Self {
        Self::value("Grid", &grid.0)
    }
}

/// Launches a kernel: `launch!(device, "name", threads, argument, ...)`.
macro_rules! launch {
    ($device:expr, $kernel:literal, $threads:expr, $($argument:expr),+ $(,)?) => {
        $device.launch($kernel, $threads, vec![$($crate::cuda::device::Argument::from($argument)),+])
    };
}
pub(crate) use launch;
