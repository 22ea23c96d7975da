"""The receptive field found by perturbation, against functions whose field is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from transforms.receptive_field import ProbeRules, Run, measure_field

GRAY = ProbeRules(channels=1)
Images = NDArray[np.float32]


def correlation(kernel: NDArray[np.float64]) -> Run:
    """Zero-padded correlation with a kernel, scipy's."""

    def run(images: Images) -> Images:
        return ndimage.correlate(images, kernel[None, None].astype(np.float32), mode="constant")

    return run


def box(radius: int) -> Run:
    """The same for a square of ones, one axis at a time."""

    def run(images: Images) -> Images:
        ones = np.ones(2 * radius + 1, np.float32)
        return ndimage.correlate1d(ndimage.correlate1d(images, ones, 2, mode="constant"), ones, 3, mode="constant")

    return run


def every(step: int) -> Run:
    """Takes every step-th pixel and repeats it: period `step`, and a pixel is seen from up to step - 1 away."""

    def run(images: Images) -> Images:
        sampled = images[:, :, ::step, ::step]
        return np.repeat(np.repeat(sampled, step, 2), step, 3)[:, :, : images.shape[2], : images.shape[3]]

    return run


@pytest.mark.parametrize("radius", [0, 1, 2, 7, 20, 23, 24, 60])
def test_reach_of_a_correlation_is_its_radius(radius: int) -> None:
    field = measure_field(box(radius), GRAY)
    assert (field.halo, field.period, field.obstacle) == (radius, 1, None)


@pytest.mark.parametrize("offset", [(0, -3), (0, 3), (-3, 0), (3, 0)])
def test_one_side_is_enough(offset: tuple[int, int]) -> None:
    kernel = np.zeros((7, 7))
    kernel[3, 3] = kernel[3 + offset[0], 3 + offset[1]] = 1
    assert measure_field(correlation(kernel), GRAY).halo == 3


def test_weights_too_weak_to_show_in_float32_count() -> None:
    kernel = np.zeros((9, 9))
    kernel[4, 4], kernel[4, 0] = 1, 1e-14  # scipy drops weights below 1e-15
    assert measure_field(correlation(kernel), GRAY).halo == 4


@pytest.mark.parametrize("offset", [40, 64, 100, 180])
def test_a_lone_weight_far_away_is_found(offset: int) -> None:
    kernel = np.zeros((1, 2 * offset + 1))
    kernel[0, 0] = kernel[0, offset] = 1
    assert measure_field(correlation(kernel), GRAY).halo == offset


def test_a_dead_unit_that_other_pictures_wake_counts() -> None:
    far = np.zeros((1, 13))
    far[0, 0] = 1

    def run(images: Images) -> Images:
        with np.errstate(invalid="ignore"):
            return images + np.fmax(
                correlation(far)(images) - 100, 0
            )  # fmax swallows NaN; samples in [0, 1] never pass 100

    assert measure_field(run, GRAY).halo == 6


@pytest.mark.parametrize("step", [2, 3, 4, 8, 24])
def test_period_of_a_network_that_samples(step: int) -> None:
    field = measure_field(every(step), replace(GRAY, size_multiple=step))
    assert (field.period, field.obstacle) == (step, None)
    assert field.halo == 0  # at cuts between blocks


def test_period_is_found_where_sizes_do_not_show_it() -> None:
    field = measure_field(every(5), GRAY)
    assert (field.period, field.halo, field.obstacle) == (5, 0, None)


@pytest.mark.parametrize(("scale", "radius"), [(2, 1), (3, 2), (4, 5)])
def test_reach_in_input_pixels_of_a_network_that_enlarges(scale: int, radius: int) -> None:
    blur = box(radius)

    def run(images: Images) -> Images:
        return np.repeat(np.repeat(blur(images), scale, 2), scale, 3)

    assert measure_field(run, replace(GRAY, scale=scale)).halo == radius


def test_blur_after_enlarging_is_rounded_up_to_input_pixels() -> None:
    blur = box(3)

    def run(images: Images) -> Images:
        return blur(np.repeat(np.repeat(images, 2, 2), 2, 3))

    assert measure_field(run, replace(GRAY, scale=2)).halo == 2  # 3 output pixels


@pytest.mark.parametrize("reduce", [np.mean, np.max, np.nanmax, np.var])
def test_a_global_statistic_is_no_field(reduce: object) -> None:
    def run(images: Images) -> Images:
        with np.errstate(all="ignore"):
            return (images - reduce(images, axis=(2, 3), keepdims=True)).astype(np.float32)  # type: ignore[operator]

    field = measure_field(run, GRAY)
    assert field.halo is None
    assert field.obstacle is not None
    assert field.seen >= 100


def test_a_statistic_along_one_axis_is_no_field_either() -> None:
    field = measure_field(lambda images: images - images.mean(axis=3, keepdims=True), GRAY)
    assert field.halo is None


def test_a_network_that_knows_where_it_is_has_an_obstacle() -> None:
    def run(images: Images) -> Images:
        return images * np.linspace(0, 1, images.shape[3], dtype=np.float32)

    assert "where" in str(measure_field(run, GRAY).obstacle)


def test_a_network_that_knows_its_size_has_an_obstacle() -> None:
    def run(images: Images) -> Images:
        return images * np.float32(1 / images.shape[3])

    assert "whole" in str(measure_field(run, GRAY).obstacle)


def test_a_network_of_one_size_is_measured_at_that_size() -> None:
    sizes = set()

    def run(images: Images) -> Images:
        sizes.add(images.shape[2:])
        return box(2)(images)

    field = measure_field(run, replace(GRAY, fixed=(40, 48)))
    assert (field.halo, field.period, field.obstacle) == (2, 1, None)
    assert sizes == {(40, 48)}


def test_a_declared_halo_is_checked_with_a_probe_that_is_long_enough() -> None:
    far = np.zeros((1, 601))
    far[0, 0] = 1
    assert measure_field(correlation(far), GRAY).halo is None
    assert measure_field(correlation(far), replace(GRAY, declared_halo=300)).halo == 300
    assert measure_field(correlation(far), replace(GRAY, declared_halo=250)).seen > 250
