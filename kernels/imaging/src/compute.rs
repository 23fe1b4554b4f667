//! Where operations run: on the processor, or on a GPU.
//!
//! [`Compute`] has the operations that have a twin for CUDA. Results are the same bits on both, so a
//! caller chooses by speed alone; where a GPU cannot do it (there is none, its memory is too small, it
//! fails) the processor does, and [`Compute::take_ran`] says why.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::canny::{self, Canny};
use crate::components::{self, Components, Filter};
use crate::cuda;
use crate::error::ImagingError;
use crate::gaussian::{self, Gaussian};
use crate::gradient::{self, Operator};
use crate::morphology::{self, Ball};
use crate::neighbourhood::{Connectivity, Space};
use crate::region::{
    self, ConfidenceConnected, ConfidenceRegion, ConnectedThreshold, NeighbourhoodConnected, Voxel,
};
use crate::resample;
use crate::volume::{Geometry, Image, Mask};

/// On what operations shall run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Device {
    /// On a GPU where one can, otherwise on the processor.
    #[default]
    Auto,
    /// On the processor.
    Cpu,
    /// On a GPU; what cannot run there fails.
    Cuda,
}

impl FromStr for Device {
    type Err = ImagingError;

    fn from_str(text: &str) -> Result<Self, ImagingError> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda),
            _ => Err(ImagingError::Parameter {
                operation: "device",
                problem: format!("there is no {text:?}; it is auto, cpu or cuda"),
            }),
        }
    }
}

/// What an operation ran on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// The processor.
    #[default]
    Cpu,
    /// A GPU.
    Cuda,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        })
    }
}

/// How an operation ran.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ran {
    /// On what.
    pub on: Engine,
    /// Why not on a GPU, where one was to be tried.
    pub because: Option<String>,
}

/// The operations that run on the processor or on a GPU.
#[derive(Debug, Clone, Default)]
pub struct Compute {
    device: Device,
    ran: Ran,
}

impl Compute {
    /// Returns operations that run on a device.
    #[must_use]
    pub fn on(device: Device) -> Self {
        Self { device, ran: Ran::default() }
    }

    /// Returns how the last operation ran, and forgets it.
    pub fn take_ran(&mut self) -> Ran {
        std::mem::take(&mut self.ran)
    }

    /// [`gaussian::gaussian`].
    pub fn gaussian(&mut self, image: &Image, by: &Gaussian) -> Result<Image, ImagingError> {
        self.run(|gpu| cuda::gaussian::gaussian(gpu, image, by), || gaussian::gaussian(image, by))
    }

    /// [`gradient::magnitude`].
    pub fn gradient(
        &mut self,
        image: &Image,
        operator: Operator,
        space: Space,
    ) -> Result<Image, ImagingError> {
        self.run(
            |gpu| cuda::gradient::magnitude(gpu, image, operator, space),
            || Ok(gradient::magnitude(image, operator, space)),
        )
    }

    /// [`canny::canny`].
    pub fn canny(&mut self, image: &Image, by: &Canny) -> Result<Mask, ImagingError> {
        self.run(|gpu| cuda::canny::canny(gpu, image, by), || canny::canny(image, by))
    }

    /// [`resample::image_onto`].
    pub fn image_onto(
        &mut self,
        image: &Image,
        grid: &Geometry,
        outside: f32,
    ) -> Result<Image, ImagingError> {
        self.run(
            |gpu| cuda::resample::image_onto(gpu, image, grid, outside),
            || resample::image_onto(image, grid, outside),
        )
    }

    /// [`resample::mask_onto`].
    pub fn mask_onto(&mut self, mask: &Mask, grid: &Geometry) -> Result<Mask, ImagingError> {
        self.run(
            |gpu| cuda::resample::mask_onto(gpu, mask, grid),
            || resample::mask_onto(mask, grid),
        )
    }

    /// [`region::connected_threshold`].
    pub fn connected_threshold(
        &mut self,
        image: &Image,
        seeds: &[Voxel],
        by: &ConnectedThreshold,
    ) -> Result<Mask, ImagingError> {
        self.run(
            |gpu| cuda::connected::connected_threshold(gpu, image, seeds, by),
            || region::connected_threshold(image, seeds, by),
        )
    }

    /// [`region::neighbourhood_connected`].
    pub fn neighbourhood_connected(
        &mut self,
        image: &Image,
        seeds: &[Voxel],
        by: &NeighbourhoodConnected,
    ) -> Result<Mask, ImagingError> {
        self.run(
            |gpu| cuda::region::neighbourhood_connected(gpu, image, seeds, by),
            || region::neighbourhood_connected(image, seeds, by),
        )
    }

    /// [`region::confidence_connected`].
    pub fn confidence_connected(
        &mut self,
        image: &Image,
        seeds: &[Voxel],
        by: &ConfidenceConnected,
    ) -> Result<ConfidenceRegion, ImagingError> {
        self.run(
            |gpu| cuda::region::confidence_connected(gpu, image, seeds, by),
            || region::confidence_connected(image, seeds, by),
        )
    }

    /// [`components::label`].
    pub fn label(
        &mut self,
        mask: &Mask,
        connectivity: Connectivity,
    ) -> Result<Components, ImagingError> {
        self.run(
            |gpu| cuda::connected::label(gpu, mask, connectivity),
            || Ok(components::label(mask, connectivity)),
        )
    }

    /// [`components::filter`].
    pub fn filter(&mut self, mask: &Mask, by: &Filter) -> Result<Mask, ImagingError> {
        self.run(|gpu| cuda::connected::filter(gpu, mask, by), || Ok(components::filter(mask, by)))
    }

    /// [`morphology::dilate`].
    pub fn dilate(&mut self, mask: &Mask, ball: &Ball) -> Result<Mask, ImagingError> {
        self.run(|gpu| cuda::morphology::dilate(gpu, mask, ball), || morphology::dilate(mask, ball))
    }

    /// [`morphology::erode`].
    pub fn erode(&mut self, mask: &Mask, ball: &Ball) -> Result<Mask, ImagingError> {
        self.run(|gpu| cuda::morphology::erode(gpu, mask, ball), || morphology::erode(mask, ball))
    }

    /// [`morphology::open`].
    pub fn open(&mut self, mask: &Mask, ball: &Ball) -> Result<Mask, ImagingError> {
        self.run(|gpu| cuda::morphology::open(gpu, mask, ball), || morphology::open(mask, ball))
    }

    /// [`morphology::close`].
    pub fn close(&mut self, mask: &Mask, ball: &Ball) -> Result<Mask, ImagingError> {
        self.run(|gpu| cuda::morphology::close(gpu, mask, ball), || morphology::close(mask, ball))
    }

    fn run<T>(
        &mut self,
        on_gpu: impl FnOnce(&cuda::Cuda) -> Result<T, ImagingError>,
        on_processor: impl FnOnce() -> Result<T, ImagingError>,
    ) -> Result<T, ImagingError> {
        let (ran, result) = choose(self.device, cuda::gpu, on_gpu, on_processor);
        self.ran = ran;
        result
    }
}

/// Runs an operation on a GPU or on the processor.
fn choose<G, T>(
    device: Device,
    gpu: impl FnOnce() -> Result<G, &'static str>,
    on_gpu: impl FnOnce(G) -> Result<T, ImagingError>,
    on_processor: impl FnOnce() -> Result<T, ImagingError>,
) -> (Ran, Result<T, ImagingError>) {
    let mut ran = Ran::default();
    if device == Device::Cpu {
        return (ran, on_processor());
    }
    let gpu = gpu().map_err(|problem| ImagingError::Device { problem: problem.to_owned() });
    match gpu.and_then(on_gpu) {
        Err(ImagingError::Device { problem }) if device == Device::Auto => {
            ran.because = Some(problem);
            (ran, on_processor())
        }
        done => (Ran { on: Engine::Cuda, because: None }, done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type OnGpu<'a> = &'a dyn Fn() -> Result<u8, ImagingError>;

    fn failed(problem: &str) -> ImagingError {
        ImagingError::Device { problem: problem.to_owned() }
    }

    #[test]
    fn the_processor_takes_over_where_it_may() {
        let wrong = || ImagingError::Parameter { operation: "a", problem: "b".to_owned() };
        let cpu =
            |because: Option<&str>| Ran { on: Engine::Cpu, because: because.map(str::to_owned) };
        let cuda = Ran { on: Engine::Cuda, because: None };
        let fine: OnGpu = &|| Ok(1);
        let full: OnGpu = &|| Err(failed("it is full"));
        let refused: OnGpu = &|| Err(wrong());
        for (device, gpu, on_gpu, ran, result) in [
            (Device::Cpu, Ok(()), fine, cpu(None), Some(2)),
            (Device::Auto, Ok(()), fine, cuda.clone(), Some(1)),
            (Device::Auto, Err("there is none"), fine, cpu(Some("there is none")), Some(2)),
            (Device::Auto, Ok(()), full, cpu(Some("it is full")), Some(2)),
            (Device::Auto, Ok(()), refused, cuda.clone(), None),
            (Device::Cuda, Ok(()), fine, cuda.clone(), Some(1)),
            (Device::Cuda, Err("there is none"), fine, cuda.clone(), None),
            (Device::Cuda, Ok(()), full, cuda.clone(), None),
        ] {
            let (found, value) = choose(device, || gpu, |()| on_gpu(), || Ok(2));
            assert_eq!((found, value.ok()), (ran, result), "{device:?}");
        }
    }

    #[test]
    fn devices_have_their_names() {
        for device in [Device::Auto, Device::Cpu, Device::Cuda] {
            let name = serde_json::to_value(device).unwrap();
            assert_eq!(name.as_str().unwrap().parse::<Device>().unwrap(), device);
        }
        let error = "gpu".parse::<Device>().unwrap_err().to_string();
        assert!(error.contains("auto, cpu or cuda"), "{error}");
    }

    #[test]
    fn auto_gives_the_processors_results_and_says_where_it_ran() {
        let image = Image::filled(Geometry::unit([6, 5, 4]), 3.0);
        let by = Gaussian::default();
        let mut compute = Compute::on(Device::Auto);
        let found = compute.gaussian(&image, &by).unwrap();
        assert_eq!(found, gaussian::gaussian(&image, &by).unwrap());
        let ran = compute.take_ran();
        assert_eq!(ran.on == Engine::Cpu, ran.because.is_some(), "{ran:?}");
        eprintln!("ran on {}: {}", ran.on, ran.because.unwrap_or_default());
    }
}
