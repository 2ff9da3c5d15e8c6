"""What a training step costs, without taking one: products, bytes, memory and communication of its program.

Two sources. The jaxpr knows every product and how often a loop runs, whatever the machine. The compiled program knows
what its compiler made of it: collectives, memory, and its own counts, which take the body of a loop once.
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
    """What guides, as shapes: HuBERT base or Whisper tiny up to the layer that the config names, weights or not."""
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
    """The training step of this config's batch, traced from shapes alone: nothing is allocated, however large."""
    state = jax.eval_shape(lambda: create(config))
    state = jax.tree.map(
        lambda a, lay: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=lay),
        state, layout(state, mesh, config.mesh.fsdp_from),
    )  # fmt: skip
    return trace_train_step(config, mesh, state, abstract_teacher(config, mesh), adversarial)


def state_bytes(config: Config) -> dict[str, int]:
    """Of the training state, part by part."""
    state = jax.eval_shape(lambda: create(config))
    return {name: nbytes(part) for name, part in vars(state).items()}


def nbytes(tree) -> int:
    """Of all arrays in a tree, or of their shapes."""
    return sum(_size(leaf) for leaf in jax.tree.leaves(tree))


def _placed(tree, sharding):
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), tree)


def _size(aval) -> int:
    """Bytes; keys and tokens count as nothing."""
    return math.prod(aval.shape) * np.dtype(aval.dtype).itemsize if _is_array(aval) else 0


def _is_array(aval) -> bool:
    return hasattr(aval, "shape") and not jax.dtypes.issubdtype(aval.dtype, jax.dtypes.extended)


# --- what its jaxpr says --------------------------------------------------------------------------------------------


class Work(NamedTuple):
    """Of matrix products and convolutions, which nearly all arithmetic of a network is."""

    flops: float  # two for each multiplication with its addition
    bytes: float  # their operands and results, each once: what memory moves when all else is fused into them


def products(jaxpr: core.Jaxpr) -> Work:
    """The products of a program and of all that it calls: a scan's as often as it runs, a cond's dearest branch.

    Of branches that multiply equally much, the one that moves least: what is for accelerators, in bfloat16.

    A while loop without a known length counts once; a mapped part (shard_map) as the share of one device.
    """
    flops = moved = 0.0
    for equation in jaxpr.eqns:
        inner = [products(sub) for sub in _inside(equation)]
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
    """Padding counts as if it were signal; the zeros between a dilated input's samples do not count."""
    _, inputs, *spatial = equation.params["dimension_numbers"].rhs_spec
    kernel = equation.invars[1].aval.shape
    taps = kernel[inputs] * math.prod(kernel[axis] for axis in spatial)
    return 2 * math.prod(equation.outvars[0].aval.shape) * taps / math.prod(equation.params["lhs_dilation"])


def _inside(equation: core.JaxprEqn) -> list[core.Jaxpr]:
    """The programs that an equation calls."""
    parts = jax.tree.leaves(
        list(equation.params.values()), is_leaf=lambda part: isinstance(part, (core.Jaxpr, core.ClosedJaxpr))
    )
    jaxprs = [part.jaxpr if isinstance(part, core.ClosedJaxpr) else part for part in parts]
    return [part for part in jaxprs if isinstance(part, core.Jaxpr)]


# --- what its compiled program says ---------------------------------------------------------------------------------


class Collective(NamedTuple):
    """All communication of one kind in a program, by what it gives each device."""

    count: int
    bytes: int
    in_loops: int  # of these bytes


KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_BITS = {"pred": 8, "bf16": 16} | {f"{kind}{bits}": bits for kind in "fsu" for bits in (8, 16, 32, 64)}
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) (?:\([^\n]*\) -> [^\n]*)?\{$", re.MULTILINE)
_COLLECTIVE = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(?:-start)?\(")
_LOOP = re.compile(r"\bwhile\(.*?body=%?([\w.\-]+)(?:.*?known_trip_count\D+(\d+))?")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


def collectives(hlo: str) -> dict[str, Collective]:
    """Communication in a compiled program's text, by kind: within a loop of known length as often as it runs."""
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


# --- both, for a config on other devices ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Compiled:
    """What the compiler says of a step, for each device."""

    devices: int
    axis: str  # of the mesh, along which the devices lie
    pairs: int  # for each device
    flops: float  # loops counted once
    bytes: float  # accessed, loops counted once
    arguments: float  # bytes of state, teacher and batch
    temporary: float  # bytes more while it runs
    reduced: float  # bytes all-reduced
    reduced_in_loops: float  # of these
    reductions: int
    gathered: float  # bytes all-gathered, and reduced and scattered


def on(config: Config, devices: int, axis: str, pairs: int) -> Config:
    """The config with `devices` along one axis of the mesh and `pairs` of clips on each."""
    mesh = Mesh(data=devices) if axis == "data" else Mesh(data=1, fsdp=devices, fsdp_from=config.mesh.fsdp_from)
    return replace(config, mesh=mesh, data=replace(config.data, batch=devices * pairs))


def products_of(config: Config, pairs: int) -> Work:
    """Of a step with `pairs` of clips on one device."""
    here = on(config, 1, "data", pairs)
    return products(traced_step(here, make_mesh(here.mesh, pairs)).jaxpr.jaxpr)


def compiled(config: Config, devices: int, axis: str, pairs: int) -> Compiled:
    """Compile a step from shapes and ask. Machine code is not optimised, which changes none of the answers."""
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
