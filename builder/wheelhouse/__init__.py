"""The wheelhouse: wheels, a catalogue about them, and a journal of every change of state."""

from builder.wheelhouse.store import Wheelhouse

__all__ = ["Wheelhouse"]
