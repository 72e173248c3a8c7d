"""Installed programs as installers: RAUC's service, SWUpdate's daemon."""
