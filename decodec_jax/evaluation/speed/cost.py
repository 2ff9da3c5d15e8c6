"""The cost of a training step, found without running it: products, memory traffic, memory and communication.

There are two sources. The jaxpr has every product and how often each loop runs, independent of the machine. The
compiled program has the compiler's result: collectives, memory, and the compiler's own counts, which count a loop body
once.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import sharding
from jax.extend import core

from decodec_jax.config import Config, Mesh
from decodec_jax.objective.hubert import Hubert, HubertSizes
from decodec_jax.objective.teacher import HUBERT_LAYER, MEAN, CepstraTeacher, HubertTeacher, Teacher, WhisperTeacher
from decodec_jax.objective.whisper import Whisper, WhisperSizes
from decodec_jax.training.sharding import layout, make_mesh, replicated
from decodec_jax.training.state import create
from decodec_jax.training.step import trace_train_step

# --- the program ----------------------------------------------------------------------------------------------------


def abstract_teacher(config: Config, mesh: sharding.Mesh) -> Teacher | None:
    """The config's teacher as shapes only, so no weights are needed: HuBERT base or Whisper tiny, up to its layer.

    None if the config has no guidance or reads cached targets.
    """
    if not config.loss.guidance or config.data.targets:
        return None
    if config.teacher.kind == "cepstra":
        return CepstraTeacher()
    layer = config.teacher.layer

    def shapes(network: nn.Module, *heard: int) -> dict:
        made = jax.eval_shape(network.init, jax.random.key(0), jax.ShapeDtypeStruct(heard, jnp.float32))
        return _placed(made["params"], replicated(mesh))

    if config.teacher.kind == "whisper":
        sizes = WhisperSizes(layers=layer or WhisperSizes.layers)
        return WhisperTeacher(shapes(Whisper(sizes), 1, 2, sizes.bands), sizes, "")
    sizes = HubertSizes() if layer == MEAN else HubertSizes(layers=layer or HUBERT_LAYER)
    return HubertTeacher(shapes(Hubert(sizes), 1, sizes.reach), sizes, layer, "")


def traced_step(config: Config, mesh: sharding.Mesh, adversarial: bool = True) -> jax.stages.Traced:
    """The training step for this config's batch, traced from shapes alone. Nothing is allocated."""
    state = jax.eval_shape(lambda: create(config))
    state = jax.tree.map(
        lambda a, lay: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=lay),
        state, layout(state, mesh, config.mesh.fsdp_from),
    )  # fmt: skip
    return trace_train_step(config, mesh, state, abstract_teacher(config, mesh), adversarial)


def state_bytes(config: Config) -> dict[str, int]:
    """Bytes of each part of the training state, by name."""
    state = jax.eval_shape(lambda: create(config))
    return {name: nbytes(part) for name, part in vars(state).items()}


def nbytes(tree) -> int:
    """Total bytes of all arrays, or array shapes, in a tree."""
    return sum(_size(leaf) for leaf in jax.tree.leaves(tree))


def _placed(tree, sharding):
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), tree)


def _size(aval) -> int:
    """Bytes of an array; random keys and tokens count as 0."""
    return math.prod(aval.shape) * np.dtype(aval.dtype).itemsize if _is_array(aval) else 0


def _is_array(aval) -> bool:
    return hasattr(aval, "shape") and not jax.dtypes.issubdtype(aval.dtype, jax.dtypes.extended)


# --- counts from the jaxpr ------------------------------------------------------------------------------------------


class Work(NamedTuple):
    """Totals over matrix products and convolutions, which are nearly all of a network's arithmetic."""

    flops: float  # two per multiply-add
    bytes: float  # operands and results, each once: the memory traffic if all else is fused into the products


def products(jaxpr: core.Jaxpr) -> Work:
    """Count the products of a program and of everything it calls.

    The body of a scan counts as often as it runs, that of a while loop of unknown length once. Of a cond, the branch
    with the most FLOPs counts; among equals, the one with the least memory traffic, which is the bfloat16 one meant for
    accelerators. A mapped part (shard_map) counts as the share of one device.
    """
    flops = moved = 0.0
    for equation in jaxpr.eqns:
        inner = [products(sub) for sub in _called_jaxprs(equation)]
        name, times = equation.primitive.name, equation.params.get("length", 1)
        if name == "cond":
            inner = [max(inner, key=lambda work: (work.flops, -work.bytes))]
        elif name in ("dot_general", "conv_general_dilated"):
            count = _of_dot if name == "dot_general" else _of_convolution
            inner = [Work(count(equation), sum(_size(v.aval) for v in (*equation.invars, *equation.outvars)))]
        flops += times * sum(work.flops for work in inner)
        moved += times * sum(work.bytes for work in inner)
    return Work(flops, moved)


def _of_dot(equation: core.JaxprEqn) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    shape = equation.invars[0].aval.shape
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(shape[axis] for axis in contracted)


def _of_convolution(equation: core.JaxprEqn) -> float:
    """FLOPs of a convolution. Padding counts as signal; zeros between the samples of a dilated input do not count."""
    _, inputs, *spatial = equation.params["dimension_numbers"].rhs_spec
    kernel = equation.invars[1].aval.shape
    taps = kernel[inputs] * math.prod(kernel[axis] for axis in spatial)
    return 2 * math.prod(equation.outvars[0].aval.shape) * taps / math.prod(equation.params["lhs_dilation"])


def _called_jaxprs(equation: core.JaxprEqn) -> list[core.Jaxpr]:
    """The jaxprs that an equation calls."""
    parts = jax.tree.leaves(
        list(equation.params.values()), is_leaf=lambda part: isinstance(part, (core.Jaxpr, core.ClosedJaxpr))
    )
    jaxprs = [part.jaxpr if isinstance(part, core.ClosedJaxpr) else part for part in parts]
    return [part for part in jaxprs if isinstance(part, core.Jaxpr)]


# --- counts from the compiled program -------------------------------------------------------------------------------


class Collective(NamedTuple):
    """All collectives of one kind in a program. Bytes are those of the results on each device."""

    count: int
    bytes: int
    in_loops: int  # share of `bytes` within loops


KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_BITS = {"pred": 8, "bf16": 16} | {f"{kind}{bits}": bits for kind in "fsu" for bits in (8, 16, 32, 64)}
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) (?:\([^\n]*\) -> [^\n]*)?\{$", re.MULTILINE)
_COLLECTIVE = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(?:-start)?\(")
_LOOP = re.compile(r"\bwhile\(.*?body=%?([\w.\-]+)(?:.*?known_trip_count\D+(\d+))?")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


def collectives(hlo: str) -> dict[str, Collective]:
    """Collectives in a compiled program's text, by kind. Within a loop of known length, each counts once per turn."""
    heads = list(_COMPUTATION.finditer(hlo))
    ends = [head.start() for head in heads[1:]] + [len(hlo)]
    bodies = {head[1]: hlo[head.end():end].splitlines() for head, end in zip(heads, ends, strict=True)}
    entry = next(head[1] for head in heads if head[0].startswith("ENTRY"))
    counts, moved, in_loops = Counter(), Counter(), Counter()

    def visit(name: str, times: int):
        for line in bodies.get(name, ()):
            if found := _COLLECTIVE.search(line):
                counts[found[2]] += times
                moved[found[2]] += times * _bytes_of(found[1])
                in_loops[found[2]] += times * _bytes_of(found[1]) if times > 1 else 0
                continue
            loop = _LOOP.search(line)
            rounds = int(loop[2] or 1) if loop else 1
            called = _CALLED.findall(line) + [
                branch.strip().lstrip("%") for names in _BRANCHES.findall(line) for branch in names.split(",")
            ]
            for other in called:
                visit(other, times * rounds)

    visit(entry, 1)
    return {kind: Collective(counts[kind], moved[kind], in_loops[kind]) for kind in KINDS if counts[kind]}


def _bytes_of(shapes: str) -> int:
    found = re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", shapes)
    return sum(_BITS[kind] // 8 * math.prod(map(int, filter(None, dims.split(",")))) for kind, dims in found)


# --- costs of a config on other devices -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Compiled:
    """The compiler's figures for a training step, per device."""

    devices: int
    axis: str  # mesh axis along which the devices lie
    pairs: int  # pairs of clips on each device
    flops: float  # loop bodies counted once
    bytes: float  # memory traffic, loop bodies counted once
    arguments: float  # bytes of state, teacher and batch
    temporary: float  # further bytes while the step runs
    reduced: float  # bytes all-reduced
    reduced_in_loops: float  # share of `reduced` within loops
    reductions: int  # number of all-reduces
    gathered: float  # bytes all-gathered or reduce-scattered


def on(config: Config, devices: int, axis: str, pairs: int) -> Config:
    """The config with `devices` along one axis of the mesh and `pairs` of clips on each."""
    mesh = Mesh(data=devices) if axis == "data" else Mesh(data=1, fsdp=devices, fsdp_from=config.mesh.fsdp_from)
    return replace(config, mesh=mesh, data=replace(config.data, batch=devices * pairs))


def products_of(config: Config, pairs: int) -> Work:
    """The products of a step with `pairs` pairs of clips on one device."""
    here = on(config, 1, "data", pairs)
    return products(traced_step(here, make_mesh(here.mesh, pairs)).jaxpr.jaxpr)


def compiled(config: Config, devices: int, axis: str, pairs: int) -> Compiled:
    """Compile a step from shapes and return its figures. Skipping the optimisation of machine code changes none."""
    here = on(config, devices, axis, pairs)
    mesh = make_mesh(here.mesh, here.data.batch, here.train.accumulate)
    quick = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    program = traced_step(here, mesh).lower().compile(compiler_options=quick)
    memory, work, moved = program.memory_analysis(), program.cost_analysis(), collectives(program.as_text())
    reduced = moved.get("all-reduce", Collective(0, 0, 0))
    return Compiled(
        devices, axis, pairs, work["flops"], work["bytes accessed"],
        memory.argument_size_in_bytes, memory.temp_size_in_bytes, reduced.bytes, reduced.in_loops, reduced.count,
        sum(moved[kind].bytes for kind in ("all-gather", "reduce-scatter") if kind in moved),
    )  # fmt: skip
