import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovar.core.ctf import Optics, electron_wavelength, transfer_function


def optics(*rows):
    """Rows of defocus U, V (Å), angle (°), kV, Cs (mm), w, phase (°), B (Å²), scale."""
    columns = np.array(rows, np.float64).T
    columns[[2, 6]] = np.deg2rad(columns[[2, 6]])
    return Optics(*columns)


TITAN = (15301.1, 14916.4, 5.28, 300, 2.7, 0.07, 0, 0, 1)
ARCTICA = (12000, 11500, 40, 200, 1.4, 0.1, 30, 50, 0.9)


@pytest.mark.parametrize(("voltage", "wavelength"), [(300, 0.0196874892), (200, 0.0250793407)])
def test_wavelengths_are_relativistic(voltage, wavelength):
    assert electron_wavelength(voltage) == pytest.approx(wavelength, abs=1e-10)


@pytest.mark.parametrize(
    ("row", "x", "y", "value"),
    [
        (TITAN, 0.05, 0.02, -0.3291017832),
        (TITAN, 0.0, 0.0, -0.07),
        (ARCTICA, -0.03, 0.08, -0.6768641522),
    ],
)
def test_the_transfer_function_has_its_reference_values(row, x, y, value):
    found = transfer_function(optics(row), np.array([x]), np.array([y]))
    assert found[0, 0] == pytest.approx(value, abs=1e-9)


def test_every_image_has_its_own_function_on_any_shape_of_frequencies():
    x, y = np.meshgrid(np.linspace(-0.1, 0.1, 5), np.linspace(-0.1, 0.1, 4))
    both = transfer_function(optics(TITAN, ARCTICA), x, y)
    assert both.shape == (2, 4, 5)
    for image, row in enumerate([TITAN, ARCTICA]):
        alone = transfer_function(optics(row), x[2, 3], y[2, 3])
        assert both[image, 2, 3] == pytest.approx(float(alone[0]), abs=1e-12)


@given(x=st.floats(-0.3, 0.3), y=st.floats(-0.3, 0.3))
def test_friedel_mates_are_transferred_alike(x, y):
    both = transfer_function(optics(ARCTICA), np.array([x, -x]), np.array([y, -y]))[0]
    assert both[0] == pytest.approx(both[1], abs=1e-9)


@given(turn=st.floats(-180, 180), x=st.floats(-0.2, 0.2), y=st.floats(-0.2, 0.2))
def test_turning_the_astigmatism_turns_the_function(turn, x, y):
    angle = np.deg2rad(turn)
    turned = (*TITAN[:2], TITAN[2] + turn, *TITAN[3:])
    c, s = np.cos(angle), np.sin(angle)
    before = transfer_function(optics(TITAN), np.array([x]), np.array([y]))
    after = transfer_function(optics(turned), np.array([c * x - s * y]), np.array([s * x + c * y]))
    np.testing.assert_allclose(after, before, atol=1e-9)


def test_scale_and_envelope_multiply_the_function():
    s = np.linspace(0, 0.2, 7)
    plain = transfer_function(optics((*TITAN[:7], 0, 1)), s, 0 * s)
    damped = transfer_function(optics((*TITAN[:7], 80, 2)), s, 0 * s)
    np.testing.assert_allclose(damped, 2 * np.exp(-80 * s**2 / 4) * plain)


def test_full_amplitude_contrast_in_focus_transfers_everything():
    s = np.linspace(0, 0.3, 7)
    np.testing.assert_allclose(transfer_function(optics((0, 0, 0, 300, 0, -1, 0, 0, 1)), s, s), 1)


def test_jax_agrees_within_rounding_and_differentiates():
    # γ reaches 70 rad here; float32 keeps it to 1e-5.
    s = np.linspace(0, 0.2, 50, dtype=np.float32)
    table = optics(TITAN, ARCTICA)
    expected = transfer_function(table, s.astype(np.float64), 0.5 * s.astype(np.float64))
    on_device = jax.tree.map(lambda field: jnp.asarray(field, jnp.float32), table)
    found = transfer_function(on_device, s, np.float32(0.5) * s)
    np.testing.assert_allclose(found, expected, atol=1e-4)

    def value(defocus):
        moved = eqx.tree_at(lambda o: o.defocus_u, on_device, on_device.defocus_u + defocus)
        return transfer_function(moved, jnp.array([0.05]), jnp.array([0.02])).sum()

    difference = (value(20.0) - value(-20.0)) / 40
    assert jax.grad(value)(0.0) == pytest.approx(float(difference), rel=1e-2)


def test_selecting_images_selects_every_parameter():
    table = optics(TITAN, ARCTICA)
    assert len(table) == 2
    chosen = table[np.array([1])]
    assert len(chosen) == 1
    assert chosen.voltage.tolist() == [200]
    assert chosen.scale.tolist() == [0.9]
