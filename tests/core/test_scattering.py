import numpy as np
import pytest

from recovar.core.scattering import EXCLUDED, ICE, POINT, excluded_solvent, form_factor
from recovar.errors import InputError

# a and b as printed by Peng et al., Acta Cryst. A 52 (1996) 257, table 1.
PENG = {
    "H": [[0.0349, 0.1201, 0.1970, 0.0573, 0.1195], [0.5347, 3.5867, 12.3471, 18.9525, 38.6269]],
    "C": [[0.0893, 0.2563, 0.7570, 1.0487, 0.3575], [0.2465, 1.7100, 6.4094, 18.6113, 50.2523]],
    "N": [[0.1022, 0.3219, 0.7982, 0.8197, 0.1715], [0.2451, 1.7481, 6.1925, 17.3894, 48.1431]],
    "O": [[0.0974, 0.2921, 0.6910, 0.6990, 0.2039], [0.2067, 1.3815, 4.6943, 12.7105, 32.4726]],
    "P": [[0.2548, 0.6106, 1.4541, 2.3204, 0.8477], [0.2908, 1.8740, 8.5176, 24.3434, 63.2996]],
    "S": [[0.2497, 0.5628, 1.3899, 2.1865, 0.7715], [0.2681, 1.6711, 7.0267, 19.5377, 50.3888]],
}


@pytest.mark.parametrize("element", PENG)
def test_amplitudes_are_those_of_the_printed_table_at_half_the_frequency(element):
    a, b = np.array(PENG[element])
    frequency = np.linspace(0, 2, 9)
    printed = [(a * np.exp(-b * (k / 2) ** 2)).sum() for k in frequency]
    np.testing.assert_allclose(form_factor(element, frequency), printed, rtol=1e-14)


def test_deuterium_scatters_as_hydrogen_and_a_point_the_same_everywhere():
    frequency = np.linspace(0, 1, 5)
    np.testing.assert_array_equal(form_factor("D", frequency), form_factor("H", frequency))
    np.testing.assert_array_equal(form_factor(POINT, frequency), 1)
    np.testing.assert_array_equal(excluded_solvent(POINT, frequency), 0)


@pytest.mark.parametrize("element", ["X", "Cc", "Carbon", "", "Og"])
@pytest.mark.parametrize("amplitude", [form_factor, excluded_solvent])
def test_what_is_not_in_the_tables_is_refused(element, amplitude):
    with pytest.raises(InputError, match="from H to Cf"):
        amplitude(element, np.zeros(1))


def test_symbols_may_be_written_in_capitals():
    assert form_factor("ZN", np.zeros(1)) == form_factor("Zn", np.zeros(1))
    assert excluded_solvent("ZN", np.zeros(1)) == excluded_solvent("Zn", np.zeros(1))


def test_an_atom_takes_a_gaussian_of_its_volume_from_the_ice():
    # The closed form of the transform, against a sum over a fine line: the Gaussian is separable.
    side, step = EXCLUDED["C"] ** (1 / 3), 0.01
    x = np.arange(-10, 10, step)
    for k in (0.0, 0.1, 0.3):
        line = step * (np.exp(-np.pi * (x / side) ** 2) * np.cos(2 * np.pi * k * x)).sum()
        plane = (step * np.exp(-np.pi * (x / side) ** 2).sum()) ** 2
        water = sum(2 * a for a in PENG["H"][0]) + sum(PENG["O"][0])
        found = excluded_solvent("C", np.array([k]))[0]
        assert found == pytest.approx(ICE * water * line * plane, rel=1e-9)


def test_elements_without_a_volume_take_the_sphere_of_van_der_waals():
    ratio = excluded_solvent("Se", np.zeros(1)) / excluded_solvent("C", np.zeros(1))
    assert ratio[0] == pytest.approx(4 / 3 * np.pi * 1.9**3 / EXCLUDED["C"], rel=1e-5)


def test_vitreous_ice_has_the_mean_potential_of_its_free_atoms():
    # 47.88 V Å² per Å of amplitude; 0.93 g/cm³ are 32.2 Å³ per molecule. Free atoms give 4.5 V.
    assert pytest.approx(32.17, abs=0.01) == 1 / ICE
    water = 2 * form_factor("H", np.zeros(1)) + form_factor("O", np.zeros(1))
    assert 47.88 * ICE * water[0] == pytest.approx(4.53, abs=0.01)


def test_a_hydrogen_takes_nearly_as_much_as_it_brings():
    brought, taken = form_factor("H", np.zeros(1)), excluded_solvent("H", np.zeros(1))
    assert taken[0] / brought[0] == pytest.approx(0.92, abs=0.01)
