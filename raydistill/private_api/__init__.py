"""Every private name of Ray, Tune and Optuna that raydistill uses; no other module touches one.

The docstring of each use says what it is for, why no public way does it, and which versions it was tested with.
`tests/private_api` holds a test for each of them, which is to be run first when one of the libraries has a new version:
what fails there is what that version changed.

`environment` and `versions` are imported before Ray, so they import neither Ray nor Optuna.
"""
