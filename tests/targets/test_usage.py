"""Programs that run an artifact. Those of a real conversion are run in tests/service."""

import ast

from app.domain.architecture import InputSpec, Integers, Mask, Signature
from app.domain.report import ConversionReport
from app.targets.specs import SPECS
from tests.delivery.reports import report


def programs(of_report: ConversionReport) -> dict[str, str]:
    return dict(SPECS[of_report.target].usage(of_report))


HOSTILE = 'a"); system("x\\'


def of(target: str, *inputs: InputSpec) -> dict[str, str]:
    base = report()
    names = tuple(spec.name for spec in inputs)
    export = base.export.model_copy(update={"target": target, "input_names": names, "output_names": (HOSTILE,)})
    return programs(report(target=target, signature=Signature(inputs=inputs), export=export))


def test_names_cannot_leave_their_strings():
    made = of("onnx", InputSpec(name=HOSTILE, shape=("batch", 3)))
    assert set(made) == {"Python", "C++", "JavaScript"}
    ast.parse(made["Python"])
    for program in made.values():
        assert '"a\\"); system(\\"x\\\\"' in program
    ast.parse(of("torchscript", InputSpec(name=HOSTILE, shape=("batch", 3)))["Python"])


def test_values_are_such_as_the_input_may_hold():
    ids = InputSpec(name="ids", dtype="int64", shape=("batch", 7), distribution=Integers(low=5, high=9))
    mask = InputSpec(name="mask", dtype="int64", shape=("batch", 7), distribution=Mask())
    made = of("onnx", ids, mask)
    assert '"ids": np.full((2, 7), 5, np.int64)' in made["Python"]
    assert '"mask": np.full((2, 7), 1, np.int64)' in made["Python"]
    assert "new BigInt64Array(14).fill(5n), [2, 7]" in made["JavaScript"]
    assert "std::fill_n(values1.get(), 14, int64_t(1));" in made["C++"]


def test_no_program_is_shown_in_a_language_that_has_not_the_type():
    assert set(of("onnx", InputSpec(name="x", dtype="bfloat16", shape=(1,)))) == {"C++"}
    assert set(of("torchscript", InputSpec(name="x", shape=(1,)))) == {"Python", "C++"}
    assert programs(report(signature=None)) == {}
