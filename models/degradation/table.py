"""All elementary degradations by the name that recipes use; a module is imported when a name of it is first used."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from models.degradation.protocol import Operator
from transforms.errors import ConfigurationError

OPERATORS = {
    "gaussian_noise": "models.degradation.noise.GaussianNoise",
    "poisson_noise": "models.degradation.noise.PoissonNoise",
    "speckle_noise": "models.degradation.noise.SpeckleNoise",
    "impulse_noise": "models.degradation.noise.ImpulseNoise",
    "correlated_noise": "models.degradation.grain.CorrelatedNoise",
    "film_grain": "models.degradation.grain.FilmGrain",
    "sensor_noise": "models.degradation.sensor.SensorNoise",
    "banding_noise": "models.degradation.sensor.BandingNoise",
    "uniform_quantisation": "models.degradation.quantisation.UniformQuantisation",
    "step_quantisation": "models.degradation.quantisation.StepQuantisation",
    "bit_depth": "models.degradation.quantisation.BitDepth",
    "round_to_8bit": "models.degradation.quantisation.RoundTo8Bit",
    "saturation": "models.degradation.quantisation.Saturation",
    "highlights": "models.degradation.quantisation.Highlights",
    "clip": "models.degradation.quantisation.Clip",
    "jpeg": "models.degradation.coding.Jpeg",
    "double_jpeg": "models.degradation.coding.DoubleJpeg",
    "webp": "models.degradation.coding.WebP",
    "jpeg2000": "models.degradation.coding.Jpeg2000",
    "grayscale": "models.degradation.colour.Grayscale",
    "hsv_value": "models.degradation.colour.HsvValue",
    "fading": "models.degradation.colour.Fading",
    "colour_cast": "models.degradation.colour.ColourCast",
    "gamma": "models.degradation.colour.Gamma",
    "brightness_contrast": "models.degradation.colour.BrightnessContrast",
    "sepia": "models.degradation.colour.Sepia",
    "centre_box_mask": "models.degradation.masks.CentreBoxMask",
    "random_boxes_mask": "models.degradation.masks.RandomBoxesMask",
    "strokes_mask": "models.degradation.masks.StrokesMask",
    "random_pixels_mask": "models.degradation.masks.RandomPixelsMask",
    "text_mask": "models.degradation.masks.TextMask",
    "scratches": "models.degradation.overlays.Scratches",
    "dust": "models.degradation.overlays.Dust",
    "cracks": "models.degradation.overlays.Cracks",
    "torn_corners": "models.degradation.overlays.TornCorners",
    "text_overlay": "models.degradation.overlays.TextOverlay",
    "watermark": "models.degradation.overlays.Watermark",
    "halftone": "models.degradation.paper.Halftone",
    "bleed_through": "models.degradation.paper.BleedThrough",
    "ink_fading": "models.degradation.paper.InkFading",
    "stains": "models.degradation.paper.Stains",
    "uneven_light": "models.degradation.paper.UnevenLight",
    "paper_texture": "models.degradation.paper.PaperTexture",
    "resize": "models.degradation.sampling.Resize",
    "resize_8bit": "models.degradation.sampling.Resize8Bit",
    "gaussian_decimate": "models.degradation.sampling.GaussianDecimate",
    "gaussian_blur": "models.degradation.blur.GaussianBlur",
    "anisotropic_gaussian_blur": "models.degradation.blur.AnisotropicGaussianBlur",
    "generalised_gaussian_blur": "models.degradation.blur.GeneralisedGaussianBlur",
    "plateau_blur": "models.degradation.blur.PlateauBlur",
    "sinc_blur": "models.degradation.blur.SincBlur",
    "defocus_blur": "models.degradation.blur.DefocusBlur",
    "linear_motion_blur": "models.degradation.blur.LinearMotionBlur",
    "motion_label_blur": "models.degradation.motion_labels.MotionLabelBlur",
    "camera_shake_blur": "models.degradation.camera_shake.CameraShakeBlur",
    "random_walk_blur": "models.degradation.camera_shake.RandomWalkBlur",
    "file_blur": "models.degradation.file_blur.FileBlur",
    "composed_blur": "models.degradation.blur.ComposedBlur",
    "motion_field_blur": "models.degradation.motion_fields.MotionFieldBlur",
    "object_motion_blur": "models.degradation.object_motion.ObjectMotionBlur",
    "turbulence": "models.degradation.turbulence.Turbulence",
    "lens_distortion": "models.degradation.lenses.LensDistortion",
    "fisheye": "models.degradation.lenses.Fisheye",
    "affine_jitter": "models.degradation.geometry.AffineJitter",
    "perspective_jitter": "models.degradation.perspective.PerspectiveJitter",
}


@cache
def operator_class(name: str) -> type[Operator]:
    """The class of an operator.

    Raises:
        ConfigurationError: no operator has this name.
    """
    if name not in OPERATORS:
        raise ConfigurationError(f"no degradation is called {name!r}; known are {', '.join(OPERATORS)}")
    module, _, attribute = OPERATORS[name].rpartition(".")
    found: type[Operator] = getattr(import_module(module), attribute)
    return found
