"""``ccfast train --method my_module:MyMethod``: the user's own methods, and the messages if there is none."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch
from processes import without_costs

from ccfast._errors import InputError, RunError
from ccfast.cli import main
from ccfast.commands.evaluate.measure import evaluate_checkpoint
from ccfast.methods import method_class
from ccfast.training import TrainConfig, train

MINE = '''
import torch
import ccfast
from ccfast.methods import Method

class Mine(Method):
    """Keeps a number of epochs, and learns a temperature beside the encoder."""

    defaults = {"temperature": 0.07, "iters": 4}
    memories = ("soft", "hard")

    def prepare(self, data):
        self.epochs = torch.zeros(1)

    def head(self, num_features):
        self.scale = torch.nn.Linear(num_features, num_features, bias=False)
        torch.nn.init.eye_(self.scale.weight)
        return self.scale

    def start_epoch(self, features, labels, epoch):
        self.epochs += 1
        assert epoch + 1 == self.epochs.item()
        self.centroids = ccfast.cluster_centroids(features, labels)

    def criterion(self, features, targets, indices):
        assert features.shape[0] == len(targets) == len(indices)
        loss = ccfast.centroid_contrastive_loss(self.scale(features), self.centroids, targets, self.config.temperature)
        return loss * self.epochs.item()

    def state_dict(self):
        return {"epochs": self.epochs}

    def load_state_dict(self, state):
        self.epochs = state["epochs"]
'''
QUICK = {"epochs": 2, "device": "cpu", "quiet": True}


@pytest.fixture(autouse=True)
def no_picture(monkeypatch):
    """No curves: drawing them takes longer than these runs."""
    monkeypatch.setattr("ccfast.training.messages.picture", lambda *args: None)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module with a new name into the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    written = []

    def write(text):
        name = f"own_{tmp_path.name}_{len(written)}".replace("-", "_")
        (tmp_path / f"{name}.py").write_text(text)
        written.append(name)
        return name

    yield write
    for name in written:
        sys.modules.pop(name, None)


@pytest.mark.slow
def test_a_method_of_ones_own_trains_and_resumes_exactly(module, tmp_path):
    name = f"{module(MINE)}:Mine"
    whole = train(TrainConfig(method=name, run="whole", **QUICK))
    train(TrainConfig(method=name, run="run", **{**QUICK, "epochs": 1}))
    assert main(["train", "--run", "run", "--resume", "--epochs", "2"]) == 0
    contents = [torch.load(tmp_path / run / "checkpoint.pt", weights_only=True) for run in ("whole", "run")]
    for part in ("model", "head", "method"):
        assert contents[0][part]
        assert all(torch.equal(value, contents[1][part][key]) for key, value in contents[0][part].items())
    assert contents[0]["method"]["epochs"].item() == 2
    assert not torch.equal(contents[0]["head"]["weight"], torch.eye(128)), "the head has learnt"
    stored = contents[0]["config"]
    assert (stored["method"], stored["temperature"], stored["iters"], stored["memory"]) == (name, 0.07, 4, "soft")
    assert without_costs(whole.records)[-1]["loss"] > 0


@pytest.mark.slow
def test_a_run_is_evaluated_where_its_method_is_not(module, tmp_path, monkeypatch):
    name = module(MINE)
    result = train(TrainConfig(method=f"{name}:Mine", run="run", **{**QUICK, "epochs": 1}))
    (tmp_path / f"{name}.py").unlink()
    sys.modules.pop(name)
    importlib.invalidate_caches()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    metrics = evaluate_checkpoint(tmp_path / "run" / "checkpoint.pt", device="cpu")
    assert metrics["mAP"] == pytest.approx(result.records[-1]["mAP"])
    with pytest.raises(InputError, match=f"no module '{name}'"):
        train(TrainConfig(**{**QUICK, "method": f"{name}:Mine", "run": str(tmp_path / "other")}))


HEAD = "from ccfast.methods import Method\n"
WRONG = {
    "x = ": "cannot be imported: SyntaxError: invalid syntax",
    "import not_there_at_all": "cannot be imported: No module named 'not_there_at_all'",
    "raise KeyError('colour')": r"cannot be imported: KeyError: 'colour' \(.*line 1\)",
    "import sys; sys.exit(3)": "cannot be imported: SystemExit: 3",
    "": "has no class Mine",
    HEAD + "class Yours(Method):\n    def criterion(self, *batch): ...": "has no class Mine; it has Yours",
    "Mine = 3": "expected a class that inherits from ccfast.methods.Method, got a int",
    "class Mine: pass": "expected a class that inherits from ccfast.methods.Method, got the class Mine",
    HEAD + "class Mine(Method): pass": "Mine does not define criterion",
    HEAD
    + "class Mine(Method):\n    def criterion(self, *batch): ...\n    def state_dict(self): ...": "only state_dict",
    HEAD + "class Mine(Method):\n    defaults = {'colour': 1}\n    def criterion(self, *batch): ...": (
        "unknown option.* colour"
    ),
    HEAD + "class Mine(Method):\n    defaults = {'dataset': 'ltcc'}\n    def criterion(self, *batch): ...": (
        "unknown option.* dataset"
    ),
    HEAD + "class Mine(Method):\n    defaults = {'eps': 3}\n    def criterion(self, *batch): ...": "--eps: expected",
}


@pytest.mark.parametrize("text", WRONG)
def test_an_invalid_method_is_an_error(text, module, capsys):
    name = module(text)
    assert main(["train", "--method", f"{name}:Mine", "--device", "cpu"]) == 2
    output = capsys.readouterr()
    with pytest.raises(InputError, match=WRONG[text]):
        TrainConfig(method=f"{name}:Mine")
    assert name in output.err or "--eps" in output.err
    assert "Traceback" not in output.err


@pytest.mark.parametrize("name", ["cluster_contrast", "own", ":Mine", "own:", "a b:c", "../own.py:Mine", ""])
def test_an_invalid_name_is_an_error(name):
    with pytest.raises(InputError, match="--method"):
        method_class(name)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("pseudo_labels(self, features, cluster): return None", "expected an int64 tensor .*1198.* got NoneType"),
        ("pseudo_labels(self, features, cluster): return cluster(features)[:5]", r"got torch.int64 of shape \(5,\)"),
        ("pseudo_labels(self, features, cluster): return cluster(features) - 5", "expected labels from 0, or -1"),
        ("state_dict(self): return {'a': [print]}", r"state_dict\(\)\['a'\]\[0\]: expected tensors and plain values"),
        ("criterion(self, *batch): return 3", r"Mine.criterion: expected a scalar tensor, got int"),
        ("criterion(self, x, *_): return x.sum(1)", r"Mine.criterion: expected a scalar tensor, got shape \(64,\)"),
    ],
)
def test_wrong_results_of_a_method_are_errors(body, message, module):
    text = f"{HEAD}class Mine(Method):\n    def criterion(self, x, *_): return x.sum()\n    def {body}\n"
    name = module(text + "    def load_state_dict(self, state): ...\n" if "state_dict" in body else text)
    with pytest.raises(RunError, match=message):
        train(TrainConfig(method=f"{name}:Mine", run="run", **QUICK))


def test_a_method_may_refuse_data_by_a_value_error(module, capsys):
    name = module(f"""{HEAD}class Mine(Method):
    def prepare(self, data): raise ValueError("expected photographs")
    def criterion(self, *batch): ...
""")
    assert main(["train", "--method", f"{name}:Mine", "--device", "cpu", "--run", "run"]) == 2
    assert f"ccfast train: --method {name}:Mine: expected photographs" in capsys.readouterr().err


@pytest.mark.slow
def test_the_method_of_the_documentation_trains(module):
    page = Path(__file__).parent.parent / "docs" / "methods.md"
    name = module(page.read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0])
    records = train(TrainConfig(method=f"{name}:MyMethod", run="run", **QUICK, iters=20)).records
    assert records[-1]["mAP"] > records[0]["mAP"] + 0.05
