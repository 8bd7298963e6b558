"""Programs for GPUs and TPUs, lowered on a machine that has neither.

`jax.export` lowers a program for a platform without the compiler of that platform. So
these tests find operations without a rule there, calls back to Python, 64-bit numbers,
and forms that are meant for a CPU. They do not show that XLA compiles the programs.
"""

import ast
import math
import re
from collections import Counter
from functools import partial
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from test_eager import CALLS, draw

import metaseg
from metaseg import noise, training
from metaseg.batch import Batch
from metaseg.data import synthetic
from metaseg.noise.parameters import keyword_only
from metaseg.parallel import cost, traffic
from metaseg.prediction import network
from metaseg.runs import defaults
from metaseg.runs.training import steps

K = 3
ACCELERATORS = ("cuda", "tpu")
EVERYWHERE = ("cpu", *ACCELERATORS)
TOGETHER = (*((each,) for each in ACCELERATORS), EVERYWHERE)
KEY = jax.eval_shape(lambda: jax.random.key(0))


@pytest.fixture(autouse=True)
def no_question(monkeypatch):
    """Tracing must not ask for the host's backend: the program may run elsewhere."""

    def refuse():
        raise AssertionError("a traced function asked for the host's backend")

    monkeypatch.setattr(jax, "default_backend", refuse)


def array(shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def export(fn, *args, together=(EVERYWHERE,)):
    """The program for some platforms at once, as MLIR text; checked by `jax.export`."""
    traced_once = jax.jit(fn)
    for platforms in together:
        exported = jax.export.export(traced_once, platforms=platforms)(*args)
        assert exported.platforms == platforms
        text = exported.mlir_module()
        assert "callback" not in text
        assert "f64" not in text


def lower(fn, *args, platform):
    """The program for one platform."""
    traced = jax.jit(fn).trace(*args)
    return traced.lower(lowering_platforms=(platform,)).compiler_ir("stablehlo")


def operations(module):
    """Yields all operations; those of a function as often as it is called."""
    functions = {
        str(each.operation.attributes["sym_name"]).strip('"'): each.operation
        for each in module.body
    }

    def inside(parent):
        for region in parent.regions:
            for block in region.blocks:
                for each in block.operations:
                    yield each.operation
                    yield from inside(each.operation)
                    if each.operation.name == "func.call":
                        callee = str(each.operation.attributes["callee"])
                        yield from inside(functions[callee.removeprefix("@")])

    yield from inside(functions["main"])


def names(program):
    return Counter(each.name.partition(".")[2] for each in operations(program))


def shape_and_type(value):
    *shape, dtype = re.fullmatch(r"tensor<(.*)>", str(value.type))[1].split("x")
    return tuple(map(int, shape)), dtype


def element_types(program):
    """The types of all numbers that a program computes with."""
    return {
        shape_and_type(value)[1]
        for each in operations(program)
        for value in (*each.operands, *each.results)
    }


def products(program):
    """Yields convolutions and matrix products."""
    for each in operations(program):
        if each.name in ("stablehlo.convolution", "stablehlo.dot_general"):
            yield each


def product_flops(program):
    """FLOPs of convolutions and matrix products; the body of a loop counts once."""
    total = 0
    for each in products(program):
        left, right = (shape_and_type(value)[0] for value in each.operands)
        out = math.prod(shape_and_type(each.results[0])[0])
        if each.name == "stablehlo.convolution":
            numbers = str(each.attributes["dimension_numbers"])
            features = re.search(r"x\[(.*?)\]", numbers)[1].split(", ").index("o")
            total += 2 * out * math.prod(right) // right[features]
        else:
            numbers = str(each.attributes["dot_dimension_numbers"])
            axes = re.search(r"lhs_contracting_dimensions = \[(.*?)\]", numbers)[1]
            total += 2 * out * math.prod(left[int(axis)] for axis in axes.split(","))
    return total


# --- Every noise, and public functions ------------------------------------------------

ON_HOST = {
    "jitter_vertices": "scikit-image traces and paints the polygons, in a callback",
    "simplify": "scikit-image traces and paints the polygons, in a callback",
}
_INNER = ({"name": "flip", "rate": 0.3}, {"name": "sample", "fraction": 0.5})
# A value for each parameter without a default, and options that change the program.
REQUIRED = {
    "amplitude": 2.0,
    "angle": 20.0,
    "classes": (0, 2),
    "factor": 3,
    "fill": 1,
    "fraction": 0.4,
    "length": 9.0,
    "matrix": ((0.8, 0.1, 0.1), (0.3, 0.7, 0.0), (0.0, 0.5, 0.5)),
    "noises": _INNER,
    "prior": (0.5, 0.2, 0.3),
    "radius": 2,
    "rate": 0.3,
    "shift": 4,
    "sigma": 1.0,
    "steps": 3,
    "tolerance": 1.0,
}
OPTIONS = {"exact": True, "per": "object", "weights": (1, 2)}


def configs_of(name):
    """The config of a noise, and one with all options, if it has any."""
    known = keyword_only(noise.NOISES[name].fn)
    known.pop("num_classes", None)
    required = {
        parameter: REQUIRED[parameter]  # a new parameter needs a line there
        for parameter, signature in known.items()
        if signature.default is signature.empty
    }
    options = {option: OPTIONS[option] for option in OPTIONS if option in known}
    yield {"name": name, **required}
    if options:
        yield {"name": name, **required, **options}


def noisy(config):
    noise_fn = noise.per_example(noise.build(config, K))
    return noise_fn, (KEY, array((2, 22, 30), jnp.uint8), array((2,), jnp.uint32))


@pytest.mark.parametrize("name", [each for each in noise.NOISES if each not in ON_HOST])
def test_a_noise_lowers_for_every_platform_in_one_program(name):
    for config in configs_of(name):
        fn, args = noisy(config)
        export(fn, *args)


@pytest.mark.parametrize("name", ON_HOST)
def test_a_noise_of_the_host_lowers_only_for_the_backend_that_it_calls_from(name):
    for config in configs_of(name):
        fn, args = noisy(config)
        calls = names(lower(fn, *args, platform="cpu"))
        assert calls["custom_call"] == 1
        for platform in ACCELERATORS:
            with pytest.raises(ValueError, match=f"lowering platform {platform}"):
                lower(fn, *args, platform=platform)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (module, name)
        for module in ("density", "morphology", "igtt", "losses", "data.augment")
        for name in CALLS[module]
    ],
)
def test_a_public_function_lowers_for_every_platform_in_one_program(module, name):
    drawn = draw(0)
    arrays = {
        field: value
        for field, value in drawn._asdict().items()
        if isinstance(value, (np.ndarray, jax.Array))
    }
    call = CALLS[module][name]
    export(lambda given: call(drawn._replace(**given)), arrays)


@pytest.mark.parametrize("family", synthetic.FAMILIES)
def test_images_are_rendered_one_by_one_on_a_cpu_only(family):
    def render(ids):
        return synthetic.examples(0, ids, family=family, height=24, width=20)

    ids = array((5,), jnp.uint32)
    programs = {each: lower(render, ids, platform=each) for each in EVERYWHERE}

    def stacks(program):  # a loop over images puts each into the array of all
        return [
            each
            for each in operations(program)
            if each.name == "stablehlo.dynamic_update_slice"
            and shape_and_type(each.results[0])[0] == (5, 24, 20)
        ]

    assert stacks(programs["cpu"])
    for platform in ACCELERATORS:
        assert not stacks(programs[platform])
    export(render, ids)


# --- The programs of a run ------------------------------------------------------------


def config_of(**changes):
    config = defaults.get_config()
    fields = {"noise.name": "flip", "noise.rate": 0.3, "data.height": 32}
    fields |= {"data.width": 32, "augment.crop": 16, "augment.illumination": 0.1}
    fields |= {"model.width": 4, "model.depth": 1, "optimizer.ema_decay": 0.9}
    config.update_from_flattened_dict(fields | changes)
    return config


def variables_of(model, channels=1):
    side = 2**model.depth
    image = array((1, side, side, channels))
    return jax.eval_shape(partial(model.init, train=False), KEY, image)


def state_of(parts):
    """The shapes of a state; the weights are not drawn."""

    def state(variables):
        kept = {"params": variables["params"]}
        kept["batch_stats"] = variables.get("batch_stats", {})
        opt_state = parts.optimizer.init(kept["params"])
        step = jnp.int32(0)
        return training.TrainState(step, **kept, opt_state=opt_state, ema_params=kept)

    return jax.eval_shape(state, variables_of(parts.model))


def batch_of(count, size):
    return Batch(
        array((count, size, size, 1)),
        array((count, size, size), jnp.uint8),
        array((count,), jnp.uint32),
        array((count, 2), jnp.int32),
    )


RUNS = {
    "all augmentation": {"augment.modulation": 0.2},
    "whole images, new noise, Adam": {
        "augment.crop": 0,
        "noise.online": True,
        "optimizer.name": "adam",
    },
    "three classes, AdamW": {
        "data.num_classes": K,
        "optimizer.name": "adamw",
        "loss": "dmi_iou",
    },
    "a batch in parts": {"training.grad_accum_steps": 2},
    "new images": {"data.endless": True},
    "bfloat16, group norm": {"model.dtype": "bfloat16", "model.norm": "group"},
}


@pytest.mark.parametrize("changes", RUNS.values(), ids=RUNS)
def test_the_training_step_lowers_for_each_platform_and_for_all(changes):
    parts = steps.build(config_of(**changes))
    many = partial(training.train_steps, parts)
    rows, count = array((20, 4), jnp.uint32), array((), jnp.int32)
    args = (state_of(parts), batch_of(8, 32), rows, count, KEY, KEY)
    export(many, *args, together=TOGETHER)


def test_evaluation_and_prediction_lower_for_each_platform_and_for_all():
    parts = steps.build(config_of())
    state, batch = state_of(parts), batch_of(2, 32)
    matrix = array((2, 2))

    def evaluate(variables, batch, matrix):
        return training.eval_step(parts, variables, batch, matrix)

    def predict(variables, images):
        return network.scores(parts.model, variables, images)

    variables = jax.eval_shape(training.TrainState.variables, state)
    export(evaluate, variables, batch, matrix, together=TOGETHER)
    export(predict, variables, batch.images, together=TOGETHER)


# --- The network of Luo et al.: width 64, depth 4, 256 x 256 --------------------------

SIDE, IMAGES = 256, 32


def wide_parts(dtype):
    changes = {"model.width": 64, "model.depth": 4, "model.dtype": dtype}
    return steps.build(config_of(**changes, **{"augment.crop": 0}))


def differentiate(parts):
    """The network and its loss, forward and backward, and the shapes of its arguments.

    The step takes examples by their rows and may crop and turn them, which are gathers
    of a batch's images, not of activations. So the network is lowered without them.
    """

    def gradient(params, batch_stats, images, labels):
        def objective(params):
            logits, updated = parts.model.apply(
                {"params": params, "batch_stats": batch_stats},
                images,
                train=True,
                mutable=["batch_stats"],
            )
            return parts.loss(logits, labels).mean(), updated

        return jax.value_and_grad(objective, has_aux=True)(params)

    return gradient


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def wide(request):
    """Type, parts and lowered network for each accelerator."""
    parts = wide_parts(request.param)
    state, batch = state_of(parts), batch_of(IMAGES, SIDE)
    args = (state.params, state.batch_stats, batch.images, batch.labels)
    fn = differentiate(parts)
    programs = {each: lower(fn, *args, platform=each) for each in ACCELERATORS}
    return request.param, programs


def test_the_wide_network_has_no_gather_scatter_or_call(wide):
    for program in wide[1].values():
        found = names(program)
        assert found["convolution"] > 50
        assert not [name for name in found if "gather" in name or "scatter" in name]
        assert not found["custom_call"]
        assert not found["while"]


def test_the_wide_network_has_no_64_bit_numbers(wide):
    dtype, programs = wide
    low = {"bf16"} if dtype == "bfloat16" else set()
    for program in programs.values():
        assert element_types(program) == {"f32", "i1", "i32", "ui8"} | low


def test_the_wide_network_multiplies_numbers_of_its_type(wide):
    dtype, programs = wide
    expected = {"float32": "f32", "bfloat16": "bf16"}[dtype]
    for program in programs.values():
        for product in products(program):
            types = {shape_and_type(value)[1] for value in product.operands}
            assert types == {expected}, str(product)


def test_the_wide_network_takes_no_detours(wide):
    # The backward pass takes twice the forward one, less the gradient of the images.
    model = wide_parts("float32").model
    forward = cost.forward_flops(model, (SIDE, SIDE, 1))
    first = 2 * 9 * SIDE**2 * model.width
    for program in wide[1].values():
        assert product_flops(program) == IMAGES * (3 * forward - first)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("platform", ACCELERATORS)
def test_the_wide_step_has_no_host_callback_and_no_float64(platform, dtype):
    parts = wide_parts(dtype)
    args = (state_of(parts), batch_of(IMAGES, SIDE), KEY, KEY)
    program = lower(partial(training.train_step, parts), *args, platform=platform)
    assert not names(program)["custom_call"]
    types = element_types(program)
    assert "f64" not in types
    # Keys are split and folded by counters of 64 bits; there is no other such number.
    assert "i64" not in types
    for each in operations(program):
        values = map(shape_and_type, (*each.operands, *each.results))
        assert all(math.prod(s) < 100 for s, dtype in values if dtype == "ui64")


# --- Forms for one platform -----------------------------------------------------------


def test_only_a_cpu_runs_the_narrow_network_in_its_own_form():
    parts = steps.build(config_of(**{"model.width": 8, "model.depth": 2}))
    state, batch = state_of(parts), batch_of(2, 32)
    fn = differentiate(parts)
    args = (state.params, state.batch_stats, batch.images, batch.labels)
    flops = {e: product_flops(lower(fn, *args, platform=e)) for e in EVERYWHERE}
    # Without the gradient of the images, which no result needs.
    expected = sum(each.flops for each in traffic.passes(fn, *args))
    assert flops["tpu"] == flops["cuda"] == expected
    assert flops["cpu"] > expected  # convolutions of few channels in pairs of columns


def test_only_a_cpu_unrolls_the_parts_of_a_batch():
    def convolutions(grad_accum_steps, platform):
        parts = steps.build(
            config_of(**{"training.grad_accum_steps": grad_accum_steps})
        )
        args = (state_of(parts), batch_of(4, 32), KEY, KEY)
        step = partial(training.train_step, parts)
        return names(lower(step, *args, platform=platform))["convolution"]

    assert convolutions(4, "cpu") == 4 * convolutions(1, "cpu") > 0
    for platform in ACCELERATORS:
        assert convolutions(4, platform) == convolutions(1, platform) > 0


def test_the_backend_of_the_host_is_asked_only_where_programs_are_called():
    # Batches and dispatches of a run, which happen on this machine.
    allowed = {
        "prediction/scores.py": ["_batches"],
        "runs/training/setup.py": ["_layout"],
        "training.py": ["default_steps_per_dispatch"],
    }
    root, found = Path(metaseg.__file__).parent, {}
    for path in sorted(root.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if "default_backend" not in source:
            continue
        for function in ast.walk(ast.parse(source)):
            if isinstance(function, ast.FunctionDef) and any(
                isinstance(each, ast.Attribute) and each.attr == "default_backend"
                for each in ast.walk(function)
            ):
                found.setdefault(str(path.relative_to(root)), []).append(function.name)
    assert found == allowed
