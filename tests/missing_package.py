"""Imports a package that is not installed, as a module of environments may do."""

import tests.missing  # noqa: F401
