"""The rules of `benchmarks/gate.py`, on made-up results: nothing is timed here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gate import BASELINE, main

ZEN5 = {"vendor_id_raw": "AuthenticAMD", "family": 26, "model": 2, "brand_raw": "AMD EPYC"}
ZEN4 = ZEN5 | {"family": 25, "model": 17}


class Bench:
    """A folder with a baseline and results, and the gate run on them."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.baseline, self.results = folder / "baseline.json", folder / "results.json"
        self._capsys = capsys

    def gate(
        self,
        ratios: dict[str, Any],
        *options: str,
        cpu: dict[str, Any] = ZEN5,
        packages: dict[str, str] | None = None,
    ) -> tuple[int, str, str]:
        """Returns exit code, standard output and standard error."""
        benchmarks = [
            {"name": name, "extra_info": {"gate": True, "kernel": "resize", "ms": 1, "ratio": r}}
            for name, r in ratios.items()
        ]
        benchmarks.append({"name": "another", "extra_info": {"gate": False, "ratio": 99}})
        machine = {"cpu": cpu, "machine": "x86_64", "packages": packages or {"numpy": "2.4"}}
        self.results.write_text(json.dumps({"benchmarks": benchmarks, "machine_info": machine}))
        return self.run(*options)

    def run(self, *options: str) -> tuple[int, str, str]:
        code = main(["--baseline", str(self.baseline), str(self.results), *options])
        return code, *self._capsys.readouterr()


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Bench:
    """With 10 for the model and 0.5 for the resize, on Zen 5."""
    bench = Bench(tmp_path, capsys)
    assert bench.gate({"model": 10.0, "resize": 0.5}, "--update")[0] == 0
    return bench


@pytest.mark.parametrize(
    ("model", "code", "verdict"),
    [
        (10.0, 0, "ok"),
        (11.4, 0, "ok"),
        (11.6, 0, "WARN"),
        (13.9, 0, "WARN"),
        (14.1, 1, "FAIL"),
        (20.0, 1, "FAIL"),
        (8.8, 0, "ok"),
        (8.0, 0, "faster"),
    ],
)
def test_a_ratio_warns_at_15_percent_and_fails_at_40(
    bench: Bench, model: float, code: int, verdict: str
) -> None:
    got, out, _ = bench.gate({"model": model, "resize": 0.5})
    assert got == code
    line = next(line for line in out.splitlines() if line.startswith("model"))
    assert verdict in line.split()
    assert f"{model / 10 - 1:+.0%}" in line.split()


def test_one_loss_is_enough_and_all_are_shown(bench: Bench) -> None:
    code, out, _ = bench.gate({"model": 5.0, "resize": 1.0})
    assert code == 1
    assert "1 FAIL, 1 faster" in out


def test_a_benchmark_that_is_missing_fails(bench: Bench) -> None:
    code, out, _ = bench.gate({"model": 10.0})
    assert code == 1
    assert "MISSING" in next(line for line in out.splitlines() if line.startswith("resize"))


def test_a_new_benchmark_is_shown_and_does_not_fail(bench: Bench) -> None:
    code, out, _ = bench.gate({"model": 10.0, "resize": 0.5, "int8": 7.0})
    assert code == 0
    assert "new" in next(line for line in out.splitlines() if line.startswith("int8"))


def test_benchmarks_that_are_not_of_the_gate_are_left_out(bench: Bench) -> None:
    _, out, _ = bench.gate({"model": 10.0, "resize": 0.5})
    assert "another" not in out


def test_each_kind_of_cpu_is_compared_with_its_own_ratios(bench: Bench) -> None:
    bench.gate({"model": 20.0, "resize": 0.5}, "--update", cpu=ZEN4)
    code, out, _ = bench.gate({"model": 20.0, "resize": 0.5}, cpu=ZEN4)
    assert code == 0
    assert "compared with AuthenticAMD family 25 model 17" in out
    assert bench.gate({"model": 20.0, "resize": 0.5}, cpu=ZEN5)[0] == 1
    assert set(json.loads(bench.baseline.read_text())) == {
        "AuthenticAMD family 25 model 17",
        "AuthenticAMD family 26 model 2",
    }


def test_an_update_drops_what_the_run_has_not_from_all_kinds(bench: Bench) -> None:
    bench.gate({"model": 20.0, "resize": 0.5}, "--update", cpu=ZEN4)
    _, out, _ = bench.gate({"model": 11.0, "int8": 7.0}, "--update")
    assert "dropped, as the run has none: resize" in out
    assert bench.gate({"model": 20.0}, cpu=ZEN4)[0] == 0


def test_processors_without_a_family_go_by_their_name(bench: Bench) -> None:
    arm = {"vendor_id_raw": "ARM", "model": 1}
    bench.gate({"model": 9.0, "resize": 0.5}, "--update", cpu=arm | {"brand_raw": "Neoverse-N1"})
    _, out, _ = bench.gate({"model": 9.0, "resize": 0.5}, cpu=arm | {"brand_raw": "Neoverse-V2"})
    assert "UNKNOWN CPU: the baseline has no Neoverse-V2" in out


def test_an_unknown_cpu_is_compared_with_the_slowest_and_said_aloud(bench: Bench) -> None:
    bench.gate({"model": 8.0, "resize": 1.0}, "--update", cpu=ZEN4)
    arm = {"brand_raw": "Neoverse-N1"}
    code, out, _ = bench.gate({"model": 13.0, "resize": 1.3}, cpu=arm)
    assert code == 0
    assert "UNKNOWN CPU: the baseline has no Neoverse-N1" in out
    code, out, _ = bench.gate({"model": 30.0, "resize": 1.0}, cpu=arm)
    assert code == 0
    assert "1 WARN, 1 ok" in out
    assert bench.gate({"model": 10.0}, cpu=arm)[0] == 1  # missing is missing everywhere


def test_other_versions_than_the_baselines_are_named(bench: Bench) -> None:
    _, out, _ = bench.gate({"model": 10.0, "resize": 0.5}, packages={"numpy": "3.0"})
    assert "numpy 2.4 to 3.0" in out


def test_an_update_replaces_what_this_cpu_had(bench: Bench) -> None:
    bench.gate({"model": 15.0}, "--update")
    assert bench.gate({"model": 15.0})[0] == 0


def test_of_several_results_the_median_counts(bench: Bench, tmp_path: Path) -> None:
    for number, model in enumerate((30.0, 11.0)):
        bench.gate({"model": model, "resize": 0.5})
        bench.results.rename(tmp_path / f"{number}.json")
    more = [str(tmp_path / f"{number}.json") for number in (0, 1)]
    code, out, _ = bench.gate({"model": 12.0, "resize": 0.5}, *more)
    assert code == 0
    assert "+20%" in next(line for line in out.splitlines() if line.startswith("model"))
    code, _, err = bench.gate({"model": 12.0}, *more)
    assert code == 1
    assert "different" in err


@pytest.mark.parametrize("ratio", [float("nan"), float("inf"), 0.0, -1.0, None, "10"])
def test_a_ratio_that_is_no_positive_number_is_refused(bench: Bench, ratio: Any) -> None:
    before = bench.baseline.read_text()
    for options in ((), ("--update",)):
        code, _, err = bench.gate({"model": ratio, "resize": 0.5}, *options)
        assert code == 1
        assert "must be a positive number" in err
    assert bench.baseline.read_text() == before


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"benchmarks": [{}], "machine_info": {}}'])
def test_other_files_are_refused(bench: Bench, content: str) -> None:
    bench.results.write_text(content)
    code, _, err = bench.run()
    assert code == 1
    assert "is not a result of these benchmarks" in err


def test_results_without_a_benchmark_of_the_gate_are_refused(bench: Bench) -> None:
    code, _, err = bench.gate({})
    assert code == 1
    assert "has no benchmark of the gate" in err


def test_an_empty_baseline_never_passes(bench: Bench) -> None:
    bench.baseline.unlink()
    code, _, err = bench.gate({"model": 10.0})
    assert code == 1
    assert "--update" in err
    bench.baseline.write_text("[1]")
    assert "is not a baseline" in bench.gate({"model": 10.0})[2]


def test_ratios_for_a_chart_over_time(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "ratios.json"
    bench.gate({"model": 10.0, "resize": 0.5}, "--ratios", str(path))
    model, _ = json.loads(path.read_text())
    name = "model on AuthenticAMD family 26 model 2"
    assert (model["name"], model["unit"], model["value"]) == (name, "x resize", 10.0)
    assert model["extra"] == "1.000 ms"


def test_the_baseline_of_the_repository_can_be_read(bench: Bench) -> None:
    bench.baseline.write_text(BASELINE.read_text())
    code, out, _ = bench.gate({"model": 10.0})
    assert code == 1  # all of it is missing from these results
    assert "MISSING" in out
