"""Engines: they run one tower of an encoder. Arrays in, arrays out; independent of images and texts.

options      device, engine, precision and threads that a caller requests
selection    options -> an `EngineChoice` that this machine can run
tower        how to build a tower, an example input, its batch sizes
factory      tower and choice -> engine
openvino     the default on a CPU
pytorch      the reference, and CUDA
batch_sizes  any number of rows -> the few batch sizes that a compiled graph takes
fp32_layers  layers of an OpenVINO graph that stay in fp32
cache        converted graphs and encoder records on disk
"""

from lookalike.encoders.engines.cache import cache_folder
from lookalike.encoders.engines.factory import create_engine
from lookalike.encoders.engines.options import EngineOptions
from lookalike.encoders.engines.selection import EngineChoice, choose_engine
from lookalike.encoders.engines.tower import Engine, Tower

__all__ = ["Engine", "EngineChoice", "EngineOptions", "Tower", "cache_folder", "choose_engine", "create_engine"]
