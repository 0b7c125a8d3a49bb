"""Marks beside the type of a setting: what a sweep may do with it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SameForAllTrials:
    """A sweep compares its trials on one data set and one device, for one length: it cannot search this setting."""


@dataclass(frozen=True)
class DecidesFit:
    """Whether a trial fits the real data and the bank depends on this setting."""
