"""What a choice of modules takes: told from the seed history that comes with the recipe."""

from __future__ import annotations

from builder.gate import seeds
from builder.pipeline import modules
from builder.recipe import find, load
from tests.source_kit import Heard

WHERE = find.folders(())
SHIPPED = tuple(one.recipes for one in WHERE)


def measured() -> tuple[seeds.Seed, ...]:
    heard = Heard()
    found = seeds.find("flashinfer", SHIPPED, heard)
    assert not heard.events
    return found


def test_share_of_a_pattern_is_the_sum_over_its_modules() -> None:
    text = """unit,kind,peak_mib,cpu_s
norm/a.cuda.o,cu,450,10
norm/b.cuda.o,cu,600,15
norms/c.cuda.o,cu,900,1
csrc/plain.cu,cu,9000,100
"""
    found, mistakes = seeds.read(text)
    assert not mistakes
    (norm,) = modules.shares(["norm"], found)
    assert (norm.modules, norm.units, norm.cpu_ms, norm.peak_bytes) == (1, 2, 25_000, 600 << 20)
    assert str(norm) == "norm: 1 module, 2 units, 25s of one core, up to 600 MiB a unit"


def test_what_overlapping_patterns_take_together_is_counted_once() -> None:
    each = modules.shares(["norm", "n*", "rope"], measured())
    assert [one.pattern for one in each] == ["norm", "n*", "rope", "together"]
    assert each[3].units == each[1].units + each[2].units
    assert each[3].cpu_ms == each[1].cpu_ms + each[2].cpu_ms


def test_all_modules_are_those_of_the_guide() -> None:
    (every,) = modules.shares(["*"], measured())
    assert (every.modules, every.units) == (564, 2356)
    (xqa,) = modules.shares(["xqa_*"], measured())
    assert xqa.units == 1168
    assert xqa.cpu_ms < every.cpu_ms / 3
    assert xqa.peak_bytes < 1 << 30 < every.peak_bytes


def test_unknown_module_is_told_as_never_measured() -> None:
    assert str(modules.shares(["tomorrow_*"], measured())[0]) == "tomorrow_*: never measured"


def test_plan_lines_only_where_an_output_has_modules_to_choose() -> None:
    heard = Heard()
    settings = {"build.modules": '["norm", "page"]', "output.kernels.env.MODULES": "${modules}"}
    loaded = load.load("flashinfer", WHERE, settings=settings)
    plain = [output for output in loaded.recipe.output if output.name == "flashinfer-python"]
    assert modules.lines(loaded, plain, SHIPPED, heard) == ()
    told = modules.lines(loaded, loaded.recipe.output, SHIPPED, heard)
    assert [line.partition(":")[0] for line in told] == ["norm", "page", "together"]
