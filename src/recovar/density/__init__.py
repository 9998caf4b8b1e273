"""How the states of molecules are distributed over latent coordinates.

`kernel_density` shows where the estimated coordinates of images lie, errors included;
`deconvolution` what remains without the errors, with its uncertainty; `along` the same along a
path; `states` where it peaks.
"""
