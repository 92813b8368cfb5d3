"""The options of the commands that write bundles: which engines are built, and for what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])


def engine_options(engine: str) -> Callable[[_F], _F]:
    """Add --engine, whose default is ``engine``, --target, --gpus and --max-batch."""
    options = (
        click.option(
            "--engine",
            type=click.Choice(["onnx", "fp32", "fp16"]),
            default=engine,
            show_default=True,
            help="onnx: fp32 graphs only; fp32: also fp32 engines; fp16: also half-typed graphs and FP16 engines.",
        ),
        click.option(
            "--target",
            type=click.Choice(["auto", "tensorrt", "tensorrt-rtx"]),
            default="auto",
            show_default=True,
            help="Engine library. auto: TensorRT where it and a GPU are found, else TensorRT-RTX, which needs no GPU "
            "to build.",
        ),
        click.option(
            "--gpus",
            type=click.Choice(["ampere", "turing"]),
            default="ampere",
            show_default=True,
            help="TensorRT-RTX builds for Ampere and later (SM 80-121), or for Turing (T4, RTX 20: SM 75).",
        ),
        click.option("--max-batch", type=int, default=64, show_default=True, help="Largest batch of the engines."),
    )

    def added(command: _F) -> _F:
        for option in reversed(options):
            command = option(command)
        return command

    return added
