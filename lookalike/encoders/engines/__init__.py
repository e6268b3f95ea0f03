"""Engines: what runs one tower of an encoder. Arrays in, arrays out; which library computes is decided here alone.

    tower     what is to be run: how to build it, an example input, the row counts it runs with
    choice    device, engine and precision, by what the machine has and what was asked for
    batching  any number of rows -> the few row counts that a compiled graph takes
    cache     converted graphs and encoder records on disk
    openvino  the default on a CPU
    pytorch   the reference, and CUDA

Knows nothing of images, words or joint spaces.
"""

from lookalike.encoders.engines.cache import cache_folder
from lookalike.encoders.engines.factory import create_engine
from lookalike.encoders.engines.options import EngineOptions
from lookalike.encoders.engines.selection import EngineChoice, choose_engine
from lookalike.encoders.engines.tower import Engine, Tower

__all__ = ["Engine", "EngineChoice", "EngineOptions", "Tower", "cache_folder", "choose_engine", "create_engine"]
