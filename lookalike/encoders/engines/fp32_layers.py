"""Marks layers of a saved convolutional OpenVINO graph that the compiler must leave in fp32.

Marked are the first convolutions, since all later layers inherit their rounding; further depthwise ones, since they sum
too few products for rounding to average out; and every sum, so that small residuals are not lost. The large matrix
products stay in bf16.

The mark is the attribute `precise` of OpenVINO's graph format. Its Python API can't set it on a graph in memory, so it
is written into the saved file.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

_CONVOLUTIONS = ("Convolution", "GroupConvolution")
_COMPUTING = (*_CONVOLUTIONS, "Add", "BatchNormInference", "Clamp", "Divide", "Multiply", "Subtract")


def mark_fp32(graph: Path, convolutions: int, depthwise: int) -> None:
    """Mark every computing layer up to one convolution, depthwise convolutions up to another, and every sum.

    Args:
        graph: the `.xml` of a saved graph; its layers stand in the order of computation.
        convolutions: how many convolutions are marked, from the input on; 0 marks nothing at all.
        depthwise: among how many convolutions, from the input on, the depthwise ones are marked.
    """
    if not convolutions:
        return
    tree = ElementTree.parse(graph)
    met = 0
    for layer in tree.getroot().iterfind("layers/layer"):
        kind = layer.get("type")
        met += kind in _CONVOLUTIONS
        early = met <= convolutions and kind in _COMPUTING
        if kind == "Add" or early or (met <= depthwise and kind == "GroupConvolution"):
            _mark(layer)
    tree.write(graph, encoding="utf-8", xml_declaration=True)


def _mark(layer: ElementTree.Element) -> None:
    info = layer.find("rt_info")
    if info is None:
        info = ElementTree.Element("rt_info")
        layer.insert(0 if layer.find("data") is None else 1, info)
    ElementTree.SubElement(info, "attribute", name="precise", version="0")
